"""System calls that fail, or that kill, by `strace -e inject`: below Python, where the writes of pyarrow are as well.

The oracle is that of `test_crash_points.py`: every acknowledged record once and where its receipt says, no head that was ever signed
contradicted, `verify` says *verified* after the next start, and nothing of a request that was refused.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crashes import Diary, recovered, require_kept, unverified
from stores import Home, new_home
from traced import CALLS, Fault, injected, run_traced, why_not

WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

WHAT = ("error=EIO", "error=ENOSPC", "signal=KILL")
SWEEP = {
    "sync": range(1, 64, 2),
    "write": range(1, 940, 23),
    "rename": range(1, 25, 2),
    "link": range(1, 17),
    "unlink": range(1, 44, 3),
    "cut": range(1, 3),
}
"""Which calls of a thread: as many as the busiest thread of the scenario makes of each."""


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return new_home(
        tmp_path_factory.mktemp("empty") / "home",
        segment_records=1000, compact_fan_in=2, compact_records=1000, compact_grace_seconds=0.05,
    )  # fmt: skip


def one(empty: Home, base: Path, fault: Fault) -> tuple[bool, list[str]]:
    """Was anything broken, and what was wrong afterwards?"""
    home = empty.copy(base / "home")
    diary = Diary(base / "diary")
    code = run_traced(home, diary, fault, base / "log")
    hit = code == -9 if fault.kills else bool(injected(base / "log"))
    wrong = [] if code == 0 or (fault.kills and code == -9) else [f"exit code {code}"]
    if fault.kills and (home.store / "checkpoint").exists():
        wrong += unverified(home, "before the start")
    wrong += recovered(home, diary, refused_is_absent=not fault.kills and "+" not in fault.when)
    shutil.rmtree(base)
    return hit, [f"{fault}: {line}" for line in wrong]


def test_the_scenario_makes_the_calls_that_are_swept(empty: Home, tmp_path: Path) -> None:
    home, diary, log = empty.copy(tmp_path / "home"), Diary(tmp_path / "diary"), tmp_path / "log"
    assert run_traced(home, diary, None, log) == 0
    assert (len(diary.read("acknowledged")), len(diary.read("end"))) == (5, 1)
    text = log.read_text("utf-8", errors="replace")
    for names in CALLS.values():
        assert any(f" {name.lstrip('?')}(" in text for name in names), names
    require_kept(home, diary)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("sync", "error=EIO", "3"),
        Fault("sync", "signal=KILL", "9"),
        Fault("write", "error=ENOSPC", "40"),
        Fault("write", "signal=KILL", "300"),
        Fault("rename", "error=EIO", "4"),
    ],
    ids=str,
)
def test_one_system_call(empty: Home, tmp_path: Path, fault: Fault) -> None:
    assert one(empty, tmp_path / "one", fault) == (True, [])


@pytest.mark.slow
def test_a_disk_that_is_full_from_some_call_on(empty: Home, tmp_path: Path) -> None:
    assert one(empty, tmp_path / "one", Fault("write", "error=ENOSPC", "60+")) == (True, [])


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("call", SWEEP)
def test_every_kind_of_call(empty: Home, tmp_path: Path, call: str, what: str) -> None:
    faults = [Fault(call, what, str(when)) for when in SWEEP[call]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: one(empty, tmp_path / str(pair[0]), pair[1]), enumerate(faults)))
    assert [line for _hit, wrong in found for line in wrong] == []
    # What a thread does first depends on the others, so the last numbers are not always reached.
    assert sum(hit for hit, _wrong in found) >= len(faults) * 2 // 3
