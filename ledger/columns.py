"""The columns of a records file: what of a record stands beside its bytes.

Every column is a pure projection of the record's bytes (`ledger/FORMAT.md`, "Columns"): a top-level member of
the record, or a member of its `facts`. Writers fill them once, `ledger.fsck` derives them again from the bytes
with other code and compares.

This module does *not* say where facts come from: that is the vocabularies' business (`ingest/vocabularies/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import pyarrow as pa

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Largest integer a fact may hold: beyond it readers of JSON disagree (I-JSON, RFC 7493 2.2)."""

TIME: Final = pa.timestamp("ns")
TEXT: Final = pa.string()
COUNT: Final = pa.int64()
REAL: Final = pa.float64()
CONTEXTS: Final = pa.list_(pa.struct([("source", TEXT), ("id", TEXT)]))

TOP_LEVEL: Final[dict[str, pa.DataType]] = {"kind": TEXT, "received": TIME, "sender": TEXT, "role": TEXT, "vocabulary": TEXT}
"""Columns that are members of the record itself. `received` is a decimal string of Unix nanoseconds there."""

FACTS: Final[dict[str, pa.DataType]] = {
    "time": TIME,
    "end_time": TIME,
    "service": TEXT,
    "environment": TEXT,
    "run_id": TEXT,
    "trace_id": TEXT,
    "span_id": TEXT,
    "parent_span_id": TEXT,
    "agent": TEXT,
    "agent_version": TEXT,
    "workflow": TEXT,
    "owner": TEXT,
    "requester": TEXT,
    "event": TEXT,
    "name": TEXT,
    "action_id": TEXT,
    "tool": TEXT,
    "resource": TEXT,
    "outcome": TEXT,
    "model": TEXT,
    "input_tokens": COUNT,
    "output_tokens": COUNT,
    "cost_usd_micros": COUNT,
    "tier": TEXT,
    "capability": TEXT,
    "change_kind": TEXT,
    "before_digest": TEXT,
    "after_digest": TEXT,
    "decision": TEXT,
    "decision_id": TEXT,
    "policy_id": TEXT,
    "policy_version": TEXT,
    "rule": TEXT,
    "engine": TEXT,
    "approval": TEXT,
    "approval_id": TEXT,
    "approver": TEXT,
    "approval_source": TEXT,
    "scope": TEXT,
    "shown": TEXT,
    "shown_bytes": COUNT,
    "contexts": CONTEXTS,
    "evaluation": TEXT,
    "score": REAL,
    "label": TEXT,
    "reversal": TEXT,
    "reversal_ref": TEXT,
    "prompt_version": TEXT,
    "provenance": TEXT,
    "incident": TEXT,
    "drill": TEXT,
    "drill_result": TEXT,
    "sequence": COUNT,
}
"""Columns that are members of the record's `facts`; absent means NULL. Times are decimal strings of Unix nanoseconds there."""

SCHEMA: Final = pa.schema(
    [pa.field("index", pa.int64(), nullable=False)]
    + [pa.field(name, kind) for name, kind in (TOP_LEVEL | FACTS).items()]
    + [pa.field("record", pa.binary(), nullable=False)]
)
"""The Arrow schema of a records file, in file order; `index` ascending by one, `record` the committed bytes."""

BATCH_SCHEMA: Final = pa.schema([SCHEMA.field(i) for i in range(1, len(SCHEMA))])
"""The same without `index`, which a record has only once it is sequenced."""


def project(records: list[bytes], tops: Mapping[str, Any], facts: list[dict[str, Any]]) -> pa.RecordBatch:
    """Columns for `records` from the values that were encoded into them.

    Args:
        records: the canonical bytes.
        tops: `TOP_LEVEL` names to one value for all records, or to a list with one for each; a missing name is NULL.
        facts: for each record its facts, as they stand in the bytes.

    Returns:
        A batch of `BATCH_SCHEMA`.
    """
    count = len(records)
    used: set[str] = set().union(*facts)
    columns: list[pa.Array[Any]] = []
    for name, kind in TOP_LEVEL.items():
        value = tops.get(name)
        columns.append(_column(value if isinstance(value, list) else [value] * count, kind))
    for name, kind in FACTS.items():
        columns.append(_column([fact.get(name) for fact in facts], kind) if name in used else pa.nulls(count, cast("Any", kind)))
    columns.append(pa.array(records, pa.binary()))
    return pa.RecordBatch.from_arrays(columns, schema=BATCH_SCHEMA)


def _column(values: list[Any], kind: Any) -> pa.Array[Any]:
    if kind == TIME:
        nanoseconds = pa.array([None if v is None else int(v) for v in values], pa.int64())
        return cast("pa.Array[Any]", nanoseconds.cast(TIME))
    return cast("pa.Array[Any]", pa.array(values, kind))
