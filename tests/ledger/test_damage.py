"""Every attack and fault that broke other systems, against a real store: what `verify` says, and which file and record it names.

The numbers are those of the list that these tests come from. Attacks on proofs and signatures (16 to 18) are in the tests of `merkle`,
`proof` and `note`; those on bundles come with bundles.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from attacks import flip, footer_start, remove_segment, restore, rewrite, swap, with_value, without_row
from stores import ORIGIN, Home, kill, new_home, request, seal, send, settle, small_store

from ledger.errors import StoreMissing
from ledger.fsck import Report
from ledger.note import Signer

FIRST = "records/0-6.0.parquet"
SECOND = "records/6-12.0.parquet"
CONTENTS = "contents/0-6.0.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three sealed segments, two of them with contents, and a tail in the journal; 21 records."""
    return small_store(tmp_path_factory.mktemp("damage") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    return original.copy(tmp_path / "home")


def named(report: Report) -> set[tuple[str, str | None, int | None]]:
    return {(failure.what, failure.file, failure.index) for failure in [*report.rollback, *report.failures]}


def require_failed(report: Report, *, what: str, file: str | None = None, index: int | None = None) -> None:
    """The verdict is *failed*, and one failure is this one; `index` None means any."""
    assert report.verdict == "failed"
    assert report.as_json()["verdict"] == "failed"
    assert any(w == what and (file is None or f == file) and (index is None or i == index) for w, f, i in named(report)), named(report)


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


def test_1_edit_a_row(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        record = table.column("record")[3].as_py()
        return with_value(table, "record", 3, record.replace(b"support-agent", b"Support-agent"))

    rewrite(home.store / FIRST, change)
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    require_failed(report, what="record", file=FIRST, index=3)
    assert {index for what, _file, index in named(report) if what == "record"} == {3}


def test_1_edit_only_a_column(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: with_value(table, "outcome", 2, "denied"))
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    require_failed(report, what="column", file=FIRST, index=2)
    assert any("outcome" in failure.why for failure in report.failures)


def test_1_remove_a_row(home: Home) -> None:
    rewrite(home.store / SECOND, lambda table: without_row(table, 2))
    report = home.verify()
    require_failed(report, what="record", file=SECOND, index=8)
    require_failed(report, what="file", file=SECOND)


def test_1_insert_a_row(home: Home) -> None:
    rewrite(home.store / SECOND, lambda table: pa.concat_tables([table.slice(0, 2), table.slice(1, 1), table.slice(2)]))
    require_failed(home.verify(), what="file", file=SECOND)


def test_1_reorder_rows(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: table.take([0, 2, 1, 3, 4, 5]))
    report = home.verify()
    require_failed(report, what="record", file=FIRST, index=1)
    require_failed(report, what="record", file=FIRST, index=2)


def _value_row(table: pa.Table) -> int:
    return next(i for i, value in enumerate(table.column("value").to_pylist()) if value is not None)


def test_2_edit_a_detached_value(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        row = _value_row(table)
        return with_value(table, "value", row, b"\x00" + table.column("value")[row].as_py()[1:])

    rewrite(home.store / CONTENTS, change)
    report = home.verify()
    require_failed(report, what="file", file=CONTENTS)
    require_failed(report, what="content", index=2)
    assert report.contents.missing == 0


def test_2_edit_a_person(home: Home) -> None:
    def change(table: pa.Table) -> pa.Table:
        row = next(i for i, name in enumerate(table.column("name").to_pylist()) if name is not None)
        return with_value(table, "name", row, "eve@example.com")

    rewrite(home.store / CONTENTS, change)
    require_failed(home.verify(), what="content", index=2)


@pytest.mark.parametrize("old", [b"run-", b"support-agent", b"refunds_agent"])
def test_3_edit_only_the_statistics(home: Home, old: bytes) -> None:
    path = home.store / FIRST
    data = path.read_bytes()
    start = footer_start(data)
    at = data.index(old, start)
    path.write_bytes(data[:at] + b"zzzz" + data[at + 4 :])
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    assert not any(what == "record" for what, _file, _index in named(report)), "every row is as it was, and only the seal knows"


def test_3_edit_the_key_value_metadata(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: table.replace_schema_metadata({"a": "b"}))
    require_failed(home.verify(), what="file", file=FIRST)


def test_4_append_bytes_after_the_footer(home: Home) -> None:
    path = home.store / FIRST
    path.write_bytes(path.read_bytes() + b"\0")
    require_failed(home.verify(), what="file", file=FIRST)


def test_4_append_a_second_footer(home: Home) -> None:
    path = home.store / FIRST
    data = path.read_bytes()
    path.write_bytes(data + data[footer_start(data) :])
    require_failed(home.verify(), what="file", file=FIRST)


def test_5_swap_two_segments(home: Home) -> None:
    swap(home.store / FIRST, home.store / SECOND)
    report = home.verify()
    require_failed(report, what="file", file=FIRST)
    require_failed(report, what="file", file=SECOND)


def test_5_swap_two_segments_and_their_side_files(home: Home) -> None:
    for name in ("", ".seal"):
        swap(home.store / (FIRST + name), home.store / (SECOND + name))
    report = home.verify()
    require_failed(report, what="side file", file=FIRST + ".seal")
    require_failed(report, what="side file", file=SECOND + ".seal")


def _grown(home: Home, tmp_path: Path) -> Home:
    """A backup of `home` made before it grew."""
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(11))
        seal(writer)
    return backup


def test_6_and_11_truncate_to_an_older_valid_checkpoint(home: Home, tmp_path: Path) -> None:
    backup = _grown(home, tmp_path)
    newer = home.checkpoint
    restore(home, backup)
    assert home.verify(last_signed=None).verdict == "verified", (
        "an older checkpoint is as well signed: caught only by something kept elsewhere"
    )
    for report in (home.verify(), home.verify(last_signed=None, against=[newer])):
        require_failed(report, what="rollback", index=21)
        assert report.integrity == "verified", "what is there is intact, and that is a verdict of its own"
    assert "are missing" in report.rollback[0].why


def test_6_delete_the_last_segment(home: Home) -> None:
    remove_segment(home, "12-15.0")
    report = home.verify()
    require_failed(report, what="journal", index=12)


def test_7_delete_two_adjacent_segments(home: Home) -> None:
    remove_segment(home, "0-6.0")
    remove_segment(home, "6-12.0")
    report = home.verify()
    require_failed(report, what="records", index=0)
    assert "records 0 to 12 have no file" in {failure.why for failure in report.failures}


def test_8_delete_everything(home: Home) -> None:
    shutil.rmtree(home.store)
    with pytest.raises(StoreMissing):
        home.verify()


def test_8_empty_the_store(home: Home, tmp_path: Path) -> None:
    for path in home.store.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "trail.toml":
            path.unlink()
    report = home.verify(last_signed=None)
    assert (report.verdict, report.as_json()["integrity"]["not_checked"]) == (
        "unverifiable",
        ["there is no checkpoint: nothing was compared"],
    )
    require_failed(home.verify(), what="rollback")


def test_9_replace_the_log_by_one_of_the_same_origin_and_another_key(home: Home, tmp_path: Path) -> None:
    other = small_store(tmp_path / "other")
    restore(home, other)
    assert home.verify(verifier=other.verifier, last_signed=None).verdict == "verified"
    report = home.verify()
    require_failed(report, what="checkpoint", file="checkpoint")
    assert report.as_json()["key"] == "wrong"


def test_10_and_11_a_fork_by_the_holder_of_the_key(home: Home, tmp_path: Path) -> None:
    fork = home.copy(tmp_path / "fork")
    for side, seed in ((home, 21), (fork, 22)):
        with side.writing() as writer:
            send(writer, request(seed))
    report = home.verify(last_signed=None, against=[fork.checkpoint])
    require_failed(report, what="fork")
    assert report.integrity == "verified"


def test_10_two_checkpoints_of_one_size(home: Home, tmp_path: Path) -> None:
    # Neither store is wrong in itself; together they prove that the key signed two histories.
    frozen, fork = home.copy(tmp_path / "frozen"), home.copy(tmp_path / "fork")
    for side in (frozen, fork):
        writer = side.open()
        send(writer, request(33 if side is fork else 34))
        settle(writer)
        kill(writer)
    assert frozen.verify().size == fork.verify().size
    require_failed(fork.verify(last_signed=None, against=[frozen.checkpoint]), what="fork")


def test_12_a_wrong_key_always_fails(home: Home) -> None:
    from ledger.note import Verifier

    stranger = Verifier.parse(Signer.generate(ORIGIN).vkey)
    report = home.verify(verifier=stranger)
    require_failed(report, what="checkpoint", file="checkpoint")
    assert report.key == "wrong"


def test_12_without_a_key_nothing_is_verified(home: Home) -> None:
    report = home.verify(verifier=None)
    assert (report.verdict, report.key, report.failures) == ("unverifiable", "unpinned", [])
    flip(home.store / FIRST, 500)
    assert home.verify(verifier=None).verdict == "failed", "what is false is false under any key"


def test_13_an_unsigned_tail_is_named_and_not_counted(home: Home, tmp_path: Path) -> None:
    signed = (home.checkpoint, home.state.path.read_bytes())
    writer = home.open()
    send(writer, request(41, count=2))
    settle(writer)
    kill(writer)
    (home.store / "checkpoint").write_bytes(signed[0])
    home.state.path.write_bytes(signed[1])
    for path in home.files("checkpoints/*"):
        path.unlink()
    report = home.verify()
    assert (report.verdict, report.records, report.size) == ("verified", 21, 21), report.as_json()
    assert report.not_judged == ["journal: 5 records are acknowledged and not yet under this checkpoint"]


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


def test_19_a_clock_that_steps_back_breaks_nothing(tmp_path: Path) -> None:
    times = iter([10**18, 10**18 - 10**12, 5, 10**18 + 10**12] * 100)
    home = new_home(tmp_path / "home", segment_records=1000)
    with home.writing(clock=lambda: next(times)) as writer:
        for seed in range(3):
            send(writer, request(seed, received=next(times)))
            seal(writer)
    assert home.verify().verdict == "verified"


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
