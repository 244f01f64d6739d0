"""Attacks on the history of a log: cut, emptied, rebuilt, forked, restored from a backup; by a thief, and by the holder of the key.

The store alone cannot tell: an older checkpoint is as well signed as the newest one. Each test therefore says first that the store is
intact in itself, and then who notices: somebody who kept a checkpoint, the machine that signed, a witness.
"""

from __future__ import annotations

import json
import shutil
from http import HTTPStatus
from pathlib import Path

import pytest
from attacks import rebuild, remove_segment, require_failed, restore
from outside import OUTSIDE, Witness, kept_outside
from stores import Home, kill, request, seal, send, settle, small_store

from ledger.checkpoint import open_checkpoint
from ledger.errors import NotAppendOnly, StoreMissing

HELD = pytest.mark.parametrize("held", OUTSIDE)
"""Every test marked so is gone through with each thing that somebody may hold outside the store."""


def grown(home: Home, tmp_path: Path) -> Home:
    """A backup of `home`, made before it grew."""
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(11))
        seal(writer)
    return backup


@HELD
def test_06_truncate_to_an_older_valid_checkpoint(home: Home, tmp_path: Path, held: str) -> None:
    backup = grown(home, tmp_path)
    outside = kept_outside(held, home, tmp_path / "outside")
    restore(home, backup)
    alone = home.verify(last_signed=None)
    assert alone.verdict == "verified", "an older checkpoint is as well signed: caught only by something kept elsewhere"
    report = home.verify(**outside)
    require_failed(report, what="rollback", index=21)
    assert report.integrity == "verified", "what is there is intact, and that is a verdict of its own"
    assert "are missing" in report.rollback[0].why


def test_06_delete_the_last_segment(home: Home) -> None:
    remove_segment(home, "12-15.0")
    require_failed(home.verify(last_signed=None), what="journal", index=12)


def test_06_delete_the_last_segment_its_tile_and_the_checkpoint(home: Home) -> None:
    remove_segment(home, "12-15.0")
    (home.store / "tile/0/000.p/21").unlink()
    (home.store / "checkpoint").unlink()
    report = home.verify(last_signed=None)
    assert report.verdict == "unverifiable", "nothing to compare with is no verdict about the records"
    require_failed(home.verify(), what="rollback")


def test_08_delete_everything(home: Home) -> None:
    shutil.rmtree(home.store)
    with pytest.raises(StoreMissing):
        home.verify()


@HELD
def test_08_empty_the_store(home: Home, tmp_path: Path, held: str) -> None:
    outside = kept_outside(held, home, tmp_path / "outside")
    for path in home.store.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "trail.toml":
            path.unlink()
    alone = home.verify(last_signed=None)
    assert (alone.verdict, alone.as_json()["integrity"]["not_checked"]) == (
        "unverifiable",
        ["there is no checkpoint: nothing was compared"],
    )
    require_failed(home.verify(**outside), what="rollback")


@HELD
def test_08_delete_everything_and_begin_again_with_the_same_key(home: Home, tmp_path: Path, held: str) -> None:
    outside = kept_outside(held, home, tmp_path / "outside")
    rebuild(home, tmp_path / "new", requests=0)
    assert home.verify(last_signed=None).verdict == "verified"
    require_failed(home.verify(**outside), what="rollback")


def test_09_replace_the_log_by_one_of_the_same_origin_and_another_key(home: Home, tmp_path: Path) -> None:
    other = small_store(tmp_path / "other")
    restore(home, other)
    assert home.verify(verifier=other.verifier, last_signed=None).verdict == "verified"
    report = home.verify()
    require_failed(report, what="checkpoint", file="checkpoint")
    assert report.as_json()["key"] == "wrong"


@HELD
def test_09_rebuild_the_whole_log_with_its_own_key(home: Home, tmp_path: Path, held: str) -> None:
    outside = kept_outside(held, home, tmp_path / "outside")
    rebuild(home, tmp_path / "new", requests=5)
    alone = home.verify(last_signed=None)
    assert (alone.verdict, alone.size > 21) == ("verified", True), "the holder of the key can make any log"
    report = home.verify(**outside)
    require_failed(report, what="fork", index=21)
    assert report.integrity == "verified"


@HELD
def test_10_a_fork_by_the_holder_of_the_key(home: Home, tmp_path: Path, held: str) -> None:
    fork = home.copy(tmp_path / "fork")
    with home.writing() as writer:
        send(writer, request(21))
    outside = kept_outside(held, home, tmp_path / "outside")
    with fork.writing() as writer:
        for seed in (22, 23):
            send(writer, request(seed))
    assert fork.verify(last_signed=None).verdict == "verified"
    report = fork.verify(**outside)
    require_failed(report, what="fork")
    assert report.integrity == "verified"
    assert "another history" in report.rollback[0].why


@HELD
def test_10_two_checkpoints_of_one_size(home: Home, tmp_path: Path, held: str) -> None:
    # Neither store is wrong in itself; together they prove that the key signed two histories.
    fork = home.copy(tmp_path / "fork")
    for side, seed in ((home, 34), (fork, 33)):
        writer = side.open()
        send(writer, request(seed))
        settle(writer)
        kill(writer)
    assert home.verify().size == fork.verify().size
    outside = kept_outside(held, home, tmp_path / "outside")
    require_failed(fork.verify(**outside), what="fork", index=home.verify().size)


def test_10_a_witness_refuses_the_fork_and_keeps_the_proof(home: Home, tmp_path: Path) -> None:
    """No verifier is needed for it: the two notes that it keeps are signed by the log, and cannot both be true."""
    fork = home.copy(tmp_path / "fork")
    witness = Witness.make(home, tmp_path / "witness")
    for side, seed in ((home, 34), (fork, 33)):
        writer = side.open()
        send(writer, request(seed))
        settle(writer)
        kill(writer)
    assert witness.see(home).status == HTTPStatus.OK
    answer = witness.see(fork)
    assert (answer.status, b"cosign" in answer.body) == (HTTPStatus.UNPROCESSABLE_ENTITY, False)
    assert witness.latest is not None
    assert home.verifier.name in witness.latest.decode()
    (path,) = witness.evidence
    evidence = json.loads(path.read_bytes())
    heads = [open_checkpoint(evidence[side].encode(), home.verifier) for side in ("offered", "cosigned")]
    assert heads[0].size == heads[1].size
    assert heads[0].root != heads[1].root


@HELD
def test_11_a_restored_backup(home: Home, tmp_path: Path, held: str) -> None:
    backup = grown(home, tmp_path)
    outside = kept_outside(held, home, tmp_path / "outside")
    # The backup of a whole machine brings an old last-signed state along; what is held elsewhere is not in it.
    restore(home, backup, state=True)
    assert home.verify().verdict == "verified", "the machine itself has forgotten"
    require_failed(home.verify(**outside), what="rollback", index=21)


def test_11_a_restored_backup_is_not_signed_on(home: Home, tmp_path: Path) -> None:
    restore(home, grown(home, tmp_path))
    before = home.checkpoint
    with pytest.raises(NotAppendOnly) as caught:
        home.open()
    assert caught.value.hint
    assert home.checkpoint == before
    require_failed(home.verify(), what="rollback")


@HELD
def test_11_a_restored_backup_that_has_grown_again(home: Home, tmp_path: Path, held: str) -> None:
    backup = grown(home, tmp_path)
    outside = kept_outside(held, home, tmp_path / "outside")
    restore(home, backup, state=True)
    with home.writing() as writer:
        for seed in (61, 62, 63):
            send(writer, request(seed))
    assert home.verify().verdict == "verified"
    require_failed(home.verify(**outside), what="fork")


def test_13_an_unsigned_tail_is_named_and_not_counted(home: Home) -> None:
    signed = (home.checkpoint, home.state.path.read_bytes())
    writer = home.open()
    send(writer, request(41, count=2))
    settle(writer)
    kill(writer)
    (home.store / "checkpoint").write_bytes(signed[0])
    home.state.path.write_bytes(signed[1])
    for path in home.files("checkpoints/*"):
        path.unlink()
    report = home.verify()
    assert (report.verdict, report.records, report.size) == ("verified", 21, 21), report.as_json()
    assert report.not_judged == ["journal: 5 records are acknowledged and not yet under this checkpoint"]


def test_19_a_clock_that_steps_back_and_forward_breaks_nothing(tmp_path: Path) -> None:
    times = iter([10**18, 10**18 - 10**12, 5, 10**18 + 10**12] * 100)
    home = small_store(tmp_path / "home", tail=False)
    with home.writing(clock=lambda: next(times)) as writer:
        for seed in range(10, 13):
            send(writer, request(seed, received=next(times)))
            seal(writer)
    assert home.verify().verdict == "verified"
    # A clock that steps between two starts is the same to the log: nothing rests on its order.
    for now in (5, 4 * 10**18, 10**18):
        with home.writing(clock=lambda now=now: now) as writer:
            send(writer, request(now % 97, received=now))
            seal(writer)
    report = home.verify()
    assert (report.verdict, report.not_checked) == ("verified", [])
