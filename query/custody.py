"""Looking is recorded: who read which records over HTTP, in at most one `custody` record a reader and minute.

The first look of a minute is recorded before anything leaves, so that no crash can hide it, and if it cannot be recorded nothing leaves.
What the same reader reads during the minute after it is summed up in the next record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import StorageError

logger = logging.getLogger(__name__)

MINUTE_SECONDS: Final = 60.0
ENTRIES: Final = "entries"
"""What was looked at: whole records."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a reader has read and no record says yet."""

    start: int
    end: int
    records: int

    def plus(self, start: int, end: int) -> _Look:
        return _Look(min(self.start, start), max(self.end, end), self.records + end - start)

    def body(self, who: str, why: str) -> dict[str, Any]:
        return {"who": who, "what": ENTRIES, "from": self.start, "to": self.end, "records": self.records, "why": why}


class Looks:
    """Sums up what was read, and records it. Thread-safe."""

    def __init__(
        self,
        append: Callable[[Mapping[str, Any]], object],
        *,
        why: str,
        seconds: float = MINUTE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is read yet.

        Args:
            append: makes a durable `custody` record of its body; raises `StorageError`.
            why: what the reading was for, as far as we know.
            seconds: how long to sum up.
            monotonic: seconds, never stepping back.
        """
        self._append = append
        self._why = why
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open: dict[str, _Look] = {}
        self._recorded: dict[str, float] = {}
        self._timers: dict[str, threading.Timer] = {}
        self._closed = False

    def note(self, who: str, start: int, end: int) -> None:
        """Remember, and perhaps record, that `who` is given records `[start, end)`. Call it before they leave.

        Raises:
            StorageError: it could not be recorded; then nothing may leave.
        """
        with self._lock:
            if self._closed:
                raise StorageError("the log is stopping", hint="ask again in a second")
            before = self._open.get(who)
            look = _Look(start, end, end - start) if before is None else before.plus(start, end)
            left = self._left(who)
            if left <= 0:
                self._record(who, look)
                return
            self._open[who] = look
            if who not in self._timers:
                self._later(who, left)

    def close(self) -> None:
        """Record what is still open; nothing can be noted afterwards."""
        with self._lock:
            self._closed = True
            for timer in self._timers.values():
                timer.cancel()
            for who in list(self._open):
                self._try_to_record(who)

    def _left(self, who: str) -> float:
        """Seconds until a next record may name this reader."""
        recorded = self._recorded.get(who)
        return 0.0 if recorded is None else recorded + self._seconds - self._monotonic()

    def _later(self, who: str, seconds: float) -> None:
        timer = threading.Timer(seconds, self._due, [who])
        timer.daemon = True  # `close` records what is open; a process that ends otherwise must not wait for a minute
        self._timers[who] = timer
        timer.start()

    def _due(self, who: str) -> None:
        with self._lock:
            self._timers.pop(who, None)
            left = self._left(who)
            if self._closed or who not in self._open:
                return
            if left > 0:
                self._later(who, left)
            else:
                self._try_to_record(who)

    def _record(self, who: str, look: _Look) -> None:
        self._append(look.body(who, self._why))
        self._open.pop(who, None)
        self._recorded[who] = self._monotonic()

    def _try_to_record(self, who: str) -> None:
        try:
            self._record(who, self._open[who])
        except StorageError as exc:  # it stays open, and the next look records it or is refused
            logger.error("what %s has read is not recorded yet: %s", who, exc)
