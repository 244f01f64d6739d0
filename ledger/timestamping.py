"""Having checkpoints time-stamped: a thread for each authority, beside the writer, which never waits for any of them.

What is stamped is the newest checkpoint: the cosigned one if it covers more than the last stamp, because a token over it covers the
cosignatures too; else the one that the log has just signed, so that witnesses that do not answer do not stop the stamps. A tree that has
not grown since the last stamp needs no second one. It grows every minute, by a heartbeat at least, so stamps come as long as the log lives.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cryptography.x509 import Certificate

from ledger import anchors
from ledger.bounded_http import Address
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.regular import read_file
from ledger.timestamps import TIMEOUT_SECONDS, claimed_time, fetch

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 5.0
"""How often to look for a checkpoint when there is none to stamp."""
_RETRY_SECONDS: Final = 5.0
"""After the first failure; twice as long after each further one, and never longer than from stamp to stamp."""
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StampState:
    """How it stands with one authority."""

    url: str
    size: int = 0
    """Records under the newest checkpoint that it has stamped; 0 before the first."""
    time: datetime | None = None
    """What the token says; None before the first."""
    error: str = ""
    """Why the last try failed; empty when it did not."""
    tries: int = 0
    """That failed, one after the other."""


class Stamper:
    """Has the newest checkpoint of a store stamped, again and again."""

    def __init__(
        self,
        layout: Layout,
        urls: Sequence[str],
        *,
        seconds: float,
        roots: Sequence[Certificate] = (),
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """Begin with `start`.

        Args:
            layout: the store.
            urls: of the authorities.
            seconds: from stamp to stamp.
            roots: of the authorities that are believed; without any, a token is kept that is rightly signed by whomever it names.
            clock: Unix seconds; only says how long ago the last stamp of an earlier run was.
            jitter: a random number from 0 to 1.
            timeout: seconds for one answer.

        Raises:
            MalformedError: an address is none.
        """
        for url in urls:
            Address.parse(url)
        self._layout = layout
        self._seconds = seconds
        self._roots = tuple(roots)
        self._clock = clock
        self._jitter = jitter
        self._timeout = timeout
        self._states = {url: StampState(url=url) for url in urls}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url,), name="trail-timestamp", daemon=True) for url in self._states]

    def start(self) -> None:
        """Begin to stamp."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, seconds: float = 1.0) -> None:
        """End; an authority that is being asked is not waited for longer than this.

        A token that comes later than that may still be written: it is a side file that nothing else depends on.
        """
        self._stopping.set()
        until = time.monotonic() + seconds
        for thread in self._threads:
            if thread.is_alive():  # not so when starting the server failed
                thread.join(max(0.0, until - time.monotonic()))

    def states(self) -> list[StampState]:
        """How it stands with each authority, in the order in which they were named."""
        return list(self._states.values())

    def _run(self, url: str) -> None:
        try:
            wait = self._resume(url)
            while not self._stopping.wait(wait):
                wait = self._step(url)
        except Exception:
            logger.exception("no time stamps of %s any more: this is a bug", url)

    def _resume(self, url: str) -> float:
        """Take up where an earlier run ended; seconds until the next stamp is due."""
        try:
            earlier = list(self._stamps_of(url))
        except LedgerError as exc:
            return self._failed(url, exc)
        if not earlier:
            return 0.0
        size, moment = max(earlier)
        self._states[url] = StampState(url=url, size=size, time=moment)
        return min(self._seconds, max(0.0, moment.timestamp() + self._seconds - self._clock()))

    def _stamps_of(self, url: str) -> Iterator[tuple[int, datetime]]:
        """What the store has of an authority, unverified: size and time."""
        for _name, note, token in anchors.timestamps(self._layout):
            try:
                if anchors.timestamp_of(self._layout, note, url=url) == token:
                    yield _size(note), claimed_time(token)
            except (MalformedError, VerificationError):  # a damaged one is `verify`'s to report
                continue

    def _step(self, url: str) -> float:
        """Stamp once, if there is something to; seconds until the next time."""
        try:
            note = newest(self._layout, beyond=self._states[url].size)
            if note is None:
                return min(self._seconds, _LOOK_SECONDS)
            # Somebody may have stamped it by hand (`trail timestamp`).
            token = anchors.timestamp_of(self._layout, note, url=url)
            if token is None:
                token = fetch(url, note, timeout=self._timeout, roots=self._roots)
                anchors.write_timestamp(self._layout, note, token, url=url)
            self._states[url] = StampState(url=url, size=_size(note), time=claimed_time(token))
        except LedgerError as exc:
            return self._failed(url, exc)
        logger.info("the checkpoint of size %d is time-stamped by %s", self._states[url].size, url)
        return self._seconds

    def _failed(self, url: str, exc: LedgerError) -> float:
        state = self._states[url]
        self._states[url] = replace(state, error=exc.message, tries=state.tries + 1)
        logger.warning("no time stamp of %s: %s", url, exc)
        wait: float = min(self._seconds, _RETRY_SECONDS * 2 ** min(state.tries, _MAX_DOUBLINGS))
        return wait * (0.5 + self._jitter() / 2)


def newest(layout: Layout, *, beyond: int = 0) -> bytes | None:
    """The checkpoint to stamp, if one covers more than `beyond` records: the cosigned one, else the latest.

    Nothing is verified: this is for whoever signs the log.

    Raises:
        StorageError: it cannot be read.
        MalformedError: the latest is no checkpoint.
    """
    try:
        cosigned = anchors.newest_cosigned(layout)
        if cosigned is not None and _size(cosigned) > beyond:
            return cosigned
    except MalformedError as exc:
        logger.warning("%s is damaged: %s", layout.cosigned, exc)
    if not layout.checkpoint.exists():
        return None
    with storage_errors("reading", layout.checkpoint):
        latest = read_file(layout.checkpoint, limit=MAX_NOTE_BYTES)
    return latest if _size(latest) > beyond else None


def _size(note: bytes) -> int:
    return Checkpoint.parse(parse_note(note)[0]).size
