"""What somebody does to a store who can write its files and does not have its key; and what `verify` must say then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from stores import Home, new_home, request, send

from ledger.fsck_report import Report

FIRST = "records/0-6.0.parquet"
"""The first records file of `stores.small_store`."""
SECOND = "records/6-12.0.parquet"
CONTENTS = "contents/0-6.0.parquet"


def named(report: Report) -> set[tuple[str, str | None, int | None]]:
    """What a report calls false: (what, file, index) of each failure."""
    return {(failure.what, failure.file, failure.index) for failure in [*report.rollback, *report.failures]}


def require_failed(report: Report, *, what: str, file: str | None = None, index: int | None = None) -> None:
    """The verdict is *failed*, and one failure is this one; `file` or `index` None means any.

    Raises:
        AssertionError: otherwise.
    """
    assert report.verdict == "failed", report.as_json()
    assert report.as_json()["verdict"] == "failed"
    assert any(w == what and (file is None or f == file) and (index is None or i == index) for w, f, i in named(report)), named(report)


def files_of(home: Home) -> list[str]:
    """The files of a store that hold records, contents, tiles, the checkpoint or the journal."""
    return [
        path.relative_to(home.store).as_posix()
        for pattern in ("records/*", "contents/*", "tile/**/*", "checkpoint", "journal/*")
        for path in home.files(pattern)
        if path.is_file()
    ]


def one_of_each(home: Home) -> list[str]:
    """Of a `stores.small_store`: the current tile, the newest journal, and one file of each other kind."""
    names = files_of(home)
    kinds = {(name.split("/")[0], name.endswith(".seal")): name for name in names if name not in (SECOND, SECOND + ".seal")}
    return [name for name in kinds.values() if not name.startswith("tile/")] + ["tile/0/000.p/21", FIRST, FIRST + ".seal"]


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


def rebuild(home: Home, place: Path, *, requests: int) -> None:
    """Delete a store and make one of the same origin anew, with the same key: what the holder of the key can do.

    Args:
        home: the log; its last-signed state stays as it was.
        place: where the new one is made.
        requests: how many requests the new log has; with none only a start and a stop.
    """
    new = new_home(place, segment_records=1000)
    for name in ("keys", "config"):
        shutil.rmtree(new.base / name)
        shutil.copytree(home.base / name, new.base / name)
    with new.writing() as writer:
        for seed in range(requests):
            send(writer, request(900 + seed, count=4))
    restore(home, new)
