"""The journal's side of `verify`: records that are under the checkpoint and not sealed yet.

The files are opened before anything else of the store is looked at: what the writer seals meanwhile is then found here, in a file that
no longer has a name, or among the sealed ones, and never in neither.
"""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from ledger import columns, contents
from ledger.arrow import numbers
from ledger.checkpoint import Checkpoint
from ledger.errors import UnsupportedFormat
from ledger.fsck_files import UNREADABLE, RecordChecker, SegmentReport
from ledger.fsck_leaves import LeafReader
from ledger.journal import Frame, read_frames
from ledger.layout import Layout, parse_journal_name

_CHUNK_ROWS = 65_536

_NEWER: Final = re.compile(rb"trail-journal/[2-9]\n")


@dataclass(frozen=True, slots=True)
class OpenJournal:
    """A journal file, mapped."""

    name: str
    data: pa.Buffer | None
    """None: it could not be read."""
    why: str = ""


def open_journal(layout: Layout) -> list[OpenJournal]:
    """Open all journal files, in the order of their frames."""
    opened = []
    for path in sorted(p for p in layout.journal.glob("*") if parse_journal_name(p.name)):
        name = path.relative_to(layout.root).as_posix()
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file")
            data = pa.memory_map(str(path)).read_buffer() if path.stat().st_size else pa.py_buffer(b"")
            opened.append(OpenJournal(name, data))
        except FileNotFoundError:
            continue  # sealed just now
        except (OSError, pa.ArrowException) as exc:
            opened.append(OpenJournal(name, None, str(exc)))
    return opened


@dataclass(slots=True)
class _Pending:
    """Consecutive frames of one file, to be checked together: a query a frame would take hours for a journal of small requests."""

    start: int
    records: list[pa.RecordBatch]
    contents: list[pa.RecordBatch]
    rows: int = 0

    def add(self, frame: Frame) -> None:
        self.records += frame.records
        self.contents += frame.contents
        self.rows += frame.count


def check_journal(
    layout: Layout, journal: list[OpenJournal], head: Checkpoint, *, start: int, leaves: LeafReader
) -> tuple[SegmentReport, list[str]]:
    """Check the journal's records `[start, size)`.

    Returns:
        The report, and what of the journal is not judged: acknowledged records behind the checkpoint, and whole frames behind a broken
        one, which no crash leaves.
    """
    report = SegmentReport()
    checker = RecordChecker(report, leaves, "journal")
    expected = start
    behind: list[str] = []
    not_judged: list[str] = []
    newer = False
    for opened in journal:
        checker.file = opened.name
        if opened.data is None:
            behind.append(f"{opened.name}: {opened.why}")
            continue
        try:
            frames, bad = read_frames(layout.root / opened.name, data=opened.data)
            for pending in _grouped(frames, expected):
                _check(checker, pending, head.size)
                expected = pending.start + pending.rows
            for tail in bad:
                behind.append(f"{opened.name} at byte {tail.offset}: {tail.why}")
                if tail.frames_behind:
                    not_judged.append(f"{opened.name}: {tail.frames_behind} whole frames behind byte {tail.offset}, where {tail.why}")
        except UNREADABLE as exc:
            if isinstance(exc, UnsupportedFormat) and _NEWER.match(opened.data):
                report.not_checked.append(f"{opened.name}: {exc}")
                newer = True
            behind.append(f"{opened.name}: {exc}")
    checker.contents.finish(head.size)
    if expected < head.size and not newer:
        file = journal[-1].name if len(journal) == 1 else "journal"
        why = "; ".join(behind) or "nothing of them is in the journal"
        report.fail("journal", expected, file, f"records {expected} to {head.size} are neither sealed nor readable ({why})")
    if expected > head.size:
        not_judged.insert(0, f"journal: {expected - head.size} records are acknowledged and not yet under this checkpoint")
    return report, not_judged


def _grouped(frames: Iterator[Frame], expected: int) -> Iterator[_Pending]:
    pending = _Pending(expected, [], [])
    for frame in frames:
        if frame.start != pending.start + pending.rows:
            continue
        pending.add(frame)
        if pending.rows >= _CHUNK_ROWS:
            yield pending
            pending = _Pending(pending.start + pending.rows, [], [])
    if pending.rows:
        yield pending


def _check(checker: RecordChecker, pending: _Pending, size: int) -> None:
    """Check what of it is under the checkpoint."""
    count = min(pending.rows, size - pending.start)
    if count <= 0:
        return
    table = pa.Table.from_batches(pending.records, columns.BATCH_SCHEMA).slice(0, count)
    index = pa.array(range(pending.start, pending.start + count), pa.int64())
    checker.check(table.add_column(0, columns.SCHEMA.field(0), index), pending.start)
    rows = pa.Table.from_batches(pending.contents, contents.SCHEMA)
    checker.contents.add_rows(rows.slice(0, _first_behind(rows, size)))


def _first_behind(rows: pa.Table, size: int) -> int:
    """How many contents rows belong to records under the checkpoint; they are in the order of their records."""
    return sum(1 for index in numbers(rows.column("index")) if index < size)
