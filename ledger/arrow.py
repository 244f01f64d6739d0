"""The few Arrow calls whose published types are looser or tighter than what our schemas say, each typed once.

A column of ours that is declared not null holds no None; the stubs cannot know that.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def byte_strings(column: Any) -> list[bytes]:
    """The values of a binary column that has no nulls."""
    values: list[bytes] = column.to_pylist()
    return values


def numbers(column: Any) -> list[int]:
    """The values of an integer column that has no nulls."""
    values: list[int] = column.to_pylist()
    return values


def where_equal(table: Any, name: str, value: str | int) -> Any:
    """The rows of a table or batch in which a column equals `value`; nulls do not."""
    return table.filter(is_equal(table.column(name), value))


def is_equal(column: Any, value: str | int) -> Any:
    """A mask of a column, for `filter`."""
    return pc.equal(column, pa.scalar(value, column.type))


def below(table: Any, name: str, bound: int) -> Any:
    """The rows in which an integer column is below `bound`."""
    return table.filter(pc.less(table.column(name), pa.scalar(bound, pa.int64())))
