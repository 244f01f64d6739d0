"""Generates large stores for measuring questions: sealed segments whose records look like an agent's, none of it signed.

Runs of 20 records, fifty at a time, interleaved as a server would see them; only the first record of a trace knows the
run's id, six of the twenty are actions on resources, one is an approval and one a policy decision. Records have about
900 bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from build_segments import SECOND, START, BuiltStore, BuiltTail, Segment, write_tiles

from ledger import columns, contents
from ledger.merkle import leaf_hashes
from ledger.record import canonical
from ledger.segment import write_contents, write_records

RUN_RECORDS = 20
CONCURRENT = 50
RESOURCES = 5_000
SEGMENT_RECORDS = 250_000
BATCH = 16_000
SPACING = 86_400 * SECOND


def resource(number: int) -> str:
    return f"/srv/app/config/service-{number:04d}.yaml"


def generate(root: Path, records: int, *, seed: int = 7) -> BuiltStore:
    """Write `records` records under `root` and return a reader of them."""
    for part in ("records", "contents"):
        (root / part).mkdir(parents=True, exist_ok=True)
    segments = []
    leaves = bytearray()
    batches = _batches(records, random.Random(seed))
    for start in range(0, records, SEGMENT_RECORDS):
        end = min(start + SEGMENT_RECORDS, records)
        name = f"{start}-{end}.0.parquet"
        took: list[pa.RecordBatch] = []
        while sum(batch.num_rows for batch in took) < end - start:
            took.append(next(batches))
            leaves += leaf_hashes(took[-1].column("record").to_pylist())
        write_records(root / "records" / name, took)
        write_contents(root / "contents" / name, [])
        files = (root / "records" / name, root / "contents" / name)
        segments.append(Segment(start, end, *files))
    journal = BuiltTail(columns.SCHEMA.empty_table(), contents.SCHEMA.empty_table(), 0)
    store = BuiltStore(root, [], segments, journal)
    store.size = records
    store.root = write_tiles(root, bytes(leaves)).hex()
    return store


def _batches(total: int, source: random.Random) -> Iterator[pa.RecordBatch]:
    runs = [_run(source, number) for number in range(CONCURRENT)]
    step = SPACING // total
    index, started = 0, CONCURRENT
    while index < total:
        held: list[dict[str, Any]] = []
        limit = min(BATCH, total - index, SEGMENT_RECORDS - index % SEGMENT_RECORDS)
        while len(held) < limit:
            place = source.randrange(CONCURRENT)
            facts = next(runs[place], None)
            if facts is None:
                runs[place] = _run(source, started)
                started += 1
                continue
            facts |= {"time": str(START + index * step), "index": index}
            held.append(facts)
            index += 1
        yield _batch(held, source)


def _batch(held: list[dict[str, Any]], source: random.Random) -> pa.RecordBatch:
    first = held[0]["index"]
    kinds = [facts.pop("kind") for facts in held]
    for facts in held:
        facts.pop("index")
    tops = {
        "kind": kinds,
        "received": [facts["time"] for facts in held],
        "sender": "loopback",
        "vocabulary": "trail/1",
    }
    filler = "status of the order, delivery and payment " * 6
    records = [
        canonical(
            {
                **{
                    "v": 1,
                    "kind": kind,
                    "received": facts["time"],
                    "sender": "loopback",
                    "vocabulary": "trail/1",
                },
                "facts": facts,
                kind: {
                    "attributes": [
                        ["app.note", {"s": source.randbytes(100).hex()}],
                        ["app.text", {"s": filler}],
                    ]
                },
            }
        )
        for kind, facts in zip(kinds, held, strict=True)
    ]
    batch = columns.project(records, tops, held)
    index = pa.array(range(first, first + len(held)), pa.int64())
    return pa.RecordBatch.from_arrays([index, *batch.columns], schema=columns.SCHEMA)


def _run(source: random.Random, number: int) -> Iterator[dict[str, Any]]:
    trace = f"{source.getrandbits(128):032x}"
    root = f"{source.getrandbits(64):016x}"
    common = {
        "kind": "span",
        "trace_id": trace,
        "agent": f"agent-{number % 7}",
        "service": "app",
        "workflow": "configure",
    }
    yield {**common, "span_id": root, "run_id": f"run-{number:06d}", "event": "invoke_agent"}
    for turn in range(1, RUN_RECORDS):
        facts = {**common, "span_id": f"{source.getrandbits(64):016x}", "parent_span_id": root}
        call = f"call_{number:06d}_{turn // 3 * 3}"
        if turn == 9:
            facts |= {"kind": "log", "action_id": call, "approval": "approved", "event": "trail.approval"}
            facts |= {"approver": f"approver-{number % 40}", "approval_source": "human"}
        elif turn == 10:
            facts |= {"kind": "log", "action_id": call, "decision": "allow", "event": "trail.policy.decision"}
            facts |= {"policy_id": "config", "policy_version": "3"}
        elif turn % 3 == 2:
            facts |= {"action_id": call, "tool": "edit", "outcome": "ok", "event": "execute_tool"}
            facts |= {"resource": resource(source.randrange(RESOURCES)), "change_kind": "config"}
        else:
            facts |= {"model": "m-1", "input_tokens": 100, "output_tokens": 20, "event": "chat"}
        yield facts
