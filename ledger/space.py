"""Whether there is room for telemetry: it is refused before the disk is full, so that seals and the stop still fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from ledger.durable import storage_errors
from ledger.errors import DiskFull
from ledger.layout import Layout
from ledger.settings import Settings

_CHECK_SECONDS: Final = 1.0


class SpaceGuard:
    """Looks at the disk at most once a second while there is room, and at every request while there is not."""

    def __init__(self, layout: Layout, settings: Settings, monotonic: Callable[[], float]) -> None:
        """Guard one store."""
        self._layout = layout
        self._settings = settings
        self._monotonic = monotonic
        self._checked = -_CHECK_SECONDS

    def check(self, journal_bytes: int) -> None:
        """Is there room for telemetry?

        Args:
            journal_bytes: what waits to be sealed.

        Raises:
            DiskFull: the reserve is reached, or sealing has fallen too far behind.
        """
        if journal_bytes > self._settings.journal_bytes:
            raise DiskFull(
                f"{journal_bytes} bytes of journal wait to be sealed (limit {self._settings.journal_bytes})",
                path=self._layout.journal,
                hint="sealing has failed or fallen behind: see the server's log and free disk space",
            )
        now = self._monotonic()
        if now - self._checked < _CHECK_SECONDS:
            return
        with storage_errors("checking space of", self._layout.root):
            space = os.statvfs(self._layout.root)
        if space.f_bavail * space.f_frsize < self._settings.reserve_bytes:
            raise DiskFull(
                f"less than {self._settings.reserve_bytes} bytes are free at {self._layout.root}",
                path=self._layout.root,
                hint="free space; telemetry is accepted again within a second, and nothing acknowledged was lost",
            )
        self._checked = now
