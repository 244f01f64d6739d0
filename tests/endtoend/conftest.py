"""A store and a server for a whole module, in a home of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from raw_otlp import Recorder
from trail_process import Server, run_trail

XDG = {"XDG_CONFIG_HOME": ".config", "XDG_STATE_HOME": ".local/state", "XDG_DATA_HOME": ".local/share", "XDG_CACHE_HOME": ".cache"}


@pytest.fixture(scope="session")
def home_of() -> Callable[[Path], dict[str, str]]:
    """The environment of commands that live in `home` below a directory."""

    def environment(place: Path) -> dict[str, str]:
        home = place / "home"
        return {"HOME": str(home), **{name: str(home / directory) for name, directory in XDG.items()}}

    return environment


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory, home_of: Callable[[Path], dict[str, str]]) -> Iterator[Recorder]:
    """A server that takes what all tests of a module send."""
    place = tmp_path_factory.mktemp("recorder")
    env = home_of(place)
    assert run_trail("init", "--store", place / "store", "--origin", "example.com/end-to-end", env=env).code == 0
    server = Server(place / "store", env=env)
    try:
        yield Recorder(place / "store", server, env)
    finally:
        server.kill()


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
