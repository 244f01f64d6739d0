"""A witness, c2sp.org/tlog-witness: it cosigns a checkpoint only once it has seen a proof that it extends the last one it cosigned.

The promise is kept by three things. Looking at the state, judging, and writing the new state are one step for each log (a lock in the
process, an flock against a second process). The new state is durable before its cosignature leaves. And what is damaged or gone is
refused, never started over.

What the log signed and cannot be true together with the state is kept as evidence. Two roots for one size prove by themselves that the
log has two histories. A checkpoint that came with a false proof proves nothing yet, for anybody can send a true checkpoint so; it is put
aside, and judged once a checkpoint of that size has been cosigned.

A checkpoint of size 0 is cosigned like any other: the empty tree extends nothing and everything extends it, so it costs nothing, and a
new log can show from its first day that its witnesses knew it.

Nothing here knows HTTP beyond the numbers of its statuses; `ingest.witness` serves it.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self

from ledger import durable
from ledger.checkpoint import Checkpoint
from ledger.errors import BadSignature, LedgerError, MalformedError, StorageError, StoreLocked
from ledger.merkle import EMPTY_ROOT, verify_consistency
from ledger.note import Signer, Verifier, open_note, parse_note
from ledger.witness_files import Kept, OriginFiles, WitnessFiles
from ledger.witness_protocol import SIZE_TYPE, AddCheckpoint, origin_path

logger = logging.getLogger(__name__)

TEXT_TYPE: Final = "text/plain; charset=utf-8"
"""The content type of every answer but the size."""

_ORIGIN_HASH: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answers to a request."""

    status: int
    content_type: str
    body: bytes


class _RefusedError(Exception):
    """A request that is not cosigned: the status and why, or the size."""

    def __init__(self, status: HTTPStatus, why: str, *, content_type: str = TEXT_TYPE) -> None:
        super().__init__(why)
        self.answer = Answer(status, content_type, why.encode() + b"\n")


class WitnessStore:
    """A witness over its directory (`ledger.witness_files`). Its methods may be called from several threads."""

    def __init__(self, directory: Path, signer: Signer, clock: Callable[[], int], *, command: str = "trail witness serve") -> None:
        """Take the directory's lock.

        Args:
            directory: The witness's own, made by `WitnessFiles.make`.
            signer: Its key.
            clock: Unix seconds.
            command: Who holds the lock, for whoever is refused.

        Raises:
            StoreLocked: another process cosigns with this key.
            MalformedError, StorageError: the file of its logs is damaged or gone.
        """
        self.files = WitnessFiles(directory)
        self.cosigner = signer.cosigner
        self._signer = signer
        self._clock = clock
        try:
            self._lock = durable.WriterLock(self.files.lock, command=command)
        except StoreLocked as exc:
            raise StoreLocked(
                f"another process cosigns with this witness's key: {self.files.lock}",
                path=self.files.lock,
                hint="stop that one first; two of them could cosign two histories",
            ) from exc
        self._guard = threading.Lock()
        self._closed = False
        self._logs: dict[str, list[Verifier]] = {}
        self._logs_version: object = None
        self._origin_locks: dict[str, threading.Lock] = {}
        self._unsure: set[str] = set()
        self._behind: set[str] = set()
        try:
            self._known("")
        except LedgerError:
            self.close()
            raise

    @classmethod
    def open(cls, directory: Path, *, clock: Callable[[], int], command: str = "trail witness serve") -> Self:
        """The witness in a directory, with the key that lies there.

        Raises:
            StoreMissing: there is none.
            StoreLocked: another process cosigns with it.
            LedgerError: its key or its file of logs is gone, damaged, or open to others.
        """
        return cls(directory, WitnessFiles(directory).load_signer(), clock, command=command)

    def close(self) -> None:
        """Cosign nothing any more, wait for what is being judged, and let another process cosign."""
        with self._guard:
            self._closed = True
            locks = list(self._origin_locks.values())
        for lock in locks:
            with lock:  # a request that a server no longer waits for may still be in its thread
                pass
        self._lock.release()

    def add_checkpoint(self, body: bytes) -> Answer:
        """Judge a request, in the order of the protocol; never raises for anything that came from outside.

        200 has the cosignature and leaves only once the new state is durable; 409 has the size of the state; 503 means that the witness
        itself is at fault, and that nothing was cosigned.
        """
        try:
            request, checkpoint, signed = self._judge_form(body)
            with self._origin_lock(checkpoint.origin):
                return self._judge_history(request, checkpoint, signed)
        except _RefusedError as refused:
            return refused.answer
        except (StorageError, MalformedError) as exc:  # malformed: only our own file of logs; what came from outside is judged above
            logger.error("not cosigned, answered 503: %s (%s)", exc, exc.hint)
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, TEXT_TYPE, b"the witness cannot use its own state\n")

    def latest(self, origin_hash: str) -> bytes | None:
        """The newest checkpoint cosigned for a log, by `origin_path` of its origin; None if there is none.

        Raises:
            StorageError: the state is damaged or gone.
        """
        if not _ORIGIN_HASH.fullmatch(origin_hash):
            return None
        self._require_sure(origin_hash)
        kept = self.files.of(origin_hash).read(self.cosigner)
        return None if kept is None else kept.note

    def _judge_form(self, body: bytes) -> tuple[AddCheckpoint, Checkpoint, bytes]:
        """What needs no state: the form, whose it is, and who signed it; with the note stripped to the log's own signatures."""
        try:
            request = AddCheckpoint.parse(body)
        except MalformedError as exc:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"malformed request: {exc.message}") from exc
        keys = self._known(request.origin)
        if not keys:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "this witness does not know the log")
        try:
            opened = open_note(request.note, keys)
        except BadSignature as exc:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "no trusted key of the log has signed this, or a signature is wrong") from exc
        try:
            checkpoint = Checkpoint.parse(opened.text)
        except MalformedError as exc:
            # The one claim of a checkpoint that can be false by itself has a status of its own (tlog-witness, add-checkpoint).
            status = HTTPStatus.UNPROCESSABLE_ENTITY if exc.expected == EMPTY_ROOT else HTTPStatus.BAD_REQUEST
            raise _RefusedError(status, f"malformed checkpoint: {exc.message}") from exc
        if request.old > checkpoint.size:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "the old size is larger than the checkpoint's")
        signed = "".join([opened.text, "\n", *(line.line() for line in opened.verified)]).encode()
        return request, checkpoint, signed

    def _judge_history(self, request: AddCheckpoint, checkpoint: Checkpoint, signed: bytes) -> Answer:
        """What needs the state, under the log's lock from reading it to having written it."""
        origin_hash = origin_path(checkpoint.origin)
        files = self.files.of(origin_hash)
        if self._closed:
            raise StorageError("the witness is closed", hint="start it again")
        self._require_sure(origin_hash)
        kept = files.read(self.cosigner)
        size, root = (0, EMPTY_ROOT) if kept is None else (kept.checkpoint.size, kept.checkpoint.root)
        forked = kept is not None and checkpoint.size == size and checkpoint.root != root
        if kept is not None and forked:  # whatever old size came with it
            self._keep_fork(files, checkpoint, offered=signed, cosigned=kept.note)
        if request.old != size:
            raise _RefusedError(HTTPStatus.CONFLICT, str(size), content_type=SIZE_TYPE)
        try:
            verify_consistency(old_size=size, new_size=checkpoint.size, old_root=root, new_root=checkpoint.root, path=request.proof)
        except LedgerError as exc:
            if kept is not None and size and not forked and checkpoint.size > size:
                self._keep_unproven(files, checkpoint, offered=signed, cosigned=kept.note, proof=request.proof)
            raise _RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, f"not shown to extend the tree of {size} records: {exc.message}") from exc
        cosignature = self._signer.cosign(checkpoint.text(), self._time(kept, checkpoint.origin))
        self._persist(files, checkpoint, signed + cosignature.encode())
        self._settle(files, checkpoint, signed + cosignature.encode())
        return Answer(HTTPStatus.OK, TEXT_TYPE, cosignature.encode())

    def _time(self, kept: Kept | None, origin: str) -> int:
        """The time to cosign with: never 0, and never before the last one, or two cosignatures would name a wrong newest tree."""
        now = self._clock()
        if now < 1:
            raise StorageError("the clock of this machine is not set", hint="set it; a cosignature is dated")
        if kept is None or kept.timestamp <= now:
            self._behind.discard(origin)
            return now
        if origin not in self._behind:  # once, and not for every checkpoint until the clock has caught up
            self._behind.add(origin)
            logger.warning("the clock is %d s behind the last cosignature for %s, whose time is kept", kept.timestamp - now, origin)
        return kept.timestamp

    def _persist(self, files: OriginFiles, checkpoint: Checkpoint, note: bytes) -> None:
        before = files.note()
        try:
            files.write(note, checkpoint.origin)
        except StorageError:
            # Nobody has seen the cosignature. But a state that is visible and perhaps not durable is no state to go on from, or to show:
            # after a power cut the old one could be back. A restart reads what really is there.
            self._unsure.add(files.directory.name)
            if files.note() == before:
                self._unsure.discard(files.directory.name)
            raise

    def _require_sure(self, origin_hash: str) -> None:
        if origin_hash in self._unsure:
            raise StorageError(
                f"the last write of the state {origin_hash} failed half-way", hint="check the disk, then start the witness again"
            )

    def _keep_fork(self, files: OriginFiles, checkpoint: Checkpoint, *, offered: bytes, cosigned: bytes) -> None:
        """Keep the proof. The request is refused in any case, also when the disk has no room for it."""
        try:
            path = files.keep_evidence("fork", checkpoint, offered=offered, cosigned=cosigned)
        except StorageError as exc:
            logger.critical("FORK of %s at size %d, and it could not be kept: %s", checkpoint.origin, checkpoint.size, exc)
            return
        if path is not None:
            logger.critical(
                "FORK of %s: its key has signed two roots for size %d; proof kept in %s", checkpoint.origin, checkpoint.size, path
            )

    def _keep_unproven(
        self, files: OriginFiles, checkpoint: Checkpoint, *, offered: bytes, cosigned: bytes, proof: Sequence[bytes]
    ) -> None:
        try:
            path = files.keep_evidence("unproven", checkpoint, offered=offered, cosigned=cosigned, proof=proof)
        except StorageError as exc:
            logger.error("an unproven checkpoint of %s, size %d, could not be kept: %s", checkpoint.origin, checkpoint.size, exc)
            return
        if path is not None:
            logger.error(
                "a checkpoint that %s signed, size %d, came without proof that it extends ours: a fork, or a broken sender; kept in %s",
                checkpoint.origin,
                checkpoint.size,
                path,
            )

    def _settle(self, files: OriginFiles, checkpoint: Checkpoint, cosigned: bytes) -> None:
        """Judge what was put aside for the size that is now cosigned: true after all, or the proof of a fork."""
        for path in files.evidence("unproven"):
            if path.name.partition("-")[0] != str(checkpoint.size):
                continue
            try:
                offered = files.offered(path)
                other = Checkpoint.parse(parse_note(offered)[0])
                if other.root != checkpoint.root:
                    self._keep_fork(files, other, offered=offered, cosigned=cosigned)
                durable.remove([path])
            except LedgerError as exc:  # it stays put aside; the cosignature is durable already and is owed
                logger.error("%s cannot be judged: %s", path, exc)

    def _origin_lock(self, origin: str) -> threading.Lock:
        """One for each log that is known, so there are never many."""
        with self._guard:
            return self._origin_locks.setdefault(origin, threading.Lock())

    def _known(self, origin: str) -> list[Verifier]:
        """The keys of a log, from the file as it is now.

        Raises:
            MalformedError, StorageError: the file is damaged or gone; going on with what it said before could trust a key it gave up.
        """
        with self._guard:
            with durable.storage_errors("reading", self.files.logs):
                found = self.files.logs.stat()
            version = (found.st_ino, found.st_size, found.st_mtime_ns)
            if version != self._logs_version:
                logs: dict[str, list[Verifier]] = {}
                for log in self.files.load_logs():
                    logs.setdefault(log.verifier.name, []).append(log.verifier)
                self._logs, self._logs_version = logs, version
            return self._logs.get(origin, [])
