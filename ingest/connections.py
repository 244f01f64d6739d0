"""What a client may hold of the server without asking for anything: few connections, and each of them for a short time.

Every open connection is a descriptor, and the log needs descriptors to seal and to sign. So there is a cap on connections well below the
limit of the process, and three ways in which one ends that is of no use: no request header within `HEADER_SECONDS` (a silent client, one
that sends a byte now and then, or the rest of a body that was answered long ago), nothing read of an answer for `UNREAD_SECONDS`, and
nothing asked for `server.KEEP_ALIVE_SECONDS` after an answer, which is uvicorn's own. How long a body may take is for the routes to say.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

HEADER_SECONDS: Final = 10.0
"""From the connection, or from the first byte of a further request, to the end of its header."""
UNREAD_SECONDS: Final = 30.0
"""For a client to take at least one byte of what waits for it; it is looked at once in this time, so that it may be twice as much."""
MAX_CONNECTIONS: Final = 1024
"""However many descriptors there are."""
_SAY_SECONDS: Final = 60.0


def connection_limit() -> int:
    """How many connections may be open at once: a quarter of the descriptors that the process may have, and `MAX_CONNECTIONS` at most."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft // 4))


class BoundedConnection(H11Protocol):
    """One connection of a client, as uvicorn serves it, with these limits."""

    _said: ClassVar[float] = float("-inf")
    """When a refusal was logged last, of all connections."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*arguments, **named)
        self._header_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Serve it, or close it at once if there are too many."""
        if len(self.connections) >= connection_limit():
            self.transport = transport
            transport.close()
            self._say_refused()
            return
        super().connection_made(transport)
        self._await_header()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._look_at_unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._stop_header_timer()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    def handle_events(self) -> None:
        """Do what was asked; uvicorn calls this after every byte that came, and after an answer for what had come meanwhile."""
        super().handle_events()
        if self.transport.is_closing() or self._is_answering() or self.timeout_keep_alive_task is not None:
            self._stop_header_timer()
        else:
            self._await_header()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None

    def _await_header(self) -> None:
        # Never again for the same header: whoever sends a byte every nine seconds would stay for ever.
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _look_at_unread(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread == self._unread:
            self.transport.abort()  # closing waits until everything is sent, which is never
            return
        self._unread = unread
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._look_at_unread)

    def _say_refused(self) -> None:
        now = time.monotonic()
        if now - BoundedConnection._said >= _SAY_SECONDS:
            BoundedConnection._said = now
            logger.warning("%d connections are open, so another one was closed; said once a minute", len(self.connections))
