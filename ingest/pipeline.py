"""From a decompressed body to a receipt: decoder processes, the log, quarantine and refusals.

The order that matters: a body that cannot be decoded lies in quarantine, with a record saying so, before its 400 leaves; a body that
can is durable before its 200 leaves. What cannot be made durable is the sender's to send again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ingest.auth import Sender
from ingest.bodies import Overloaded
from ingest.decoders import Decoders
from ingest.otlp import Encoding, Signal, Undecodable
from ingest.prepare import Job, Prepared
from ledger import durable
from ledger.contents import ContentRows
from ledger.record import SALT_BYTES, content_mark
from ledger.submission import BatchNote
from ledger.writer import StoreWriter

logger = logging.getLogger(__name__)

MAX_QUARANTINED_BYTES: Final = 16 << 20
"""Of one body; a longer one is cut, and its record says so."""
MAX_QUARANTINE_TOTAL_BYTES: Final = 1 << 30
"""Of all bodies: rubbish must not fill the disk that evidence needs. Beyond it a record is kept and no body."""
_REFUSAL_SECONDS: Final = 10.0
"""Refusals of one kind and sender become one record in this time, with their count."""
_MAX_REFUSAL_KINDS: Final = 1_000
_MAX_WAITING: Final = 64
"""Requests at the decoders at once; more wait with their sender."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The receipt of a request."""

    start: int
    end: int
    batch: int
    duplicate: bool
    kept: int
    not_kept: int


class Pipeline:
    """Accepts requests for one store. Use from one event loop."""

    def __init__(self, writer: StoreWriter, *, processes: int | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Start the decoder processes.

        Args:
            writer: the open store.
            processes: decoders; default one for each core.
            monotonic: seconds, for the rate of refusal records.
        """
        self._writer = writer
        self._decoders = Decoders(processes or os.cpu_count() or 1, writer.key.secret)
        self._waiting = 0
        self._monotonic = monotonic
        self._refusals: dict[tuple[int, str, str], int] = {}
        self._refused_at = -_REFUSAL_SECONDS
        self._flushing: asyncio.TimerHandle | None = None
        self._quarantined_bytes = sum(path.stat().st_size for path in writer.layout.quarantine.iterdir())

    async def accept(
        self, *, signal: Signal, body: bytes, encoding: Encoding, sender: Sender, received: int, content_type: str, content_encoding: str
    ) -> Kept:
        """Keep a request; returns once it is durable.

        Raises:
            Undecodable: it is no such message; it is in quarantine.
            Forbidden: the sender may not speak for a service in it.
            Overloaded: too many requests are in work.
            StorageError: it could not be made durable.
        """
        job = Job(
            signal=signal,
            body=body,
            encoding=encoding,
            content_type=content_type,
            content_encoding=content_encoding,
            received=received,
            sender=sender.name,
            role=sender.role.value if sender.role is not None else None,
            services=tuple(sender.services),
        )
        try:
            prepared = await self._decode(job)
        except Undecodable as exc:
            await self.quarantine(body=body, why=exc.message, sender=sender, content_type=content_type, received=received)
            raise
        note = BatchNote(
            received=received,
            sender=job.sender,
            role=job.role,
            body=prepared.body,
            contents=prepared.contents,
            duplicate_key=prepared.duplicate_key,
            nonce=prepared.nonce,
        )
        receipt = await asyncio.wrap_future(self._writer.log.submit(prepared.parts, prepared.leaves, note))
        return Kept(receipt.start, receipt.end, receipt.batch, receipt.duplicate, prepared.kept, prepared.not_kept)

    async def quarantine(self, *, body: bytes, why: str, sender: Sender, content_type: str, received: int) -> str:
        """Put aside a body that cannot be read, and record it; the id under which it lies.

        Raises:
            StorageError: it could not be made durable.
        """
        self._writer.log.require_space()
        identity = secrets.token_hex(16)
        kept = body[:MAX_QUARANTINED_BYTES]
        full = self._quarantined_bytes + len(kept) > MAX_QUARANTINE_TOTAL_BYTES
        if not full:
            self._quarantined_bytes += len(kept)
            path = self._writer.layout.quarantine / identity
            await asyncio.to_thread(durable.write_once, path, kept, mode=0o600)
        salt = secrets.token_bytes(SALT_BYTES)
        own = {
            "id": identity,
            "why": why[:500],
            "bytes": len(body),
            "bytes_kept": 0 if full else len(kept),
            "content_type": content_type[:200],
            "arrived": str(received),
            "body": content_mark(salt=salt, value=hashlib.sha256(body).digest(), type="sha256", rule="quarantined"),
        }
        who = {"sender": sender.name, "role": sender.role.value if sender.role is not None else None}
        rows = ContentRows.empty()
        rows.add(0, 0, ("body", "sha256", salt, None, None, None))
        future = self._writer.log.append_own("quarantine", own, facts={"name": identity}, contents=rows, **who)
        await asyncio.wrap_future(future)
        return identity

    def refuse(self, *, status: int, why: str, sender_name: str) -> None:
        """Note a refused request: counted, and recorded at most once in ten seconds for each kind and sender."""
        key = (status, why[:200], sender_name)
        if key not in self._refusals and len(self._refusals) >= _MAX_REFUSAL_KINDS:
            key = (status, "(many kinds)", "(many senders)")
        self._refusals[key] = self._refusals.get(key, 0) + 1
        if self._flushing is None:
            wait = max(0.0, self._refused_at + _REFUSAL_SECONDS - self._monotonic())
            self._flushing = asyncio.get_running_loop().call_later(wait, self.flush_refusals)

    def flush_refusals(self) -> None:
        """Record the refusals counted so far."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._refused_at = self._monotonic()
        counted, self._refusals = self._refusals, {}
        for (status, why, sender), count in counted.items():
            future = self._writer.log.append_own(
                "refusal", {"status": status, "why": why, "count": count}, facts={"name": str(status)}, sender=sender
            )
            future.add_done_callback(_log_failure)

    def close(self) -> None:
        """Record what is counted, end the decoders."""
        self.flush_refusals()
        self._decoders.close()

    async def _decode(self, job: Job) -> Prepared:
        if self._waiting >= _MAX_WAITING:
            raise Overloaded("too many requests are being decoded")
        self._waiting += 1
        try:
            return await self._decoders.prepare(job)
        finally:
            self._waiting -= 1


def _log_failure(future: object) -> None:
    exc = future.exception()  # type: ignore[attr-defined]  # a Future of any result
    if exc is not None:
        logger.error("a refusal was not recorded: %s", exc)
