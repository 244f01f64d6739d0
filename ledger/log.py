"""The log: the one writer of a store, and the order of its writes.

For each group of requests: contents and records to the journal, fsync, acknowledge, integrate into the tree; then, at most half a
second later: tiles, the last-signed head outside the store, the checkpoint in the store; then, in `ledger.sealer`: Parquet files,
their seal records, the journal dropped. A crash between two steps is finished or undone by `ledger.recovery`, which ends in this
same code path.

Nothing here knows what telemetry is: callers hand in encoded parts (`ledger.journal.Part`) with their leaf hashes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from ledger import durable, history
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.contents import ContentRows
from ledger.errors import InvariantError, LedgerError, MalformedError, StorageError, VerificationError
from ledger.journal import MAX_REQUEST_BYTES, JournalWriter, Part, encode_frame
from ledger.keys import KeyFile, LastSigned
from ledger.layout import Layout
from ledger.merkle import HASH_SIZE, leaf_hash
from ledger.record import NONCE_BYTES, OwnRecord
from ledger.settings import Settings
from ledger.space import SpaceGuard
from ledger.submission import BatchNote, LogState, OwnReceipt, Receipt, SealJob, Submission, own_part

logger = logging.getLogger(__name__)

OWN_SENDER: Final = "trail"
_MAX_GROUP: Final = 256
_QUIET_KINDS: Final = frozenset({"heartbeat", "seal"})
"""Kinds that alone do not make a segment worth sealing by age: an idle store must not grow a file a minute."""
_QUIET_AGE_SECONDS: Final = 3600.0
_HISTORY_SECONDS: Final = 60.0
_SENDERS_KINDS: Final = frozenset({"quarantine", "refusal"})
"""Records of ours that a sender can cause: they may no more fill the reserve than telemetry may."""
_MAX_WAIT_SECONDS: Final = 3600.0
"""A condition cannot wait for any number of seconds a trail.toml may hold."""


class Log:
    """Appends to one store. Thread-safe; one writer thread does all the writing."""

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        key: KeyFile,
        last_signed: LastSigned,
        state: LogState,
        *,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random: Callable[[int], bytes] = os.urandom,
        on_segment: Callable[[SealJob], None],
    ) -> None:
        """Take over a recovered store; `start` begins writing.

        Args:
            layout: the store's paths.
            settings: the store's settings.
            key: signs checkpoints.
            last_signed: the state outside the store.
            state: what recovery found.
            clock: Unix nanoseconds.
            monotonic: seconds, never stepping back.
            random: nonces.
            on_segment: called on the writer thread with each closed stretch of journal; must not block.
        """
        self.layout = layout
        self.settings = settings
        self._key = key
        self._last_signed = last_signed
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._on_segment = on_segment
        self._tree = state.tree
        self._signed_size = state.signed_size
        self._duplicates = state.duplicates
        self._journal: JournalWriter | None = None
        self._files = list(state.pending)
        self._start = state.pending_start
        self._bytes = state.pending_bytes
        self._backlog_bytes = 0
        self._oldest: float | None = monotonic() if state.tree.size > state.pending_start else None
        self._noteworthy = state.tree.size > state.pending_start
        self._unsigned_since: float | None = None
        self._last_append = monotonic()
        self._space = SpaceGuard(layout, settings, monotonic)
        self._fault: StorageError | None = None
        self._poisoned = False
        self._halted: VerificationError | None = None
        self._history_at: float | None = None
        self._queue: deque[Submission] = deque()
        self._wake = threading.Condition()
        self._published = threading.Condition()
        self._stopping = False
        self._ended = False
        self._rotate_now = False
        self._thread = threading.Thread(target=self._run, name="trail-log", daemon=True)

    # ---- what callers use

    @property
    def size(self) -> int:
        """Records sequenced and durable."""
        return self._tree.size

    @property
    def signed_size(self) -> int:
        """Records under the latest published checkpoint."""
        return self._signed_size

    def require_space(self) -> None:
        """Is there room for what a sender causes?

        Raises:
            DiskFull: no.
        """
        self._space.check(self.journal_bytes)

    @property
    def fault(self) -> LedgerError | None:
        """Why the log cannot take what a sender would send just now, or None."""
        try:
            self.require_space()  # on a full disk our own few records still succeed, and say nothing about others
        except StorageError as exc:
            return self._halted or exc
        return self._halted or self._fault

    @property
    def ended(self) -> bool:
        """True once the writer thread is done: nothing more is appended or published."""
        return self._ended

    @property
    def journal_bytes(self) -> int:
        """Journal that is not sealed yet."""
        return self._bytes + self._backlog_bytes

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def submit(self, parts: list[Part], leaves: bytes, note: BatchNote) -> Future[Receipt]:
        """Hand in one request.

        Args:
            parts: its records and contents.
            leaves: the packed leaf hashes of its records, in order.
            note: what its `batch` record will say.

        Returns:
            A future that resolves once everything is durable, or fails with a `StorageError` and nothing kept.
        """
        submission = Submission(parts, leaves, note, None)
        if sum(part.size_bytes for part in parts) > MAX_REQUEST_BYTES:
            # Refused before it has indexes: a frame that no reader would take must never be acknowledged.
            submission.result.set_exception(MalformedError(f"the request becomes more than {MAX_REQUEST_BYTES} bytes of journal"))
            return submission.result
        self._enqueue(submission)
        return submission.result

    def append_own(
        self, kind: str, body: Mapping[str, Any], *, facts: Mapping[str, Any] | None = None, contents: ContentRows | None = None, **who: Any
    ) -> Future[OwnReceipt]:
        """Append a record of our own (`lifecycle`, `config`, `seal`, ...).

        Args:
            kind: the record kind.
            body: the member named after it.
            facts: facts beside `time` and `event`.
            contents: rows of the content marks in `body`.
            who: `sender` and `role`, if somebody else than trail itself is behind it.
        """
        sender, role = who.get("sender", OWN_SENDER), who.get("role")
        own = OwnRecord(
            kind=kind, received=self._clock(), sender=sender, role=role, body=body, facts=facts or {}, nonce=self._random(NONCE_BYTES)
        )
        submission = Submission([], b"", None, own, contents=contents)
        self._enqueue(submission)
        return submission.result

    def wait_published(self, size: int, *, timeout: float | None = None) -> bool:
        """Wait until a checkpoint of at least `size` records is in the store."""
        with self._published:
            return self._published.wait_for(lambda: self._signed_size >= size or self._ended, timeout) and self._signed_size >= size

    def unsynced_tiles(self) -> list[Path]:
        """The tiles written since the last call: the caller makes them durable before it drops the journal that could rebuild them."""
        submission = Submission([], b"", None, None, call=self._tree.take_unsynced)
        self._enqueue(submission)
        paths: list[Path] = submission.result.result()
        return paths

    def segment_done(self, size_bytes: int) -> None:
        """Tell the log that this much journal was dropped."""
        with self._wake:
            self._backlog_bytes -= size_bytes

    def rotate(self) -> None:
        """Close the current stretch of journal now (a clean stop seals everything)."""
        with self._wake:
            self._rotate_now = True
            self._wake.notify()

    def settle(self) -> None:
        """Wait until what was asked before this call (a rotation too) is done."""
        for _ in range(2):  # a call runs before the rotation of its own round
            submission = Submission([], b"", None, None, call=lambda: None)
            self._enqueue(submission)
            submission.result.result()

    def halt(self, error: VerificationError) -> None:
        """Append and sign nothing more, for good: the history of this store is not the one that was signed. Every submission now fails."""
        self._halted = self._halted or error
        with contextlib.suppress(StorageError):  # it has stopped already
            self.settle()  # a checkpoint that was being signed in this moment is out by then

    def stop(self) -> None:
        """Write what is queued, publish it, and end the writer thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    # ---- the writer thread

    def _enqueue(self, submission: Submission) -> None:
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                submission.result.set_exception(StorageError("the log is stopping", hint="send again in a second"))
                return
            self._queue.append(submission)
            self._wake.notify()

    def _run(self) -> None:
        group: list[Submission] = []
        try:
            while True:
                group, stopping = self._take()
                if group:
                    self._commit(group)
                self._publish_if_due(force=stopping and not group)
                self._rotate_if_due()
                if stopping and not group and not self._queue:
                    return
        except Exception:
            logger.exception("the log stops: this is a bug")
            self._fault = StorageError("the log has stopped after an internal error", hint="restart trail serve; see its log")
        finally:
            self._end(group)

    def _end(self, group: list[Submission]) -> None:
        """Nobody may wait for an answer that cannot come any more."""
        with self._wake:
            self._stopping = True
            waiting = [*group, *self._queue]
            self._queue.clear()
        if self._journal is not None:
            self._journal.close()
        for submission in waiting:
            if not submission.result.done():
                submission.result.set_exception(self._fault or StorageError("the log is stopping", hint="send again in a second"))
        with self._published:
            self._ended = True
            self._published.notify_all()

    def _take(self) -> tuple[list[Submission], bool]:
        """Wait for work or for the next thing that is due; up to a group of submissions."""
        with self._wake:
            if not self._queue and not self._stopping and not self._rotate_now:
                self._wake.wait(self._seconds_until_due())
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_GROUP))]
            stopping = self._stopping
        # A sender that went away has cancelled: until here nothing was promised, from here on its future is ours to resolve.
        group = [submission for submission in taken if submission.result.set_running_or_notify_cancel()]
        if not group and not stopping and self._monotonic() - self._last_append >= self.settings.heartbeat_seconds:
            group = [Submission([], b"", None, self._heartbeat())]
        return group, stopping

    def _seconds_until_due(self) -> float:
        now = self._monotonic()
        due = [self._last_append + self.settings.heartbeat_seconds - now]
        if self._unsigned_since is not None:
            due.append(self._unsigned_since + self.settings.checkpoint_seconds - now)
        if self._oldest is not None:
            due.append(self._oldest + self._age_limit() - now)
        return min(max(0.001, min(due)), _MAX_WAIT_SECONDS)

    def _heartbeat(self) -> OwnRecord:
        """An unchanged checkpoint proves nothing about time, and Ed25519 would make it the same bytes: an idle log says so."""
        return OwnRecord(
            kind="heartbeat", received=self._clock(), sender=OWN_SENDER, role=None, body={}, facts={}, nonce=self._random(NONCE_BYTES)
        )

    def _commit(self, group: list[Submission]) -> None:
        """Sequence a group: journal, fsync, acknowledge, integrate. On a storage error nothing of the group is kept."""
        work = [s for s in group if s.call is None]
        if work:
            self._append(work)
        for submission in group:
            if submission.call is not None:
                submission.result.set_result(submission.call())

    def _append(self, work: list[Submission]) -> None:
        if self._halted is not None:
            self._fail(self._halted, work)
            return
        size = self._tree.size
        frames: list[bytes | memoryview] = []
        leaves: list[bytes] = []
        done: list[tuple[Submission, Any]] = []
        fresh: list[tuple[bytes, Receipt, int]] = []
        in_group: dict[bytes, Receipt] = {}
        noteworthy = False
        for submission in self._admit(work):
            note = submission.note
            known = note and (in_group.get(note.duplicate_key) or self._duplicates.find(note.duplicate_key, now=note.received))
            if known:
                # Resolved with the group: the first copy may be a neighbour that is not durable yet.
                done.append((submission, Receipt(known.start, known.end, known.batch, duplicate=True)))
                continue
            try:
                parts, packed, outcome = self._sequence(submission, size)
            except LedgerError as exc:  # one that cannot be encoded must not take its neighbours with it
                self._fail(exc, [submission])
                continue
            if note is not None:
                in_group[note.duplicate_key] = outcome
                fresh.append((note.duplicate_key, outcome, note.received))
            noteworthy = noteworthy or submission.own is None or submission.own.kind not in _QUIET_KINDS
            frames += encode_frame(size, parts)
            leaves.append(packed)
            size += len(packed) // HASH_SIZE
            done.append((submission, outcome))
        if not done:
            return
        try:
            if frames:
                self._write(frames)
        except StorageError as exc:
            self._fail(exc, [submission for submission, _outcome in done])
            return
        self._fault = None
        # Durable. Acknowledged from here on: a crash now loses nothing, recovery integrates what the journal holds.
        for key, receipt, received in fresh:
            self._duplicates.add(key, receipt.start, receipt.end, receipt.batch, received=received)
        for submission, outcome in done:
            submission.result.set_result(outcome)
        if frames:
            self._tree.extend(b"".join(leaves))
            now = self._monotonic()
            self._last_append = now
            self._noteworthy = self._noteworthy or noteworthy
            self._oldest = now if self._oldest is None else self._oldest
            self._unsigned_since = now if self._unsigned_since is None else self._unsigned_since

    def _sequence(self, submission: Submission, size: int) -> tuple[list[Part], bytes, Any]:
        """Give a submission its indexes from `size` on: (parts, packed leaf hashes, what its sender is told).

        A request's `batch` record is made here, because it names the indexes; it follows the request's own records.

        Raises:
            InvariantError: a record of ours is over the limit.
        """
        if submission.own is not None:
            part, record = own_part(submission.own, submission.contents)
            return [part], leaf_hash(record), OwnReceipt(size, record)
        note = submission.note
        if note is None:
            raise InvariantError("a submission is a request or a record of our own")
        end = size + len(submission.leaves) // HASH_SIZE
        part, record = own_part(note.record(start=size, end=end), note.contents)
        return [*submission.parts, part], submission.leaves + leaf_hash(record), Receipt(size, end, end)

    def _write(self, frames: list[bytes | memoryview]) -> None:
        if self._journal is None:
            self._journal = self._new_journal()
        before = self._journal.size_bytes
        try:
            self._journal.write(frames)
            self._journal.sync()
        except StorageError:
            # Never retried on the same file. What was written and not synced is cut, or the next start would bring back records
            # whose sender was told that they failed.
            journal, self._journal = self._journal, None
            try:
                journal.undo()
                if journal.empty:
                    durable.remove([journal.path])
                    self._files.remove(journal.path)
            except StorageError:
                self._poisoned = not journal.undone
                raise
            finally:
                journal.close()
            raise
        self._bytes += self._journal.size_bytes - before

    def _new_journal(self) -> JournalWriter:
        journal = JournalWriter.begin(self.layout.journal, start=self._tree.size)
        self._files.append(journal.path)
        return journal

    def _admit(self, work: list[Submission]) -> list[Submission]:
        """Refuse telemetry before the disk is full; our own few records (seals, the stop) still fit the reserve.

        The seals most of all: they are what frees the journal, and must not fail with the telemetry they happen to stand beside.
        """
        if self._poisoned:
            fault = StorageError(
                "the journal could not be cut back after a failed write",
                path=self.layout.journal,
                hint="repair the disk, then restart trail serve",
            )
            self._fail(fault, work)
            return []
        telemetry = [submission for submission in work if submission.own is None or submission.own.kind in _SENDERS_KINDS]
        try:
            if telemetry:
                self._space.check(self.journal_bytes)
        except StorageError as exc:
            self._fail(exc, telemetry)
            return [submission for submission in work if submission.own is not None]
        return work

    def _fail(self, exc: LedgerError, work: list[Submission]) -> None:
        logger.error("nothing of %d requests was kept: %s", len(work), exc)
        if isinstance(exc, StorageError):
            self._fault = exc
        self._last_append = self._monotonic()  # the next heartbeat waits its time, or a broken disk would be tried without pause
        for submission in work:
            submission.result.set_exception(exc)

    def _publish_if_due(self, *, force: bool) -> None:
        if self._unsigned_since is None or self._halted is not None:
            self._unsigned_since = None
            return
        if not force and self._monotonic() - self._unsigned_since < self.settings.checkpoint_seconds:
            return
        try:
            self._publish()
        except StorageError as exc:
            logger.error("the checkpoint of size %d was not published: %s", self._tree.size, exc)
            self._fault = exc
            self._unsigned_since = self._monotonic()
            return
        self._unsigned_since = None
        self._fault = None

    def _publish(self) -> None:
        """Tiles, then the last-signed head outside the store, then the checkpoint.

        A crash after the tiles: they are rewritten. After the head: recovery rebuilds the same root at that size and signs again.
        """
        self._tree.write()
        note = sign_checkpoint(Checkpoint(self.settings.origin, self._tree.size, self._tree.root()), self._key.signer)
        self._last_signed.write(note)
        durable.replace(self.layout.checkpoint, note)
        now = self._monotonic()
        if self._history_at is None or now - self._history_at >= _HISTORY_SECONDS:
            self._history_at = now
            history.append(self.layout, note, published=self._clock())
        with self._published:
            self._signed_size = self._tree.size
            self._published.notify_all()

    def _age_limit(self) -> float:
        return self.settings.segment_age_seconds if self._noteworthy else _QUIET_AGE_SECONDS

    def _rotate_if_due(self) -> None:
        """Hand a full or old enough stretch of journal to the sealer."""
        size = self._tree.size
        if size == self._start:
            self._rotate_now = False
            return
        old = self._oldest is not None and self._monotonic() - self._oldest >= self._age_limit()
        full = size - self._start >= self.settings.segment_records or self._bytes >= self.settings.segment_bytes
        if not (old or full or self._rotate_now):
            return
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        job = SealJob(tuple(self._files), self._start, size, self._bytes)
        with self._wake:
            self._backlog_bytes += self._bytes
        self._files, self._start, self._bytes, self._oldest, self._noteworthy = [], size, 0, None, False
        self._rotate_now = False
        self._on_segment(job)
