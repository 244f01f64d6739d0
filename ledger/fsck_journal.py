"""The journal's side of `verify`: records that are under the checkpoint and not sealed yet.

The files are opened before anything else of the store is looked at: what the writer seals meanwhile is then found here, in a file that
no longer has a name, or among the sealed ones, and never in neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from ledger import columns, contents
from ledger.arrow import numbers
from ledger.checkpoint import Checkpoint
from ledger.fsck_files import UNREADABLE, RecordChecker, SegmentReport
from ledger.fsck_leaves import LeafReader
from ledger.journal import Frame, read_frames
from ledger.layout import Layout, parse_journal_name

_CHUNK_ROWS = 65_536


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
) -> tuple[SegmentReport, int]:
    """Check the journal's records `[start, size)`.

    Returns:
        The report, and how many acknowledged records lie behind the checkpoint, which are not judged.
    """
    report = SegmentReport()
    checker = RecordChecker(report, leaves, "journal")
    expected = start
    behind: list[str] = []
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
            behind += [f"{opened.name} at byte {tail.offset}: {tail.why}" for tail in bad]
        except UNREADABLE as exc:
            behind.append(f"{opened.name}: {exc}")
    checker.contents.finish(head.size)
    if expected < head.size:
        file = journal[-1].name if len(journal) == 1 else "journal"
        why = "; ".join(behind) or "nothing of them is in the journal"
        report.fail("journal", expected, file, f"records {expected} to {head.size} are neither sealed nor readable ({why})")
    return report, max(0, expected - head.size)


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
