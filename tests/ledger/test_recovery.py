"""Starting over what a crash, a fault or somebody left: finished, discarded, or refused in a sentence that says what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from attacks import flip
from starts import require_refused
from stores import Home, all_records, kill, new_home, request, seal, send, settle, small_store

from ledger import durable
from ledger.errors import UnsupportedFormat
from ledger.journal import FILE_MAGIC, encode_frame
from ledger.sealing import MadeFile, merge, seal_journal
from ledger.segment import encode_side_file
from ledger.writer import StoreWriter


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("recovery") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    """Two sealed segments and one without contents, and a journal with a start, a config and a request; 21 records."""
    return original.copy(tmp_path / "home")


@pytest.fixture
def unsealed(tmp_path: Path) -> Home:
    """Four requests in the journal and nothing sealed; crashed."""
    home = new_home(tmp_path / "home", segment_records=1000)
    writer = home.open()
    for seed in range(4):
        send(writer, request(seed))
    settle(writer)
    kill(writer)
    return home


def reopened(home: Home) -> dict[str, Any]:
    """Start and stop once; the `lifecycle` record of the start. The store must then be verified and extend the old checkpoint."""
    before = (home.store / "checkpoint").read_bytes() if (home.store / "checkpoint").exists() else None
    home.open().close()
    report = home.verify(against=[before] if before else [])
    assert report.verdict == "verified", report.as_json()
    starts = [json.loads(record) for record in all_records(home)]
    return next(value["lifecycle"] for value in reversed(starts) if value["kind"] == "lifecycle" and value["lifecycle"]["event"] != "stop")


def last_journal(home: Home) -> Path:
    return max(path for path in home.files("journal/*") if path.stat().st_size > len(FILE_MAGIC))


# ---- the journal


def test_a_clean_store_starts_clean(home: Home) -> None:
    home.open().close()
    assert reopened(home)["event"] == "start"


def test_a_torn_frame_is_cut_off_and_reported(unsealed: Home) -> None:
    journal = last_journal(unsealed)
    last = encode_frame(18, [])
    with journal.open("ab") as handle:
        handle.write(b"".join(last)[:20])
    start = reopened(unsealed)
    assert start["event"] == "recovery"
    assert [(torn["file"], torn["bytes"], torn["frames_behind"]) for torn in start["torn"]] == [(journal.name, 20, 0)]
    assert len(all_records(unsealed)) > 18


@pytest.mark.parametrize("garbage", [b"\0" * 64, b"\xff" * 7, b"TRJF" + b"\0" * 60, b"TRJF"], ids=["zeros", "ones", "a header", "a magic"])
def test_garbage_behind_the_journal_is_cut_off_and_reported(unsealed: Home, garbage: bytes) -> None:
    with last_journal(unsealed).open("ab") as handle:
        handle.write(garbage)
    assert reopened(unsealed)["torn"][0]["bytes"] == len(garbage)


def test_a_tail_that_was_acknowledged_and_not_signed_comes_back(unsealed: Home) -> None:
    # The checkpoint of a moment ago and a journal that has more: what a crash right after an acknowledgement leaves.
    state = (unsealed.checkpoint, unsealed.state.path.read_bytes())
    writer = unsealed.open()
    receipt = send(writer, request(9))
    settle(writer)
    kill(writer)
    (unsealed.store / "checkpoint").write_bytes(state[0])
    unsealed.state.path.write_bytes(state[1])
    (unsealed.store / "checkpoints").rename(unsealed.base / "history")
    reopened(unsealed)
    records = [json.loads(record) for record in all_records(unsealed)]
    assert [value["kind"] for value in records[receipt.start : receipt.batch + 1]] == ["span", "span", "span", "batch"]


def test_a_frame_lost_in_the_middle_is_refused_and_the_file_stays(unsealed: Home) -> None:
    journal = last_journal(unsealed)
    flip(journal, len(FILE_MAGIC) + 40)
    error = require_refused(unsealed, "records are missing")
    assert error.index == 0
    assert journal.exists(), "it still holds what an expert could save"


def test_a_journal_file_lost_between_others_is_refused(unsealed: Home) -> None:
    first = last_journal(unsealed)
    writer = unsealed.open()
    send(writer, request(20))
    settle(writer)
    kill(writer)
    first.unlink()
    error = require_refused(unsealed, "the journal jumps from record 0 to 18")
    assert error.index == 0


def test_a_lost_journal_is_refused(home: Home) -> None:
    last_journal(home).unlink()
    require_refused(home, "5 records are missing")


def test_a_journal_of_a_newer_version_is_refused(home: Home) -> None:
    journal = last_journal(home)
    journal.write_bytes(journal.read_bytes().replace(b"trail-journal/1", b"trail-journal/2", 1))
    with pytest.raises(UnsupportedFormat, match="not a journal of version 1"):
        home.open()


@pytest.mark.parametrize("size", [0, 5, len(FILE_MAGIC)])
def test_a_journal_file_that_was_only_begun_is_no_fault(home: Home, size: int) -> None:
    begun = home.store / "journal" / "0000000000000021-0000.journal"
    begun.write_bytes(FILE_MAGIC[:size])
    assert reopened(home)["event"] == "start"
    assert not begun.exists()


# ---- seals and segments

SIDE_FILES = ["records/0-6.0", "records/6-12.0", "records/12-15.0", "contents/0-6.0", "contents/6-12.0"]


@pytest.mark.parametrize("name", SIDE_FILES)
@pytest.mark.parametrize("damage", ["missing", "damaged", "of another file", "emptied"])
def test_a_side_file_is_rebuilt_and_reported(home: Home, name: str, damage: str) -> None:
    side = home.store / f"{name}.parquet.seal"
    before = side.read_bytes()
    if damage == "missing":
        side.unlink()
    elif damage == "damaged":
        flip(side, 60)
    elif damage == "emptied":
        side.write_bytes(b"")
    else:
        other = next(other for other in SIDE_FILES if other != name)
        shutil.copy(home.store / f"{other}.parquet.seal", side)
    start = reopened(home)
    assert side.read_bytes() == before
    assert (start["event"], start["rebuilt"]) == ("recovery", [f"{name}.parquet.seal"])


def test_all_side_files_are_rebuilt(home: Home) -> None:
    for path in home.files("*/*.seal"):
        path.unlink()
    assert len(reopened(home)["rebuilt"]) == 5


@pytest.mark.parametrize("name", ["records/0-6.0", "records/6-12.0", "records/12-15.0", "contents/0-6.0"])
def test_a_missing_sealed_file_is_refused_and_its_side_file_kept(home: Home, name: str) -> None:
    (home.store / f"{name}.parquet").unlink()
    require_refused(home, f"{name.split('/')[1]}.parquet is missing")
    assert (home.store / f"{name}.parquet.seal").exists()


def test_a_missing_segment_is_refused(home: Home) -> None:
    for part in ("records", "contents"):
        for path in home.files(f"{part}/6-12.0*"):
            path.unlink()
    require_refused(home, "records 6 to 12 have no records file")


def test_a_file_without_a_seal_whose_records_are_elsewhere_is_removed(home: Home) -> None:
    for name in ("records/15-21.0.parquet", "contents/15-18.0.parquet", "records/0-12.5.parquet"):
        shutil.copy(home.store / "records/0-6.0.parquet", home.store / name)
    start = reopened(home)
    assert sorted(start["removed"]) == ["contents/15-18.0.parquet", "records/0-12.5.parquet", "records/15-21.0.parquet"]


def test_a_file_without_a_seal_whose_records_are_nowhere_else_is_kept(home: Home) -> None:
    stray = home.store / "records/21-30.0.parquet"
    shutil.copy(home.store / "records/0-6.0.parquet", stray)
    require_refused(home, "records/21-30.0.parquet has no seal in the log and its records are nowhere else")


def test_temporary_files_are_removed(home: Home) -> None:
    left = [
        home.store / name for name in (".checkpoint.0.tmp", "records/.a.tmp", "contents/.b.tmp", "tile/0/.000.c.tmp", "quarantine/.d.tmp")
    ]
    for path in left:
        path.write_bytes(b"half")
    reopened(home)
    assert [path for path in left if path.exists()] == []


def test_thousands_of_leftovers_fit_the_record_that_reports_them(home: Home) -> None:
    for number in range(3000):
        (home.store / "records" / f".0-6.0.parquet.{number:08x}.tmp").touch()
    removed = reopened(home)["removed"]
    assert (len(removed), removed[-1]) == (101, "and 2900 more")


# ---- tiles


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """More than two full tiles, sealed, and a journal behind."""
    home = new_home(tmp_path_factory.mktemp("wide") / "home", segment_records=10_000)
    with home.writing() as writer:
        send(writer, request(1, count=600, contents=False))
        seal(writer)
    return home


@pytest.mark.parametrize("name", ["tile", "tile/0", "tile/0/000", "tile/0/001", "tile/0/002.p", "tile/1/000.p"])
@pytest.mark.parametrize("damage", ["missing", "emptied"])
def test_lost_tiles_are_rebuilt(wide: Home, tmp_path: Path, name: str, damage: str) -> None:
    home = wide.copy(tmp_path / "home")
    before = {path: path.read_bytes() for path in home.files("tile/**/*") if path.is_file()}
    path = home.store / name
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in files:
        file.unlink() if damage == "missing" else file.write_bytes(b"")
    if damage == "missing" and path.is_dir():
        shutil.rmtree(path)
    start = reopened(home)
    assert start["event"] == "recovery"
    full = {path for path in before if not path.parent.name.endswith(".p")}
    assert {path: path.read_bytes() for path in full} == {path: before[path] for path in full}


def test_partial_tiles_that_a_power_cut_emptied_are_removed(home: Home) -> None:
    for path in home.files("tile/0/000.p/*"):
        if path.name != "21":
            path.write_bytes(b"")
    (home.store / "tile/0/000.p/19").write_bytes(b"\0" * 19 * 32)
    reopened(home)
    assert not (home.store / "tile/0/000.p/19").exists()


def test_a_tile_that_lies_is_refused(home: Home) -> None:
    # Width 15 would do for the sealed records; the journal then leads to another root than the one that was signed.
    for path in home.files("tile/0/000.p/*"):
        flip(path, 5)
    require_refused(home, "do not give the root that was signed at size 21")


# ---- crashes between the steps of sealing and merging


def _named(home: Home, writer: StoreWriter) -> list[MadeFile]:
    """Files of the journal so far, with their names, and nothing of them in the log."""
    writer.log.settle()
    end = writer.log.size
    made = seal_journal(writer.layout, home.files("journal/*"), start=0, end=end)
    for file in made:
        durable.publish(file.temporary, home.store / file.seal.file.name)
    return made


def _sealed(writer: StoreWriter, file: MadeFile) -> bytes:
    receipt = writer.log.append_own("seal", file.seal.body(), facts={"name": file.seal.file.name}).result()
    return encode_side_file(index=receipt.index, record=receipt.record)


def _crash_while_sealing(home: Home, steps: int) -> list[str]:
    """Send, then seal by hand up to a step, then crash; the names of the files."""
    writer = home.open()
    for seed in range(2):
        send(writer, request(seed))
    made = _named(home, writer)
    names = [file.seal.file.name for file in made]
    sides = []
    for file in made[: max(0, steps - 1)]:
        sides.append(_sealed(writer, file))
    settle(writer)
    for name, side in list(zip(names, sides, strict=False))[: max(0, steps - 3)]:
        durable.write_once(home.store / f"{name}.seal", side)
    kill(writer)
    return names


@pytest.mark.parametrize(
    ("steps", "kept"), [(1, False), (2, False), (3, True), (4, True), (5, True)],
    ids=["named", "contents sealed", "both sealed", "one side file", "both side files"],
)  # fmt: skip
def test_a_crash_while_sealing_is_finished_or_undone(tmp_path: Path, steps: int, kept: bool) -> None:
    home = new_home(tmp_path / "home", segment_records=1000)
    names = _crash_while_sealing(home, steps)
    assert home.verify().verdict == "verified", "an auditor may come before the next start"
    assert len(home.read().tail().records) in (home.verify().size, home.verify().size - 10)
    start = reopened(home)
    assert [(home.store / name).exists() for name in names] == [kept, kept]
    if kept:
        assert [path for path in home.files("journal/0000000000000000*") if path.stat().st_size > len(FILE_MAGIC)] == []
    else:
        assert sorted(start["removed"]) == sorted(names)
    spans = [json.loads(record) for record in all_records(home)]
    assert [value["kind"] for value in spans].count("span") == 6


def _crash_while_merging(home: Home, steps: int, old_removed: int) -> tuple[list[str], list[str]]:
    """Seal two segments, merge them by hand up to a step, then crash; the names of the new and of the old files."""
    writer = home.open()
    for seed in range(2):
        send(writer, request(seed))
        seal(writer)
    segments = writer.sealer.segments
    old = [found.seal.file.name for segment in segments for found in segment.seals]
    made = merge(writer.layout, segments)
    for file in made:
        durable.publish(file.temporary, home.store / file.seal.file.name)
    names = [file.seal.file.name for file in made]
    sides = [_sealed(writer, file) for file in made[: max(0, steps - 1)]]
    settle(writer)
    for name, side in list(zip(names, sides, strict=False))[: max(0, steps - 3)]:
        durable.write_once(home.store / f"{name}.seal", side)
    for name in old[:old_removed]:
        (home.store / name).unlink()
    kill(writer)
    return names, old


@pytest.mark.parametrize(
    ("steps", "old_removed", "merged"),
    [(1, 0, False), (2, 0, False), (3, 0, True), (4, 0, True), (5, 0, True), (5, 1, True), (5, 4, True)],
)
def test_a_crash_while_merging_is_finished_or_undone(tmp_path: Path, steps: int, old_removed: int, merged: bool) -> None:
    home = new_home(tmp_path / "home", segment_records=1000)
    names, old = _crash_while_merging(home, steps, old_removed)
    assert home.verify().verdict == "verified", home.verify().as_json()
    home.read().verified_files("records")
    reopened(home)
    assert [(home.store / name).exists() for name in names] == [merged, merged]
    assert [(home.store / name).exists() for name in old] == [not merged] * 4


def test_what_a_merge_replaced_is_kept_while_the_merged_file_is_wrong(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=1000)
    names, old = _crash_while_merging(home, 5, 0)
    flip(home.store / names[1], 300)
    require_refused(home, f"{names[1]} is not the file that was sealed")
    assert all((home.store / name).exists() for name in old)


def test_the_journal_is_kept_while_the_sealed_file_is_wrong(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home", segment_records=1000)
    names = _crash_while_sealing(home, 5)
    flip(home.store / names[1], 300)
    require_refused(home, f"{names[1]} is not the file that was sealed")
