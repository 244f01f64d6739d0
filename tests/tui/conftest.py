"""A command line to call, and a store with the scenario in it, recorded once by the real server."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trail_process import Ran, Recorded, Server, play, run_trail

from tui.cli import run

XDG = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_DATA_HOME": ".local/share", "XDG_CACHE_HOME": ".cache"}


@pytest.fixture
def trail(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Call the command in this process, which is quicker."""

    def call(*args: object) -> Ran:
        capfd.readouterr()
        before = resource.getrlimit(resource.RLIMIT_AS)
        try:
            code = run([str(arg) for arg in args])
        finally:
            # `sql` confines its process for good, and every thread and test after it would starve here.
            resource.setrlimit(resource.RLIMIT_AS, before)
        out, err = capfd.readouterr()
        return Ran(int(code), out, err)

    return call


@pytest.fixture(scope="session")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `home` and `store`: the scenario, sent by the SDK's exporters to `trail serve`, which was then stopped."""
    place = tmp_path_factory.mktemp("week")
    home = place / "home"
    env = {"HOME": str(home), **{name: str(home / directory) for name, directory in XDG.items()}}
    made = run_trail("--store", place / "store", "init", "--origin", "example.com/week", "--json", env=env)
    assert made.code == 0, made.err
    server = Server(place / "store", env=env)
    try:
        play(server.url)
        assert server.stop() == 0, server.said
    finally:
        server.kill()
    (place / "init.json").write_text(made.out, "utf-8")
    return place


@pytest.fixture
def recorded(week: Path, tmp_path: Path) -> Recorded:
    """A copy of the scenario's store, and of the home it was recorded from, for one test."""
    home = Path(os.environ["HOME"])
    shutil.copytree(week / "home", home, dirs_exist_ok=True)
    store = tmp_path / "store"
    shutil.copytree(week / "store", store)
    (key,) = (home / ".config" / "trail" / "keys").glob("*.key")
    made = json.loads((week / "init.json").read_text("utf-8"))
    return Recorded(store, made["origin"], made["vkey"], key)


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    """Start servers that are gone after the test, whatever happened."""
    started: list[Server] = []

    def start(store: Path, *args: object) -> Server:
        server = Server(store, *args)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()
