"""Clients that connect to a server and say nothing."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

DESCRIPTORS = 200
CONNECTIONS = 400


@contextlib.contextmanager
def flooded(pid: int, url: str) -> Iterator[None]:
    """Let a process have few descriptors, and hold twice as many silent connections to it."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    address = urlsplit(url)
    with contextlib.ExitStack() as held:
        for _ in range(CONNECTIONS):
            held.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
        yield
