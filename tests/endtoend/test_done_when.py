"""What has to hold before anything is built on top of it, each by the command as a user types it.

Two more are shown in `tests/ledger/test_format.py`: the leaf check as one SQL statement in stock DuckDB, and a reader of forty lines that
reaches the same root and signature. That any byte of any sealed file is covered is gone through in `tests/attacks` and in
`tests/ledger/test_damage_anywhere.py`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from attacks import flip, footer_start
from load import SPANS, Load, spans_of
from raw_otlp import post, span, text, traces
from trail_process import Ran, Server, command_line, environment, run_trail

from tui.exits import Exit

Serve = Callable[..., Server]
QUESTIONS = ("WHAT", "WHO", "POLICY", "SAW", "UNDO", "INTACT")
SMALL = "segment_records = 400\nsegment_age_seconds = 0.5\ncompact_fan_in = 3\ncompact_grace_seconds = 0.2\n"
"""So that a few hundred spans are sealed and merged while they are sent."""


@dataclass(frozen=True)
class Demo:
    """What `trail demo` left, and what it said."""

    place: Path
    env: dict[str, str]
    ran: Ran

    @property
    def store(self) -> Path:
        return self.place / "trail-demo"

    def run(self, *args: object) -> Ran:
        return run_trail(*args, "--store", self.store, env=self.env)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, home_of: Callable[[Path], dict[str, str]]) -> Demo:
    place = tmp_path_factory.mktemp("demo")
    env = home_of(place)
    return Demo(place, env, run_trail("demo", cwd=place, env=env))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = run_trail("init", "--store", tmp_path / "store")
    assert made.code == Exit.OK, made.err
    return tmp_path / "store"


def configure(store: Path, lines: str) -> None:
    settings = store / "trail.toml"
    settings.write_text(settings.read_text("utf-8") + lines, "utf-8")


def count(store: Path, where: str, *args: object) -> int:
    ran = run_trail("sql", f"SELECT count(*) AS n FROM records WHERE {where}", "--json", *args, "--store", store)  # noqa: S608 - ours
    assert ran.code == Exit.OK, ran.err
    return int(ran.json[0]["n"])


# ---------------------------------------------------------------------------------------------------------- the demo


def test_the_demo_fills_all_six_answers(demo: Demo) -> None:
    assert demo.ran.code == Exit.OK, demo.ran.err
    # A line begins with a blank where the question is answered, with ~ where it is in part and with ? where it is not.
    assert re.findall(r"^([ ~?])\d ([A-Z]+) ", demo.ran.out, re.MULTILINE) == [(" ", name) for name in QUESTIONS]
    card = demo.run("ask", "config/refunds.yaml", "--json").json["cards"][0]
    assert [card[name.lower()]["status"] for name in QUESTIONS] == ["answered"] * 6
    assert all(card[name.lower()]["records"] for name in QUESTIONS)
    assert demo.run("verify").code == Exit.OK


def test_the_demo_shows_damage_by_file_and_record(demo: Demo) -> None:
    good, _, bad = demo.ran.out.partition("FAILED")
    assert "VERIFIED" in good
    file = re.search(r"FALSE  file: (records/\S+\.parquet), record \d+: is not the file that record \d+ sealed", bad)
    assert file is not None
    assert (demo.store / file[1]).is_file()
    assert re.search(rf"FALSE  record: {re.escape(file[1])}, record (\d+): record \1 is not what the log commits to", bad)


def test_sql_counts_exactly_what_was_sent(demo: Demo) -> None:
    sent = re.search(r"(\d+) spans, (\d+) log records", demo.ran.err)
    assert sent is not None
    rows = demo.run("sql", "SELECT kind, count(*) AS n FROM records WHERE kind IN ('span', 'log') GROUP BY kind", "--json").json
    assert {row["kind"]: row["n"] for row in rows} == {"span": int(sent[1]), "log": int(sent[2])}


# ------------------------------------------------------------------------------------------------------- what is false


def test_a_rollback_fails_against_a_kept_checkpoint(demo: Demo, tmp_path: Path) -> None:
    backup, kept = tmp_path / "backup", tmp_path / "kept.txt"
    vkey = demo.run("info", "--json").json["vkey"]
    shutil.copytree(demo.store, backup)
    now = tmp_path / "now"
    shutil.copytree(demo.store, now)
    (key,) = (Path(demo.env["XDG_CONFIG_HOME"]) / "trail" / "keys").glob("*.key")
    # In a home of its own: the writer's last-signed state would find the rollback before the checkpoint does.
    grown = Server(now, "--key", key, "--processes", 1)
    try:
        assert post(grown.url, "/v1/traces", traces(span("one more"))).status == 200
        assert grown.stop() == Exit.OK, grown.said
    finally:
        grown.kill()
    assert run_trail("checkpoint", "-o", kept, "--store", now, "--key", vkey).code == Exit.OK
    assert run_trail("verify", "--against", kept, "--store", now, "--key", vkey).code == Exit.OK

    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]))
    assert run_trail("verify", "--store", backup, "--key", vkey).code == Exit.OK
    ran = run_trail("verify", "--against", kept, "--store", backup, "--key", vkey)
    assert ran.code == Exit.FALSE
    assert ran.out.startswith("FAILED")
    assert re.search(r"FALSE .*checkpoint", ran.out)


def test_a_store_without_a_pinned_key_is_unverifiable(demo: Demo) -> None:
    ran = run_trail("verify", "--store", demo.store)  # this test's home has pinned nothing
    assert ran.code == Exit.UNVERIFIABLE
    assert ran.out.startswith("UNVERIFIABLE")
    assert "--key" in ran.out


@pytest.mark.parametrize("part", ["records", "contents"])
def test_one_byte_of_a_footers_statistics_is_found_and_named(demo: Demo, tmp_path: Path, part: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(demo.store, store)
    path = max((store / part).glob("*.parquet"), key=lambda found: found.stat().st_size)
    table, group = pq.read_table(path), pq.read_metadata(path).row_group(0)
    columns = [group.column(place) for place in range(group.num_columns)]
    place, least = next(
        (place, column.statistics.min)
        for place, column in enumerate(columns)
        if column.statistics is not None and column.statistics.has_min_max and isinstance(column.statistics.min, str)
    )
    data = path.read_bytes()
    flip(path, data.index(least.encode(), footer_start(data)))
    # The file can still be read, every row is what it was, and a reader that trusts statistics would skip rows.
    assert pq.read_metadata(path).row_group(0).column(place).statistics.min != least
    assert pq.read_table(path).equals(table)

    ran = run_trail("verify", "--store", store, env=demo.env)
    assert ran.code == Exit.FALSE
    assert f"FALSE  file: {part}/{path.name}" in ran.out
    asked = run_trail("ask", "config/refunds.yaml", "--store", store, env=demo.env)
    assert (asked.code, asked.out) == (Exit.FALSE, "")
    assert path.name in asked.err


# ----------------------------------------------------------------------------------------------------- how soon it is there


def test_a_record_is_visible_within_two_seconds(store: Path, serving: Serve) -> None:
    server = serving(store, "--processes", 1)
    assert post(server.url, "/v1/traces", traces(span("at once"))).status == 200
    assert count(store, "name = 'at once'", "--tail") == 1
    for name in ("one", "two"):
        assert post(server.url, "/v1/traces", traces(span(name))).status == 200
        acknowledged = asked = time.monotonic()
        while not count(store, f"name = '{name}'"):
            asked = time.monotonic()
        assert asked - acknowledged < 2.0  # when the question was asked that had it in its answer
    assert server.stop() == Exit.OK


# ------------------------------------------------------------------------------------------------------- how it may stop


def test_sigterm_under_load_loses_nothing_acknowledged(store: Path, serving: Serve) -> None:
    configure(store, SMALL)
    load = Load()
    server = serving(store)
    load.start(server.url)
    time.sleep(1.0)
    server.process.send_signal(signal.SIGTERM)
    load.stop()
    assert server.process.wait(60) == Exit.OK, server.said
    assert "Traceback" not in server.said
    assert len(load.acknowledged) > 5 * SPANS

    kept = spans_of(store)
    assert load.acknowledged.items() <= kept.items()
    assert len(set(kept.values())) == len(kept)
    status = run_trail("status", "--store", store, "--json").json
    assert (status["acknowledged_not_signed"], status["writer"]) == (0, None)
    assert run_trail("verify", "--store", store).code == Exit.OK


def test_kill_9_under_load_again_and_again_loses_nothing_acknowledged(store: Path, serving: Serve) -> None:
    configure(store, SMALL)
    chance, load = random.Random(7), Load()
    for _round in range(3):
        server = serving(store, "--processes", 1)
        load.settle(server.url)
        load.start(server.url)
        time.sleep(chance.uniform(0.1, 1.2))
        server.kill()
        load.stop()
    for delay in (0.4, 0.7):
        # And in the middle of a start, which is a recovery.
        process = subprocess.Popen(
            command_line("--store", store, "serve", "--http", "127.0.0.1:0"),
            env=environment(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
    server = serving(store, "--processes", 1)
    load.settle(server.url)
    assert server.stop() == Exit.OK, server.said

    # Every span exactly once, where its receipt says, those included that were sent again because nothing was answered.
    assert len(load.acknowledged) > 10 * SPANS
    assert spans_of(store) == load.acknowledged
    assert count(store, "kind = 'lifecycle' AND name = 'stop'") == 1
    assert run_trail("verify", "--store", store).code == Exit.OK


# --------------------------------------------------------------------------------------------------- what is in the way


class SmallDisk:
    """A filesystem of its own, of 16 MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, leave: int = 0) -> None:
        """Take all the room there is, but for some bytes."""
        with self._ballast.open("ab", buffering=0) as ballast:
            space = os.statvfs(self.path)
            wanted = space.f_bavail * space.f_frsize - leave
            while wanted > 0:
                try:
                    wanted -= ballast.write(bytes(min(wanted, 1 << 16)))
                except OSError:  # the server has taken some of it meanwhile
                    return

    def free(self) -> None:
        self._ballast.unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", self.path], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, text=True, check=False)
        problem = mounted.stderr.strip() if mounted.returncode else ""
    except OSError as exc:
        problem = str(exc)
    if problem:
        pytest.skip(f"NOT TESTED: what happens on a full or a read-only disk, because no small one can be mounted here ({problem})")
    try:
        yield SmallDisk(place)
    finally:
        subprocess.run(["umount", "-l", place], check=True, capture_output=True)


def test_a_full_disk_refuses_before_it_breaks(disk: SmallDisk, serving: Serve) -> None:
    store = disk.path / "store"
    assert run_trail("init", "--store", store).code == Exit.OK
    configure(store, "reserve_bytes = 1\nsegment_age_seconds = 600\n")
    server = serving(store, "--processes", 1)
    kept: list[str] = []

    def send(name: str) -> int:
        answer = post(server.url, "/v1/traces", traces(span(name, text("note", "x" * 100_000))))
        if answer.status == 200:
            kept.append(name)
        else:
            assert answer.headers["Retry-After"] in ("1", "2")
            assert "send it again" in answer.failure.message
        return answer.status

    assert send("before") == 200
    disk.fill()
    assert [send(f"full {number}") for number in range(3)] == [503, 503, 503]
    assert re.search("the disk is full|less than 1 bytes are free", server.said)  # who notices first: the write or the look ahead
    assert "free space" in server.said
    # A full disk can be read, and verified, at any time.
    assert count(store, "kind = 'span'", "--tail") == len(kept) == 1
    disk.free()
    assert [send(f"after {number}") for number in range(3)] == [200, 200, 200]
    disk.fill()
    assert send("full again") == 503
    assert server.stop() == Exit.STORAGE
    assert re.search(r"stopped: [0-9]+ records could not be sealed; they stay in the journal", server.said)
    refused = run_trail("serve", "--http", "127.0.0.1:0", "--store", store)
    assert (refused.code, refused.out) == (Exit.STORAGE, "")
    assert "the disk is full" in refused.err
    assert "free space" in refused.err
    assert "nothing acknowledged was lost" in refused.err
    assert "Traceback" not in refused.err

    disk.free()
    server = serving(store, "--processes", 1)
    assert server.stop() == Exit.OK
    ran = run_trail("sql", "SELECT name FROM records WHERE kind = 'span' ORDER BY index", "--json", "--store", store)
    assert [row["name"] for row in ran.json] == kept
    assert run_trail("verify", "--store", store).code == Exit.OK


def test_the_reserve_leaves_room_for_a_clean_stop(disk: SmallDisk, serving: Serve) -> None:
    store = disk.path / "store"
    assert run_trail("init", "--store", store).code == Exit.OK
    configure(store, f"reserve_bytes = {6 << 20}\n")
    server = serving(store, "--processes", 1)
    disk.fill(leave=7 << 20)
    statuses: list[int] = []
    while 503 not in statuses and len(statuses) < 200:
        statuses.append(post(server.url, "/v1/traces", traces(span("note", text("note", os.urandom(50_000).hex())))).status)
        time.sleep(0.05)  # the disk is looked at once a second
    assert statuses[-1] == 503
    assert server.stop() == Exit.OK, server.said
    assert count(store, "kind = 'span'") == statuses.count(200)
    assert run_trail("status", "--store", store, "--json").json["sealed"] > statuses.count(200)
    assert run_trail("verify", "--store", store).code == Exit.OK


def test_a_read_only_disk_can_be_read_and_not_written(disk: SmallDisk, demo: Demo) -> None:
    store = disk.path / "store"
    shutil.copytree(demo.store, store)
    disk.remount("ro")
    try:
        assert run_trail("verify", "--store", store, env=demo.env).code == Exit.OK
        assert run_trail("ask", "config/refunds.yaml", "--store", store, env=demo.env).code == Exit.OK
        (key,) = (Path(demo.env["XDG_CONFIG_HOME"]) / "trail" / "keys").glob("*.key")
        for args in (["serve", "--http", "127.0.0.1:0", "--key", key, "--store", store], ["init", "--store", disk.path / "new"]):
            ran = run_trail(*args)
            assert (ran.code, ran.out) == (Exit.STORAGE, "")
            assert "Read-only file system" in ran.err
            assert "run as the account that owns the store, on a writable disk" in ran.err
    finally:
        disk.remount("rw")


def test_a_second_writer_is_told_who_the_first_is(store: Path, serving: Serve) -> None:
    server = serving(store, "--processes", 1)
    ran = run_trail("serve", "--http", "127.0.0.1:0", "--store", store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "another process writes to this store" in ran.err
    assert f'"pid": {server.process.pid}' in ran.err
    assert "stop that process, or send your telemetry to it; reading needs no lock" in ran.err
    assert post(server.url, "/v1/traces", traces(span("still here"))).status == 200
    assert server.stop() == Exit.OK


def test_a_missing_key_and_a_newer_store(store: Path) -> None:
    (key,) = (Path(os.environ["XDG_CONFIG_HOME"]) / "trail" / "keys").glob("*.key")
    aside = key.rename(key.with_suffix(".aside"))
    ran = run_trail("serve", "--http", "127.0.0.1:0", "--store", store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert str(key) in ran.err
    assert "name it with --key or TRAIL_KEY; without it the store can be read and verified, but not written" in ran.err
    aside.rename(key)

    settings = store / "trail.toml"
    settings.write_text(settings.read_text("utf-8").replace("format = 1", "format = 2"), "utf-8")
    for verb in (["serve", "--http", "127.0.0.1:0"], ["verify"], ["sql", "SELECT 1"]):
        ran = run_trail(*verb, "--store", store)
        assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
        assert "says store format 2; this program knows format 1" in ran.err
        assert "use the version of trail that made this store, or a newer one" in ran.err
