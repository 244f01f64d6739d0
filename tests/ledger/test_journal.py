"""Frames of the journal: what is written is read back, what is torn or damaged ends the reading and is reported."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Request, request

from ledger import columns
from ledger.contents import SCHEMA as CONTENTS_SCHEMA
from ledger.errors import InvariantError, StorageError, UnsupportedFormat
from ledger.journal import FILE_MAGIC, BadTail, Frame, JournalWriter, encode_frame, encode_part, read_frames
from ledger.layout import journal_name, parse_journal_name


def written(path: Path, requests: list[Request]) -> list[int]:
    """A journal with a frame for each request; the offsets of the frames' ends."""
    writer = JournalWriter(path, start=0)
    ends, start = [], 0
    for asked in requests:
        writer.write(encode_frame(start, asked.parts))
        writer.sync()
        start += len(asked.records)
        ends.append(writer.size_bytes)
    writer.close()
    return ends


def read(path: Path) -> tuple[list[Frame], list[BadTail]]:
    frames, bad = read_frames(path)
    return list(frames), bad


def test_frames_are_read_back(tmp_path: Path) -> None:
    requests = [request(seed, count=1 + seed) for seed in range(5)]
    path = tmp_path / journal_name(start=0, generation=0)
    ends = written(path, requests)
    frames, bad = read(path)
    assert (bad, ends[-1]) == ([], path.stat().st_size)
    assert [(frame.start, frame.count) for frame in frames] == [(0, 1), (1, 2), (3, 3), (6, 4), (10, 5)]
    for frame, asked in zip(frames, requests, strict=True):
        assert [value for batch in frame.records for value in batch.column("record").to_pylist()] == asked.records
        indexes = [value for batch in frame.contents for value in batch.column("index").to_pylist()]
        assert indexes == [index for index in range(frame.start, frame.start + frame.count) for _ in range(3)], "absolute indexes"


def test_several_parts_of_one_frame_count_on(tmp_path: Path) -> None:
    one, two = request(1, count=2), request(2, count=3)
    writer = JournalWriter(tmp_path / "j", start=7)
    writer.write(encode_frame(7, [*one.parts, *two.parts]))
    writer.sync()
    writer.close()
    (frame,), _bad = read(tmp_path / "j")
    assert (frame.start, frame.count) == (7, 5)
    indexes = {value for batch in frame.contents for value in batch.column("index").to_pylist()}
    assert indexes == set(range(7, 12))


def test_a_part_without_contents_has_none(tmp_path: Path) -> None:
    batch = pa.ipc.read_record_batch(pa.py_buffer(request(1).parts[0].records), columns.BATCH_SCHEMA)
    for rows in (None, CONTENTS_SCHEMA.empty_table().to_batches(), []):
        part = encode_part(batch, rows[0] if rows else None)
        assert (part.count, part.contents) == (3, b"")
        assert part.size_bytes > len(part.records)


@settings(max_examples=60)
@given(cut=st.integers(min_value=0, max_value=10**9))
def test_a_journal_cut_anywhere_gives_the_frames_before(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "j"
    ends = written(path, [request(seed, count=1) for seed in range(3)])
    cut %= ends[-1] + 1
    os.truncate(path, cut)
    frames, bad = read(path)
    assert len(frames) == sum(end <= cut for end in ends)
    whole = max([end for end in ends if end <= cut], default=len(FILE_MAGIC))
    assert [(tail.offset, tail.size_bytes, tail.frames_behind) for tail in bad] == ([(whole, cut - whole, 0)] if cut > whole else [])


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "j"
    ends = written(path, [request(seed, count=1, contents=False, size=8) for seed in range(3)])
    data = path.read_bytes()
    for offset in range(len(FILE_MAGIC), len(data)):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << (offset % 8)
        frames, bad = read_frames(path, data=pa.py_buffer(bytes(damaged)))
        hit = next(number for number, end in enumerate(ends) if offset < end)
        assert len(list(frames)) == hit, offset
        assert [tail.frames_behind for tail in bad] == [2 - hit], offset


def test_sixty_four_zero_bytes_do_not_end_a_journal_as_if_it_were_complete(tmp_path: Path) -> None:
    path = tmp_path / "j"
    (end,) = written(path, [request(1)])
    with path.open("ab") as handle:
        handle.write(b"\0" * 64)
        handle.writelines(bytes(piece) for piece in encode_frame(3, request(2).parts))
    frames, bad = read(path)
    assert (len(frames), bad) == (1, [BadTail(end, path.stat().st_size - end, "this is not a frame's header", 1)])


@pytest.mark.parametrize("size", range(len(FILE_MAGIC) + 1))
def test_a_file_that_was_only_begun_is_empty(tmp_path: Path, size: int) -> None:
    (tmp_path / "j").write_bytes(FILE_MAGIC[:size])
    assert read(tmp_path / "j") == ([], [])


def test_another_version_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"trail-journal/2\n")
    with pytest.raises(UnsupportedFormat):
        read(tmp_path / "j")


def test_a_missing_file_is_for_the_caller_to_list_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "j")


def test_a_directory_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read(tmp_path)


def test_what_was_written_since_the_last_sync_can_be_undone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    writer = JournalWriter(path, start=0)
    writer.write(encode_frame(0, request(1).parts))
    writer.sync()
    assert not writer.empty
    size = path.stat().st_size
    writer.write(encode_frame(3, request(2).parts))
    writer.undo()
    assert (path.stat().st_size, writer.size_bytes) == (size, size)
    writer.write(encode_frame(3, request(4).parts))
    writer.sync()
    writer.close()
    frames, bad = read(path)
    assert ([frame.start for frame in frames], bad) == ([0, 3], [])


def test_a_journal_file_is_never_written_over(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "j", start=0).close()
    with pytest.raises(StorageError):
        JournalWriter(tmp_path / "j", start=0)


@pytest.mark.parametrize("written_bytes", [0, 5])
def test_a_journal_that_cannot_be_begun_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_bytes: int) -> None:
    real, left = os.write, [written_bytes]

    def write(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        fits, left[0] = bytes(data)[: left[0]], 0
        return real(fd, fits)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StorageError, match="disk is full"):
        JournalWriter(tmp_path / "j", start=0)
    assert list(tmp_path.iterdir()) == []


def test_a_write_cut_short_without_an_error_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    written(tmp_path / "j", [request(1, count=1, contents=False, size=8)])
    assert len(read(tmp_path / "j")[0]) == 1


@given(start=st.integers(min_value=0, max_value=10**16 - 1), generation=st.integers(min_value=0, max_value=9999))
def test_names_are_parsed_back_and_sort_in_order(start: int, generation: int) -> None:
    name = journal_name(start=start, generation=generation)
    assert parse_journal_name(name) == (start, generation)
    assert name < journal_name(start=start + 1, generation=0) or start == 10**16 - 1


def test_a_generation_that_no_reader_would_find_is_never_written() -> None:
    with pytest.raises(InvariantError):
        journal_name(start=0, generation=10_000)


@pytest.mark.parametrize(
    "name", ["", "0-0.journal", "0000000000000000-0000.journal.tmp", "\u0660" * 16 + "-0000.journal", ".0000000000000000-0000.journal"]
)
def test_other_files_are_no_journal(name: str) -> None:
    assert parse_journal_name(name) is None
