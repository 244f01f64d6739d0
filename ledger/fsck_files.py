"""The files' side of `verify`: sealed Parquet, side files and journal against leaf hashes and records.

Nothing here believes a column, a statistic or a side file: record bytes are hashed to leaves, columns are derived from the bytes again
(by DuckDB's JSON reader, where the writer used Python), contents are hashed to the commitments in the records.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger import columns, contents, merkle
from ledger.arrow import byte_strings, numbers, where_equal
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.fsck_columns import ColumnChecker
from ledger.fsck_contents import ContentChecker, ContentCounts
from ledger.fsck_leaves import LeafReader, level_zero
from ledger.layout import MAX_SIDE_FILE_BYTES, Layout, SealedFile, seal_name
from ledger.record import RECORD_VERSION
from ledger.regular import read_file
from ledger.sequences import Sequences

MAX_FAILURES_A_FILE: Final = 100
_CHUNK_ROWS: Final = 65_536
SCHEMA_VERSION: Final = 1
"""The newest schema of Parquet files whose rows this verifier can check; their bytes it checks in any."""
UNREADABLE: Final = (
    pa.ArrowException, duckdb.Error, LedgerError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    MemoryError, EOFError,
)  # fmt: skip
"""What the libraries raise over bytes that somebody made: all of it means that a file is not what it should be."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is not what the log commits to."""

    what: str
    """file, record, column, content, side file, tile, root, checkpoint, journal, rollback, fork."""
    index: int | None
    file: str | None
    why: str

    def as_json(self) -> dict[str, Any]:
        """As `trail verify --json` prints it."""
        return {"what": self.what, "index": self.index, "file": self.file, "why": self.why}


@dataclass(slots=True)
class SegmentReport:
    """What one piece of one segment, or the journal, came to."""

    records: int = 0
    by_bytes: int = 0
    """Records of which only the file's bytes were compared."""
    contents: ContentCounts = field(default_factory=ContentCounts)
    failures: list[Failure] = field(default_factory=list)
    seals: list[tuple[int, bytes]] = field(default_factory=list)
    """The seal records met: (index, record)."""
    keys: list[tuple[int, bytes]] = field(default_factory=list)
    """The records of kind `key` met, likewise."""
    sequences: Sequences = field(default_factory=Sequences)
    not_checked: list[str] = field(default_factory=list)
    """What a newer version of the program wrote: an honest store must not be called false by an old verifier."""
    gone: tuple[SealClaim, tuple[int, int]] | None = None
    """Set, and nothing else: a file of this piece vanished. A merge may have replaced it while we read; the caller looks again."""

    def fail(self, what: str, index: int | None, file: str | None, why: str) -> None:
        """Add a failure, bounded: one bad file must not fill the report."""
        if len(self.failures) < MAX_FAILURES_A_FILE:
            self.failures.append(Failure(what, index, file, why))


@dataclass(frozen=True, slots=True)
class SealClaim:
    """A seal record, read without the writer's code."""

    index: int
    file: SealedFile
    sha256: str
    size_bytes: int
    supersedes: tuple[str, ...]
    contents: str | None
    schema: int
    max_received: int
    """Of the records in the file, Unix nanoseconds."""

    @classmethod
    def read(cls, index: int, record: bytes) -> SealClaim | None:
        """None when the record is not a well-formed seal."""
        try:
            value = orjson.loads(record)
            body = value["seal"]
            file = SealedFile.parse(body["file"])
            if value["kind"] != "seal" or file is None:
                return None
            return cls(
                index, file, body["sha256"], body["bytes"], tuple(body["supersedes"]), body.get("contents"), int(body["schema"]),
                int(body["max_received"]),
            )  # fmt: skip
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return None


def live_claims(claims: list[SealClaim]) -> list[SealClaim]:
    """The seals in force: the newest of each name, contents only with their records, and none that is superseded."""
    newest = {claim.file: claim for claim in sorted(claims, key=lambda claim: claim.index)}
    ranges = {(file.start, file.end) for file in newest if file.part == "records"}
    counted = [claim for file, claim in newest.items() if (file.start, file.end) in ranges]
    gone = {name for claim in counted for name in claim.supersedes}
    return sorted((claim for claim in counted if claim.file.name not in gone), key=lambda claim: claim.file)


def read_side_files(layout: Layout, head: Checkpoint, leaves: LeafReader, report: SegmentReport) -> list[SealClaim]:
    """The seals beside the files, each compared with the leaf where it says that it stands."""
    claims = []
    for path in sorted(layout.root.glob("*/*.parquet.seal")):
        name = path.relative_to(layout.root).as_posix()
        try:
            data = read_file(path, limit=MAX_SIDE_FILE_BYTES)
        except FileNotFoundError:
            continue  # of a file that a merge has just replaced
        except OSError as exc:
            report.fail("side file", None, name, f"cannot be read: {exc.strerror}")
            continue
        try:
            value = orjson.loads(data)
            index, record = value["index"], base64.b64decode(value["record"], validate=True)
            again = orjson.dumps({"index": index, "record": base64.b64encode(record).decode()}, option=orjson.OPT_SORT_KEYS) + b"\n"
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            report.fail("side file", None, name, "is damaged")
            continue
        if again != data or type(index) is not int or index < 0:
            report.fail("side file", None, name, "is not in its one form")
            continue
        if index >= head.size:
            continue  # of a newer checkpoint, published while we read
        claim = SealClaim.read(index, record)
        if claim is None or seal_name(claim.file.name) != name:
            report.fail("side file", index, name, "does not hold the seal of the file beside it")
        elif leaves(index, index + 1) != merkle.leaf_hash(record):
            report.fail("side file", index, name, f"is not record {index} of this log")
        else:
            claims.append(claim)
    return claims


def check_segment(layout: Layout, size: int, records: SealClaim, beside: SealClaim | None, piece: tuple[int, int]) -> SegmentReport:
    """Check one piece of a segment; its first piece also hashes the whole files.

    Args:
        layout: the store.
        size: the tree's.
        records: the seal of the records file.
        beside: the seal of the contents file, if there is one.
        piece: `[first, end)` in records from the file's start.
    """
    report = SegmentReport()
    try:
        if piece[0] == 0:
            check_whole(layout, records, beside, report)
        newer = [claim for claim in (records, beside) if claim is not None and claim.schema > SCHEMA_VERSION]
        if newer:
            if piece[0] == 0:
                report.not_checked += [
                    f"{claim.file.name}: its rows, written in schema {claim.schema} by a newer version" for claim in newer
                ]
            return report
        _check_piece(layout, size, records, beside, piece, report)
    except FileNotFoundError:
        return SegmentReport(gone=(records, piece))
    return report


def _check_piece(
    layout: Layout, size: int, records: SealClaim, beside: SealClaim | None, piece: tuple[int, int], report: SegmentReport
) -> None:
    path = layout.root / records.file.name
    first, end = records.file.start + piece[0], records.file.start + piece[1]
    checker = RecordChecker(report, level_zero(layout, size), records.file.name)
    try:
        for table in _tables(path, piece):
            checker.check(table, first)
            first += table.num_rows
    except FileNotFoundError:
        raise
    except UNREADABLE as exc:
        report.fail("file", first, records.file.name, f"cannot be read as records from {first} on: {_line(exc)}")
        return
    if first != end:
        report.fail("file", first, records.file.name, f"ends at record {first}, sealed to {end}")
    _check_contents(layout, beside, checker.contents, (records.file.start + piece[0], end), report)


class RecordChecker:
    """Checks tables of records: index, leaf, columns; gathers marks of contents, seals and sequences."""

    def __init__(self, report: SegmentReport, leaves: LeafReader, file: str) -> None:
        """Report into `report`, naming `file`."""
        self.file = file
        self._report = report
        self._leaves = leaves
        self._columns = ColumnChecker()
        self.contents = ContentChecker(report.contents, lambda index, why: report.fail("content", index, None, why))

    def check(self, table: pa.Table, start: int) -> None:
        """Check consecutive records from `start` on."""
        report = self._report
        count = table.num_rows
        wanted = pa.array(range(start, start + count), pa.int64())
        if not table.column("index").combine_chunks().equals(wanted):
            report.fail("column", start, self.file, f"the index column does not count from {start}")
        records = byte_strings(table.column("record"))
        actual = merkle.leaf_hashes(records)
        expected = self._leaves(start, start + count)
        good = table
        if actual != expected:
            bad = {
                i for i in range(count)
                if actual[i * merkle.HASH_SIZE : (i + 1) * merkle.HASH_SIZE] != expected[i * merkle.HASH_SIZE : (i + 1) * merkle.HASH_SIZE]
            }  # fmt: skip
            for i in sorted(bad)[:MAX_FAILURES_A_FILE]:
                report.fail("record", start + i, self.file, f"record {start + i} is not what the log commits to")
            good = table.filter(pa.array([i not in bad for i in range(count)]))
        for index, names in self._columns.differences(good):
            if orjson.loads(records[index - start])["v"] > RECORD_VERSION:
                report.not_checked.append(f"record {index}: its columns, made by a newer version")
                continue
            report.fail("column", index, self.file, f"record {index}: the column {', '.join(names)} is not what the record says")
        self.contents.expect(start, records)
        report.records += count
        report.sequences.add(good)
        for kind, met in (("seal", report.seals), ("key", report.keys)):
            rows = where_equal(good, "kind", kind)
            met += zip(numbers(rows.column("index")), byte_strings(rows.column("record")), strict=True)


def check_whole(layout: Layout, records: SealClaim, beside: SealClaim | None, report: SegmentReport) -> None:
    """Compare the bytes of a segment's files with their seals.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    for claim in (records, beside):
        if claim is not None:
            _check_bytes(layout, claim, report)


def _check_bytes(layout: Layout, claim: SealClaim, report: SegmentReport) -> None:
    """Compare a file's bytes with its seal.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = layout.root / claim.file.name
    try:
        found = path.stat()
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        digest = ""
        if size == claim.size_bytes:  # or there is nothing to compare: who put a hole of a terabyte there shall not keep us busy
            with path.open("rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        raise
    except OSError as exc:
        report.fail("file", claim.file.start, claim.file.name, f"cannot be read: {exc.strerror}")
        return
    if size != claim.size_bytes:
        report.fail("file", claim.file.start, claim.file.name, f"has {size} bytes; record {claim.index} sealed {claim.size_bytes}")
    elif digest != claim.sha256:
        report.fail("file", claim.file.start, claim.file.name, f"is not the file that record {claim.index} sealed")


def _tables(path: Path, piece: tuple[int, int]) -> Iterator[pa.Table]:
    """The rows `[first, end)` of a records file, some row groups at a time."""
    with _parquet(path, columns.SCHEMA) as file:
        at = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            low, high = max(piece[0], at), min(piece[1], at + rows)
            if low < high:
                table = file.read_row_group(group, use_threads=False)
                for offset in range(low - at, high - at, _CHUNK_ROWS):
                    yield table.slice(offset, min(_CHUNK_ROWS, high - at - offset))
            at += rows


def _check_contents(layout: Layout, claim: SealClaim | None, checker: ContentChecker, span: tuple[int, int], report: SegmentReport) -> None:
    if claim is not None:
        try:
            with _parquet(layout.root / claim.file.name, contents.SCHEMA) as file:
                for group in range(file.num_row_groups):
                    # By the column, not by the footer's statistics: pyarrow aborts the process over some that are damaged.
                    indexes = file.read_row_group(group, columns=["index"], use_threads=False).column("index")
                    bounds: Any = pc.min_max(indexes).as_py()
                    if bounds["min"] is None or bounds["max"] < span[0] or bounds["min"] >= span[1]:
                        continue
                    table = file.read_row_group(group, use_threads=False)
                    index = table.column("index")
                    table = table.filter(pc.and_(pc.greater_equal(index, pa.scalar(span[0])), pc.less(index, pa.scalar(span[1]))))
                    checker.add_rows(table)
        except FileNotFoundError:
            raise
        except UNREADABLE as exc:
            report.fail("file", span[0], claim.file.name, f"cannot be read as contents: {_line(exc)}")
            checker.unreadable()
    checker.finish(span[1])


@contextlib.contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """A Parquet file of exactly this schema: another reader must not find a second column of a name, or other types.

    Raises:
        ValueError: the columns are others, or it is no file.
        OSError, ArrowException: it is no Parquet.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no ordinary file")
    with pq.ParquetFile(path, memory_map=True) as file:
        if file.schema_arrow.names != schema.names or file.schema_arrow.types != schema.types:
            raise ValueError("its columns are not those of such a file")
        yield file


def _line(exc: BaseException) -> str:
    return re.sub(r"\s+", " ", str(exc))[:200]
