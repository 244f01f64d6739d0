"""Builds stores out of facts alone: real segments and real tiles, without the writer and the server.

What `StoreReader` offers to readers is offered here by `BuiltStore`, so that the query package can be tested on
records that no emitter would send, at indexes that a test chooses. Nothing is signed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from ledger import columns, contents
from ledger.layout import PARTS, Layout, Part
from ledger.merkle import leaf_hashes
from ledger.record import canonical, content_mark
from ledger.segment import write_contents, write_records
from ledger.tiles import TileBuilder, tile_path

SECOND = 1_000_000_000
START = 1_763_633_000 * SECOND
"""The clock of built stores: an ordinary day in November 2025."""


@dataclass(frozen=True)
class Kept:
    """An attribute value that is kept beside the log."""

    value: str | None
    """None: the row is there and the value is gone (erased)."""
    rule: str | None = None
    """Set: never kept, and why."""
    size: int | None = None
    """Its size in bytes where `value` is None."""
    lost: bool = False
    """True: no contents row at all, though the record speaks of a value."""


@dataclass(frozen=True)
class Person:
    """An attribute value that names a person."""

    name: str


def wrap(value: Any) -> Any:
    """A plain value in the typed wrappers of a record."""
    match value:
        case bool():
            return {"b": value}
        case str():
            return {"s": value}
        case int():
            return {"i": str(value)}
        case float():
            return {"d": value}
        case list():
            return {"a": [wrap(item) for item in value]}
        case dict():
            return {"m": [[key, wrap(item)] for key, item in value.items()]}
        case _:
            return None


@dataclass(frozen=True)
class Segment:
    """One range of a built store."""

    start: int
    end: int
    records: Path
    contents: Path


@dataclass
class StoreBuilder:
    """Gathers records in order; `build` writes them."""

    seed: int = 1
    records: list[bytes] = field(default_factory=list)
    tops: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    rows: contents.ContentRows = field(default_factory=contents.ContentRows.empty)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._marks = 0

    def add(
        self,
        kind: str = "span",
        *,
        at: float | None = 0.0,
        sender: str = "loopback",
        role: str | None = None,
        received: float | None = None,
        attributes: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        **facts: Any,
    ) -> int:
        """Add one record and return its index; `at` and `received` are seconds after `START`."""
        index = len(self.records)
        self._marks = 0
        if at is not None:
            facts["time"] = str(START + round(at * SECOND))
        if "end_time" in facts:
            facts["end_time"] = str(START + round(facts["end_time"] * SECOND))
        arrived = START + round((received if received is not None else (at or 0) + 1) * SECOND)
        top: dict[str, Any] = {
            "kind": kind,
            "received": str(arrived),
            "sender": sender,
            "vocabulary": "trail/1",
        }
        if role is not None:
            top["role"] = role
        pairs = [[key, self._value(index, key, value)] for key, value in (attributes or {}).items()]
        member: dict[str, Any] = {"attributes": pairs, **(body or {})} if kind in ("span", "log") else dict(body or {})
        kept = {name: value for name, value in facts.items() if value is not None}
        for key, value in (attributes or {}).items():
            if isinstance(value, Person) and key == "user.email":
                kept.setdefault("requester", contents.pseudonym(self._keyed(value.name)))
        record = canonical({"v": 1, **top, "facts": kept, kind: member, "nonce": f"{index:032x}"})
        self.records.append(record)
        self.tops.append(top)
        self.facts.append(kept)
        return index

    def build(self, root: Path, *, cuts: Sequence[int] = (), unsigned: int = 0) -> BuiltStore:
        """Write segments `[0, cuts[0])`, `[cuts[0], cuts[1])` ...; the rest is the journal, its last `unsigned` unsigned."""
        for part in PARTS:
            (root / part).mkdir(parents=True, exist_ok=True)
        tops = {name: [top.get(name) for top in self.tops] for name in columns.TOP_LEVEL}
        batch = columns.project(self.records, tops, self.facts)
        index = pa.array(range(len(self.records)), pa.int64())
        table = pa.Table.from_batches([pa.RecordBatch.from_arrays([index, *batch.columns], schema=columns.SCHEMA)])
        kept = pa.Table.from_batches([self.rows.to_batch()])
        places = kept.column("index").to_pylist()
        segments = []
        start = 0
        for end in cuts:
            name = f"{start}-{end}.0.parquet"
            low, high = (sum(1 for place in places if place < bound) for bound in (start, end))
            write_records(root / "records" / name, table.slice(start, end - start).to_batches())
            write_contents(root / "contents" / name, kept.slice(low, high - low).to_batches())
            segments.append(Segment(start, end, root / "records" / name, root / "contents" / name))
            start = end
        first = sum(1 for place in places if place < start)
        return BuiltStore(root, self.records, segments, BuiltTail(table.slice(start), kept.slice(first), unsigned))

    def _keyed(self, name: str) -> bytes:
        return contents.keyed_digest(b"secret", "person", name.encode())

    def _value(self, index: int, key: str, value: Any) -> Any:
        if isinstance(value, Person):
            return self._keep(index, key, value.name.encode(), Kept(value.name), name=value.name)
        if isinstance(value, Kept):
            data = (value.value if value.value is not None else "x" * (value.size or 0)).encode()
            return self._keep(index, key, data, value)
        return wrap(value)

    def _keep(self, index: int, key: str, data: bytes, kept: Kept, name: str | None = None) -> Any:
        salt = self._random.randbytes(16)
        mark = content_mark(salt=salt, value=data, type="s", rule=kept.rule)
        if not kept.lost:
            rows = self.rows
            rows.index.append(index)
            rows.ordinal.append(self._marks)
            rows.field.append(key)
            rows.type.append("s")
            rows.salt.append(salt)
            rows.value.append(None if name is not None or kept.rule or kept.value is None else data)
            rows.name.append(name)
            rows.keyed.append(None if name is None else self._keyed(name))
        self._marks += 1
        return mark


@dataclass(frozen=True)
class BuiltTail:
    """Records that are not sealed."""

    records: pa.Table
    contents: pa.Table
    unsigned: int


class BuiltStore:
    """What `StoreReader` offers, over a built directory with real tiles."""

    def __init__(self, root: Path, records: list[bytes], segments: list[Segment], journal: BuiltTail) -> None:
        self.layout = Layout(root)
        self.segments = segments
        self.key_status = "pinned"
        self.all_records = records
        self.size = len(records) - journal.unsigned
        self._journal = journal
        self.root = write_tiles(root, leaf_hashes(records[: self.size])).hex()

    def verified_files(self, part: Part, segments: Iterable[Segment] | None = None) -> list[Path]:
        chosen = self.segments if segments is None else segments
        return [segment.records if part == "records" else segment.contents for segment in chosen]

    def tail(self, *, include_unsigned: bool = False) -> BuiltTail:
        if include_unsigned:
            return self._journal
        keep = self._journal.records.num_rows - self._journal.unsigned
        places = self._journal.contents.column("index").to_pylist()
        kept = sum(1 for place in places if place < self.size)
        return BuiltTail(self._journal.records.slice(0, keep), self._journal.contents.slice(0, kept), 0)

    def record(self, index: int) -> bytes:
        return self.all_records[index]


def write_tiles(root: Path, leaves: bytes) -> bytes:
    """Write the hash tiles of a tree and return its root."""
    builder = TileBuilder(0, {})
    builder.extend(leaves)
    for level, n, width, data in builder.drain():
        path = root / tile_path(level, n, width)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return builder.root()


def loads(record: bytes) -> dict[str, Any]:
    """A record's bytes as a mapping."""
    value: dict[str, Any] = orjson.loads(record)
    return value
