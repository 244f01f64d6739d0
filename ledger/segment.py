"""Sealed segments: Parquet files of records and of contents, and the seals that commit to their bytes.

Why a seal: editing only the min/max statistics in a Parquet footer leaves every row as it was, and a query engine then
answers `WHERE policy = 'x'` with nothing. So each file's SHA-256 is itself a record of the log.
Normative text: `ledger/FORMAT.md`, "Segments" and "Seals".
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger import columns, contents
from ledger.durable import storage_errors, sync_file
from ledger.errors import CorruptSegment, MalformedError
from ledger.layout import SealedFile
from ledger.record import parse_record

SCHEMA_VERSION: Final = 1
ROW_GROUP_RECORDS: Final = 16_384
"""Small enough that a time window reads little, large enough that zstd finds its repetitions."""
CONTENT_ROW_GROUP_BYTES: Final = 32 << 20
RECORDS_LEVEL: Final = 1
"""zstd; measured on agents' spans: level 3 takes a quarter longer and does not get smaller."""
CONTENTS_LEVEL: Final = 2
"""While telemetry comes; a merge, which has time, uses `MERGED_LEVEL`."""
MERGED_LEVEL: Final = 3
_DICTIONARY: Final = [
    "kind", "sender", "role", "vocabulary", "service", "environment", "run_id", "trace_id", "parent_span_id", "agent", "agent_version",
    "workflow", "owner", "requester", "event", "name", "tool", "resource", "outcome", "model", "tier", "capability", "change_kind",
    "decision", "policy_id", "policy_version", "rule", "engine", "approval", "approver", "approval_source", "scope", "evaluation", "label",
    "reversal", "prompt_version", "provenance", "incident", "contexts.list.element.source",
]  # fmt: skip
_NO_STATISTICS: Final = {"record", "salt", "value", "keyed", "name"}
_HASH_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What a seal record states about one Parquet file."""

    file: SealedFile
    sha256: str
    size_bytes: int
    rows: int
    supersedes: tuple[str, ...]
    """Names of the files this one replaces."""
    contents: str | None
    """Of a records file: the contents file made with it; None when its records have no contents."""
    min_time: int | None
    """Smallest and largest event time (Unix ns) of the records in the range; None where none has one."""
    max_time: int | None
    min_received: int
    max_received: int

    def body(self) -> dict[str, Any]:
        """The `seal` member of the record."""
        value: dict[str, Any] = {
            "file": self.file.name,
            "start": self.file.start,
            "end": self.file.end,
            "sha256": self.sha256,
            "bytes": self.size_bytes,
            "rows": self.rows,
            "schema": SCHEMA_VERSION,
            "supersedes": list(self.supersedes),
            "min_received": str(self.min_received),
            "max_received": str(self.max_received),
        }
        if self.contents is not None:
            value["contents"] = self.contents
        if self.min_time is not None and self.max_time is not None:
            value |= {"min_time": str(self.min_time), "max_time": str(self.max_time)}
        return value

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Read a seal record.

        Raises:
            MalformedError: not a seal record, or not of this shape.
        """
        value = parse_record(record)
        try:
            body = value["seal"]
            file = SealedFile.parse(body["file"])
            if value["kind"] != "seal" or file is None or (file.start, file.end) != (body["start"], body["end"]):
                raise MalformedError("this record is not a seal")
            supersedes, contents_name = body["supersedes"], body.get("contents")
            if not isinstance(supersedes, list) or not all(isinstance(name, str) for name in [*supersedes, contents_name or ""]):
                raise MalformedError("a seal record names files that are no names")
            return cls(
                file=file,
                sha256=body["sha256"],
                size_bytes=body["bytes"],
                rows=body["rows"],
                supersedes=tuple(supersedes),
                contents=contents_name,
                min_time=int(body["min_time"]) if "min_time" in body else None,
                max_time=int(body["max_time"]) if "max_time" in body else None,
                min_received=int(body["min_received"]),
                max_received=int(body["max_received"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise MalformedError(f"a seal record does not have its members: {exc}") from exc


def encode_side_file(*, index: int, record: bytes) -> bytes:
    """The bytes of `<name>.seal`: where the seal record stands in the log, and the record."""
    return orjson.dumps({"index": index, "record": base64.b64encode(record).decode()}, option=orjson.OPT_SORT_KEYS) + b"\n"


def parse_side_file(data: bytes) -> tuple[int, bytes]:
    """The inverse of `encode_side_file`: (index, record).

    Raises:
        MalformedError: any other bytes.
    """
    try:
        value = orjson.loads(data)
        index, record = value["index"], base64.b64decode(value["record"], validate=True)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
        raise MalformedError("this is not a seal's side file") from exc
    if type(index) is not int or index < 0 or encode_side_file(index=index, record=record) != data:
        raise MalformedError("a seal's side file is not in its one form")
    return index, record


@dataclass(slots=True)
class Extent:
    """What a seal says of times, gathered while the records go by."""

    rows: int = 0
    min_time: int | None = None
    max_time: int | None = None
    min_received: int | None = None
    max_received: int | None = None

    def add(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Take in records with the columns `time` and `received`."""
        self.rows += batch.num_rows
        for name in ("time", "received"):
            bounds: Any = pc.min_max(batch.column(name).cast(pa.int64())).as_py()
            low, high = bounds["min"], bounds["max"]
            if low is None:
                continue
            before_low, before_high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            setattr(self, f"min_{name}", low if before_low is None else min(before_low, low))
            setattr(self, f"max_{name}", high if before_high is None else max(before_high, high))


def write_records(path: Path, batches: Iterable[pa.RecordBatch]) -> Extent:
    """Write and sync a records file.

    Args:
        path: a new file.
        batches: of `ledger.columns.SCHEMA`, in index order.
    """
    extent = Extent()
    with storage_errors("writing", path), _writer(path, columns.SCHEMA, RECORDS_LEVEL) as writer:
        for table in _regroup(batches, columns.SCHEMA, max_rows=ROW_GROUP_RECORDS, max_bytes=None):
            extent.add(table)
            writer.write_table(table, row_group_size=ROW_GROUP_RECORDS)
    sync_file(path)
    return extent


def write_contents(path: Path, batches: Iterable[pa.RecordBatch], *, level: int = CONTENTS_LEVEL) -> int:
    """Write and sync a contents file with this zstd level; the number of rows."""
    rows = 0
    with storage_errors("writing", path), _writer(path, contents.SCHEMA, level) as writer:
        for table in _regroup(batches, contents.SCHEMA, max_rows=1 << 20, max_bytes=CONTENT_ROW_GROUP_BYTES):
            rows += table.num_rows
            writer.write_table(table)
    sync_file(path)
    return rows


def _writer(path: Path, schema: pa.Schema, level: int) -> pq.ParquetWriter:
    names = [name for name in schema.names if name not in _NO_STATISTICS]
    dictionary: Any = _DICTIONARY if "record" in schema.names else ["field", "type", "name", "index"]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=level,
        use_dictionary=dictionary,
        write_statistics=names,
        version="2.6",
        data_page_version="1.0",
        store_schema=False,
    )


def _regroup(batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, max_rows: int, max_bytes: int | None) -> Iterator[pa.Table]:
    """Cut a stream of batches into tables of at most `max_rows` rows and about `max_bytes` bytes."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for whole in batches:
        batch = whole
        while batch.num_rows:
            take = min(batch.num_rows, max_rows - rows)
            piece, batch = batch.slice(0, take), batch.slice(take)
            held.append(piece)
            rows += take
            size += piece.nbytes if max_bytes is not None else 0
            if rows >= max_rows or (max_bytes is not None and size >= max_bytes):
                yield pa.Table.from_batches(held, schema)
                held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held, schema)


def with_index(batch: pa.RecordBatch, start: int) -> pa.RecordBatch:
    """Put the `index` column before a batch of `BATCH_SCHEMA`."""
    index = pa.array(range(start, start + batch.num_rows), pa.int64())
    return pa.RecordBatch.from_arrays([index, *batch.columns], schema=columns.SCHEMA)


def hash_file(path: Path) -> tuple[str, int]:
    """(SHA-256 in hex, size in bytes) of a file.

    Raises:
        CorruptSegment: there is no such file.
        StorageError: it cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    if not path.exists():
        raise CorruptSegment(f"{path.name} is missing", path=path, hint="restore it from a backup; run trail verify for the extent")
    with storage_errors("reading", path), path.open("rb", buffering=0) as handle:
        buffer = bytearray(_HASH_CHUNK)
        while read := handle.readinto(buffer):
            digest.update(memoryview(buffer)[:read])
            size += read
    return digest.hexdigest(), size


def check_file(path: Path, seal: Seal) -> None:
    """Compare a file's bytes with its seal.

    Raises:
        CorruptSegment: other bytes than the log commits to.
    """
    digest, size = hash_file(path)
    if (digest, size) != (seal.sha256, seal.size_bytes):
        raise CorruptSegment(
            f"{seal.file.name} is not the file that was sealed ({size} bytes, sealed {seal.size_bytes})",
            path=path,
            expected=seal.sha256,
            actual=digest,
            hint="keep this copy as evidence and restore the file from a backup; run trail verify for the extent",
        )


def read_batches(path: Path, *, names: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream a sealed file's rows, a row group at a time.

    Args:
        path: a sealed file.
        names: the columns to read; all by default.

    Raises:
        CorruptSegment: not Parquet of our schema.
    """
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=names, use_threads=False).to_batches()
    except FileNotFoundError as exc:
        raise CorruptSegment(f"{path.name} is missing", path=path, hint="restore it from a backup; run trail verify") from exc
    except (pa.ArrowException, OSError) as exc:
        raise CorruptSegment(f"{path.name} cannot be read as Parquet: {exc}", path=path, hint="run trail verify") from exc
