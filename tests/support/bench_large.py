"""A valid store of many records, made without the ingestion path: for what must not depend on how large a store is.

DuckDB writes the record bytes and the columns beside them, `hashlib` the leaves, `ledger.tree` the tiles; each million records are one
Parquet file, their seals stand behind them in the journal, and the checkpoint is signed (`ledger/FORMAT.md` sections 2, 5, 7 to 10: the
seal commits to the bytes, whatever made them). That `trail verify` calls the store verified is the test of this generator.

    python tests/support/bench_large.py PLACE 10000000 [FILLER]
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from ledger import columns, durable, merkle
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.journal import JournalWriter, encode_frame, encode_part
from ledger.keys import Pins
from ledger.layout import Layout, SealedFile, journal_name
from ledger.note import Signer
from ledger.record import OwnRecord
from ledger.segment import Extent, Seal, encode_side_file, hash_file, write_records
from ledger.tree import TreeWriter
from ledger.writer import create

FILE_RECORDS: Final = 1_000_000
"""What a merge aims at."""
START_NS: Final = 1_760_000_000_000_000_000
STEP_NS: Final = 36_000_000
RESOURCES: Final = 100_000
FILLER: Final = 2
"""Times 32 bytes of text that compresses: 2 makes records of 590 bytes, 12 of 910, about what `bench_store` has."""
ORIGIN: Final = "bench.example/large"
_CHUNK: Final = 131_072
"""Records made at once: eight row groups."""
_QUERY: Final = """
WITH numbered AS (SELECT range AS i, md5('nonce' || range) AS nonce, $start + range * $step AS moment FROM range($low, $high)),
named AS (
    SELECT i, nonce, moment, 'run-' || (i // 40) AS run, 'call_' || i AS action, 'orders/' || (i * 7 % $resources) AS resource,
        md5('trace' || (i // 20)) AS trace, nonce[:16] AS span
    FROM numbered
)
SELECT
    i AS "index", 'span' AS kind, make_timestamp_ns($start) AS received, 'loopback' AS sender, 'otel-genai/1' AS vocabulary,
    make_timestamp_ns(moment) AS time, 'bench' AS service, run AS run_id, trace AS trace_id, span AS span_id, 'support-agent' AS agent,
    'execute_tool' AS event, 'execute_tool edit_file' AS name, action AS action_id, 'edit_file' AS tool, resource, 'ok' AS outcome,
    'update' AS change_kind,
    encode(concat(
        '{"facts":{"action_id":"', action, '","agent":"support-agent","change_kind":"update","event":"execute_tool","name":"execute_tool ',
        'edit_file","outcome":"ok","resource":"', resource, '","run_id":"', run, '","service":"bench","span_id":"', span,
        '","time":"', moment, '","tool":"edit_file","trace_id":"', trace, '"},"kind":"span","nonce":"', nonce, '","received":"', $start,
        '","sender":"loopback","span":{"attributes":[["text",{"s":"', repeat(trace, $filler),
        '"}]]},"v":1,"vocabulary":"otel-genai/1"}'
    )) AS record
FROM named ORDER BY i
"""


@dataclass(frozen=True)
class Large:
    """The store, and the key of its log."""

    root: Path
    signer: Signer
    records: int
    """Under the checkpoint: those asked for, and a seal for each file."""
    record_bytes: int
    """Of all records together."""

    @property
    def vkey(self) -> str:
        """The public key to believe."""
        return self.signer.vkey


@dataclass(frozen=True)
class _Made:
    """One file, as a worker reports it."""

    seal: Seal
    leaves: bytes
    record_bytes: int


def make_large(place: Path, records: int, *, filler: int = FILLER, processes: int | None = None) -> Large:
    """Write a store of this many spans, and a seal for each million, below `place`; memory does not grow with it."""
    root = place / "store"
    layout = Layout(root)
    key = create(root, origin=ORIGIN, key_path=place / "key", pins=Pins(place / "pins.json"))
    tree = TreeWriter.load(root, 0)
    files = [SealedFile(low, min(low + FILE_RECORDS, records), 0, "records") for low in range(0, records, FILE_RECORDS)]
    seals = []
    record_bytes = 0
    for made in _in_order(layout, files, filler, processes or os.cpu_count() or 1):
        _grow(tree, made.leaves)
        seals.append(made.seal)
        record_bytes += made.record_bytes
    encoded = _write_seals(layout, records, seals)
    _grow(tree, merkle.leaf_hashes(encoded))
    head = Checkpoint(ORIGIN, tree.size, tree.root())
    durable.replace(layout.checkpoint, sign_checkpoint(head, key.signer))
    return Large(root, key.signer, tree.size, record_bytes + sum(map(len, encoded)))


def _grow(tree: TreeWriter, leaves: bytes) -> None:
    tree.extend(leaves)
    tree.write()
    tree.take_unsynced()  # forgotten: the store is thrown away before the next power cut


def _write_seals(layout: Layout, start: int, seals: list[Seal]) -> list[bytes]:
    """The records that seal the files, as the journal from `start` on, and beside each file."""
    rows = [_seal_record(seal) for seal in seals]
    encoded = [row.encode() for row in rows]
    tops = {"kind": "seal", "received": str(START_NS), "sender": "trail"}
    batch = columns.project(encoded, tops, [dict(row.members()["facts"]) for row in rows])
    journal = JournalWriter(layout.journal / journal_name(start=start, generation=0), start=start)
    journal.write(encode_frame(start, [encode_part(batch, None)]))
    journal.sync()
    journal.close()
    for index, (seal, record) in enumerate(zip(seals, encoded, strict=True), start):
        durable.write_once(layout.root / (seal.file.name + ".seal"), encode_side_file(index=index, record=record), sync=False)
    return encoded


def _in_order(layout: Layout, files: list[SealedFile], filler: int, processes: int) -> Iterator[_Made]:
    """The files as they are made, first to last; never more of them ahead than there are processes, or leaves would pile up."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: list[Future[_Made]] = []
        for file in files:
            running.append(pool.submit(_make_file, layout, file, filler))
            if len(running) > processes:
                yield running.pop(0).result()
        for future in running:
            yield future.result()


def _make_file(layout: Layout, file: SealedFile, filler: int) -> _Made:
    leaves = []
    record_bytes = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal record_bytes
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("SET enable_progress_bar = false")
        for low in range(file.start, file.end, _CHUNK):
            values = {"low": low, "high": min(low + _CHUNK, file.end), "filler": filler}
            values |= {"start": START_NS, "step": STEP_NS, "resources": RESOURCES}
            table = connection.sql(_QUERY, params=values).to_arrow_table()
            held: list[bytes] = table.column("record").to_pylist()
            leaves.append(merkle.leaf_hashes(held))
            record_bytes += sum(map(len, held))
            yield from _as_stored(table).to_batches()

    path = layout.root / file.name
    extent = write_records(path, batches())
    return _Made(_seal(file, path, extent), b"".join(leaves), record_bytes)


def _as_stored(table: pa.Table) -> pa.Table:
    """With the columns of a records file; those the query does not give are NULL."""
    arrays: list[Any] = []
    for field in columns.SCHEMA:
        given = field.name in table.column_names
        arrays.append(table.column(field.name).cast(field.type) if given else pa.nulls(table.num_rows, field.type))
    return pa.Table.from_arrays(arrays, schema=columns.SCHEMA)


def _seal(file: SealedFile, path: Path, extent: Extent) -> Seal:
    digest, size = hash_file(path)
    return Seal(
        file=file, sha256=digest, size_bytes=size, rows=extent.rows, supersedes=(), contents=None, min_time=extent.min_time,
        max_time=extent.max_time, min_received=START_NS, max_received=START_NS,
    )  # fmt: skip


def _seal_record(seal: Seal) -> OwnRecord:
    nonce = hashlib.sha256(seal.file.name.encode()).digest()[:16]
    return OwnRecord(
        kind="seal", received=START_NS, sender="trail", role=None, body=seal.body(), facts={"name": seal.file.name}, nonce=nonce
    )


if __name__ == "__main__":
    start = time.perf_counter()
    store = make_large(Path(sys.argv[1]), int(sys.argv[2]), filler=int(sys.argv[3]) if len(sys.argv) > 3 else FILLER)
    seconds = time.perf_counter() - start
    print(f"{store.records} records of {store.record_bytes / store.records:.0f} bytes in {seconds:.1f} s: {store.root} {store.vkey}")
