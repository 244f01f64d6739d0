"""kill -9 at moments nobody chose, under load, with sealing and merging going on: nothing acknowledged is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crashes import Diary, require_kept, require_no_fork, run_and_kill
from stores import Home, new_home


def rounds(tmp_path: Path, count: int, *, longest: float, seed: int = 7) -> Home:
    """Kill, start again over the same store, and so on; after each round everything is checked."""
    home = new_home(tmp_path / "home", segment_records=60, compact_fan_in=3, compact_grace_seconds=0.05, checkpoint_seconds=0.01)
    diary = Diary(tmp_path / "diary")
    rng = random.Random(seed)
    seen: list[bytes] = []
    for number in range(count):
        run_and_kill(home.base, diary.path, rng.uniform(0.01, longest))
        if (home.store / "checkpoint").exists():
            seen.append(home.checkpoint)
            report = home.verify()
            assert report.verdict == "verified", (number, report.as_json()["integrity"])
            home.read()
        home.open().close()
        report = home.verify(against=seen)
        assert report.verdict == "verified", (number, report.as_json()["integrity"])
        require_kept(home, diary)
    require_no_fork(home, seen)
    assert len(diary.read("acknowledged")) > 5 * count
    return home


def test_killed_under_load(tmp_path: Path) -> None:
    rounds(tmp_path, 4, longest=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_under_load_two_hundred_times(tmp_path: Path, seed: int) -> None:
    # Ten stores of twenty rounds: each round checks everything that came before, and one store would take ever longer.
    home = rounds(tmp_path, 20, longest=2.5, seed=seed)
    assert any(".0." not in path.name for path in home.files("records/*.parquet")), "merged files are among them"
