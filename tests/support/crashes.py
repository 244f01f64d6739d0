"""A disk that breaks on purpose, and a writer driven over it in a process of its own.

`Disk` stands between Python and the operating system: it counts every call that changes the store or makes it durable, and at the chosen
one kills the process, cuts the power or reports an error, with the call done, half done or not done. Nothing of the ledger is replaced,
but for two waiting times and the merge, which is run in the same process so that its calls are counted too.
"""

from __future__ import annotations

import errno
import functools
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stores import Home, all_records, request, seal, send, settle, wait_for

import ledger.log
import ledger.sealer
from ledger import merkle
from ledger.checkpoint import open_checkpoint
from ledger.errors import LedgerError
from ledger.sealing import merge
from ledger.tree import tile_nodes

KILLS = ("kill before", "kill half", "kill after", "power")
ERRORS = ("error before", "error half", "error after")
REAL: dict[str, Any] = {
    name: getattr(os, name)
    for name in ("open", "close", "write", "pwrite", "fsync", "fdatasync", "link", "unlink", "replace", "ftruncate", "mkdir")
}
COUNTED = ("write", "pwrite", "fsync", "fdatasync", "link", "unlink", "replace", "ftruncate", "mkdir")


@dataclass
class Disk:
    """Breaks at call number `at` (from 0) below `base`, in one of the ways of `KILLS` and `ERRORS`; `for_ever` from that call on."""

    base: Path
    at: int
    how: str
    number: int = errno.EIO
    for_ever: bool = False
    only: str = ""
    """Count only this call, of those whose path holds `where`."""
    where: str = ""
    calls: int = 0
    armed: bool = False
    broken: list[str] = field(default_factory=list)
    _paths: dict[int, str] = field(default_factory=dict)
    _unsynced: dict[str, int] = field(default_factory=dict)
    """Bytes that survive a power cut, of the files that were written since their last fsync."""
    _synced: set[str] = field(default_factory=set)
    """Files whose bytes were made durable, by whichever library they were written."""
    _before: dict[str, dict[str, bytes | None]] = field(default_factory=dict)
    """By directory: what each name was (None: not there) before it was first touched since the directory's last fsync."""
    _one_at_a_time: Any = None

    def install(self) -> None:
        """Stand between."""
        self._one_at_a_time = threading.RLock()  # after a power cut nobody goes on; made here, because a lock goes into no other process
        os.open = self._open  # type: ignore[assignment]
        for name in COUNTED:
            setattr(os, name, self._counted(name))
        self.armed = True

    def remove(self) -> None:
        """Give the operating system back."""
        for name, function in REAL.items():
            setattr(os, name, function)
        self.armed = False

    def _open(self, path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        name = os.fsdecode(path) if not isinstance(path, int) else ""
        with self._one_at_a_time:
            if self.armed and flags & os.O_CREAT and name.startswith(str(self.base)) and not Path(name).exists():
                self._remember(name)
            fd: int = REAL["open"](path, flags, *arguments, **keywords)
            self._paths[fd] = name
        return fd

    def _counted(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            first = arguments[0]
            path = self._paths.get(first, "") if isinstance(first, int) else os.fsdecode(first)
            if not path.startswith(str(self.base)) or not self.armed:
                return REAL[name](*arguments, **keywords)
            with self._one_at_a_time:
                return self._call(name, path, arguments, keywords)

        return call

    def _call(self, name: str, path: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if self.only in ("", name) and self.where in path.removeprefix(str(self.base)):
            number, self.calls = self.calls, self.calls + 1
            if number == self.at or (self.for_ever and number > self.at):
                return self._break(name, path, arguments, keywords)
        self._note_names(name, path, arguments)
        result = REAL[name](*arguments, **keywords)
        self._note(name, path, arguments)
        return result

    def _break(self, name: str, path: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if len(self.broken) < 3:
            self.broken.append(f"{name} {Path(path).relative_to(self.base)}")
        half = self.how.endswith("half") and name == "write" and len(arguments[1]) > 1
        if half:
            REAL[name](arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
        elif self.how.endswith("after"):
            REAL[name](*arguments, **keywords)
        if self.how == "power":
            self.lose()
        if self.how in KILLS:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.number, os.strerror(self.number), path)

    def _remember(self, path: str) -> None:
        place = Path(path)
        self._before.setdefault(str(place.parent), {}).setdefault(path, place.read_bytes() if place.is_file() else None)

    def _note_names(self, name: str, path: str, arguments: tuple[Any, ...]) -> None:
        """What a call is about to do to names in directories."""
        if name in ("link", "replace"):
            self._remember(os.fsdecode(arguments[1]))
        if name in ("unlink", "replace"):
            self._remember(path)

    def _note(self, name: str, path: str, arguments: tuple[Any, ...]) -> None:
        """What a call has done to bytes, or made durable."""
        if name == "write" and path not in self._unsynced:
            self._unsynced[path] = max(0, os.fstat(arguments[0]).st_size - len(arguments[1]))
        elif name in ("fsync", "fdatasync"):
            self._unsynced.pop(path, None)
            self._before.pop(path, None)
            self._synced.add(path)
        elif name in ("link", "replace"):
            target = os.fsdecode(arguments[1])
            if path not in self._synced:
                self._unsynced[target] = self._unsynced.get(path, 0)
            else:
                self._synced.add(target)
                self._unsynced.pop(target, None)

    def lose(self) -> None:
        """What a power cut may take: bytes that were not synced, and whatever was done to names in directories that were not."""
        for path, size in self._unsynced.items():
            if Path(path).exists():
                os.truncate(path, size)
        for names in self._before.values():
            for path, data in names.items():
                if data is not None:
                    Path(path).write_bytes(data)
                elif Path(path).exists():
                    REAL["unlink"](path)


class Diary:
    """What the driven writer saw, kept outside the store, line by line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *words: Any) -> None:
        fd = REAL["open"](self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.writev(fd, [json.dumps(words).encode() + b"\n"])  # a call that the ledger never makes, so that no fault can hit it
        REAL["close"](fd)

    def count(self, kind: str) -> int:
        """How many lines are of this kind and say nothing else: for whoever waits for one, without reading them all."""
        return self.path.read_bytes().count(json.dumps([kind]).encode()) if self.path.exists() else 0

    def read(self, kind: str) -> list[list[Any]]:
        """The rest of each line that begins with `kind`."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return [line[1:] for line in lines if line[0] == kind]


def drive(base: Path, diary_path: Path, disk: Disk) -> None:
    """Open, send, seal, merge, stop; what was acknowledged, refused and signed goes into the diary."""
    home, diary = Home(base), Diary(diary_path)
    quick(diary)
    disk.install()
    try:
        scenario(home, diary)
    finally:
        disk.remove()
        diary.write("calls", disk.calls)
        for line in disk.broken:
            diary.write("broken", line)
    diary.write("end")


def drive_plainly(base: Path, diary_path: Path) -> None:
    """The same over the disk as it is: whoever started this process breaks it from outside."""
    home, diary = Home(base), Diary(diary_path)
    quick(diary)
    scenario(home, diary)
    diary.write("end")


def quick(diary: Diary) -> None:
    """Keep every note that is signed; wait less; merge in this process."""
    ledger.sealer._RETRY_SECONDS = 0.02  # type: ignore[misc]
    ledger.sealer._PUBLISHED_SECONDS = 0.5  # type: ignore[misc]
    real_sign = ledger.log.sign_checkpoint

    def sign(checkpoint: Any, signer: Any) -> bytes:
        note = real_sign(checkpoint, signer)
        diary.write("signed", note.decode())
        return note

    ledger.log.sign_checkpoint = sign  # type: ignore[assignment]
    ledger.sealer.Sealer._merge_elsewhere = lambda self, group: merge(self._layout, list(group))  # type: ignore[method-assign]


def scenario(home: Home, diary: Diary) -> None:
    """Open, send, seal, merge, stop; what came of it goes into the diary."""
    try:
        writer = home.open()
    except LedgerError as exc:
        diary.write("not opened", type(exc).__name__, str(exc))
        return
    seed = 0
    try:
        for _round in range(2):
            for _ in range(2):
                _try(lambda seed=seed: send(writer, request(seed, count=2)), seed, diary)
                seed += 1
            _try(lambda: seal(writer, timeout=4.0), None, diary)
        _try(lambda: wait_for(lambda: len(writer.sealer.segments) == 1, timeout=3.0), None, diary)
        _try(lambda: send(writer, request(seed, count=2)), seed, diary)
        _try(lambda: settle(writer, timeout=3.0), None, diary)
    finally:
        writer.close()


def _try(step: Callable[[], Any], seed: int | None, diary: Diary) -> None:
    try:
        receipt = step()
    except LedgerError as exc:
        diary.write("refused", seed, type(exc).__name__)
    except AssertionError as exc:
        diary.write("in vain", seed, str(exc))
    else:
        if seed is not None:
            diary.write("acknowledged", seed, receipt.start, receipt.end, receipt.batch)


def load(base: Path, diary_path: Path, threads: int) -> None:
    """Send for ever from some threads, in bursts with sealing and merging between them, until killed."""
    home, diary = Home(base), Diary(diary_path)
    quick(diary)
    writer = home.open()
    diary.write("ready")
    first = len(diary.read("acknowledged")) * 1000 + os.getpid() % 1000 * 1_000_000_000

    def run(thread: int) -> None:
        for number in range(10**9):
            if time.monotonic() % 2.5 > 1.2:  # the sealer merges when nothing waits to be sealed
                time.sleep(0.05)
                continue
            seed = first + thread * 10_000_000 + number
            receipt = send(writer, request(seed, count=2))
            diary.write("acknowledged", seed, receipt.start, receipt.end, receipt.batch)

    workers = [threading.Thread(target=run, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def run_and_kill(base: Path, diary: Path, seconds: float, *, threads: int = 3) -> None:
    """`load` in a process of its own, killed after this time from when it is ready."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crashes"])
    before = Diary(diary).count("ready")
    process = context.Process(target=load, args=(base, diary, threads))
    process.start()
    wait_for(lambda: Diary(diary).count("ready") > before or not process.is_alive())
    assert process.is_alive(), "the writer did not start"
    time.sleep(seconds)
    process.kill()
    process.join()
    process.close()


def run_driven(base: Path, diary: Path, disk: Disk, *, timeout: float = 60.0) -> int:
    """`drive` in a forked process that has everything loaded already; its exit code (-9: killed)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crashes"])
    process = context.Process(target=drive, args=(base, diary, disk))
    process.start()
    process.join(timeout)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    assert not hung, f"the writer hangs: {disk.how} at {disk.at}"
    assert code is not None
    return code


def break_and_recover(empty: Home, base: Path, disks: list[Disk]) -> list[str]:
    """Drive a writer over each of these disks, then start again over what it left; two at a time.

    Args:
        empty: the store to begin with.
        base: where the copies go.
        disks: each with the call to break at; their `base` is set here.

    Returns:
        What is wrong in all of them; nothing, if every start recovered.
    """

    def number(pair: tuple[int, Disk]) -> list[str]:
        return _break_one(empty, base / str(pair[0]), pair[1])

    with ThreadPoolExecutor(2) as pool:
        return [line for lines in pool.map(number, enumerate(disks)) for line in lines]


def _break_one(empty: Home, base: Path, disk: Disk) -> list[str]:
    home = empty.copy(base / "home")
    disk.base = home.base
    diary = Diary(base / "diary")
    wrong = []
    code = run_driven(home.base, diary.path, disk)
    if code not in (0, -9):
        wrong.append(f"exit code {code}")
    if disk.only and disk.how in KILLS and code == 0:
        wrong.append(f"there is no {disk.only} of {disk.where}: nothing was tried")
    if disk.how in KILLS and disk.how != "power" and (home.store / "checkpoint").exists():
        # An auditor or a reader may come before the next start.
        wrong += unverified(home, "before the start")
        home.read()
    if disk.how in ERRORS and not disk.for_ever and diary.read("in vain"):
        wrong.append(f"did not go on: {diary.read('in vain')}")
    wrong += recovered(home, diary, refused_is_absent=disk.how in ERRORS and not disk.for_ever)
    broken = ", ".join(line[0] for line in diary.read("broken")) if diary.path.exists() else "killed"
    shutil.rmtree(base)
    return [f"{disk.how} at {disk.at} ({broken}): {line}" for line in wrong]


def recovered(home: Home, diary: Diary, *, refused_is_absent: bool) -> list[str]:
    """Start over what a broken writer left, and ask the oracle; what is wrong.

    Args:
        home: the store.
        diary: what the writer saw.
        refused_is_absent: nothing of a request that was told it failed may be there either.
    """
    home.open().close()
    wrong = unverified(home, "after the start")
    try:
        require_kept(home, diary)
        if refused_is_absent:
            require_absent(home, diary)
    except AssertionError as exc:
        wrong.append(str(exc))
    return wrong


def unverified(home: Home, when: str) -> list[str]:
    """What is wrong with a store that `verify` does not call verified."""
    report = home.verify()
    return [] if report.verdict == "verified" else [f"{when}: {report.as_json()['integrity']}"]


def require_kept(home: Home, diary: Diary, *, count: int = 2) -> None:
    """Every acknowledged record is there once and where its receipt says; no signed head is contradicted.

    Raises:
        AssertionError: otherwise.
    """
    records = all_records(home)
    where: dict[bytes, list[int]] = {}
    for index, record in enumerate(records):
        where.setdefault(_timeless(record), []).append(index)
    for seed, start, end, batch in diary.read("acknowledged"):
        for index, asked in zip(range(start, end), _asked(seed, count), strict=True):
            assert where.get(asked) == [index], f"request {seed}: record {index} is at {where.get(asked)}"
        assert json.loads(records[batch])["kind"] == "batch"
    require_no_fork(home, [note.encode() for (note,) in diary.read("signed")])


def require_no_fork(home: Home, notes: list[bytes]) -> None:
    """Every one of these signed checkpoints is a prefix of the store as it is now."""
    now = open_checkpoint(home.checkpoint, home.verifier)
    nodes = tile_nodes(home.store, now.size)
    for note in notes:
        old = open_checkpoint(note, home.verifier)
        assert old.size <= now.size, f"a checkpoint over {old.size} was signed, the store has {now.size}"
        assert merkle.root_from(old.size, nodes) == old.root, f"the checkpoint over {old.size} is contradicted"


def require_absent(home: Home, diary: Diary, *, count: int = 2) -> None:
    """Nothing of a request that was told it failed is there."""
    there = {_timeless(record) for record in all_records(home)}
    for seed, _error in diary.read("refused"):
        if seed is not None:
            assert not there & set(_asked(seed, count)), f"the refused request {seed} came back"


@functools.cache
def _asked(seed: int, count: int) -> tuple[bytes, ...]:
    """The records of a request, as `_timeless` knows them; remembered, because every round asks for those of all rounds before."""
    return tuple(_timeless(record) for record in request(seed, count=count).records)


def _timeless(record: bytes) -> bytes:
    """A record by its ids alone: requests of a seed differ in their times from one process to the next."""
    value = json.loads(record)
    ids = value["facts"].get("trace_id"), value["facts"].get("span_id")
    return repr(ids).encode() if any(ids) else record
