"""A partial `verify`: it finds what it reads, names what it does not, and never says *verified*."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacks import flip, rewrite, with_value
from stores import Home, request, seal, send, small_store

from ledger.fsck import Report, Scope

FIRST = "records/0-6.0.parquet"
SECOND = "records/6-12.0.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three sealed segments and a tail in the journal; 21 records."""
    return small_store(tmp_path_factory.mktemp("scope") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    return original.copy(tmp_path / "home")


def failures(report: Report) -> set[tuple[str, str | None]]:
    return {(failure.what, failure.file) for failure in report.failures}


@pytest.mark.parametrize("scope", [Scope(rows=False), Scope(since=6), Scope(rows=False, since=20), Scope(since_received=1 << 62)])
def test_a_partial_run_is_never_verified(home: Home, scope: Scope) -> None:
    report = home.verify(scope=scope)
    assert (report.verdict, report.failures) == ("unverifiable", [])
    assert report.not_checked
    assert report.as_json()["completeness"]["verdict"] == "not_checkable"


def test_a_time_before_everything_leaves_nothing_out(home: Home) -> None:
    report = home.verify(scope=Scope(since_received=1))
    assert (report.records, report.verdict) == (21, "verified")


def test_fast_compares_bytes_and_reads_no_rows(home: Home) -> None:
    report = home.verify(scope=Scope(rows=False))
    assert (report.records, report.by_bytes) == (6, 15), "the journal has no seal: its records are read"
    assert report.not_checked == ["rows of 3 segments: records, columns and contents; their files are as they were sealed"]
    flip(home.store / FIRST, 300)
    assert failures(home.verify(scope=Scope(rows=False))) == {("file", FIRST)}


def test_since_reads_what_is_newer(home: Home) -> None:
    report = home.verify(scope=Scope(since=6))
    assert report.records == 15
    assert report.not_checked == ["records 0 to 6: neither rows nor the bytes of their files, nor the tiles of them alone"]
    rewrite(home.store / SECOND, lambda table: with_value(table, "outcome", 2, "denied"))
    assert ("column", SECOND) in failures(home.verify(scope=Scope(since=6)))


def test_since_does_not_see_what_it_says_it_does_not_read(home: Home) -> None:
    flip(home.store / FIRST, 300)
    assert home.verify(scope=Scope(since=6)).failures == []
    assert home.verify(scope=Scope(since=5)).failures, "one record of the file is enough to read all of it"


def test_older_files_must_at_least_be_there(home: Home) -> None:
    path = home.store / FIRST
    path.write_bytes(path.read_bytes() + b"\0")
    assert failures(home.verify(scope=Scope(since=6))) == {("file", FIRST)}
    path.unlink()
    assert ("file", FIRST) in failures(home.verify(scope=Scope(since=6)))


@pytest.mark.parametrize("scope", [Scope(rows=False), Scope(since=12), Scope(rows=False, since=12)])
def test_the_root_and_the_history_are_always_checked(home: Home, tmp_path: Path, scope: Scope) -> None:
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(11))
    cut = backup.verify(scope=scope, against=[home.checkpoint], last_signed=None)
    assert (cut.verdict, [failure.what for failure in cut.rollback]) == ("failed", ["rollback"])
    flip(max(home.files("tile/0/000.p/*"), key=lambda path: int(path.name)), 20 * 32)
    assert home.verify(scope=scope).verdict == "failed"


def test_a_since_behind_the_end_reads_only_the_tree(home: Home) -> None:
    report = home.verify(scope=Scope(since=10_000))
    assert (report.verdict, report.failures) == ("unverifiable", [])


def test_partial_runs_beside_a_writer_that_merges(tmp_path: Path) -> None:
    home = small_store(tmp_path / "home", tail=False)
    with home.writing() as writer:
        for seed in range(30, 36):
            send(writer, request(seed))
            seal(writer)
            writer.sealer.merge_once()
            for scope in (Scope(rows=False), Scope(since=writer.log.size - 3)):
                assert home.verify(scope=scope).failures == []
