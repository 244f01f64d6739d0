"""What somebody does to a store who can write its files and does not have its key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from stores import Home


def flip(path: Path, offset: int, bit: int = 1) -> None:
    """Change one bit (or several) of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a Parquet file anew, as the writer would have, with other rows."""
    table = change(pq.read_table(path))
    pq.write_table(table, path, compression="zstd", version="2.6", data_page_version="1.0", store_schema=False)


def with_value(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    """The table with one value changed."""
    position = table.schema.get_field_index(name)
    values = table.column(name).to_pylist()
    values[row] = value
    return table.set_column(position, table.schema.field(position), pa.array(values, table.schema.field(position).type))


def without_row(table: pa.Table, row: int) -> pa.Table:
    """The table without one row."""
    return pa.concat_tables([table.slice(0, row), table.slice(row + 1)])


def swap(first: Path, second: Path) -> None:
    """Exchange two files."""
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def footer_start(data: bytes) -> int:
    """Where the footer of a Parquet file begins."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


def remove_segment(home: Home, name: str) -> None:
    """A records file, its contents file, and both side files."""
    for part in ("records", "contents"):
        for path in (home.store / part).glob(f"{name}.parquet*"):
            path.unlink()


def restore(home: Home, backup: Home, *, state: bool = False) -> None:
    """Put a copy of the store back that was made earlier; with the last-signed state if `state`."""
    shutil.rmtree(home.store)
    shutil.copytree(backup.store, home.store)
    if state:
        shutil.copytree(backup.base / "state", home.base / "state", dirs_exist_ok=True)
