"""Sealed files, their seals and side files, and which of them are the store."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import Home, new_home, request, seal, send

from ledger import columns, contents
from ledger.errors import CorruptSegment, MalformedError, UnsupportedFormat
from ledger.layout import Layout, SealedFile, seal_name
from ledger.seals import FoundSeal, in_force, live_segments, merge_candidates
from ledger.segment import (
    Extent,
    Seal,
    check_file,
    encode_side_file,
    hash_file,
    parse_side_file,
    read_batches,
    with_index,
    write_contents,
    write_records,
)

SHA = "ab" * 32


def a_seal(name: str, **values: Any) -> Seal:
    file = SealedFile.parse(name)
    assert file is not None
    defaults: dict[str, Any] = {
        "file": file, "sha256": SHA, "size_bytes": 10, "rows": file.end - file.start, "supersedes": (), "contents": None,
        "min_time": 1, "max_time": 2, "min_received": 3, "max_received": 4,
    }  # fmt: skip
    return Seal(**(defaults | values))


def record_of(seal: Seal) -> bytes:
    return json.dumps({"v": 1, "kind": "seal", "seal": seal.body()}).encode()


def found(*names: str, **more: Any) -> list[FoundSeal]:
    return [FoundSeal(a_seal(name, **more), 100 + number, b"") for number, name in enumerate(names)]


# ---- names


@given(
    start=st.integers(min_value=0),
    size=st.integers(min_value=1),
    generation=st.integers(min_value=0),
    part=st.sampled_from(["records", "contents"]),
)
def test_names_are_parsed_back(start: int, size: int, generation: int, part: Any) -> None:
    file = SealedFile(start, start + size, generation, part)
    assert SealedFile.parse(file.name) == file
    assert file.sibling("records").part == "records"
    assert seal_name(file.name) == file.name + ".seal"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "records/",
        "records/0-5.parquet",
        "records/00-5.0.parquet",
        "records/5-5.0.parquet",
        "records/6-5.0.parquet",
        "other/0-5.0.parquet",
        "records/0-5.0.parquet.seal",
        "records/../records/0-5.0.parquet",
        "records/0-5.00.parquet",
        "records/\u0660-5.0.parquet",
        "0-5.0.parquet",
    ],
)
def test_other_names_are_none(name: str) -> None:
    assert SealedFile.parse(name) is None


# ---- seals and side files

TIMES = st.none() | st.integers(min_value=-(2**63), max_value=2**63 - 1)


@given(
    low=TIMES,
    high=TIMES,
    rows=st.integers(min_value=0),
    supersedes=st.lists(st.sampled_from(["records/0-5.0.parquet", "records/5-9.0.parquet"])),
)
def test_seals_are_parsed_back(low: int | None, high: int | None, rows: int, supersedes: list[str]) -> None:
    both = low is not None and high is not None
    seal = a_seal(
        "records/0-9.1.parquet", rows=rows, supersedes=tuple(supersedes), contents="contents/0-9.1.parquet",
        min_time=low if both else None, max_time=high if both else None,
    )  # fmt: skip
    assert Seal.parse(record_of(seal)) == seal


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"v": 2}, UnsupportedFormat), ({"kind": "note"}, MalformedError), ({"seal": None}, MalformedError), ({"seal": []}, MalformedError),
        ({"seal": {}}, MalformedError), ({"seal": {"file": "records/0-9.1.parquet", "start": 0, "end": 8}}, MalformedError),
        ({"seal": {"file": 1}}, MalformedError), ({"seal": {"file": "nothing", "start": 0, "end": 9}}, MalformedError),
    ],
)  # fmt: skip
def test_other_records_are_no_seals(change: dict[str, Any], error: type[Exception]) -> None:
    value = json.loads(record_of(a_seal("records/0-9.1.parquet"))) | change
    with pytest.raises(error):
        Seal.parse(json.dumps(value).encode())


@pytest.mark.parametrize("member", ["sha256", "bytes", "rows", "supersedes", "min_received", "max_received", "file", "start", "end"])
def test_a_seal_without_a_member_is_malformed(member: str) -> None:
    value = json.loads(record_of(a_seal("records/0-9.1.parquet")))
    del value["seal"][member]
    with pytest.raises(MalformedError):
        Seal.parse(json.dumps(value).encode())


@given(index=st.integers(min_value=0, max_value=2**63 - 1), record=st.binary(max_size=200))
def test_side_files_are_parsed_back(index: int, record: bytes) -> None:
    data = encode_side_file(index=index, record=record)
    assert parse_side_file(data) == (index, record)
    assert data.endswith(b"\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"index":1,"record":"e30="}',
        b'{"index": 1,"record":"e30="}\n',
        b'{"record":"e30=","index":1}\n',
        b'{"index":1,"record":"e31="}\n',
        b'{"index":1,"record":"e30"}\n',
        b'{"index":1.0,"record":"e30="}\n',
        b'{"index":true,"record":"e30="}\n',
        b'{"index":-1,"record":"e30="}\n',
        b'{"index":"1","record":"e30="}\n',
        b'{"index":1,"record":5}\n',
        b'{"index":1,"record":"e30=","x":1}\n',
        b'{"index":1,"record":"e30="}\n\n',
        b'{"index":1,"index":1,"record":"e30="}\n',
    ],
)
def test_a_side_file_has_one_form(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_side_file(data)


# ---- which files are the store


def test_segments_tile_the_records_from_zero() -> None:
    segments = live_segments(found("records/0-5.0.parquet", "contents/0-5.0.parquet", "records/5-9.0.parquet"))
    assert [(s.start, s.end, s.contents is not None, len(s.seals)) for s in segments] == [(0, 5, True, 2), (5, 9, False, 1)]


def test_a_merge_replaces_what_it_supersedes() -> None:
    old = found("records/0-5.0.parquet", "records/5-9.0.parquet", "contents/5-9.0.parquet")
    new = [
        FoundSeal(a_seal("contents/0-9.1.parquet", supersedes=("contents/5-9.0.parquet",)), 200, b""),
        FoundSeal(
            a_seal(
                "records/0-9.1.parquet", supersedes=("records/0-5.0.parquet", "records/5-9.0.parquet"), contents="contents/0-9.1.parquet"
            ),
            201,
            b"",
        ),
    ]
    (segment,) = live_segments([*old, *new])
    assert [f.seal.file.name for f in segment.seals] == ["records/0-9.1.parquet", "contents/0-9.1.parquet"]
    # Only the contents were sealed when the crash came: the merge has not happened.
    assert [s.end for s in live_segments([*old, new[0]])] == [5, 9]


@pytest.mark.parametrize(
    ("names", "what", "index"),
    [
        (["records/5-9.0.parquet"], "records 0 to 5 have no records file", 0),
        (["records/0-5.0.parquet", "records/6-9.0.parquet"], "records 5 to 6 have no records file", 5),
        (["records/0-5.0.parquet", "records/4-9.0.parquet"], "records 4 to 5 are sealed twice", 4),
    ],
)
def test_gaps_and_doubles_are_named(names: list[str], what: str, index: int) -> None:
    with pytest.raises(CorruptSegment, match=what) as caught:
        live_segments(found(*names))
    assert caught.value.index == index


def test_contents_that_were_sealed_must_be_there() -> None:
    with pytest.raises(CorruptSegment, match="contents file of records 0 to 5"):
        live_segments(found("records/0-5.0.parquet", contents="contents/0-5.0.parquet"))


def test_of_two_seals_of_one_name_the_later_counts() -> None:
    seals = [
        FoundSeal(a_seal("records/0-5.0.parquet", sha256="11" * 32), 7, b""),
        FoundSeal(a_seal("records/0-5.0.parquet", sha256="22" * 32), 9, b""),
    ]
    for order in (seals, seals[::-1]):
        assert [f.seal.sha256 for f in in_force(order)] == ["22" * 32]


@given(sizes=st.lists(st.integers(min_value=1, max_value=300), max_size=60), fan_in=st.integers(min_value=2, max_value=10))
def test_merging_comes_to_an_end_and_keeps_files_few(sizes: list[int], fan_in: int) -> None:
    target, merges = 1000, 0
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    segments = live_segments(found(*[f"records/{end - size}-{end}.0.parquet" for size, end in zip(sizes, ends, strict=True)]))
    while group := merge_candidates(segments, fan_in=fan_in, target=target):
        assert len(group) >= fan_in
        assert sum(s.end - s.start for s in group) <= target
        assert all(one.end == other.start for one, other in pairwise(group))
        merged = live_segments(found(f"records/{group[0].start}-{group[-1].end}.{merges + 1}.parquet"), start=group[0].start)
        at = segments.index(group[0])
        segments = [*segments[:at], *merged, *segments[at + len(group) :]]
        merges += 1
        assert merges <= len(sizes)
    assert sum(s.end - s.start for s in segments) == sum(sizes)


# ---- Parquet


def batches(count: int = 40) -> list[pa.RecordBatch]:
    asked = request(1, count=count, received=1_763_633_000_000_000_000)
    return [with_index(pa.ipc.read_record_batch(pa.py_buffer(asked.parts[0].records), columns.BATCH_SCHEMA), 0)]


def test_records_are_read_back_with_their_extent(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    extent = write_records(path, batches())
    table = pa.Table.from_batches(batches())
    assert pa.Table.from_batches(read_batches(path)).equals(table)
    times = table.column("time").cast(pa.int64()).to_pylist()
    assert (extent.rows, extent.min_time, extent.max_time) == (40, min(times), max(times))
    assert extent.min_received == extent.max_received == table.column("received").cast(pa.int64())[0].as_py()
    assert pq.ParquetFile(path).schema_arrow.names == columns.SCHEMA.names


def test_duckdb_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_records(path, batches())
    rows = duckdb.execute("SELECT index, name, record FROM read_parquet($path) ORDER BY index", {"path": str(path)}).fetchall()
    table = pa.Table.from_batches(batches()).select(["index", "name", "record"])
    assert rows == list(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))


def test_columns_with_secrets_have_no_statistics(tmp_path: Path) -> None:
    write_records(tmp_path / "r.parquet", batches())
    rows = pa.ipc.read_record_batch(pa.py_buffer(request(1).parts[0].contents), contents.SCHEMA)
    write_contents(tmp_path / "c.parquet", [rows])
    for name in ("r", "c"):
        metadata = pq.ParquetFile(tmp_path / f"{name}.parquet").metadata
        group = metadata.row_group(0)
        with_statistics = {group.column(i).path_in_schema for i in range(group.num_columns) if group.column(i).statistics is not None}
        assert not with_statistics & {"record", "salt", "value", "keyed", "name"} - ({"name"} if name == "r" else set())


def test_an_extent_without_times_has_none() -> None:
    extent = Extent()
    extent.add(columns.project([b"{}"], {"received": "5"}, [{}]))
    assert (extent.min_time, extent.max_time, extent.min_received) == (None, None, 5)


def test_files_are_compared_with_their_seals(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    write_records(path, batches())
    digest, size = hash_file(path)
    seal = a_seal("records/0-40.0.parquet", sha256=digest, size_bytes=size)
    check_file(path, seal)
    for wrong in ({"sha256": SHA}, {"size_bytes": size + 1}):
        with pytest.raises(CorruptSegment, match="not the file that was sealed") as caught:
            check_file(path, dataclasses.replace(seal, **wrong))
        assert caught.value.actual == digest
    path.unlink()
    with pytest.raises(CorruptSegment, match="is missing"):
        check_file(path, seal)
    with pytest.raises(CorruptSegment, match="is missing"):
        list(read_batches(path))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1", b"x" * 1000])
def test_what_is_no_parquet_is_corrupt(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.parquet").write_bytes(data)
    with pytest.raises(CorruptSegment):
        list(read_batches(tmp_path / "r.parquet"))


def test_sealing_the_same_journal_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_records(tmp_path / name, batches())
    assert hash_file(tmp_path / "a") == hash_file(tmp_path / "b")


def test_a_seal_says_what_its_file_holds(tmp_path: Path) -> None:
    home: Home = new_home(tmp_path / "home", segment_records=1000)
    with home.writing() as writer:
        send(writer, request(1, received=1_763_633_000_000_000_000))
        seal(writer)
        (segment,) = writer.sealer.segments
    assert segment.contents is not None
    assert segment.records.seal.contents == segment.contents.seal.file.name
    for sealed in segment.seals:
        path = Layout(home.store).root / sealed.seal.file.name
        assert (sealed.seal.sha256, sealed.seal.size_bytes) == hash_file(path)
        assert sealed.seal.rows == pq.ParquetFile(path).metadata.num_rows
        assert parse_side_file((home.store / seal_name(sealed.seal.file.name)).read_bytes()) == (sealed.index, sealed.record)
        assert json.loads(sealed.record)["facts"]["name"] == sealed.seal.file.name
