"""The log at its limits and on broken disks: what is refused, what goes on, and that nobody waits for ever."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crashes import Disk
from stores import Home, all_records, kill, new_home, request, seal, send, settle

from ledger.errors import DiskFull, InvariantError, StorageError
from ledger.record import parse_record
from ledger.submission import BatchNote, Submission


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", segment_records=1000)


def kinds(home: Home) -> Counter[str]:
    return Counter(parse_record(record)["kind"] for record in all_records(home))


def _call(function: Any) -> Any:
    return Submission([], b"", None, None, call=function)


def test_telemetry_is_refused_before_the_disk_is_full_and_our_own_records_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home(tmp_path / "home", reserve_bytes=1 << 30)
    free = [1 << 40]
    real = os.statvfs

    def statvfs(path: Any) -> Any:
        found = real(path)
        values = list(found)
        values[4] = free[0] // found.f_frsize
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", statvfs)
    with home.writing() as writer:
        send(writer, request(1))
        free[0] = 1 << 20
        time.sleep(1.1)  # the disk is looked at once a second
        with pytest.raises(DiskFull, match="bytes are free") as caught:
            send(writer, request(2))
        assert caught.value.hint
        assert isinstance(writer.log.fault, DiskFull)
        writer.append("note", {"text": "our own records still fit"})
        seal(writer)
        free[0] = 1 << 40
        send(writer, request(3))
        assert writer.log.fault is None
    assert kinds(home)["batch"] == 2
    assert home.verify().verdict == "verified"


def test_the_journal_is_bounded_and_seals_free_it(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=10_000, journal_bytes=100_000)
    with home.writing() as writer:
        with pytest.raises(DiskFull, match="bytes of journal wait to be sealed"):
            for seed in range(1000):
                send(writer, request(seed, size=2000))
        assert writer.log.journal_bytes < 200_000
        # Refused telemetry and the seals that free the journal come in the same groups.
        stop = threading.Event()

        def press() -> None:
            while not stop.is_set():
                asked = request(5000)
                writer.log.submit(asked.parts, asked.leaves, asked.note).exception(timeout=10)

        threads = [threading.Thread(target=press) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            seal(writer, timeout=4.0)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        seal(writer, timeout=30.0)  # they may have filled it again before they stopped
        send(writer, request(6000))
    assert home.verify().verdict == "verified"


@pytest.fixture
def failing_writes(monkeypatch: pytest.MonkeyPatch, home: Home) -> Iterator[dict[str, Any]]:
    """Set `error` (an errno) and `left` (bytes that still fit) to break writing to journal files; `sync` to break their syncing."""
    how: dict[str, Any] = {"error": None, "left": 0, "sync": None}
    journal = str(home.store / "journal")
    names: dict[int, str] = {}
    real = {name: getattr(os, name) for name in ("open", "write", "fdatasync")}

    def opened(path: Any, *arguments: Any, **keywords: Any) -> int:
        fd: int = real["open"](path, *arguments, **keywords)
        names[fd] = str(path)
        return fd

    def write(fd: int, data: Any) -> int:
        if how["error"] is None or not names.get(fd, "").startswith(journal):
            return int(real["write"](fd, data))
        fits = bytes(data)[: how["left"]]
        how["left"] -= len(fits)
        if not fits:
            raise OSError(how["error"], os.strerror(how["error"]))
        return int(real["write"](fd, fits))

    def fdatasync(fd: int) -> None:
        if how["sync"] is not None and names.get(fd, "").startswith(journal):
            raise OSError(how["sync"], os.strerror(how["sync"]))
        real["fdatasync"](fd)

    for name, function in (("open", opened), ("write", write), ("fdatasync", fdatasync)):
        monkeypatch.setattr(os, name, function)
    yield how
    how["error"] = how["sync"] = None


@pytest.mark.parametrize("fits", [0, 1, 15, 16, 17, 48, 300, 5000])
def test_a_disk_that_fills_up_in_the_middle_of_a_frame(home: Home, failing_writes: dict[str, Any], fits: int) -> None:
    with home.writing() as writer:
        kept = [send(writer, request(1))]
        failing_writes["left"], failing_writes["error"] = fits, errno.ENOSPC
        with pytest.raises(DiskFull, match="the disk is full"):
            send(writer, request(2, size=4000))
        for _ in range(20):
            with pytest.raises(DiskFull):
                send(writer, request(3))
        assert len(home.files("journal/*")) <= 2, "a refused request leaves no file behind"
        failing_writes["error"] = None
        kept.append(send(writer, request(4)))
        settle(writer)
        kill(writer)
    assert [receipt.batch - receipt.start for receipt in kept] == [3, 3]
    home.open().close()
    there = {bytes(record) for record in all_records(home)}
    ids = {parse_record(record)["facts"].get("span_id") for record in there}
    for seed, present in ((1, True), (2, False), (3, False), (4, True)):
        for record in request(seed).records:
            assert (parse_record(record)["facts"]["span_id"] in ids) is present, seed
    assert home.verify().verdict == "verified"


def test_a_failed_sync_is_not_an_acknowledgement_and_not_retried_on_the_same_file(home: Home, failing_writes: dict[str, Any]) -> None:
    with home.writing() as writer:
        send(writer, request(1))
        before = {path.name for path in home.files("journal/*")}
        failing_writes["sync"] = errno.EIO
        with pytest.raises(StorageError, match="Input/output error"):
            send(writer, request(2))
        failing_writes["sync"] = None
        send(writer, request(3))
        assert {path.name for path in home.files("journal/*")} > before
        settle(writer)
        kill(writer)
    home.open().close()
    ids = {parse_record(record)["facts"].get("span_id") for record in all_records(home)}
    assert [parse_record(request(seed).records[0])["facts"]["span_id"] in ids for seed in (1, 2, 3)] == [True, False, True]
    assert home.verify().verdict == "verified"


def test_a_tile_that_could_not_be_written_is_written_later(home: Home) -> None:
    # A full tile is handed out once; were it forgotten, the next checkpoint would be signed over a tree that nobody can read.
    disk = Disk(home.store, 0, "error before", only="replace", where="tile/0/.000.")
    disk.install()
    try:
        with home.writing() as writer:
            send(writer, request(1, count=300, contents=False))
            settle(writer)
    finally:
        disk.remove()
    assert disk.broken, "the full tile was in the way of the fault"
    assert home.verify().verdict == "verified"


def test_a_broken_disk_is_not_tried_without_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home(tmp_path / "home", heartbeat_seconds=0.1)
    with home.writing() as writer:
        settle(writer)
        tries = []
        real = os.write

        def write(fd: int, data: Any) -> int:
            tries.append(fd)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", write)
        time.sleep(1.0)
        monkeypatch.setattr(os, "write", real)
        assert 2 < len(tries) < 40
        send(writer, request(1))
    assert home.verify().verdict == "verified"


def test_a_sender_that_went_away_does_not_stop_the_log(home: Home) -> None:
    with home.writing() as writer:
        entered, release = threading.Event(), threading.Event()
        writer.log._enqueue(_call(lambda: (entered.set(), release.wait(10))))
        entered.wait(10)
        gone, stays = (writer.log.submit(asked.parts, asked.leaves, asked.note) for asked in (request(1), request(2)))
        assert gone.cancel(), "an HTTP client that disconnects cancels what waits for it"
        release.set()
        assert stays.result(timeout=10).batch
        send(writer, request(3))
    assert kinds(home)["batch"] == 2


def test_one_record_that_cannot_be_encoded_does_not_take_its_neighbours_with_it(home: Home) -> None:
    with home.writing() as writer:
        entered, release = threading.Event(), threading.Event()
        writer.log._enqueue(_call(lambda: (entered.set(), release.wait(10))))
        entered.wait(10)
        good, bad = request(1), request(2)
        too_large = BatchNote(**{name: getattr(bad.note, name) for name in BatchNote.__slots__} | {"body": {"content_type": "x" * 70_000}})
        futures = [
            writer.log.submit(good.parts, good.leaves, good.note),
            writer.log.submit(bad.parts, bad.leaves, too_large),
            writer.log.append_own("note", {"text": "y" * 70_000}),
            writer.log.append_own("note", {"text": "fine"}),
        ]
        release.set()
        errors = [future.exception(timeout=10) for future in futures]
        assert [type(error) for error in errors] == [type(None), InvariantError, InvariantError, type(None)]
        send(writer, request(3))
    assert home.verify().verdict == "verified"


def test_what_waits_when_the_log_ends_is_answered(home: Home) -> None:
    writer = home.open()
    writer.close()
    with pytest.raises(StorageError, match="stopping"):
        send(writer, request(1))
    assert not writer.log.wait_published(10**6, timeout=30.0), "and it does not wait for what cannot come"
    writer.close()  # a second time does nothing


def test_an_internal_error_ends_the_log_and_leaves_nobody_waiting(home: Home) -> None:
    writer = home.open()

    def broken() -> None:
        raise RuntimeError("a bug")

    future = writer.log.submit(request(1).parts, b"not whole hashes", request(1).note)
    writer.log._enqueue(submission := _call(broken))
    assert isinstance(submission.result.exception(timeout=10), StorageError | RuntimeError)
    assert future.done()
    with pytest.raises(StorageError):
        send(writer, request(2))
    kill(writer)


def test_a_finished_store_is_what_json_says(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1))
    assert all(json.loads(record)["v"] == 1 for record in all_records(home))
