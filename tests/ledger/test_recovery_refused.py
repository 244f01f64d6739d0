"""Starts that must be refused: another history, another key, another writer, a newer format; and nothing has changed after them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from attacks import flip, restore
from starts import require_refused
from stores import ORIGIN, Home, all_records, kill, new_home, request, send, settle, small_store

from ledger.errors import (
    LedgerError,
    MalformedError,
    MissingKey,
    ReadOnlyStore,
    StorageError,
    StoreLocked,
    UnsupportedFormat,
)
from ledger.keys import KeyFile, LastSigned
from ledger.writer import StoreWriter, create


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("recovery") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    """Two sealed segments and one without contents, and a journal with a start, a config and a request; 21 records."""
    return original.copy(tmp_path / "home")


def reopened(home: Home) -> dict[str, Any]:
    """Start and stop once; the `lifecycle` record of the start. The store must then be verified and extend the old checkpoint."""
    before = (home.store / "checkpoint").read_bytes() if (home.store / "checkpoint").exists() else None
    home.open().close()
    report = home.verify(against=[before] if before else [])
    assert report.verdict == "verified", report.as_json()
    starts = [json.loads(record) for record in all_records(home)]
    return next(value["lifecycle"] for value in reversed(starts) if value["kind"] == "lifecycle" and value["lifecycle"]["event"] != "stop")


# ---- other histories


def test_an_earlier_copy_of_the_store_is_refused_with_what_is_missing(home: Home, tmp_path: Path) -> None:
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(31, count=4))
    restore(home, backup)
    error = require_refused(home, "the store has 21 records, but a checkpoint over", "are missing")
    assert error.index == 21


def test_an_earlier_copy_that_went_on_is_refused(home: Home, tmp_path: Path) -> None:
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(31))
    with backup.writing() as writer:
        for seed in range(40, 45):
            send(writer, request(seed))
    restore(home, backup)
    require_refused(home, "do not give the root that was signed")


def test_two_signed_roots_of_one_size_are_refused(home: Home, tmp_path: Path) -> None:
    fork = home.copy(tmp_path / "fork")
    for side, seed in ((home, 31), (fork, 32)):
        writer = side.open()
        send(writer, request(seed))
        settle(writer)
        kill(writer)
    home.state.path.write_bytes(fork.state.path.read_bytes())
    require_refused(home, "do not give the root that was signed")


def test_a_lost_last_signed_state_is_no_obstacle(home: Home) -> None:
    home.state.path.unlink()
    reopened(home)


def test_a_lost_checkpoint_is_written_again(home: Home) -> None:
    (home.store / "checkpoint").unlink()
    reopened(home)


def test_the_checkpoint_of_another_log_is_refused(home: Home, tmp_path: Path) -> None:
    other = new_home(tmp_path / "other", origin="example.com/others")
    with other.writing():
        pass
    for path in (home.store / "checkpoint", home.state.path):
        before = path.read_bytes()
        path.write_bytes(other.checkpoint)
        require_refused(home, "is not a checkpoint signed by this log's key")
        path.write_bytes(before)
    reopened(home)


def test_a_damaged_checkpoint_is_refused(home: Home) -> None:
    flip(home.store / "checkpoint", 30)
    require_refused(home, "is not a checkpoint signed by this log's key")


# ---- who may write


def test_a_second_writer_is_told_who_the_first_is(home: Home) -> None:
    with home.writing():
        with pytest.raises(StoreLocked, match="a test") as caught:
            home.open()
        assert str(os.getpid()) in str(caught.value)
        assert caught.value.hint
    home.open().close()


def test_a_wrong_key_is_refused(home: Home, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.key"
    KeyFile.create(stranger, origin=ORIGIN)
    with pytest.raises(StorageError, match="is not a checkpoint signed by this log's key"):
        StoreWriter.open(home.store, command="a test", key_path=stranger, last_signed=home.state)
    other = tmp_path / "other.key"
    KeyFile.create(other, origin="example.com/others")
    with pytest.raises(MalformedError, match=r"signs for example\.com/others"):
        StoreWriter.open(home.store, command="a test", key_path=other, last_signed=home.state)


def test_a_missing_key_is_named(home: Home) -> None:
    home.key.unlink()
    with pytest.raises(MissingKey, match=str(home.key)) as caught:
        home.open()
    assert "TRAIL_KEY" in caught.value.hint
    assert home.verify().verdict == "verified", "reading needs no key"


def test_a_newer_store_is_not_touched(home: Home) -> None:
    path = home.store / "trail.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2"))
    for action in (home.open, home.verify, home.read):
        with pytest.raises(UnsupportedFormat, match="format 2"):
            action()


def test_a_store_is_not_made_over_a_store(home: Home) -> None:
    with pytest.raises(StorageError, match="already a store"):
        create(home.store, origin=ORIGIN, key_path=home.base / "other.key", pins=home.pins)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", 'x"y', "x\\u0041", 'x"\nreserve_bytes = 1\n#'])
def test_a_store_is_not_made_under_a_name_that_is_none(tmp_path: Path, origin: str) -> None:
    with pytest.raises(LedgerError):
        create(tmp_path / "store", origin=origin, key_path=tmp_path / "key")
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_read_only_store_is_refused_and_can_be_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(home.store)):
            raise OSError(30, "Read-only file system", str(path))
        return real(path, flags, *arguments, **keywords)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(ReadOnlyStore, match="Read-only file system") as caught:
        home.open()
    assert caught.value.hint
    assert home.verify().verdict == "verified"
    assert home.read().size == 21


def test_after_a_failed_start_the_lock_is_free(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="disk is full"):
        home.open()
    monkeypatch.setattr(os, "write", real)
    reopened(home)


def test_an_unknown_state_directory_is_made(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    state = LastSigned(tmp_path / "a" / "b" / "c.checkpoint")
    StoreWriter.open(home.store, command="a test", key_path=home.key, last_signed=state).close()
    assert state.read() == home.checkpoint
