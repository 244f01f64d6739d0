"""A writer killed, cut off or refused at every call that changes the store or makes it durable: what was acknowledged is there.

The oracle after each: every acknowledged record once and at the index of its receipt, no checkpoint that was ever signed contradicted,
`verify` says *verified*; after an error that was only reported, nothing of a request that was told it failed.
"""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crashes import ERRORS, KILLS, Diary, Disk, require_absent, require_kept, run_driven
from stores import Home, new_home

CALLS = 360
"""About as many calls as the driven scenario makes; beyond its end nothing breaks, which is a case too."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return new_home(
        tmp_path_factory.mktemp("empty") / "home",
        segment_records=1000, compact_fan_in=2, compact_records=1000, compact_grace_seconds=0.05,
    )  # fmt: skip


def one(empty: Home, base: Path, disk: Disk) -> list[str]:
    """Drive a writer over this disk, then start again over what it left; what is wrong."""
    home = empty.copy(base / "home")
    disk.base = base / "home"
    diary = Diary(base / "diary")
    wrong = []
    code = run_driven(home.base, diary.path, disk)
    if code not in (0, -9):
        wrong.append(f"exit code {code}")
    if disk.how in KILLS and disk.how != "power" and (home.store / "checkpoint").exists():
        # An auditor or a reader may come before the next start.
        report = home.verify()
        if report.verdict != "verified":
            wrong.append(f"before the start: {report.as_json()['integrity']}")
        home.read()
    if disk.how in ERRORS and not disk.for_ever and diary.read("in vain"):
        wrong.append(f"did not go on: {diary.read('in vain')}")
    home.open().close()
    report = home.verify()
    if report.verdict != "verified":
        wrong.append(f"after the start: {report.as_json()['integrity']}")
    try:
        require_kept(home, diary)
        if disk.how in ERRORS and not disk.for_ever:
            require_absent(home, diary)
    except AssertionError as exc:
        wrong.append(str(exc))
    shutil.rmtree(base)
    return [f"{disk.how} at {disk.at} ({diary_of(diary)}): {line}" for line in wrong]


def diary_of(diary: Diary) -> str:
    return ", ".join(line[0] for line in diary.read("broken")) if diary.path.exists() else "killed"


def all_of(empty: Home, base: Path, disks: list[Disk]) -> list[str]:
    """Two at a time; what is wrong in all of them."""

    def number(pair: tuple[int, Disk]) -> list[str]:
        return one(empty, base / str(pair[0]), pair[1])

    with ThreadPoolExecutor(2) as pool:
        return [line for lines in pool.map(number, enumerate(disks)) for line in lines]


def test_the_scenario_runs_through_on_a_good_disk(empty: Home, tmp_path: Path) -> None:
    home = empty.copy(tmp_path / "home")
    diary = Diary(tmp_path / "diary")
    assert run_driven(home.base, diary.path, Disk(home.base, 10**9, "never")) == 0
    assert [len(diary.read(kind)) for kind in ("acknowledged", "refused", "in vain", "end")] == [5, 0, 0, 1]
    ((calls,),) = diary.read("calls")
    assert CALLS - 120 < calls < CALLS, "the points below are spread over all calls"
    require_kept(home, diary)
    assert len(home.files("records/*.parquet")) == 2, "it seals and merges"


@pytest.mark.parametrize(
    ("how", "first", "step"), [("kill before", 5, 47), ("kill half", 11, 53), ("kill after", 23, 43), ("power", 17, 31)]
)
def test_killed(empty: Home, tmp_path: Path, how: str, first: int, step: int) -> None:
    assert all_of(empty, tmp_path, [Disk(tmp_path, at, how) for at in range(first, CALLS, step)]) == []


@pytest.mark.parametrize(("how", "first", "step"), [("error before", 3, 61), ("error half", 19, 67), ("error after", 27, 59)])
def test_one_call_fails(empty: Home, tmp_path: Path, how: str, first: int, step: int) -> None:
    assert all_of(empty, tmp_path, [Disk(tmp_path, at, how) for at in range(first, CALLS, step)]) == []


@pytest.mark.parametrize(
    ("call", "where"),
    [("fdatasync", "journal"), ("fsync", "journal"), ("write", "journal"), ("write", "tile"), ("replace", "tile"), ("link", "records"),
     ("fsync", "contents"), ("write", ".seal"), ("replace", "store/.checkpoint"), ("replace", "state"), ("unlink", "journal")],
)  # fmt: skip
def test_one_call_of_each_kind_fails(empty: Home, tmp_path: Path, call: str, where: str) -> None:
    disks = [Disk(tmp_path, at, how, only=call, where=where) for at, how in ((0, "error after"), (1, "error before"))]
    assert all_of(empty, tmp_path, disks) == []


def test_a_disk_that_fails_for_ever_ends_the_writer_in_order(empty: Home, tmp_path: Path) -> None:
    disks = [Disk(tmp_path, at, "error before", number=errno.ENOSPC, for_ever=True) for at in (60, 250)]
    assert all_of(empty, tmp_path, disks) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [*KILLS, *ERRORS])
def test_every_call(empty: Home, tmp_path: Path, how: str) -> None:
    assert all_of(empty, tmp_path, [Disk(tmp_path, at, how) for at in range(CALLS)]) == []


@pytest.mark.slow
def test_a_disk_that_fails_for_ever_from_many_calls_on(empty: Home, tmp_path: Path) -> None:
    disks = [Disk(tmp_path, at, how, number=errno.ENOSPC, for_ever=True) for at in range(0, CALLS, 10) for how in ERRORS]
    assert all_of(empty, tmp_path, disks) == []
