"""How other commands find a running server: a small file in the state directory, beside the last signed checkpoint.

It is no lock and no evidence: a server that was killed leaves it behind, so a reader asks whether the process is still there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ledger import durable
from ledger.keys import slug, state_dir
from ledger.layout import Layout
from ledger.regular import read_file

_MAX_LOCK_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A server of one store."""

    pid: int
    host: str
    store: str
    """Its path, resolved."""
    http: str
    """Base URL."""
    tokens: bool
    """Does it want a token?"""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a store's write lock, as its lock file says."""

    pid: int
    host: str
    command: str
    alive: bool | None
    """Is the process still there? None on another machine, where we cannot tell."""


def announce(path: Path, running: Running) -> None:
    """Write where the server is.

    Raises:
        StorageError: the state directory cannot be written.
    """
    durable.make_dirs(path.parent, mode=0o700)
    durable.replace(path, json.dumps(asdict(running)).encode() + b"\n", mode=0o600)


def withdraw(path: Path) -> None:
    """Remove what `announce` wrote."""
    with contextlib.suppress(OSError):
        path.unlink()


def running_path(origin: str) -> Path:
    """Where the server of a log says that it runs."""
    return state_dir() / f"{slug(origin)}.server.json"


def find_server(origin: str, store: Path) -> Running | None:
    """The server of this store, if one is running on this machine."""
    try:
        running = Running(**json.loads(running_path(origin).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    here = running.host == socket.gethostname() and running.store == str(store.resolve())
    return running if here and is_alive(running.pid) else None


def lock_holder(store: Path) -> Holder | None:
    """Who writes to the store: read from the lock's text, because even asking for the lock could disturb a writer that starts."""
    try:
        value = json.loads(read_file(Layout(store).lock, limit=_MAX_LOCK_BYTES))
        pid, host, command = int(value["pid"]), str(value["host"]), str(value["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Holder(pid, host, command, is_alive(pid) if host == socket.gethostname() else None)


def is_alive(pid: int) -> bool:
    """Is there such a process? One that has ended and was not waited for (in containers nobody may do that) is not alive."""
    with contextlib.suppress(OSError, IndexError):
        # Linux: the state follows the name, which is in parentheses and may hold any character.
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
