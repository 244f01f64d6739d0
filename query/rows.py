"""Query results as plain values. Times are Unix nanoseconds inside and ISO 8601 with nine decimals outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa

NANOSECONDS: Final = 1_000_000_000
TIME_COLUMNS: Final = frozenset(
    {
        "time",
        "end_time",
        "received",
        "approval_time",
        "asked",
        "started",
        "last_seen",
        "first_seen",
        "before",
        "after",
    }
)
"""The names under which our statements and the card carry a time."""


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a result; a TIMESTAMP_NS becomes an int, which Python's datetime could not hold."""
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            column = table.column(place).cast(pa.timestamp("ns")).cast(pa.int64())
            table = table.set_column(place, field.name, column)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def iso(nanoseconds: int) -> str:
    """UTC, nine decimals.

    >>> iso(1763633000000000001)
    '2025-11-20T10:03:20.000000001Z'
    """
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def with_iso_times(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same mapping with its times as text."""
    return {key: iso(item) if key in TIME_COLUMNS and isinstance(item, int) else item for key, item in value.items()}


def duration(nanoseconds: int) -> str:
    """A span of time as a person says it, always positive.

    >>> [duration(n * NANOSECONDS) for n in (0, 2, 90, 7200, 200000)]
    ['0 s', '2 s', '1 min 30 s', '2 h', '2 d 7 h']
    """
    whole = abs(nanoseconds) / NANOSECONDS
    if 0 < whole < 10 and whole != round(whole):
        return f"{whole:.1f} s"
    seconds = round(whole)
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
