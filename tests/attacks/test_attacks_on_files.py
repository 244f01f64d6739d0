"""Attacks on the files of a store: rows, values, statistics, segments, columns. What `verify` says, and which file and record it names.

The numbers are those of the table in `README.md` beside this file.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attacks import CONTENTS, FIRST, SECOND, footer_start, named, remove_segment, require_failed, rewrite, swap, with_value, without_row
from stores import Home, new_home, request, seal, send

from ledger.errors import CorruptSegment


def test_the_undamaged_store_is_verified(home: Home) -> None:
    report = home.verify()
    assert report.verdict == "verified", report.as_json()
    assert report.as_json()["integrity"] == {
        "verdict": "verified",
        "records": 21,
        "segments": 3,
        "contents": {"matching": 16, "erased": 0, "never_kept": 11, "missing": 0},
        "failures": [],
        "failures_not_listed": 0,
        "not_checked": [],
    }
    assert report.not_judged == []


def test_01_edit_a_row(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        record = table.column("record")[3].as_py()
        return with_value(table, "record", 3, record.replace(b"support-agent", b"Support-agent"))

    rewrite(home.store / FIRST, change)
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    require_failed(report, what="record", file=FIRST, index=3)
    assert {index for what, _file, index in named(report) if what == "record"} == {3}


def test_01_edit_only_a_column(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: with_value(table, "outcome", 2, "denied"))
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    require_failed(report, what="column", file=FIRST, index=2)
    assert any("outcome" in failure.why for failure in report.failures)


def test_01_remove_a_row(home: Home) -> None:
    rewrite(home.store / SECOND, lambda table: without_row(table, 2))
    report = home.verify()
    require_failed(report, what="record", file=SECOND, index=8)
    require_failed(report, what="file", file=SECOND)


def test_01_insert_a_row(home: Home) -> None:
    rewrite(home.store / SECOND, lambda table: pa.concat_tables([table.slice(0, 2), table.slice(1, 1), table.slice(2)]))
    require_failed(home.verify(), what="file", file=SECOND)


def test_01_reorder_rows(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: table.take([0, 2, 1, 3, 4, 5]))
    report = home.verify()
    require_failed(report, what="record", file=FIRST, index=1)
    require_failed(report, what="record", file=FIRST, index=2)


def _value_row(table: pa.Table) -> int:
    return next(i for i, value in enumerate(table.column("value").to_pylist()) if value is not None)


def test_02_edit_a_detached_value(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        row = _value_row(table)
        return with_value(table, "value", row, b"\x00" + table.column("value")[row].as_py()[1:])

    rewrite(home.store / CONTENTS, change)
    report = home.verify()
    require_failed(report, what="file", file=CONTENTS)
    require_failed(report, what="content", index=2)
    assert report.contents.missing == 0


def test_02_edit_a_person(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        row = next(i for i, name in enumerate(table.column("name").to_pylist()) if name is not None)
        return with_value(table, "name", row, "eve@example.com")

    rewrite(home.store / CONTENTS, change)
    require_failed(home.verify(), what="content", index=2)


@pytest.mark.parametrize("old", [b"run-", b"support-agent", b"refunds_agent"])
def test_03_edit_only_the_statistics(home: Home, old: bytes) -> None:
    path = home.store / FIRST
    data = path.read_bytes()
    start = footer_start(data)
    at = data.index(old, start)
    path.write_bytes(data[:at] + b"zzzz" + data[at + 4 :])
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    assert not any(what == "record" for what, _file, _index in named(report)), "every row is as it was, and only the seal knows"


def test_03_take_the_statistics_out(home: Home) -> None:
    written_again(home.store / FIRST, write_statistics=False)
    require_failed(home.verify(), what="file", file=FIRST)


def test_03_put_a_bloom_filter_in(home: Home) -> None:
    # A filter that lacks a value makes a reader skip the rows that have it.
    written_again(home.store / FIRST, bloom_filter_options={"run_id": {"ndv": 10, "fpp": 0.01}})
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    assert {what for what, _file, _index in named(report)} == {"file"}, "every row is as it was, and only the seal knows"


def written_again(path: Path, **options: Any) -> None:
    """The same rows in another file, which a reader of rows cannot tell from the first."""
    pq.write_table(pq.read_table(path), path, compression="zstd", version="2.6", data_page_version="1.0", store_schema=False, **options)


def test_03_a_reader_hashes_the_file_before_a_query_sees_it(home: Home) -> None:
    home.read().verified_files("records")
    written_again(home.store / FIRST, write_statistics=False)
    with pytest.raises(CorruptSegment) as caught:
        home.read().verified_files("records")
    assert caught.value.path is not None
    assert caught.value.path.endswith(FIRST)


def test_03_edit_the_key_value_metadata(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: table.replace_schema_metadata({"a": "b"}))
    require_failed(home.verify(), what="file", file=FIRST)


def test_04_append_bytes_after_the_footer(home: Home) -> None:
    path = home.store / FIRST
    path.write_bytes(path.read_bytes() + b"\0")
    require_failed(home.verify(), what="file", file=FIRST)


def test_04_append_a_second_footer(home: Home) -> None:
    path = home.store / FIRST
    data = path.read_bytes()
    path.write_bytes(data + data[footer_start(data) :])
    require_failed(home.verify(), what="file", file=FIRST)


def test_05_swap_two_segments(home: Home) -> None:
    swap(home.store / FIRST, home.store / SECOND)
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    require_failed(report, what="file", file=SECOND)


def test_05_swap_two_segments_and_their_side_files(home: Home) -> None:
    for name in ("", ".seal"):
        swap(home.store / (FIRST + name), home.store / (SECOND + name))
    report = home.verify()
    require_failed(report, what="side file", file=FIRST + ".seal")
    require_failed(report, what="side file", file=SECOND + ".seal")


def test_07_delete_two_adjacent_segments(home: Home) -> None:
    remove_segment(home, "0-6.0")
    remove_segment(home, "6-12.0")
    report = home.verify()
    require_failed(report, what="records", index=0)
    assert "records 0 to 12 have no file" in {failure.why for failure in report.failures}


def test_14_a_valid_segment_of_another_log(home: Home, tmp_path: Path) -> None:
    other = new_home(tmp_path / "other", segment_records=1000)
    with other.writing() as writer:
        send(writer, request(51))
        seal(writer)
    for part in ("records", "contents"):
        for suffix in ("", ".seal"):
            shutil.copy(other.store / part / f"0-6.0.parquet{suffix}", home.store / part / f"0-6.0.parquet{suffix}")
    report = home.verify()
    require_failed(report, what="side file", file=FIRST + ".seal")


def test_15_a_node_passed_off_as_a_record(home: Home) -> None:
    # A record whose bytes are "\x01 left right" would be a node if leaves were not hashed with their own prefix.
    tile = (home.store / "tile/0/000.p/21").read_bytes()

    def change(table: pa.Table) -> pa.Table:
        return with_value(table, "record", 0, b"\x01" + tile[:64])

    rewrite(home.store / FIRST, change)
    require_failed(home.verify(), what="record", file=FIRST, index=0)


def test_21_a_value_put_back_with_another_salt(home: Home) -> None:
    rewrite(home.store / CONTENTS, lambda table: with_value(table, "salt", _value_row(table), b"\0" * 16))
    require_failed(home.verify(), what="content", index=2)


def test_22_a_missing_value_without_an_erasure(home: Home) -> None:
    rewrite(home.store / CONTENTS, lambda table: without_row(table, _value_row(table)))
    report = home.verify()
    require_failed(report, what="content", index=2)
    assert report.contents.missing == 1


def test_22_a_value_emptied_without_an_erasure(home: Home) -> None:
    rewrite(home.store / CONTENTS, lambda table: with_value(table, "value", _value_row(table), None))
    report = home.verify()
    require_failed(report, what="content", index=2)
    assert report.contents.missing == 1


def test_22_a_value_given_twice(home: Home) -> None:
    rewrite(home.store / CONTENTS, lambda table: pa.concat_tables([table, table.slice(_value_row(table), 1)]))
    require_failed(home.verify(), what="content", index=2)


def test_25_a_second_column_of_the_same_name_in_another_case(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: table.append_column("KIND", table.column("sender")))
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    assert any("columns" in failure.why for failure in report.failures)


def test_25_the_same_names_with_other_types(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index("record"), "record", table.column("record").cast(pa.string()))

    rewrite(home.store / FIRST, change)
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    assert any("columns" in failure.why for failure in report.failures)
