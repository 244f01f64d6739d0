"""The only module that writes files of a store: every durability step of the ledger is one of these functions.

Order of a new file: temporary name in the same directory, write, fsync, `link` (which fails when the name is taken,
unlike rename), fsync of the directory. After a failed fsync nothing may be retried on the same file: the kernel may
have dropped the dirty pages and would report success the second time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from ledger.errors import DiskFull, ReadOnlyStore, StorageError, StoreLocked

TEMPORARY_SUFFIX = ".tmp"


@contextlib.contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` into the `StorageError` that says what to do.

    Raises:
        DiskFull, ReadOnlyStore, StorageError: by the error number.
    """
    try:
        yield
    except OSError as exc:
        where = f"{doing} {path}"
        match exc.errno:
            case errno.ENOSPC | errno.EDQUOT:
                raise DiskFull(f"{where}: the disk is full", path=path, hint="free space there; nothing acknowledged was lost") from exc
            case errno.EROFS | errno.EACCES | errno.EPERM:
                raise ReadOnlyStore(
                    f"{where}: {exc.strerror}", path=path, hint="run as the account that owns the store, on a writable disk"
                ) from exc
            case _:
                raise StorageError(f"{where}: {exc.strerror or exc}", path=path, hint="check the disk and its mount") from exc


def make_dirs(path: Path, *, mode: int = 0o755) -> None:
    """Create a directory and its parents, each made durable in its parent."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with storage_errors("creating", directory), contextlib.suppress(FileExistsError):
            directory.mkdir(mode=mode)
        sync_dir(directory.parent)


def sync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    with storage_errors("syncing", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    with storage_errors("syncing", path):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def temporary(path: Path) -> Path:
    """A name beside `path` that no reader looks at and that recovery removes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def write_once(path: Path, data: bytes, *, mode: int = 0o644, sync: bool = True) -> None:
    """Create a file with these bytes, whole or not at all.

    Raises:
        StorageError: the name is taken by other bytes, or the disk refused.
    """
    temp = temporary(path)
    try:
        _write_new(temp, data, mode=mode, sync=sync)
        publish(temp, path, sync=sync)
    except StorageError as exc:
        # Only "the name is taken" may be forgiven: after any other error nothing is known to be durable.
        if not isinstance(exc.__cause__, FileExistsError) or path.read_bytes() != data:
            raise
        if sync:
            sync_dir(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Set a file's bytes atomically and durably; readers see the old or the new ones."""
    temp = temporary(path)
    try:
        _write_new(temp, data, mode=mode, sync=True)
        with storage_errors("replacing", path):
            temp.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)
    sync_dir(path.parent)


def put(path: Path, data: bytes) -> None:
    """Set a file's bytes atomically but not durably: for what the records can rebuild (tiles), synced later."""
    temp = temporary(path)
    try:
        _write_new(temp, data, mode=0o644, sync=False)
        with storage_errors("writing", path):
            temp.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


def publish(temp: Path, path: Path, *, sync: bool = True) -> None:
    """Give a finished temporary file its name; fails if the name is taken.

    Raises:
        StorageError: the name is taken.
    """
    with storage_errors("publishing", path):
        os.link(temp, path)
        temp.unlink()
    if sync:
        sync_dir(path.parent)


def append_line(path: Path, data: bytes) -> None:
    """Append one line and sync it, with the file's name if it is new; a torn last line, which a crash may have left, is cut first."""
    is_new = not path.exists()
    with storage_errors("appending to", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            whole = os.pread(fd, os.fstat(fd).st_size, 0).rfind(b"\n") + 1
            os.ftruncate(fd, whole)
            os.lseek(fd, whole, os.SEEK_SET)
            _write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
    if is_new:
        sync_dir(path.parent)


def remove(paths: Iterable[Path]) -> None:
    """Unlink files that may already be gone, then make that durable."""
    parents = set()
    for path in paths:
        with storage_errors("removing", path):
            path.unlink(missing_ok=True)
        parents.add(path.parent)
    for parent in parents:
        sync_dir(parent)


class WriterLock:
    """One writer a store: an flock on `STORE/lock`, whose text says who holds it."""

    def __init__(self, path: Path, *, command: str) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another process holds it; says which.
            ReadOnlyStore: the file cannot be opened for writing.
        """
        self._path = path
        with storage_errors("locking", path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(self._fd, 4096, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise StoreLocked(
                f"another process writes to this store: {holder or 'it has not said which'}",
                path=path,
                hint="stop that process, or send your telemetry to it; reading needs no lock",
            ) from exc
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": command}) + "\n"
        with contextlib.suppress(OSError):  # the lock is held whether or not its text can be written: on a full disk we must start
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text.encode(), 0)

    def release(self) -> None:
        """Let the next writer in; a second call does nothing (the descriptor's number may be another file's by then)."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)


def _write_new(path: Path, data: bytes, *, mode: int, sync: bool) -> None:
    with storage_errors("writing", path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            _write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    """A write may be cut short without an error, on a disk that is nearly full for one."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
