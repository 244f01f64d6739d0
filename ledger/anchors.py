"""The anchors in a store: checkpoints that others have cosigned or time-stamped.

    checkpoints/cosigned                       the newest one that met the store's quorum, the whole note
    checkpoints/<date>.cosigned.jsonl          older ones, a line each
    checkpoints/timestamps/<size>-<hex>.checkpoint and .tsr
                                               a whole note, and the RFC 3161 token over exactly these bytes

Nothing here is judged. Readers hand out what is there, damaged or not, and whoever verifies says what it is worth; that an anchor is
absent proves nothing. Notes and tokens are cut at one byte over the most that a parser takes, so that a huge file is read in part
only and refused.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import orjson

from ledger import durable
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.regular import open_regular

MAX_TOKEN_BYTES: Final = 64 * 1024
"""Of a time-stamp token, with the certificates of its authority."""
_MAX_LINE_BYTES: Final = 2 * MAX_NOTE_BYTES
"""Of a line of the history: JSON escapes every line feed of a note."""
_HISTORY: Final = ".cosigned.jsonl"


def write_cosigned(layout: Layout, note: bytes) -> None:
    """Set the newest cosigned checkpoint.

    Raises:
        StorageError: it cannot be written.
    """
    durable.replace(layout.cosigned, note)


def append_cosigned(layout: Layout, note: bytes, *, published: int) -> None:
    """Keep a cosigned checkpoint for ever; the caller sees to it that this is not too often.

    Args:
        layout: the store.
        note: the checkpoint with all its signature lines.
        published: Unix nanoseconds.

    Raises:
        StorageError: it cannot be written.
    """
    day = datetime.datetime.fromtimestamp(published // 1_000_000_000, datetime.UTC).date().isoformat()
    line = orjson.dumps({"checkpoint": note.decode(), "published": str(published)}, option=orjson.OPT_APPEND_NEWLINE)
    durable.append_line(layout.history / f"{day}{_HISTORY}", line)


def write_timestamp(layout: Layout, note: bytes, token: bytes, *, url: str) -> str:
    """Keep a token over a checkpoint, beside the very bytes that were stamped.

    Args:
        layout: the store.
        note: the whole note.
        token: the TimeStampResp, DER.
        url: where it was asked for: one checkpoint may have tokens of several authorities.

    Returns:
        The name of both files without their endings, as `timestamps` gives it.

    Raises:
        MalformedError: the note is no checkpoint.
        StorageError: it cannot be written, or there is another token of this authority.
    """
    path = _timestamp_path(layout, note, url)
    durable.make_dirs(layout.timestamps)
    durable.write_once(path.with_suffix(".checkpoint"), note)
    # Last: only a pair is an anchor, and a crash between the two leaves none.
    durable.write_once(path.with_suffix(".tsr"), token)
    return path.relative_to(layout.root).as_posix()


def cosigned_notes(layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Every cosigned checkpoint of a store: (file, note), the newest first, then the history in its order.

    Of a line that is no JSON with a note in it the line itself is given: it is no note either, and so nothing damaged is passed over.
    Only a last line that was never ended is: that is what a crash leaves.

    Raises:
        StorageError: a file is there and cannot be read.
    """
    note = _beginning_of(layout.cosigned, MAX_NOTE_BYTES)
    if note is not None:
        yield _name(layout, layout.cosigned), note
    for path in _listed(layout.history, _HISTORY):
        for line in _lines(path):
            yield _name(layout, path), _note_in(line)


def recent_cosigned_notes(layout: Layout, *, days: int) -> Iterator[bytes]:
    """The notes of `cosigned_notes`, the latest first, from the last `days` files of the history.

    Raises:
        StorageError: a file is there and cannot be read.
    """
    note = newest_cosigned(layout)
    if note is not None:
        yield note
    for path in _listed(layout.history, _HISTORY)[: -days - 1 : -1]:
        for line in reversed([*_lines(path)]):
            yield _note_in(line)


def newest_cosigned(layout: Layout) -> bytes | None:
    """The newest checkpoint that met the store's quorum, unjudged; None if there is none.

    Raises:
        StorageError: it is there and cannot be read.
    """
    return _beginning_of(layout.cosigned, MAX_NOTE_BYTES)


def timestamps(layout: Layout) -> Iterator[tuple[str, bytes, bytes]]:
    """Every time-stamped checkpoint of a store: (name without ending, note, token), in the order of names.

    Raises:
        StorageError: a file is there and cannot be read.
    """
    for path in _listed(layout.timestamps, ".tsr"):
        note = _beginning_of(path.with_suffix(".checkpoint"), MAX_NOTE_BYTES)
        token = _beginning_of(path, MAX_TOKEN_BYTES)
        if note is not None and token is not None:
            yield _name(layout, path.with_suffix("")), note, token


def timestamp_of(layout: Layout, note: bytes, *, url: str) -> bytes | None:
    """The token of an authority over exactly this checkpoint, unjudged; None if there is none.

    Raises:
        MalformedError: the note is no checkpoint.
        StorageError: it is there and cannot be read.
    """
    path = _timestamp_path(layout, note, url)
    if _beginning_of(path.with_suffix(".checkpoint"), MAX_NOTE_BYTES) != note:
        return None
    return _beginning_of(path.with_suffix(".tsr"), MAX_TOKEN_BYTES)


def _timestamp_path(layout: Layout, note: bytes, url: str) -> Path:
    """Both files of a token over a note, without their endings."""
    size = Checkpoint.parse(parse_note(note)[0]).size
    return layout.timestamps / f"{size}-{sha256(note + url.encode()).hexdigest()[:8]}"


def _note_in(line: bytes) -> bytes:
    try:
        value = orjson.loads(line)
        note = value["checkpoint"]
        return note.encode() if isinstance(note, str) else line
    except (ValueError, KeyError, TypeError):
        return line


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, each cut at the most that is read of one."""
    with storage_errors("reading", path), open_regular(path) as file:
        while line := file.readline(_MAX_LINE_BYTES):
            if line.endswith(b"\n") or len(line) == _MAX_LINE_BYTES:
                yield line.removesuffix(b"\n")


def _listed(directory: Path, ending: str) -> list[Path]:
    if not directory.is_dir():
        return []
    with storage_errors("listing", directory):
        return sorted(
            path for path in directory.iterdir() if path.name.endswith(ending) and not path.name.startswith(".") and path.is_file()
        )


def _beginning_of(path: Path, limit: int) -> bytes | None:
    """At most `limit` bytes and one more, None for a missing file."""
    with storage_errors("reading", path):
        try:
            with open_regular(path) as file:
                return file.read(limit + 1)
        except FileNotFoundError:
            return None


def _name(layout: Layout, path: Path) -> str:
    return path.relative_to(layout.root).as_posix()
