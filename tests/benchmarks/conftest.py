"""Fixtures of the benchmarks: bodies, and a server as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Server
from bench_load import Day
from bench_store import Million, make_million

REQUESTS = int(os.environ.get("TRAIL_BENCH_REQUESTS", "200"))


@pytest.fixture(scope="session")
def bodies() -> list[bytes]:
    """Distinct requests: a repeated one would be recognised as a duplicate."""
    day = Day(seed=7, start_ns=time.time_ns() - 3_000_000_000_000)
    return [day.request() for _ in range(REQUESTS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A fresh store and its server, as `trail init` and `trail serve` make them."""
    environment = dict(os.environ)
    environment |= {f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE")}
    store = tmp_path / "store"
    command = [sys.executable, "-m", "tui.cli"]
    subprocess.run([*command, "init", "--store", str(store)], env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        [*command, "serve", "--store", str(store), "--http", "127.0.0.1:0"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    port = 0
    for line in process.stderr:
        if line.startswith("listening"):
            port = int(line.split("http://127.0.0.1:")[1].split()[0])
        if line.startswith("vkey"):
            break
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    yield Server(store, port, process.pid, environment)
    process.terminate()
    process.wait(60)
    drain.join()
    process.stderr.close()


@pytest.fixture(scope="session")
def million(tmp_path_factory: pytest.TempPathFactory) -> Million:
    """A million records, written once."""
    return make_million(tmp_path_factory.mktemp("million"))
