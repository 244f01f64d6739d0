"""Files whole or not at all, and errors in sentences."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ledger import durable
from ledger.durable import WriterLock
from ledger.errors import DiskFull, ReadOnlyStore, StorageError, StoreLocked


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EROFS, ReadOnlyStore), (errno.EACCES, ReadOnlyStore),
        (errno.EPERM, ReadOnlyStore), (errno.EIO, StorageError), (errno.ENOENT, StorageError),
    ],
)  # fmt: skip
def test_errors_of_the_system_become_ours_with_a_hint(tmp_path: Path, number: int, error: type[StorageError]) -> None:
    with pytest.raises(error) as caught, durable.storage_errors("writing", tmp_path):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is error
    assert caught.value.path == str(tmp_path)
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)


def test_write_once_creates_and_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "f"
    durable.write_once(path, b"one", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o600)
    durable.write_once(path, b"one")
    with pytest.raises(StorageError, match="File exists"):
        durable.write_once(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_replace_sets_the_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for data in (b"one", b"two" * 1000, b""):
        durable.replace(path, data, mode=0o600)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_put_sets_the_bytes(tmp_path: Path) -> None:
    durable.put(tmp_path / "f", b"one")
    durable.put(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"two"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("function", [durable.write_once, durable.replace, durable.put])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "link", "replace"])
def test_a_file_that_cannot_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, call: str) -> None:
    path = tmp_path / "f"
    if function is not durable.write_once:
        path.write_bytes(b"old")

    def broken(*_arguments: Any, **_keywords: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, broken)
    try:
        function(path, b"new")
    except StorageError:
        failed = True
    else:
        failed = False
    monkeypatch.undo()
    uses = {durable.write_once: {"open", "write", "fsync", "link"}, durable.replace: {"open", "write", "fsync", "replace"}}
    assert failed == (call in uses.get(function, {"open", "write", "replace"}))
    if failed:
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == ([] if function is durable.write_once else [("f", b"old")])


def test_a_directory_that_could_not_be_synced_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.fsync, []

    def fsync(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:  # the file, then its directory
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="syncing"):
        durable.write_once(tmp_path / "f", b"one")
    monkeypatch.undo()
    durable.write_once(tmp_path / "f", b"one")


def test_writes_cut_short_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    durable.write_once(tmp_path / "a", b"x" * 100)
    durable.replace(tmp_path / "b", b"y" * 100)
    durable.append_line(tmp_path / "c", b"z" * 100 + b"\n")
    assert [(tmp_path / name).stat().st_size for name in "abc"] == [100, 100, 101]


def test_a_line_is_appended_behind_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "f"
    durable.append_line(path, b"one\n")
    path.write_bytes(path.read_bytes() + b"torn")
    durable.append_line(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    durable.make_dirs(tmp_path / "a" / "b" / "c", mode=0o700)
    durable.make_dirs(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700


def test_a_directory_cannot_be_made_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(StorageError):
        durable.make_dirs(tmp_path / "f" / "d")


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    durable.remove([tmp_path / "a", tmp_path / "b"])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError):
        durable.remove([tmp_path])


def test_temporary_names_are_hidden_and_beside_the_file(tmp_path: Path) -> None:
    names = {durable.temporary(tmp_path / "f") for _ in range(100)}
    assert len(names) == 100
    assert all(name.parent == tmp_path and name.name.startswith(".f.") and name.name.endswith(".tmp") for name in names)


def test_syncing_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    for function in (durable.sync_dir, durable.sync_file):
        with pytest.raises(StorageError):
            function(tmp_path / "nothing")


# ---- the lock


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = WriterLock(path, command="trail serve")
    assert json.loads(path.read_bytes())["pid"] == os.getpid()
    with pytest.raises(StoreLocked, match="trail serve") as caught:
        WriterLock(path, command="trail import")
    assert (caught.value.path, bool(caught.value.hint)) == (str(path), True)
    lock.release()
    assert path.read_bytes() == b""
    WriterLock(path, command="trail import").release()


def test_the_lock_is_released_once(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", command="a")
    lock.release()
    other = os.open(tmp_path / "precious", os.O_RDWR | os.O_CREAT)  # takes the number of the descriptor that was closed
    os.write(other, b"precious")
    lock.release()
    assert (tmp_path / "precious").read_bytes() == b"precious"
    os.close(other)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import os, sys, pathlib; from ledger.durable import WriterLock;"
        "WriterLock(pathlib.Path(sys.argv[1]), command='gone'); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(StoreLocked, match=str(process.pid)):
        WriterLock(path, command="a")
    process.kill()
    process.communicate()
    WriterLock(path, command="a").release()


def test_a_lock_that_cannot_say_who_holds_it_is_held_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lock = WriterLock(tmp_path / "lock", command="a")
    with pytest.raises(StoreLocked, match="it has not said which"):
        WriterLock(tmp_path / "lock", command="b")
    lock.release()
