"""The journal: what has been acknowledged and is not yet sealed into Parquet.

A file is a magic line and frames; a frame is a header with length, start index and CRC-32C, then parts of Arrow IPC
record batches, contents before records. A bare IPC stream would not do: after 64 zero bytes it ends as if complete, and it has
no checksum. One frame holds one request, so a torn write loses a request whole and never half of one.
Normative text: `ledger/FORMAT.md`, "Journal".
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c
import pyarrow as pa
import pyarrow.compute as pc

from ledger import columns, contents, durable
from ledger.durable import storage_errors
from ledger.errors import InvariantError, MalformedError, StorageError, UnsupportedFormat
from ledger.layout import journal_name

FILE_MAGIC: Final = b"trail-journal/1\n"
_FRAME_MAGIC: Final = b"TRJF"
_HEADER: Final = struct.Struct("<4sIQQII")
"""magic, CRC-32C of the rest of the header and the payload, payload bytes, start index, records, parts."""
_PART: Final = struct.Struct("<QQI")
"""contents bytes, records bytes, records."""
MAX_FRAME_BYTES: Final = 1 << 30
"""A reader takes no larger one."""
MAX_REQUEST_BYTES: Final = MAX_FRAME_BYTES >> 1
"""Of one request's parts; the rest of a frame is for its batch record."""
_MAX_BYTES_BEHIND: Final = 64 << 20
_MAX_TRIES_BEHIND: Final = 100
"""How far, and at how many false starts of frames, to look behind a bad one: each costs a checksum over as many bytes as it claims."""
_RECORD_COLUMN: Final = columns.BATCH_SCHEMA.get_field_index("record")


@dataclass(frozen=True, slots=True)
class Part:
    """Some records and their contents, as Arrow IPC record batch messages without schema."""

    count: int
    records: bytes | memoryview
    """A batch of `ledger.columns.BATCH_SCHEMA`."""
    contents: bytes | memoryview
    """A batch of `ledger.contents.SCHEMA`, its `index` counting from the first record of this part; empty bytes when there is none."""

    @property
    def size_bytes(self) -> int:
        """What it adds to the journal."""
        return len(self.records) + len(self.contents) + _PART.size


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as read back."""

    start: int
    count: int
    records: list[pa.RecordBatch]
    """Batches of `ledger.columns.BATCH_SCHEMA`."""
    contents: list[pa.RecordBatch]
    """Batches of `ledger.contents.SCHEMA` with absolute indexes."""


@dataclass(frozen=True, slots=True)
class BadTail:
    """Bytes of a journal file behind its last good frame."""

    offset: int
    size_bytes: int
    why: str
    frames_behind: int
    """Whole frames found further on: data that a crash cannot have produced."""


def encode_frame(start: int, parts: Sequence[Part]) -> list[bytes | memoryview]:
    """The buffers of one frame, to be written in order."""
    payload: list[bytes | memoryview] = []
    for part in parts:
        payload += [_PART.pack(len(part.contents), len(part.records), part.count), part.contents, part.records]
    size = sum(len(piece) for piece in payload)
    if size > MAX_FRAME_BYTES:
        raise InvariantError(f"a frame of {size} bytes is over {MAX_FRAME_BYTES}")
    count = sum(part.count for part in parts)
    crc = google_crc32c.value(_HEADER.pack(_FRAME_MAGIC, 0, size, start, count, len(parts))[8:])
    for piece in payload:
        crc = google_crc32c.extend(crc, bytes(piece) if isinstance(piece, memoryview) else piece)
    return [_HEADER.pack(_FRAME_MAGIC, crc, size, start, count, len(parts)), *payload]


class JournalWriter:
    """Appends frames to one journal file; `sync` makes all of them durable."""

    def __init__(self, path: Path, *, start: int) -> None:
        """Create the file.

        Raises:
            StorageError: it exists, or the disk refused.
        """
        self.path = path
        self.start = start
        self.size_bytes = len(FILE_MAGIC)
        self._good = self.size_bytes
        self.undone = False
        """True once `undo` has cut the file."""
        with storage_errors("creating", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            try:
                view = memoryview(FILE_MAGIC)
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError:
                # A disk that stays full would otherwise collect one empty file for each request it refuses.
                self.close()
                with contextlib.suppress(OSError):
                    path.unlink()
                raise

    @classmethod
    def begin(cls, directory: Path, *, start: int) -> JournalWriter:
        """Create the next file for records from `start` on, its name durable.

        Raises:
            StorageError: the disk refused; nothing is left behind.
        """
        generation = 0
        while (path := directory / journal_name(start=start, generation=generation)).exists():
            generation += 1
        journal = cls(path, start=start)
        try:
            durable.sync_dir(directory)
        except StorageError:
            journal.close()
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return journal

    def write(self, frames: Sequence[bytes | memoryview]) -> None:
        """Write buffers of frames; not durable before `sync`."""
        with storage_errors("writing", self.path):
            for piece in frames:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._fd, view) :]
                self.size_bytes += len(piece)

    def sync(self) -> None:
        """Fdatasync (which covers the size); after it every frame written so far may be acknowledged."""
        with storage_errors("syncing", self.path):
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._fd)  # macOS has only the latter
        self._good = self.size_bytes

    def undo(self) -> None:
        """Cut what was written since the last `sync`: a frame that was never acknowledged must not come back at the next start.

        Raises:
            StorageError: it cannot be cut; the log must then stop until it is recovered.
        """
        with storage_errors("cutting", self.path):
            os.ftruncate(self._fd, self._good)
        self.size_bytes = self._good
        self.undone = True

    @property
    def empty(self) -> bool:
        """No frame is in it."""
        return self.size_bytes == len(FILE_MAGIC)

    def close(self) -> None:
        """No more frames come."""
        os.close(self._fd)


def read_frames(path: Path, *, data: pa.Buffer | None = None, start: int = 0) -> tuple[Iterator[Frame], list[BadTail]]:
    """Read a journal file up to its first bad frame.

    Args:
        path: the file.
        data: its bytes if the caller has them.
        start: frames with nothing from this index on are passed over by their headers, unchecked: for callers who compare every record
            with the tree anyway.

    Returns:
        An iterator of frames (their batches share the file's mapped memory), and a list that holds, once the iterator is
        exhausted, what lies behind the last good frame, if anything.

    Raises:
        UnsupportedFormat: a journal of another version.
        StorageError: the file cannot be read.
        FileNotFoundError: it is gone: the writer has sealed it, and whoever listed it lists again.
    """
    if data is None:
        try:
            with storage_errors("reading", path):
                data = pa.memory_map(str(path)).read_buffer() if path.stat().st_size else pa.py_buffer(b"")
        except StorageError as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise exc.__cause__ from None
            raise
    view = memoryview(data)
    bad: list[BadTail] = []
    head = bytes(view[: len(FILE_MAGIC)])
    if head != FILE_MAGIC:
        if FILE_MAGIC.startswith(head):  # a crash while the file was made
            return iter(()), bad
        raise UnsupportedFormat(f"{path.name} is not a journal of version 1", path=path, hint="use the version of trail that wrote it")
    return _frames(data, view, bad, start), bad


def _frames(data: pa.Buffer, view: memoryview, bad: list[BadTail], start: int) -> Iterator[Frame]:
    offset = len(FILE_MAGIC)
    while offset < len(view):
        behind = _behind_earlier(view, offset, start)
        if behind is not None:
            offset = behind
            continue
        try:
            end = _frame_end(view, offset)
            frame = _decode(data, view, offset)
        except MalformedError as exc:
            bad.append(BadTail(offset, len(view) - offset, exc.message, _count_behind(view, offset + 1)))
            return
        yield frame
        offset = end


def _behind_earlier(view: memoryview, offset: int, start: int) -> int | None:
    """The offset behind a frame with nothing from `start` on, by its header alone; None for any other."""
    if not start or len(view) - offset < _HEADER.size:
        return None
    magic, _crc, size, first, count, _parts = _HEADER.unpack_from(view, offset)
    end: int = offset + _HEADER.size + size
    return end if magic == _FRAME_MAGIC and first + count <= start and end <= len(view) else None


def _frame_end(view: memoryview, offset: int) -> int:
    """Check a frame's header and checksum; the offset behind it.

    Raises:
        MalformedError: there is no whole frame here.
    """
    if len(view) - offset < _HEADER.size:
        raise MalformedError("a frame's header is cut off")
    magic, crc, size, _start, _count, _parts = _HEADER.unpack_from(view, offset)
    if magic != _FRAME_MAGIC or size > MAX_FRAME_BYTES:
        raise MalformedError("this is not a frame's header")
    end: int = offset + _HEADER.size + size
    if end > len(view):
        raise MalformedError("a frame is cut off")
    if google_crc32c.value(bytes(view[offset + 8 : end])) != crc:
        raise MalformedError("a frame's checksum does not match")
    return end


def _decode(data: pa.Buffer, view: memoryview, offset: int) -> Frame:
    """Read the frame at `offset`, whose checksum was right.

    Raises:
        MalformedError: its parts do not fit it: whoever can write to the journal can also make a checksum.
    """
    try:
        return _decode_parts(data, view, offset)
    except (pa.ArrowException, struct.error, ValueError, IndexError, TypeError, OverflowError, OSError, EOFError) as exc:
        raise MalformedError(f"a frame cannot be read: {exc}") from exc


def _decode_parts(data: pa.Buffer, view: memoryview, offset: int) -> Frame:
    _magic, _crc, _size, start, count, parts = _HEADER.unpack_from(view, offset)
    offset += _HEADER.size
    records: list[pa.RecordBatch] = []
    content_rows: list[pa.RecordBatch] = []
    first = start
    for _ in range(parts):
        contents_size, records_size, part_count = _PART.unpack_from(view, offset)
        offset += _PART.size
        if contents_size:
            rows = _batch(data.slice(offset, contents_size), contents.SCHEMA)
            absolute = pc.add(rows.column(0), pa.scalar(first, pa.int64()))
            content_rows.append(pa.RecordBatch.from_arrays([absolute, *rows.columns[1:]], schema=contents.SCHEMA))
        offset += contents_size
        batch = _batch(data.slice(offset, records_size), columns.BATCH_SCHEMA)
        if batch.num_rows != part_count or batch.column(_RECORD_COLUMN).null_count:
            raise MalformedError("a part of a frame does not hold the records that it announces")
        records.append(batch)
        offset += records_size
        first += part_count
    if first != start + count:
        raise MalformedError("a frame does not hold the records that it announces")
    return Frame(start, count, records, content_rows)


def _batch(data: pa.Buffer, schema: pa.Schema) -> pa.RecordBatch:
    """Read one IPC message.

    Raises:
        ArrowInvalid, OSError: it does not fit the schema (the checksum was right, so another version wrote it).
    """
    batch = pa.ipc.read_record_batch(data, schema)
    # In full: offsets that point outside the buffers would be read as memory of ours.
    batch.validate(full=True)
    return batch


def _count_behind(view: memoryview, offset: int) -> int:
    """Count whole frames at or behind `offset`; gives up where somebody made it costly to look."""
    found = tries = 0
    haystack = bytes(view[offset : offset + _MAX_BYTES_BEHIND])
    position = haystack.find(_FRAME_MAGIC)
    while position >= 0 and tries < _MAX_TRIES_BEHIND:
        try:
            end = _frame_end(view, offset + position)
        except MalformedError:
            tries += 1
            position = haystack.find(_FRAME_MAGIC, position + 1)
            continue
        found += 1
        position = haystack.find(_FRAME_MAGIC, end - offset)
    return found


def encode_part(records: pa.RecordBatch, content_rows: pa.RecordBatch | None) -> Part:
    """A part from batches of `BATCH_SCHEMA` and `contents.SCHEMA`."""
    rows = b"" if content_rows is None or content_rows.num_rows == 0 else content_rows.serialize().to_pybytes()
    return Part(records.num_rows, records.serialize().to_pybytes(), rows)
