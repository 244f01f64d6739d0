"""Go programs over `/log`: sumdb's `note` and `tlog`, and tessera's `fsck`. They share no line with us.

They are to accept what a real server serves, and to notice what is wrong. For the latter the log is mirrored into plain files and
damaged there, because our own server would notice first and serve nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from http_log import fetch, head, name, parts
from log_server import eventually, fill, new_store, new_tokens, sealed
from trail_process import Server

pytestmark = pytest.mark.interop

MODULE = Path(__file__).parent / "go"
ORIGIN = "example.com/interop"
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Go:
    """The programs, built."""

    directory: Path

    def audit(self, url: str, vkey: str, *args: object, token: str = "") -> subprocess.CompletedProcess[str]:
        return self._run("audit", url, vkey, args, token)

    def fsck(self, url: str, vkey: str, *args: object, token: str = "") -> subprocess.CompletedProcess[str]:
        return self._run("fsck", url, vkey, args, token)

    def _run(self, program: str, url: str, vkey: str, args: tuple[object, ...], token: str) -> subprocess.CompletedProcess[str]:
        shown = ["-token", token] if token else []
        line = [str(self.directory / program), "-url", f"{url}/log", "-vkey", vkey, *shown, *map(str, args)]
        return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


@dataclass(frozen=True)
class Log:
    """A served log: some of it sealed, some in the journal, and a checkpoint kept when it was smaller."""

    store: Path
    vkey: str
    url: str
    kept: Path
    size: int
    token: str
    """An auditor's."""


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Go:
    # Of the session, so that it is built before a test has a home of its own, in which Go would have to download everything again.
    if shutil.which("go") is None:
        pytest.skip("there is no `go` here: neither sumdb's note and tlog nor tessera's fsck has looked at our log")
    directory = tmp_path_factory.mktemp("go")
    built = subprocess.run(
        ["go", "build", "-o", f"{directory}/", "./..."], cwd=MODULE, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert built.returncode == 0, built.stderr
    return Go(directory)


def home_in(place: Path) -> dict[str, str]:
    names = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")
    return {"HOME": str(place / "home"), **{name: str(place / "home" / name.lower()) for name in names}}


@pytest.fixture(scope="module")
def log(go: Go, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    place = tmp_path_factory.mktemp("log")
    env = home_in(place)
    vkey = new_store(place / "store", origin=ORIGIN, env=env, segment_records=1000)
    token = new_tokens(place / "store", "emitter", "auditor", env=env)
    server = Server(place / "store", env=env)
    try:
        fill(server.url, 7, token=token["emitter"])
        (place / "kept").write_bytes(fetch(server.url, "checkpoint"))
        fill(server.url, 20, token=token["emitter"])
        eventually(lambda: sealed(place / "store") >= 2)
        size = fill(server.url, 1, spans=7, token=token["emitter"])
        yield Log(place / "store", vkey, server.url, place / "kept", size, token["auditor"])
    finally:
        server.kill()


def test_note_and_tlog_accept_signature_records_and_growth(go: Go, log: Log) -> None:
    ran = go.audit(log.url, log.vkey, "-kept", log.kept, token=log.token)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.split()[0]) >= log.size > 2000
    other = new_store(log.store.with_name("other"), origin=ORIGIN, env=home_in(log.store.with_name("elsewhere")))
    refused = go.audit(log.url, other, token=log.token)
    assert (refused.returncode, "note has no verifiable signatures" in refused.stderr) == (1, True)


def test_tesseras_fsck_passes(go: Go, log: Log) -> None:
    ran = go.fsck(log.url, log.vkey, token=log.token)
    assert (ran.returncode, ran.stdout) == (0, "ok\n"), ran.stderr


def test_tesseras_fsck_passes_with_an_auditors_token_and_not_without(go: Go, tmp_path: Path) -> None:
    store = tmp_path / "store"
    vkey = new_store(store, origin="example.com/with-tokens")
    token = new_tokens(store, "emitter", "auditor")
    server = Server(store)
    try:
        fill(server.url, 6, token=token["emitter"])
        assert go.fsck(server.url, vkey, token=token["auditor"]).returncode == 0
        assert go.audit(server.url, vkey, "-step", 5, token=token["auditor"]).returncode == 0
        for shown, status in (("", "401"), (token["emitter"], "403")):
            ran = go.fsck(server.url, vkey, token=shown)
            assert (ran.returncode, status in ran.stderr) == (1, True), ran.stderr
    finally:
        server.kill()


# ------------------------------------------------------------------------------------------------------- damage


def mirrored(url: str, into: Path, token: str) -> Path:
    """Everything under the newest checkpoint, as files that any web server can serve."""
    (into / "log").mkdir(parents=True)
    note = fetch(url, "checkpoint")
    (into / "log" / "checkpoint").write_bytes(note)
    level, count = 0, head(note)[1]
    paths = [f"tile/entries/{name(n, width)}" for n, width in parts(count)]
    while count:
        paths += [f"tile/{level}/{name(n, width)}" for n, width in parts(count)]
        level, count = level + 1, count // 256
    for path in paths:
        (into / "log" / path).parent.mkdir(parents=True, exist_ok=True)
        (into / "log" / path).write_bytes(fetch(url, path, token))
    return into


@pytest.fixture(scope="module")
def mirror(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirrored(log.url, tmp_path_factory.mktemp("mirror") / "whole", log.token)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def edge(level: Path) -> Path:
    return next(level.glob("*.p/*"))


def swap_two_records(bundle: Path) -> None:
    data = bundle.read_bytes()
    first = 2 + int.from_bytes(data[:2], "big")
    second = first + 2 + int.from_bytes(data[first : first + 2], "big")
    bundle.write_bytes(data[first:second] + data[:first] + data[second:])


DAMAGE: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "nothing": (lambda _log: None, set()),
    "a hash in a full tile": (lambda log: flip(log / "tile/0/003", 32 * 100), {"audit", "fsck"}),
    "a hash in a partial tile": (lambda log: flip(edge(log / "tile/0"), 5), {"audit", "fsck"}),
    "a hash one level up": (lambda log: flip(edge(log / "tile/1"), 32 * 2), {"audit", "fsck"}),
    "a tile is gone": (lambda log: (log / "tile/0/005").unlink(), {"audit", "fsck"}),
    "a byte of a record": (lambda log: flip(log / "tile/entries/002", 300), {"audit", "fsck"}),
    "two records are exchanged": (lambda log: swap_two_records(log / "tile/entries/001"), {"audit", "fsck"}),
    "the root of the checkpoint": (lambda log: flip(log / "checkpoint", len(f"{ORIGIN}\n1234\n") + 3), {"audit", "fsck"}),
    "the signature of the checkpoint": (lambda log: flip(log / "checkpoint", -20), {"audit", "fsck"}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_go_notices(go: Go, log: Log, mirror: Path, tmp_path: Path, what: str) -> None:
    damage, noticed = DAMAGE[what]
    copy = shutil.copytree(mirror, tmp_path / "copy")
    damage(copy / "log")
    with served(copy) as url:
        ran = {"audit": go.audit(url, log.vkey, "-kept", log.kept), "fsck": go.fsck(url, log.vkey)}
    assert {program for program, done in ran.items() if done.returncode} == noticed, {k: v.stderr for k, v in ran.items()}


def test_go_notices_a_log_that_was_put_back(go: Go, log: Log, mirror: Path, tmp_path: Path) -> None:
    shutil.copy(mirror / "log" / "checkpoint", tmp_path / "newer")
    older = shutil.copytree(mirror, tmp_path / "older")
    shutil.copy(log.kept, older / "log" / "checkpoint")
    size = head(log.kept.read_bytes())[1]
    n, width = parts(size)[-1]
    for kind in ("0", "entries"):
        whole = (older / "log" / "tile" / kind / name(n, 256)).read_bytes()
        partial_path = older / "log" / "tile" / kind / name(n, width)
        partial_path.parent.mkdir(parents=True, exist_ok=True)
        partial_path.write_bytes(whole[: 32 * width] if kind == "0" else fetch(log.url, f"tile/entries/{name(n, width)}", log.token))
    above = older / "log" / "tile/1" / name(0, size // 256)
    above.write_bytes(fetch(log.url, f"tile/1/{name(0, size // 256)}"))
    with served(older) as url:
        assert go.audit(url, log.vkey).returncode == 0
        assert go.audit(url, log.vkey, "-kept", tmp_path / "newer").returncode == 1


@pytest.mark.parametrize("what", ["a tile", "a record"])
def test_go_notices_damage_behind_our_own_server(go: Go, tmp_path: Path, what: str) -> None:
    store = tmp_path / "store"
    vkey = new_store(store, origin="example.com/damaged", segment_records=300)
    token = new_tokens(store, "emitter", "auditor")
    server = Server(store)
    try:
        fill(server.url, 7, token=token["emitter"])
        eventually(lambda: sealed(store) >= 2)
        if what == "a tile":
            flip(store / "tile/0/000", 40)
        else:
            flip(min((store / "records").glob("*.parquet"), key=lambda path: int(path.name.split("-")[0])), 2000)
        ran = go.fsck(server.url, vkey, token=token["auditor"])
        assert (ran.returncode, "500" in ran.stderr) == (1, True), ran.stderr
    finally:
        server.kill()
