"""What somebody does to a store who can write its files and does not have its key."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from stores import Home

from ledger.fsck_contents import ContentChecker
from ledger.fsck_files import SealClaim, SegmentReport, _check_contents
from ledger.layout import Layout
from ledger.segment import parse_side_file


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


# ---- run in a process of their own, because what they provoke may end it


def damage_footers(base: Path, seeds: range) -> list[str]:
    """Verify a store over and over with some bytes of a Parquet footer changed; what was not called failed."""
    home = Home(base)
    wrong = []
    for seed in seeds:
        rng = random.Random(seed)
        path = home.store / ("records/0-6.0.parquet", "contents/0-6.0.parquet")[seed % 2]
        data = path.read_bytes()
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 3, 8])):
            damaged[rng.randrange(footer_start(data), len(data))] = rng.choice([rng.randrange(256), 0, 255, 128])
        path.write_bytes(damaged)
        if damaged != data and home.verify().verdict != "failed":
            wrong.append(f"{path.name} {seed}")
        path.write_bytes(data)
    return wrong


def read_damaged_contents(base: Path) -> int:
    """Read a contents file with each byte of its footer flipped, one at a time; how many of them could still be read."""
    home = Home(base)
    path = home.store / "contents/0-6.0.parquet"
    data = path.read_bytes()
    index, record = parse_side_file((home.store / "contents/0-6.0.parquet.seal").read_bytes())
    claim = SealClaim.read(index, record)
    readable = 0
    for offset in range(footer_start(data), len(data)):
        flip(path, offset)
        report = SegmentReport()
        _check_contents(Layout(home.store), claim, ContentChecker(report.contents, lambda _index, _why: None), (0, 6), report)
        readable += not report.failures
        path.write_bytes(data)
    return readable
