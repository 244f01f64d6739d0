"""Two writers at once, and a writer that is killed between any two durable steps: one store, nothing acknowledged lost, no fork signed.

Every call that there is, in all flavours, is gone through in `tests/faults`; here is one point for each step of the order of writes.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from crashes import Disk, break_and_recover
from stores import Home, new_home, request, send, settle
from trail_process import run_trail

from ledger.errors import StoreLocked
from tui.exits import Exit


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return new_home(
        tmp_path_factory.mktemp("empty") / "home",
        segment_records=1000, compact_fan_in=2, compact_records=1000, compact_grace_seconds=0.05,
    )  # fmt: skip


def test_20_a_second_process_is_refused_and_told_by_whom(home: Home) -> None:
    env = {"TRAIL_KEY": str(home.key), "TRAIL_STATE": str(home.state.path.parent)}
    with home.writing() as writer:
        before = home.checkpoint
        ran = run_trail("serve", "--store", home.store, "--http", "127.0.0.1:0", env=env)
        assert ran.code == Exit.STORAGE, ran.err
        assert f'"pid": {os.getpid()}' in ran.err
        assert ran.out == ""
        # The one that has the lock is not disturbed, and nothing of its store has changed.
        assert home.checkpoint.startswith(before.split(b"\n")[0])
        send(writer, request(71))
        settle(writer)
    assert home.verify().verdict == "verified"


def race(base: Path, start: Barrier, answers: multiprocessing.Queue[str]) -> None:
    """Take the store at the same time as others do; who gets it holds it until all have tried."""
    home = Home(base)
    start.wait()
    try:
        writer = home.open()
    except StoreLocked:
        answers.put("locked")
        start.wait()
        return
    answers.put("open")
    send(writer, request(os.getpid(), count=2))
    start.wait()
    writer.close()


def test_20_of_many_processes_one_writes(home: Home) -> None:
    context = multiprocessing.get_context("forkserver")
    count = 4
    start, answers = context.Barrier(count), context.Queue()
    processes = [context.Process(target=race, args=(home.base, start, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        said = sorted(answers.get(timeout=60) for _ in processes)
    except queue.Empty:
        said = ["they wait for each other"]
    for process in processes:
        process.join(60)
        process.kill()
    assert said == ["locked"] * (count - 1) + ["open"]
    report = home.verify()
    assert (report.verdict, report.size > 21) == ("verified", True)


STEPS = {
    "the journal is written": ("write", "journal"),
    "the journal is synced": ("fdatasync", "journal"),
    "a tile is put in place": ("replace", "tile"),
    "the head is kept outside the store": ("replace", "state"),
    "the checkpoint is published": ("replace", "store/.checkpoint"),
    "the contents file gets its name": ("link", "contents"),
    "the records file gets its name": ("link", "records"),
    "the side file is written": ("write", ".seal"),
    "the tiles are synced": ("fsync", "tile"),
    "the journal is dropped": ("unlink", "journal"),
}
"""Each step of the order of writes (`ledger/FORMAT.md`, section 13), as the call that makes it."""


@pytest.mark.parametrize("step", STEPS)
def test_20_killed_before_and_after(empty: Home, tmp_path: Path, step: str) -> None:
    only, where = STEPS[step]
    disks = [Disk(tmp_path, at, how, only=only, where=where) for at, how in ((0, "kill before"), (1, "kill after"))]
    assert break_and_recover(empty, tmp_path, disks) == []
