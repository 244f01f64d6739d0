"""Stores that a server fills, for tests that read `/log`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from http_log import ask, fetch, head
from raw_otlp import post, span, traces
from trail_process import run_trail

PATIENCE_SECONDS = 60.0


def new_store(store: Path, *, origin: str, env: dict[str, str] | None = None, **settings: float) -> str:
    """Make a store with these settings in its trail.toml; the log's verifier key."""
    made = run_trail("init", "--store", store, "--origin", origin, "--json", env=env)
    assert made.code == 0, made.err
    lines = ["format = 1", f'origin = "{origin}"', *(f"{name} = {value}" for name, value in settings.items())]
    (store / "trail.toml").write_text("\n".join([*lines, ""]))
    vkey: str = run_trail("info", "--store", store, "--json", env=env).json["vkey"]
    return vkey


def new_tokens(store: Path, *roles: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """Make a token of each role, named `my-ROLE`; the secrets by role."""
    made = {role: run_trail("token", "add", f"my-{role}", "--role", role, "--store", store, env=env) for role in roles}
    assert all(ran.code == 0 for ran in made.values()), made
    return {role: ran.out.strip() for role, ran in made.items()}


def fill(url: str, requests: int, *, spans: int = 100, token: str | None = None) -> int:
    """Send spans and wait until a checkpoint covers them; its size."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    end = 0
    for _ in range(requests):
        answer = post(url, "/v1/traces", traces(*(span("work") for _ in range(spans))), **headers)
        assert answer.status == 200, answer.body
        end = int(answer.headers["Trail-Batch"]) + 1
    eventually(lambda: _published(url) >= end)
    return head(fetch(url, "checkpoint"))[1]


def _published(url: str) -> int:
    status, _, note = ask(url, "checkpoint")
    return head(note)[1] if status == 200 else 0  # 404 until the first one is signed


def sealed(store: Path) -> int:
    """How many files of records have their seal beside them."""
    return len(list((store / "records").glob("*.parquet.seal")))


def eventually(true: Callable[[], bool]) -> None:
    """Poll until it is.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
