"""A stranger's laptop: a copy of the store, the log's public key, and one checkpoint that was kept; no configuration, no state, no network.

Whoever holds no more than that finds out that the store was cut, put back to an older state, forked or rebuilt, with the command alone, and
is told which. So does somebody who kept nothing at all and asks a witness.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attacks import rebuild, restore
from outside import Witness
from stores import Home, new_home, request, seal, send, small_store
from trail_process import PATIENCE_SECONDS, Ran, command_line, environment, run_trail

from ledger.keys import LastSigned, Pins
from tui.exits import Exit


@dataclass(frozen=True)
class Laptop:
    """Another machine: a home directory that `trail` has never seen."""

    place: Path
    vkey: str

    @property
    def env(self) -> dict[str, str]:
        home = self.place / "home"
        names = {"XDG_CONFIG_HOME": "config", "XDG_STATE_HOME": "state", "XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache"}
        return {"HOME": str(home), **{name: str(home / directory) for name, directory in names.items()}}

    @property
    def kept(self) -> Path:
        return self.place / "kept.checkpoint"

    def keep(self, home: Home) -> None:
        """Write the store's checkpoint down, with the command."""
        ran = run_trail("checkpoint", "--store", home.store, "--key", self.vkey, "-o", self.kept, env=self.env)
        assert ran.code == Exit.OK, ran.err

    def verify(self, home: Home, *args: object) -> Ran:
        """Take a copy of the store as it is shown now, and verify that."""
        copy = self.place / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(home.store, copy)
        return run_trail("verify", "--store", copy, "--key", self.vkey, *args, env=self.env)


@pytest.fixture
def laptop(home: Home, tmp_path: Path) -> Laptop:
    (tmp_path / "laptop" / "home").mkdir(parents=True)
    return Laptop(tmp_path / "laptop", home.vkey)


def grow(home: Home, seed: int, requests: int = 1) -> None:
    with home.writing() as writer:
        for number in range(requests):
            send(writer, request(seed + number))
        seal(writer)


def truncation(home: Home, place: Path) -> None:
    """A thief without the key: the newest records, their segments, tiles and checkpoints are gone."""
    restore(home, Home(place / "earlier"))
    for path in home.files("checkpoints/*"):
        path.unlink()


def rollback(home: Home, place: Path) -> None:
    """The whole machine back from a backup, state and all, and then in use again."""
    restore(home, Home(place / "earlier"), state=True)
    with home.writing() as writer:
        send(writer, request(501, count=1))


def fork(home: Home, place: Path) -> None:
    """The holder of the key goes back to before the incident, and writes another history that is longer than the true one."""
    restore(home, Home(place / "earlier"), state=True)
    grow(home, 601, requests=4)


def rebuilt(home: Home, place: Path) -> None:
    """The holder of the key deletes everything, and makes the log anew with the same key."""
    rebuild(home, place / "new", requests=12)


SCENES: dict[str, tuple[Callable[[Home, Path], None], str, str]] = {
    "truncation": (truncation, "rollback", "are missing"),
    "rollback": (rollback, "rollback", "are missing"),
    "fork": (fork, "fork", "another history"),
    "rebuild": (rebuilt, "fork", "another history"),
}
"""What is done, what it is called, and what a person reads."""


def play(scene: str, home: Home, tmp_path: Path, look: Callable[[], None]) -> None:
    """A log with a past, a look at it from outside, and then the attack."""
    home.copy(tmp_path / "earlier")
    grow(home, 401, requests=3)
    look()
    SCENES[scene][0](home, tmp_path)


def scene_is_caught(scene: str, home: Home, laptop: Laptop, tmp_path: Path) -> None:
    play(scene, home, tmp_path, lambda: laptop.keep(home))
    assert home.verify(last_signed=None).verdict == "verified", "with nothing from elsewhere it looks as it should"
    told = laptop.verify(home, "--against", laptop.kept)
    assert told.code == Exit.FALSE, told.err
    _attack, what, why = SCENES[scene]
    assert "FAILED" in told.out
    assert any("FALSE" in line and what in line and why in line for line in told.out.splitlines()), told.out


def test_06_truncation(home: Home, laptop: Laptop, tmp_path: Path) -> None:
    scene_is_caught("truncation", home, laptop, tmp_path)


def test_09_a_rebuild_with_its_own_key(home: Home, laptop: Laptop, tmp_path: Path) -> None:
    scene_is_caught("rebuild", home, laptop, tmp_path)


def test_10_a_fork(home: Home, laptop: Laptop, tmp_path: Path) -> None:
    scene_is_caught("fork", home, laptop, tmp_path)


def test_11_a_rollback(home: Home, laptop: Laptop, tmp_path: Path) -> None:
    scene_is_caught("rollback", home, laptop, tmp_path)


def test_an_honest_log_that_has_grown_is_verified(home: Home, laptop: Laptop) -> None:
    laptop.keep(home)
    grow(home, 401, requests=2)
    ran = laptop.verify(home, "--against", laptop.kept, "--json")
    assert (ran.code, ran.json["verdict"]) == (Exit.OK, "verified"), ran.out


def test_09_a_rebuild_with_another_key(home: Home, laptop: Laptop, tmp_path: Path) -> None:
    laptop.keep(home)
    restore(home, small_store(tmp_path / "other"))
    ran = laptop.verify(home, "--json")
    assert (ran.code, ran.json["key"]) == (Exit.FALSE, "wrong")
    assert ("checkpoint", "checkpoint") in {(failure["what"], failure["file"]) for failure in ran.json["integrity"]["failures"]}


def test_08_the_store_is_gone_or_empty(home: Home, laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.keep(home)
    shutil.rmtree(home.store)
    home.store.mkdir()
    # Whoever holds no more than a key and a checkpoint cannot tell a store that is gone from a path that was mistyped: nothing is said
    # about the log. The machine that has pinned it for this path, and signed for it, knows better.
    ran = laptop.verify(home, "--against", laptop.kept)
    assert (ran.code, ran.out) == (Exit.STORAGE, ""), ran.out
    assert "there is no trail store" in ran.err
    copy = laptop.place / "copy"
    for name, value in laptop.env.items():
        monkeypatch.setenv(name, value)
    Pins.default().add(laptop.vkey, store=copy)
    LastSigned.default(home.verifier.name).write(laptop.kept.read_bytes())
    for gone in (False, True):
        if gone:
            shutil.rmtree(copy)
        ran = run_trail("verify", "--store", copy, env=laptop.env)
        assert ran.code == Exit.FALSE, ran.err
        assert home.verifier.name in ran.err
    # Made anew and empty: there is a store again, and it has nothing of what was kept.
    restore(home, new_home(tmp_path / "empty"))
    empty = laptop.verify(home, "--against", laptop.kept, "--json")
    assert empty.code == Exit.FALSE, empty.out
    assert "rollback" in {failure["what"] for failure in empty.json["integrity"]["failures"]}


def test_12_the_key_that_lies_in_the_store_is_not_believed(home: Home, laptop: Laptop) -> None:
    ran = run_trail("verify", "--store", home.store, "--json", env=laptop.env)
    assert (ran.code, ran.json["verdict"], ran.json["key"]) == (Exit.UNVERIFIABLE, "unverifiable", "unpinned")


# ------------------------------------------------------------------------------------- nothing kept, and a witness to ask


@contextlib.contextmanager
def served(witness: Witness) -> Iterator[str]:
    """`trail witness serve` over this witness; its URL."""
    log = witness.files.directory.with_suffix(".log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command_line("witness", "serve", "--dir", witness.files.directory, "--http", "127.0.0.1:0"),
            env=environment({}), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (lines := [line for line in log.read_text().splitlines() if line.startswith("listening")]):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the witness did not start"
            time.sleep(0.02)
        yield lines[0].split()[1]
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def require_caught(ran: Ran, scene: str) -> None:
    _attack, what, _why = SCENES[scene]
    assert ran.code == Exit.FALSE, ran.err
    report: Any = ran.json
    assert report["verdict"] == "failed"
    assert what in {failure["what"] for failure in report["integrity"]["failures"]}, report["integrity"]["failures"]
    assert report["integrity"]["verdict"] == "verified", "the store is intact in itself: only what is held outside tells"


@pytest.mark.parametrize("scene", ["truncation", "rebuild"])
def test_a_witness_tells_whoever_kept_nothing(home: Home, laptop: Laptop, tmp_path: Path, scene: str) -> None:
    witness = Witness.make(home, tmp_path / "witness")

    def look() -> None:
        assert witness.see(home).status == 200

    play(scene, home, tmp_path, look)
    trust = laptop.place / "trust.toml"
    trust.write_text(f"keys = [{laptop.vkey!r}]\npolicy_text = '''\n{witness.policy_text}'''\n")
    with served(witness) as url:
        require_caught(laptop.verify(home, "--trust", trust, "--witness", url, "--json"), scene)
