"""Rows of an Arrow table as plain values for JSON, CSV and the screen.

Times are ISO 8601 in UTC with nine decimals, which Python's datetime could not hold; BLOBs are hex; numbers JSON cannot say are text.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from query.rows import iso

_NANOSECONDS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """One mapping a row; of columns with the same name the later ones are numbered."""
    names = _distinct(table.column_names)
    columns = [[plain(scalar) for scalar in table.column(place)] for place in range(table.num_columns)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def plain(scalar: pa.Scalar[Any]) -> Any:
    """One value."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if pa.types.is_timestamp(kind):
        return iso(int(scalar.value) * _NANOSECONDS[kind.unit])  # type: ignore[attr-defined]  # a TimestampScalar
    if pa.types.is_map(kind):
        return [{"key": plain(pair["key"]), "value": plain(pair["value"])} for pair in scalar.values]  # type: ignore[attr-defined]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [plain(item) for item in scalar.values]  # type: ignore[attr-defined]  # a ListScalar
    if pa.types.is_struct(kind):
        return {field.name: plain(scalar[field.name]) for field in kind}  # type: ignore[index]  # a StructScalar
    return _simple(scalar.as_py())


def _simple(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _distinct(names: list[str]) -> list[str]:
    """Names as DuckDB prints them: a, a_1."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found
