"""Having published checkpoints cosigned: a thread of the writer's process that submits them to the store's witnesses.

One checkpoint at a time, the newest: it is submitted to all witnesses at once, and what they send is merged on the very same note, because
a quorum is a quorum of one checkpoint. Only when all have answered does the next one begin, except that a witness whose last try failed
is not waited for once the quorum is there. The log never waits for any of this.

A witness can show that the store was rolled back or forked. Then the log is halted for good: see `ledger.comparison`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ledger import anchors
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError, NotAppendOnly, StorageError
from ledger.evidence import evidence_dir
from ledger.log import Log
from ledger.note import MAX_NOTE_BYTES, MAX_SIGNATURES, NoteSignature
from ledger.policy import Policy
from ledger.regular import read_file
from ledger.submitter import Submitter
from ledger.trust import LogKeys
from ledger.witness_client import TIMEOUT_SECONDS
from ledger.witness_memory import remembered
from ledger.witness_state import WitnessState, states_path, write_states

logger = logging.getLogger(__name__)

FINISH_SECONDS: Final = 5.0
"""For the last attempt of a clean stop."""
_KEEP_SECONDS: Final = 60.0
"""At most so often is a cosigned checkpoint kept for ever."""
_STATES_SECONDS: Final = 3.0
"""At most so often are unchanged states written down."""
_SHORTEST_WAIT_SECONDS: Final = 0.01


@dataclass(slots=True)
class _Round:
    """One checkpoint on its way to the witnesses."""

    note: bytes
    checkpoint: Checkpoint
    published: int
    signatures: dict[tuple[str, int], NoteSignature] = field(default_factory=dict)
    cosigned_by: set[str] = field(default_factory=set)
    """Witnesses that have answered with their own cosignature."""
    met: bool = False
    """The quorum has cosigned it, and it is in the store."""

    def merged(self) -> bytes:
        """The note with every cosignature, as many as a note can have."""
        room = MAX_SIGNATURES - self.note.rpartition(b"\n\n")[2].count(b"\n")
        return self.note + "".join([signature.line() for signature in [*self.signatures.values()][:room]]).encode()


class Anchorer:
    """Submits the checkpoints of a log to the witnesses of a policy."""

    def __init__(
        self,
        log: Log,
        policy: Policy,
        keys: LogKeys,
        *,
        states: Path | None = None,
        evidence: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """Begin with `start`.

        Args:
            log: whose checkpoints.
            policy: the witnesses to ask, those that have a URL, and the quorum.
            keys: the log's.
            states: where the states are written for `trail status`; default by `states_path`.
            evidence: where what contradicts the store is kept; default by `evidence_dir`.
            clock: Unix nanoseconds.
            monotonic: seconds.
            jitter: a random number from 0 to 1.
            timeout: seconds for one request to a witness.

        Raises:
            MalformedError: a witness's URL is none.
        """
        self._log = log
        self._policy = policy
        self._keys = keys
        self._clock = clock
        self._monotonic = monotonic
        self._states_path = states or states_path(keys.origin)
        self._states: list[WitnessState] = []
        """As they were written down."""
        self._states_at = 0.0
        known = [witness.verifier for witness in policy.witnesses]
        self._submitters = [
            Submitter(
                witness, witness.url, log.layout, keys, known,
                evidence=evidence or evidence_dir(), monotonic=monotonic, jitter=jitter, timeout=timeout,
            )
            for witness in policy.witnesses
            if witness.url is not None
        ]  # fmt: skip
        self.contradiction: NotAppendOnly | None = None
        """What a witness showed that this store cannot account for; the log is halted then."""
        self._changed = threading.Condition()
        """Guards the rounds, and what is written of them."""
        self._stopping = threading.Event()
        self._closed = False
        self._newest: _Round | None = None
        """That met the quorum."""
        self._kept_at: float | None = None
        self._kept_size = -1
        self._thread = threading.Thread(target=self._run, name="trail-anchor", daemon=True)

    def start(self) -> None:
        """Begin submitting."""
        self._write_states()
        self._thread.start()

    def states(self) -> list[WitnessState]:
        """How it stands with each witness, in the order of the policy."""
        return [submitter.state for submitter in self._submitters]

    def finish(self, *, seconds: float = FINISH_SECONDS) -> None:
        """The last attempt, once the log has published its last checkpoint; after it nothing is written any more.

        Args:
            seconds: how long it may take in all.
        """
        until = self._monotonic() + seconds
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(max(0.0, until - self._monotonic()))
        last = self._published()
        if last is not None and self.contradiction is None:
            self._drive(last, until=until)
        with self._changed:
            self._keep(self._newest)
            self._closed = True
        for submitter in self._submitters:
            submitter.close()
        self._write_states()

    # ---- the thread

    def _run(self) -> None:
        try:
            self._remember()
            current: _Round | None = None
            while not self._over():
                size = current.checkpoint.size if current is not None else 0
                newer = self._log.wait_published(size + 1, timeout=self._seconds_until_due(current))
                with self._changed:
                    self._write_states()
                if self._over():
                    return
                started = self._monotonic()
                published = self._published() if newer else None
                if published is not None and published.checkpoint.size > size:
                    current = published
                if current is not None:
                    self._drive(current, until=None)
                self._stopping.wait(max(_SHORTEST_WAIT_SECONDS, started + self._log.settings.witness_seconds - self._monotonic()))
        except Exception:
            logger.exception("checkpoints are not submitted to witnesses any more: this is a bug")

    def _remember(self) -> None:
        """What the witnesses have cosigned in earlier runs, so that one that has forgotten it is noticed."""
        try:
            sizes = remembered(self._log.layout, self._policy, self._keys.origin)
        except StorageError as exc:
            logger.error("what the witnesses have cosigned earlier is not known: %s", exc)
            return
        for submitter in self._submitters:
            submitter.remember(sizes.get(submitter.witness.name, 0))

    def _over(self) -> bool:
        return self._stopping.is_set() or self._log.ended or self.contradiction is not None

    def _seconds_until_due(self, current: _Round | None) -> float | None:
        """Until a witness that has not cosigned the current checkpoint may be asked again, or the states are to be written down.

        None to wait for the next checkpoint, however long that takes.
        """
        if current is None:
            return None
        due = [submitter.due for submitter in self._submitters if submitter.witness.name not in current.cosigned_by]
        if self._states != self.states():
            due.append(self._states_at + _STATES_SECONDS)
        return max(_SHORTEST_WAIT_SECONDS, min(due) - self._monotonic()) if due else None

    def _published(self) -> _Round | None:
        """The newest checkpoint in the store; of one that is submitted already, that round with what it has."""
        path = self._log.layout.checkpoint
        try:
            with storage_errors("reading", path):
                note = read_file(path, limit=MAX_NOTE_BYTES)
            checkpoint = self._keys.open(note)
        except LedgerError as exc:
            logger.error("there is no checkpoint to submit to witnesses: %s", exc)
            return None
        with self._changed:
            if self._newest is not None and self._newest.note == note:
                return self._newest
        return _Round(note, checkpoint, self._clock())

    def _drive(self, current: _Round, *, until: float | None) -> None:
        """Submit one checkpoint to every witness that may be asked, and wait for their answers.

        Args:
            current: the checkpoint.
            until: the last attempt, to end by then: every witness is asked, also one that failed a moment ago, and all are waited for.
        """
        asked: set[str] = set()
        while True:
            for submitter in self._submitters:
                name = submitter.witness.name
                waits = until is None and submitter.due > self._monotonic()
                if name not in asked and name not in current.cosigned_by and not waits and not submitter.busy.is_set():
                    asked.add(name)
                    submitter.busy.set()
                    threading.Thread(target=self._submit, args=(submitter, current), name="trail-witness", daemon=True).start()
            with self._changed:
                seconds = None if until is None else until - self._monotonic()
                if self._is_done(current, asked, last=until is not None) or self.contradiction is not None:
                    return
                if self._stopping.is_set() if seconds is None else seconds <= 0:
                    return
                self._changed.wait(seconds)

    def _is_done(self, current: _Round, asked: set[str], *, last: bool) -> bool:
        busy = [submitter for submitter in self._submitters if submitter.busy.is_set()]
        if last:
            return not busy and asked | current.cosigned_by >= {submitter.witness.name for submitter in self._submitters}
        ours = [submitter for submitter in busy if submitter.witness.name in asked]
        return not ours or (current.met and all(submitter.state.error for submitter in ours))

    def _submit(self, submitter: Submitter, current: _Round) -> None:
        """On a thread of its own: one witness, one checkpoint."""
        try:
            signatures = submitter.cosign(current.note, current.checkpoint)
        except NotAppendOnly as exc:
            self._contradicted(exc)
        except LedgerError:
            pass  # it is in the witness's state
        except Exception:
            logger.exception("submitting to the witness %s failed: this is a bug", submitter.witness.name)
        else:
            self._take(submitter.witness.name, current, signatures)
        finally:
            with self._changed:
                submitter.busy.clear()
                self._changed.notify_all()
                if not self._closed:
                    self._write_states()

    def _take(self, name: str, current: _Round, signatures: Sequence[NoteSignature]) -> None:
        """Merge what a witness sent; once the quorum is there, into the store, and again with each that comes later."""
        with self._changed:
            current.cosigned_by.add(name)
            current.signatures.update({(signature.name, signature.key_id): signature for signature in signatures})
            older = self._newest is not None and self._newest.checkpoint.size > current.checkpoint.size
            if self._closed or older:
                return
            note = current.merged()
            if not self._policy.has_quorum({cosignature.witness.name for cosignature in self._policy.cosignatures(note)}):
                return
            try:
                anchors.write_cosigned(self._log.layout, note)
            except StorageError as exc:
                logger.error("the cosigned checkpoint of size %d is not kept: %s", current.checkpoint.size, exc)
                return
            current.met = True
            self._newest = current
            if self._kept_at is None or self._monotonic() - self._kept_at >= _KEEP_SECONDS:
                self._keep(current)

    def _keep(self, cosigned: _Round | None) -> None:
        """A line of the history, if this checkpoint has none."""
        if cosigned is None or cosigned.checkpoint.size == self._kept_size:
            return
        try:
            anchors.append_cosigned(self._log.layout, cosigned.merged(), published=cosigned.published)
        except StorageError as exc:
            logger.error("the history of cosigned checkpoints lacks size %d: %s", cosigned.checkpoint.size, exc)
            return
        self._kept_at, self._kept_size = self._monotonic(), cosigned.checkpoint.size

    def _contradicted(self, why: NotAppendOnly) -> None:
        with self._changed:
            first = self.contradiction is None
            self.contradiction = self.contradiction or why
        if first:
            logger.critical("NOTHING IS SIGNED ANY MORE: %s. %s", why, why.hint)
            self._log.halt(why)

    def _write_states(self) -> None:
        """For `trail status`, if they have changed: at once when a witness begins or ceases to fail, else now and then."""
        states, now = self.states(), self._monotonic()
        soon = now - self._states_at < _STATES_SECONDS and not self._closed
        if states == self._states or (soon and _in_short(states) == _in_short(self._states)):
            return
        self._states, self._states_at = states, now
        try:
            write_states(self._states_path, states)
        except StorageError as exc:
            logger.warning("the states of the witnesses cannot be written: %s", exc)


def _in_short(states: Sequence[WitnessState]) -> list[tuple[str, str, bool]]:
    """What nobody should have to wait for."""
    return [(state.name, state.error, state.cosigned is None) for state in states]
