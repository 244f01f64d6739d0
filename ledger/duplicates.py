"""Recognising a request that was already kept: exporters send again when an answer is lost.

Only a byte-identical body from the same sender within the window is a duplicate; equal ids with other bytes are both kept. The keys
are keyed digests (`ledger.contents.keyed_digest`), so the window tells nothing about bodies; it is rebuilt at start from contents.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_ENTRIES: Final = 500_000
"""Bounds the memory: at more requests than this in a window, the oldest are forgotten and would be kept twice."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a request was kept."""

    start: int
    end: int
    batch: int
    received: int
    """Unix nanoseconds."""


class DuplicateWindow:
    """The requests of the last hours by their keys."""

    def __init__(self, *, window_ns: int, max_entries: int = MAX_ENTRIES) -> None:
        """Start empty."""
        self._window_ns = window_ns
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, Kept] = OrderedDict()

    def add(self, key: bytes, start: int, end: int, batch: int, *, received: int) -> None:
        """Remember a request."""
        self._entries[key] = Kept(start, end, batch, received)
        self._forget(received)

    def find(self, key: bytes, *, now: int) -> Kept | None:
        """Where this request was kept, if within the window."""
        kept = self._entries.get(key)
        return kept if kept is not None and now - kept.received <= self._window_ns else None

    def __len__(self) -> int:
        """Requests remembered."""
        return len(self._entries)

    def _forget(self, now: int) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) <= self._max_entries and now - oldest.received <= self._window_ns:
                return
            self._entries.popitem(last=False)
