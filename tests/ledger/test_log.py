"""The log as its callers see it: receipts, duplicates, checkpoints that extend each other, segments, limits."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crashes import require_no_fork
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Home, all_records, kill, new_home, request, seal, send, settle, wait_for

from ledger import merkle
from ledger.checkpoint import open_checkpoint
from ledger.duplicates import DuplicateWindow
from ledger.record import parse_record

HOUR_NS = 3_600_000_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", segment_records=1000)


def kinds(home: Home) -> Counter[str]:
    return Counter(parse_record(record)["kind"] for record in all_records(home))


# ---- appending


def test_a_request_becomes_its_records_and_a_batch_record(home: Home) -> None:
    asked = request(1)
    with home.writing() as writer:
        receipt = send(writer, asked)
        settle(writer)
        assert writer.log.signed_size >= receipt.batch + 1
    records = all_records(home)
    assert records[receipt.start : receipt.end] == asked.records
    assert (receipt.end - receipt.start, receipt.batch, receipt.duplicate) == (3, receipt.end, False)
    batch = parse_record(records[receipt.batch])
    assert (batch["batch"]["start"], batch["batch"]["end"], batch["sender"]) == (receipt.start, receipt.end, "loopback")
    assert [parse_record(record)["kind"] for record in records[:2]] == ["lifecycle", "config"]
    assert parse_record(records[0])["lifecycle"]["event"] == "start"
    assert home.verify().verdict == "verified"


def test_an_empty_request_is_kept_as_a_batch_alone(home: Home) -> None:
    with home.writing() as writer:
        asked = request(1, count=0, contents=False)
        receipt = writer.log.submit([], b"", asked.note).result(timeout=10)
        assert receipt.start == receipt.end == receipt.batch
    assert home.verify().verdict == "verified"


def test_many_senders_at_once_get_ranges_that_do_not_overlap(home: Home) -> None:
    receipts = []
    with home.writing() as writer:

        def run(first: int) -> None:
            receipts.extend(send(writer, request(seed, count=1 + seed % 4)) for seed in range(first, first + 20))

        threads = [threading.Thread(target=run, args=(n * 100,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    covered = sorted(index for receipt in receipts for index in range(receipt.start, receipt.batch + 1))
    assert len(covered) == len(set(covered)) == sum(receipt.batch + 1 - receipt.start for receipt in receipts)
    assert kinds(home)["batch"] == 80
    assert home.verify().verdict == "verified"


@settings(max_examples=8)
@given(counts=st.lists(st.integers(min_value=0, max_value=150), min_size=1, max_size=5), cuts=st.randoms(use_true_random=False))
def test_batching_never_changes_the_root(tmp_path_factory: pytest.TempPathFactory, counts: list[int], cuts: random.Random) -> None:
    """However records are grouped into writes, publications and segments, the root is that of their leaf hashes in order."""
    home = new_home(tmp_path_factory.mktemp("batching") / "home", segment_records=100)
    with home.writing() as writer:
        futures = []
        for seed, count in enumerate(counts):
            asked = request(seed, count=count, contents=False, size=16)
            futures.append(writer.log.submit(asked.parts if count else [], asked.leaves, asked.note))
            match cuts.randrange(4):
                case 0:
                    futures[-1].result(timeout=10)
                case 1:
                    settle(writer)
                case 2:
                    writer.log.rotate()
        for future in futures:
            future.result(timeout=10)
    records = all_records(home)
    head = open_checkpoint(home.checkpoint, home.verifier)
    assert (head.size, head.root) == (len(records), merkle.root_of([merkle.leaf_hash(record) for record in records]))
    assert home.verify().verdict == "verified"


def test_every_published_checkpoint_extends_the_one_before(home: Home) -> None:
    seen: list[bytes] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if (home.store / "checkpoint").exists() and (not seen or home.checkpoint != seen[-1]):
                seen.append(home.checkpoint)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for round_ in range(2):
        with home.writing() as writer:
            for seed in range(20):
                send(writer, request(round_ * 100 + seed, count=1 + seed * 3))
    stop.set()
    watcher.join()
    assert len(seen) > 5
    sizes = [open_checkpoint(note, home.verifier).size for note in seen]
    assert sizes == sorted(set(sizes))
    require_no_fork(home, seen)
    reader = home.read()
    for note, size in zip(seen, sizes, strict=True):
        merkle.verify_consistency(
            old_size=size, new_size=reader.size, old_root=open_checkpoint(note, home.verifier).root, new_root=reader.tree_head.root,
            path=reader.consistency(size),
        )  # fmt: skip


def test_a_record_is_visible_within_two_seconds_by_default(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", checkpoint_seconds=0.5)
    with home.writing() as writer:
        wait_for(lambda: (home.store / "checkpoint").exists())
        reader = home.read()
        started = time.monotonic()
        receipt = send(writer, request(1))
        assert reader.refresh()
        assert reader.tail(include_unsigned=True).unsigned + reader.size > receipt.batch, "acknowledged records show at once, as unsigned"
        while reader.size <= receipt.batch:
            reader.refresh()
            assert time.monotonic() - started < 2.0
        assert reader.record(receipt.start) == request(1).records[0] or reader.record(receipt.start)


# ---- duplicates


def test_the_same_body_of_the_same_sender_is_kept_once(home: Home) -> None:
    with home.writing() as writer:
        first = send(writer, request(1))
        again = send(writer, request(1))
        assert (again.start, again.end, again.batch, again.duplicate) == (first.start, first.end, first.batch, True)
    assert kinds(home)["batch"] == 1


def test_copies_within_one_group_are_kept_once(home: Home) -> None:
    with home.writing() as writer:
        entered, release = threading.Event(), threading.Event()
        writer.log._enqueue(_call(lambda: (entered.set(), release.wait(10))))
        entered.wait(10)
        futures = [writer.log.submit(asked.parts, asked.leaves, asked.note) for asked in [request(1), request(2), request(1), request(1)]]
        release.set()
        receipts = [future.result(timeout=10) for future in futures]
    assert [receipt.duplicate for receipt in receipts] == [False, False, True, True]
    assert len({(receipt.start, receipt.batch) for receipt in receipts}) == 2
    assert kinds(home)["batch"] == 2


def _call(function: Any) -> Any:
    from ledger.submission import Submission

    return Submission([], b"", None, None, call=function)


def test_a_duplicate_is_known_after_a_restart_sealed_or_not(home: Home) -> None:
    with home.writing() as writer:
        sealed = send(writer, request(1))
        seal(writer)
    writer = home.open()
    unsealed = send(writer, request(2))
    settle(writer)
    kill(writer)
    with home.writing() as writer:
        for seed, first in ((1, sealed), (2, unsealed)):
            again = send(writer, request(seed))
            assert (again.start, again.batch, again.duplicate) == (first.start, first.batch, True)


def test_the_same_body_of_another_sender_is_kept(home: Home) -> None:
    with home.writing() as writer:
        first, other = send(writer, request(1, sender="a")), send(writer, request(1, sender="b"))
        assert not other.duplicate
        assert other.start > first.start
    assert kinds(home)["batch"] == 2


def test_after_the_window_the_same_body_is_kept_again(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", dedupe_hours=2.0)
    now = 1_763_633_000_000_000_000
    with home.writing(clock=lambda: now) as writer:
        send(writer, request(1, received=now))
        assert send(writer, request(1, received=now + 2 * HOUR_NS)).duplicate
        assert not send(writer, request(1, received=now + 2 * HOUR_NS + 1)).duplicate
    with home.writing(clock=lambda: now + 5 * HOUR_NS) as writer:
        assert not send(writer, request(1, received=now + 5 * HOUR_NS)).duplicate, "the window that a start rebuilds has the same length"


def test_the_window_is_bounded() -> None:
    window = DuplicateWindow(window_ns=100, max_entries=3)
    for number in range(5):
        window.add(bytes([number]), number, number, number, received=number)
    assert len(window) == 3
    assert window.find(b"\x00", now=5) is None
    assert window.find(b"\x04", now=5) is not None
    assert window.find(b"\x04", now=105) is None


# ---- our own records


def test_an_idle_log_says_so(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", heartbeat_seconds=0.15)
    with home.writing():
        wait_for(lambda: kinds(home)["heartbeat"] >= 2)
    assert home.verify().verdict == "verified"


def test_a_busy_log_has_no_heartbeat(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", heartbeat_seconds=0.5)
    with home.writing() as writer:
        for seed in range(20):
            send(writer, request(seed, count=1))
            time.sleep(0.04)
    assert kinds(home)["heartbeat"] == 0


def test_a_configuration_is_recorded_once_until_it_changes(home: Home) -> None:
    with home.writing() as writer:
        for text in ("a = 1", "a = 1", "a = 2"):
            writer.record_config("rules.toml", text)
    configs = [parse_record(record)["config"] for record in all_records(home) if b'"kind":"config"' in record]
    assert [config["text"] for config in configs if config["name"] == "rules.toml"] == ["a = 1", "a = 2"]


# ---- segments


def segment_ranges(home: Home) -> list[tuple[int, int]]:
    return [(segment.start, segment.end) for segment in home.read().segments]


def test_segments_are_cut_by_records(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=20)
    with home.writing() as writer:
        for seed in range(20):
            send(writer, request(seed, count=4))
        wait_for(lambda: len(writer.sealer.segments) >= 3)
    ranges = segment_ranges(home)
    assert [start for start, _end in ranges[1:]] == [end for _start, end in ranges[:-1]]
    assert all(end - start >= 20 for start, end in ranges[:-1])
    assert home.verify().verdict == "verified"


def test_segments_are_cut_by_bytes(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=10_000, segment_bytes=60_000)
    with home.writing() as writer:
        for seed in range(8):
            send(writer, request(seed, count=4, size=8000))
        wait_for(lambda: len(writer.sealer.segments) >= 2)
    assert home.verify().verdict == "verified"


def test_segments_are_cut_by_age(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=10_000, segment_age_seconds=0.2)
    with home.writing() as writer:
        send(writer, request(1))
        wait_for(lambda: len(writer.sealer.segments) >= 1)
    assert home.verify().verdict == "verified"


def test_an_idle_store_does_not_grow_a_file_a_minute(tmp_path: Path) -> None:
    # A minute is 50 ms here; in a second of idling with heartbeats every 20 ms twenty segments could be cut, and none is.
    home = new_home(tmp_path / "home", segment_records=10_000, segment_age_seconds=0.05, heartbeat_seconds=0.02)
    with home.writing() as writer:
        wait_for(lambda: len(writer.sealer.segments) >= 1)
        before = len(writer.sealer.segments)
        time.sleep(1.0)
        assert len(writer.sealer.segments) == before
        assert writer.log.size > 20
    assert home.verify().verdict == "verified"


def test_a_clean_stop_seals_everything_but_its_own_seals(home: Home) -> None:
    with home.writing() as writer:
        send(writer, request(1))
    reader = home.read()
    rest = [parse_record(record)["kind"] for record in reader.tail().records.column("record").to_pylist()]
    assert rest == ["seal", "seal"]


def test_small_segments_are_merged_and_readers_keep_up(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=10, compact_fan_in=3, compact_records=100, compact_grace_seconds=0.3)
    with home.writing() as writer:
        for seed in range(6):
            send(writer, request(seed, count=9))
            settle(writer)
        reader = home.read()
        before = reader.record(3)
        old_files = [path for part in ("records", "contents") for path in reader.verified_files(part)]
        wait_for(lambda: any(found.seal.file.generation for segment in writer.sealer.segments for found in segment.seals))
        assert all(path.exists() for path in old_files), "a reader that has them open is given time"
        assert reader.record(3) == before
        wait_for(lambda: not any(path.exists() for path in old_files))
        assert reader.record(3) == before, "a reader that meets a missing file lists again"
        assert all(path.exists() for part in ("records", "contents") for path in reader.verified_files(part))
    report = home.verify()
    assert report.verdict == "verified", report.as_json()
    assert report.contents.matching == 6 * 9 * 2
    superseding = [found.seal for segment in home.read().segments for found in segment.seals if found.seal.supersedes]
    assert {seal.file.part for seal in superseding} == {"records", "contents"}
