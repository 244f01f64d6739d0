"""One record by its place in a records file: any row groups, any threads, and a file that changed is not read from memory."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger import columns, lookup
from ledger.errors import CorruptSegment
from ledger.lookup import RecordLookup
from ledger.segment import with_index


def record(number: int, text: str = "") -> bytes:
    return b'{"n":%d,"text":"%s"}' % (number, text.encode() * (number % 7))


def write(path: Path, count: int, group: int, text: str = "") -> Path:
    batch = columns.project([record(n, text) for n in range(count)], {"kind": "span", "received": "1", "sender": "a"}, [{}] * count)
    with pq.ParquetWriter(path, columns.SCHEMA, store_schema=False) as writer:
        for start in range(0, count, group):
            writer.write_table(pa.Table.from_batches([with_index(batch.slice(start, group), start)]), row_group_size=group)
    return path


@pytest.mark.parametrize(("count", "group"), [(1, 1), (100, 10), (95, 10), (2000, 1500), (1500, 512)])
def test_every_row_is_found_whatever_the_row_groups(tmp_path: Path, count: int, group: int) -> None:
    path = write(tmp_path / "r.parquet", count, group, "abc")
    found = RecordLookup()
    assert [found.read(path, row) for row in range(count)] == [record(row, "abc") for row in range(count)]
    for row in (-1, count, count + 10_000):
        with pytest.raises(CorruptSegment, match="has no row"):
            found.read(path, row)
    found.close()
    assert found.read(path, count - 1) == record(count - 1, "abc"), "closed files are opened again"
    found.close()


def test_only_so_many_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_OPEN_FILES", 2)
    paths = [write(tmp_path / f"{number}.parquet", 20, 10, str(number)) for number in range(4)]
    found = RecordLookup()
    for _ in range(2):
        for number, path in enumerate(paths):
            assert found.read(path, 11) == record(11, str(number))
            assert len(found._opened) <= 2
    assert list(found._opened) == paths[2:], "the one used longest ago goes first"
    found.close()


def test_another_file_under_the_name_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "r.parquet", 20, 10, "old")
    found = RecordLookup()
    assert found.read(path, 15) == record(15, "old")
    write(tmp_path / "new.parquet", 30, 7, "new").replace(path)
    assert found.read(path, 15) == record(15, "new")
    shutil.copy(write(tmp_path / "again.parquet", 40, 9, "again"), path)  # in place, under the same inode
    assert found.read(path, 35) == record(35, "again")
    path.unlink()
    with pytest.raises(CorruptSegment, match="is missing"):
        found.read(path, 15)
    path.write_bytes(b"no Parquet at all")
    with pytest.raises(CorruptSegment, match="cannot be read as Parquet"):
        found.read(path, 15)
    found.close()


def test_threads_get_their_own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_OPEN_FILES", 1)
    paths = [write(tmp_path / f"{number}.parquet", 200, 64, str(number)) for number in range(2)]
    found = RecordLookup()
    places = [(number % 2, number * 37 % 200) for number in range(400)]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda place: found.read(paths[place[0]], place[1]), places))
    assert got == [record(row, str(number)) for number, row in places]
    found.close()
