"""A writer killed, cut off or refused at every call that changes the store or makes it durable: what was acknowledged is there.

The oracle after each: every acknowledged record once and at the index of its receipt, no checkpoint that was ever signed contradicted,
`verify` says *verified*; after an error that was only reported, nothing of a request that was told it failed.
"""

from __future__ import annotations

import errno
import inspect
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest
from crashes import ERRORS, KILLS, Diary, Disk, break_and_recover, require_kept, run_driven, scenario
from stores import Home, new_home

from ledger import durable

CALLS = 360
"""About as many calls as the driven scenario makes; beyond its end nothing breaks, which is a case too."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return new_home(
        tmp_path_factory.mktemp("empty") / "home",
        segment_records=1000, compact_fan_in=2, compact_records=1000, compact_grace_seconds=0.05,
    )  # fmt: skip


def test_the_scenario_runs_through_on_a_good_disk(empty: Home, tmp_path: Path) -> None:
    home = empty.copy(tmp_path / "home")
    diary = Diary(tmp_path / "diary")
    assert run_driven(home.base, diary.path, Disk(home.base, 10**9, "never")) == 0
    assert [len(diary.read(kind)) for kind in ("acknowledged", "refused", "in vain", "end")] == [5, 0, 0, 1]
    ((calls,),) = diary.read("calls")
    assert CALLS - 120 < calls < CALLS, "the points below are spread over all calls"
    assert len(diary.read("signed")) > 4, "the oracle knows what was signed"
    require_kept(home, diary)
    assert len(home.files("records/*.parquet")) == 2, "it seals and merges"


def test_the_scenario_goes_through_every_function_that_writes(empty: Home, tmp_path: Path) -> None:
    home, diary = empty.copy(tmp_path / "home"), Diary(tmp_path / "diary")
    seen: set[str] = set()

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == durable.__file__:
            seen.add(frame.f_code.co_name)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        scenario(home, diary)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    public = {name for name, value in vars(durable).items() if inspect.isfunction(value) and value.__module__ == durable.__name__}
    assert {name for name in public if not name.startswith("_")} - seen == set()
    require_kept(home, diary)


@pytest.mark.parametrize(
    ("how", "first", "step"), [("kill before", 5, 47), ("kill half", 11, 53), ("kill after", 23, 43), ("power", 17, 31)]
)
def test_killed(empty: Home, tmp_path: Path, how: str, first: int, step: int) -> None:
    assert break_and_recover(empty, tmp_path, [Disk(tmp_path, at, how) for at in range(first, CALLS, step)]) == []


@pytest.mark.parametrize(("how", "first", "step"), [("error before", 3, 61), ("error half", 19, 67), ("error after", 27, 59)])
def test_one_call_fails(empty: Home, tmp_path: Path, how: str, first: int, step: int) -> None:
    assert break_and_recover(empty, tmp_path, [Disk(tmp_path, at, how) for at in range(first, CALLS, step)]) == []


@pytest.mark.parametrize(
    ("call", "where"),
    [("fdatasync", "journal"), ("fsync", "journal"), ("write", "journal"), ("write", "tile"), ("replace", "tile"), ("link", "records"),
     ("fsync", "contents"), ("write", ".seal"), ("replace", "store/.checkpoint"), ("replace", "state"), ("unlink", "journal")],
)  # fmt: skip
def test_one_call_of_each_kind_fails(empty: Home, tmp_path: Path, call: str, where: str) -> None:
    disks = [Disk(tmp_path, at, how, only=call, where=where) for at, how in ((0, "error after"), (1, "error before"))]
    assert break_and_recover(empty, tmp_path, disks) == []


def test_a_disk_that_fails_for_ever_ends_the_writer_in_order(empty: Home, tmp_path: Path) -> None:
    disks = [Disk(tmp_path, at, "error before", number=errno.ENOSPC, for_ever=True) for at in (60, 250)]
    assert break_and_recover(empty, tmp_path, disks) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [*KILLS, *ERRORS])
def test_every_call(empty: Home, tmp_path: Path, how: str) -> None:
    assert break_and_recover(empty, tmp_path, [Disk(tmp_path, at, how) for at in range(CALLS)]) == []


@pytest.mark.slow
def test_a_disk_that_fails_for_ever_from_many_calls_on(empty: Home, tmp_path: Path) -> None:
    disks = [Disk(tmp_path, at, how, number=errno.ENOSPC, for_ever=True) for at in range(0, CALLS, 10) for how in ERRORS]
    assert break_and_recover(empty, tmp_path, disks) == []
