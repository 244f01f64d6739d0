"""What `ledger/OPERATIONS.md` promises of backups, full disks and clocks, and no command on the page can show."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from load import Load, spans_of
from raw_otlp import post, span, traces
from stores import new_home, request, seal, send, settle
from trail_process import PATIENCE_SECONDS, ROOT, Server, run_trail

from ledger import history
from ledger.keys import LastSigned
from ledger.writer import StoreWriter

SNAPSHOT: Final = ROOT / "samples" / "operations" / "snapshot.sh"


def snapshot(store: Path, made: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SNAPSHOT), str(store), str(made)], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def test_snapshots_taken_under_load_are_whole_stores(tmp_path: Path, home_of: Callable[[Path], dict[str, str]]) -> None:
    env = home_of(tmp_path)
    store = tmp_path / "store"
    assert run_trail("init", "--store", store, "--origin", "example.com/backup", env=env).code == 0
    # Sealing, merging and removing what was merged, all the time.
    settings = {
        "segment_records": 60,
        "segment_age_seconds": 0.3,
        "compact_fan_in": 2,
        "compact_grace_seconds": 0.05,
        "checkpoint_seconds": 0.05,
    }
    with (store / "trail.toml").open("a") as file:
        file.write("".join(f"{name} = {value}\n" for name, value in settings.items()))
    server, load = Server(store, "--processes", "1", env=env), Load(clients=1)
    try:
        load.start(server.url)
        before: list[dict[int, str]] = []
        for number in range(6):
            until = len(load.acknowledged) + 40
            while len(load.acknowledged) < until:
                assert server.process.poll() is None, server.said
                time.sleep(0.01)
            before.append(dict(load.acknowledged))
            taken = snapshot(store, tmp_path / f"copy-{number}")
            assert taken.returncode == 0, taken.stderr
        load.stop()
        assert server.stop() == 0
    finally:
        load.stop()
        server.kill()

    elsewhere = {**env, "TRAIL_STATE": str(tmp_path / "no-state")}
    for number in range(6):
        ran = run_trail("verify", "--store", tmp_path / f"copy-{number}", "--processes", "1", "--json", env=elsewhere)
        assert (ran.code, ran.json["verdict"]) == (0, "verified"), ran.out
    # Everything acknowledged before the snapshot began is in it: in the journal, if not under the checkpoint yet.
    for number in range(6):
        copy = tmp_path / f"copy-{number}"
        found = run_trail("status", "--json", "--store", copy, env=elsewhere).json
        assert max(before[number]) < found["size"] + found["acknowledged_not_signed"]
    query = "SELECT index, span_id FROM records WHERE kind = 'span'"
    kept = {
        row["index"]: row["span_id"] for row in run_trail("sql", query, "--json", "--limit", 100_000, "--store", copy, env=elsewhere).json
    }
    signed = {index: span_id for index, span_id in before[5].items() if index < found["size"]}
    assert signed
    assert signed.items() <= kept.items()


_WATCHED_CP: Final = """#!/bin/sh
# cp, but at each call of it the test may let the log go on first.
echo >"$STEPS/asked"
until [ -e "$STEPS/done" ]; do sleep 0.01; done
rm "$STEPS/done"
PATH=${PATH#*:}
exec cp "$@"
"""
COPYINGS: Final = 7


@pytest.mark.parametrize("at", range(COPYINGS))
def test_before_any_step_of_a_snapshot_the_log_may_go_on(tmp_path: Path, at: int) -> None:
    """The order, without luck: before one of the copyings the store grows, seals, removes its journal and publishes, twice."""
    home = new_home(tmp_path / "log", segment_records=100_000, compact_fan_in=3, compact_grace_seconds=3600)
    steps, program = tmp_path / "steps", tmp_path / "bin" / "cp"
    for directory in (steps, program.parent):
        directory.mkdir()
    program.write_text(_WATCHED_CP)
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "STEPS": str(steps)}
    with home.writing() as writer:
        send(writer, request(0))
        settle(writer)
        taking = subprocess.Popen(["sh", str(SNAPSHOT), str(home.store), str(tmp_path / "copy")], env=environment)
        calls, before = 0, writer.log.size
        while taking.poll() is None:
            if not (steps / "asked").exists():
                time.sleep(0.005)
                continue
            (steps / "asked").unlink()
            for seed in (1, 3) if calls == at else ():
                send(writer, request(seed))
                seal(writer)
                send(writer, request(seed + 1))
                settle(writer)
                history.append(writer.layout, home.checkpoint, published=time.time_ns())  # as it does by itself once a minute
            calls += 1
            (steps / "done").touch()
    assert taking.returncode == 0
    assert calls >= COPYINGS
    copy = replace(home, base=tmp_path / "restored")
    shutil.copytree(home.base, copy.base, ignore=shutil.ignore_patterns("store", "state"))
    shutil.move(tmp_path / "copy", copy.store)
    report = copy.verify()
    assert (report.verdict, report.failures, report.rollback) == ("verified", [], [])
    assert before <= report.size
    assert copy.read().size == report.size


def test_a_snapshot_names_what_is_wrong(tmp_path: Path) -> None:
    nothing = snapshot(tmp_path / "none", tmp_path / "copy")
    assert (nothing.returncode, nothing.stderr) == (2, f"snapshot.sh: there is no store at {tmp_path / 'none'}\n")
    home = new_home(tmp_path / "log")
    empty = snapshot(home.store, tmp_path / "copy")
    assert empty.returncode == 1
    assert "five tries failed" in empty.stderr
    assert "checkpoint" in empty.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    with home.writing():
        pass
    assert snapshot(home.store, tmp_path / "copy").returncode == 0
    again = snapshot(home.store, tmp_path / "copy")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    assert not (tmp_path / "copy" / "lock").exists()


def test_a_snapshot_does_not_change_with_the_store(tmp_path: Path) -> None:
    home = new_home(tmp_path / "log", segment_records=1000)
    with home.writing() as writer:
        send(writer, request(1))
        settle(writer)
        assert snapshot(home.store, tmp_path / "copy").returncode == 0
        before = {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
        send(writer, request(2))
        seal(writer)
    assert {path: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()} == before


# ------------------------------------------------------------------------------------------------------------- disk, clock


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NO FULL DISK IS TESTED: a small one cannot be mounted here ({mounted.stderr.strip()})")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_and_goes_on(small_disk: Path, serving_at: Callable[..., Server]) -> None:
    store = small_disk / "store"
    assert run_trail("init", "--store", store, "--origin", "example.com/disk").code == 0
    with (store / "trail.toml").open("a") as file:
        file.write("reserve_bytes = 8388608\n")
    server = serving_at(store, "--processes", "1")
    kept = post(server.url, "/v1/traces", traces(span("before")))
    assert kept.status == 200
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 4_000_000))
    statuses = [_sent(server, f"full {number}") for number in range(3)]
    while statuses[-1] == 200:  # the disk is looked at once a second
        time.sleep(0.1)
        statuses.append(_sent(server, "full"))
    assert statuses[-1] == 503
    assert run_trail("doctor", "--store", store).code == 4
    (small_disk / "filler").unlink()
    assert _sent(server, "after") == 200
    assert server.stop() == 0
    assert run_trail("verify", "--store", store).code == 0
    assert spans_of(store)[kept.receipt[0]]
    assert len(spans_of(store)) == 1 + statuses.count(200) + 1


def _sent(server: Server, name: str) -> int:
    status: int = post(server.url, "/v1/traces", traces(span(name))).status
    return status


def test_a_disk_fuller_than_the_reserve_still_stops_cleanly(small_disk: Path, serving_at: Callable[..., Server]) -> None:
    store = small_disk / "store"
    assert run_trail("init", "--store", store, "--origin", "example.com/disk").code == 0
    server = serving_at(store, "--processes", "1")  # with the default reserve, which is more than this disk has
    ready = None
    while ready is None or ready.status == 200:  # it speaks of the last thing that was tried: what the log says itself still has room
        assert _sent(server, "no room") == 503
        ready = post(server.url, "/readyz", None, None, method="GET")
    assert (ready.status, ready.body.startswith(b"less than 268435456 bytes are free")) == (503, True)
    assert post(server.url, "/healthz", None, None, method="GET").status == 200
    assert server.stop() == 0
    assert run_trail("verify", "--store", store).code == 0


HOUR: Final = 3_600_000_000_000


@pytest.mark.parametrize(
    "steps", [[0, -6 * HOUR, HOUR], [0, 48 * HOUR, 0], [5000 * HOUR, 0, -5000 * HOUR]], ids=["back", "forward", "both"]
)
def test_a_clock_that_steps_changes_times_and_nothing_else(tmp_path: Path, steps: list[int]) -> None:
    home = new_home(tmp_path, segment_records=1000, compact_fan_in=100)
    real, offset = time.time_ns(), 0
    seen = []
    with home.writing(clock=lambda: time.time_ns() + offset) as writer:
        for number, step in enumerate(steps):
            offset = step
            receipt = send(writer, request(number, received=real + step))
            seen.append(receipt.start)
            seal(writer)
            send(writer, request(10 + number, received=real + step))
    offset = -HOUR
    with home.writing(clock=lambda: time.time_ns() + offset) as writer:  # a start behind the last stop
        seen.append(send(writer, request(20, received=real - HOUR)).start)
    assert seen == sorted(seen)
    report = home.verify()
    assert (report.verdict, report.records) == ("verified", report.size)


def test_the_doctor_sees_a_store_from_the_future(tmp_path: Path, home_of: Callable[[Path], dict[str, str]]) -> None:
    env = home_of(tmp_path)
    assert run_trail("init", "--store", tmp_path / "store", "--origin", "example.com/clock", env=env).code == 0
    key = next((tmp_path / "home" / ".config" / "trail" / "keys").glob("*.key"))
    state = LastSigned(tmp_path / "state" / "log.checkpoint")
    StoreWriter.open(tmp_path / "store", command="a test", key_path=key, last_signed=state, clock=lambda: time.time_ns() + 2 * HOUR).close()
    ran = run_trail("doctor", "--store", tmp_path / "store", "--json", env=env)
    clock = next(one for one in ran.json if one["check"] == "clock")
    assert (ran.code, clock["state"]) == (4, "fail")
    assert "in the future" in clock["found"]


@pytest.fixture
def serving_at() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(store: Path, *args: object) -> Server:
        started.append(Server(store, *args))
        return started[-1]

    yield start
    for server in started:
        server.kill()
