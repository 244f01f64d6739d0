"""The sealer: a thread that turns closed journal into sealed segments, and merges small segments.

The order for one segment, with what a crash leaves: Parquet files written and synced under temporary names (recovery removes them) →
published under their names (recovery removes a file without a seal while the journal still has its records) → seal records appended and
under a published checkpoint (recovery rebuilds the side files from them) → side files → tiles synced → journal dropped.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from ledger import durable
from ledger.errors import LedgerError, StorageError
from ledger.layout import Layout
from ledger.log import Log
from ledger.sealing import MadeFile, merge, seal_journal
from ledger.seals import FoundSeal, Segment, live_segments, merge_candidates, side_path
from ledger.segment import encode_side_file
from ledger.settings import Settings
from ledger.submission import OwnReceipt, SealJob
from ledger.tree import sync_tiles

logger = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 5.0
_MERGE_NICENESS: Final = 19
_PUBLISHED_SECONDS: Final = 5.0
"""How long a stopping sealer waits for a checkpoint that may never come: the disk refuses it."""


@dataclass(slots=True)
class _Publication:
    """Files on their way into the log; holds how far they came, so that a failure goes on there and never seals one name twice."""

    made: list[MadeFile]
    replaces: list[Segment] = field(default_factory=list)
    """What a merge stands in place of."""
    receipts: list[OwnReceipt] = field(default_factory=list)
    """Of the seal records that are in the log already, in the order of `made`."""


class Sealer:
    """Seals and merges in the background; `drain` finishes what is queued."""

    def __init__(self, layout: Layout, settings: Settings, segments: Sequence[FoundSeal], *, monotonic: Callable[[], float]) -> None:
        """Know the seals that are already in the store."""
        self._layout = layout
        self._settings = settings
        self._seals = list(segments)
        self._monotonic = monotonic
        self._jobs: queue.SimpleQueue[SealJob | None] = queue.SimpleQueue()
        self._log: Log  # from `start` on: the log is made with this sealer's `add`
        self._grace: list[tuple[float, list[Path]]] = []
        self._unsynced: list[Path] = []
        self._unfinished: _Publication | None = None
        self._lock = threading.Lock()
        self._merger: ProcessPoolExecutor | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trail-sealer", daemon=True)

    def start(self, log: Log) -> None:
        """Begin; the log takes the seal records."""
        self._log = log
        self._thread.start()

    def add(self, job: SealJob) -> None:
        """Queue a stretch of journal; never blocks."""
        self._jobs.put(job)

    def drain(self) -> None:
        """Seal what is queued and end."""
        self._closing.set()
        self._jobs.put(None)
        self._thread.join()
        if self._merger is not None:
            self._merger.shutdown(wait=False, cancel_futures=True)

    @property
    def segments(self) -> list[Segment]:
        """The live segments."""
        with self._lock:
            return live_segments(self._seals)

    def merge_once(self) -> bool:
        """Merge one group of small segments if there is one; True if something was merged."""
        merging = self._unfinished
        if merging is None:
            group = merge_candidates(self.segments, fan_in=self._settings.compact_fan_in, target=self._settings.compact_records)
            if not group:
                return False
            merging = _Publication(self._merge_elsewhere(group), group)
            self._name(merging.made)
            self._unfinished = merging
        self._publish(merging)
        self._unfinished = None
        replaced = [f.seal.file for s in merging.replaces for f in s.seals]
        gone = [*(self._layout.root / file.name for file in replaced), *(side_path(self._layout, file) for file in replaced)]
        with self._lock:
            self._seals = [found for found in self._seals if found.seal.file not in replaced]
        self._grace.append((self._monotonic() + self._settings.compact_grace_seconds, gone))
        return True

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=1.0)
            except queue.Empty:
                self._idle()
                continue
            if job is None:
                self._remove_due(everything=True)
                return
            self._seal(job)

    def _idle(self) -> None:
        try:
            self._remove_due(everything=False)
            while self._jobs.empty() and not self._closing.is_set() and self.merge_once():
                pass
        except Exception as exc:  # whatever a merge died of, sealing must go on
            logger.error("merging small segments failed, they stay as they are: %s: %s", type(exc).__name__, exc)
            self._merger = None
            self._closing.wait(_RETRY_SECONDS)

    def _seal(self, job: SealJob) -> None:
        """Seal one stretch; on a storage error try again, for ever: until then the journal holds the records."""
        sealing: _Publication | None = None
        while True:
            try:
                if sealing is None:
                    made = seal_journal(self._layout, job.paths, start=job.start, end=job.end)
                    self._name(made)
                    sealing = _Publication(made)
                self._publish(sealing)
                self._sync_tiles()
                durable.remove(job.paths)
                self._log.segment_done(job.size_bytes)
                return
            except (LedgerError, OSError, pa.ArrowException) as exc:
                logger.error("sealing records %d to %d failed, the journal keeps them: %s", job.start, job.end, exc)
                if self._closing.wait(_RETRY_SECONDS):
                    return

    def _name(self, made: Sequence[MadeFile]) -> None:
        """Give the files their names; after a failure they are made anew, because no seal speaks of them yet."""
        try:
            for file in made:
                path = self._layout.root / file.seal.file.name
                durable.remove([path])  # of an earlier try that got no seal
                durable.publish(file.temporary, path)
        except StorageError:
            for file in made:
                with contextlib.suppress(OSError):
                    file.temporary.unlink(missing_ok=True)
            raise

    def _publish(self, publication: _Publication) -> None:
        """Seal records, then, once they are under a checkpoint, side files."""
        receipts = publication.receipts
        for file in publication.made[len(receipts) :]:
            facts = {"name": file.seal.file.name}
            receipts.append(self._log.append_own("seal", file.seal.body(), facts=facts).result())
        while not self._log.wait_published(receipts[-1].index + 1, timeout=_PUBLISHED_SECONDS):
            if self._closing.is_set() or self._log.ended:
                raise StorageError("the log stopped before the seals were under a checkpoint", hint="they are finished at the next start")
        found = [FoundSeal(file.seal, receipt.index, receipt.record) for file, receipt in zip(publication.made, receipts, strict=True)]
        for one in found:
            durable.write_once(side_path(self._layout, one.seal.file), encode_side_file(index=one.index, record=one.record))
        with self._lock:
            self._seals += [one for one in found if one not in self._seals]

    def _sync_tiles(self) -> None:
        """Make the tiles durable, those of an earlier try too: the journal that could rebuild them goes next."""
        self._unsynced += self._log.unsynced_tiles()
        sync_tiles(self._layout.root, self._unsynced)
        self._unsynced = []

    def _merge_elsewhere(self, group: Sequence[Segment]) -> list[MadeFile]:
        """Merge in a process of lowest priority: a merge must never slow acknowledgement."""
        if self._merger is None:
            context = multiprocessing.get_context("spawn")
            self._merger = ProcessPoolExecutor(1, mp_context=context, initializer=os.nice, initargs=(_MERGE_NICENESS,))
        future = self._merger.submit(merge, self._layout, list(group))
        while not future.done():
            # Sealing goes first: a merge is worth nothing while the journal waits.
            try:
                job = self._jobs.get(timeout=0.2)
            except queue.Empty:
                continue
            if job is None:
                self._jobs.put(None)
                future.cancel()
                raise StorageError("the server stops; the merge is done again later")
            self._seal(job)
        return future.result()

    def _remove_due(self, *, everything: bool) -> None:
        now = self._monotonic()
        later = []
        for due, paths in self._grace:
            if not everything and now < due:
                later.append((due, paths))
                continue
            try:
                durable.remove(paths)
            except StorageError as exc:
                # They are superseded and disturb nobody; if it stays like this, the next start removes them.
                logger.error("files that were merged could not be removed: %s", exc)
                later.append((now + _RETRY_SECONDS, paths))
        self._grace = later
