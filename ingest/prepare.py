"""What a decoder process does with one request: parse, normalise, hash, and encode for the journal.

Runs in decoder processes (`ingest.decoders`), so that Python's walk over spans uses both cores while the server's own process reads
sockets and writes the journal. A request goes in as bytes and comes out as bytes: nothing here touches the store.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import resource
import signal
from dataclasses import dataclass
from typing import Any, Final

from ingest import vocabularies
from ingest.auth import Forbidden
from ingest.batch import Batch, Origin
from ingest.bodies import TooLarge
from ingest.normalise import Normaliser
from ingest.otlp import Encoding, Signal, count, parse
from ledger.contents import ContentRows, keyed_digest
from ledger.journal import Part, encode_part
from ledger.record import NONCE_BYTES, SALT_BYTES, content_mark

MAX_ITEMS: Final = 100_000
"""Spans or log records of one request: an empty one is two bytes on the wire and some kilobytes in memory."""
MAX_EXPANDED_BYTES: Final = 256 << 20
"""What one request may become in the journal."""
MAX_MEMORY_BYTES: Final = 4 << 30
"""Address space of a decoder process: a hostile body ends the decoder and not the server."""
BODY_RULE: Final = "body"
"""Why a request's body is committed to and not kept: its records hold all of it."""

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
"""Options of mallopt(3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request, as handed to a decoder process."""

    signal: Signal
    body: bytes
    """Decompressed."""
    encoding: Encoding
    content_type: str
    content_encoding: str
    received: int
    sender: str
    role: str | None
    services: tuple[str, ...]
    """The services the sender may speak for; empty means any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One request, ready for the journal."""

    parts: list[Part]
    leaves: bytes
    kept: int
    not_kept: int
    body: dict[str, Any]
    """The `batch` member, without its range."""
    contents: ContentRows
    duplicate_key: bytes
    nonce: bytes


class Preparer:
    """Bound to one store's secret and vocabulary."""

    def __init__(self, secret: bytes) -> None:
        """Compile the vocabulary once a process."""
        self._secret = secret
        self._normaliser = Normaliser(vocabularies.load(), secret=secret, random=os.urandom)

    def prepare(self, job: Job) -> Prepared:
        """Do all that needs no index.

        Raises:
            Undecodable: not such a message.
            Forbidden: a service the sender may not speak for.
        """
        parsed = parse(job.signal, job.body, job.encoding)
        items = count(parsed.message)
        if items > MAX_ITEMS:
            raise TooLarge(f"The request holds {items} items; the limit is {MAX_ITEMS}. Send smaller batches.")
        if job.signal is Signal.METRICS:
            return self._prepared(job, [], b"", kept=0, not_kept=items, unknown_json=None)
        message: Any = parsed.message
        if job.services:
            _check_services(message, job)
        exact = not _nothing_unknown(message, job)
        if exact:
            # Discarding was destructive; what is unknown has to be kept.
            message = parse(job.signal, job.body, job.encoding).message
        origin = Origin(job.received, job.sender, job.role)
        walk = self._normaliser.spans if job.signal is Signal.TRACES else self._normaliser.logs
        parts: list[Part] = []
        leaves: list[bytes] = []

        def take(batch: Batch) -> None:
            parts.append(encode_part(batch.project(), batch.rows.to_batch()))
            leaves.append(batch.leaf_hashes())
            if sum(part.size_bytes for part in parts) > MAX_EXPANDED_BYTES:
                # What a resource says stands in each of its records, so a small body can become very much.
                raise TooLarge(f"The request becomes more than {MAX_EXPANDED_BYTES} bytes of records. Send smaller batches.")

        rest = walk(message, origin, exact=exact, full=take)
        if rest.records:
            take(rest)
        return self._prepared(job, parts, b"".join(leaves), kept=items, not_kept=0, unknown_json=parsed.unknown_json)

    def _prepared(self, job: Job, parts: list[Part], leaves: bytes, *, kept: int, not_kept: int, unknown_json: bytes | None) -> Prepared:
        rows = ContentRows.empty()
        salt = os.urandom(SALT_BYTES)
        # The body is long and hashed once: what is committed to, and recognised again, is its SHA-256.
        digest = hashlib.sha256(job.body).digest()
        key = keyed_digest(self._secret, "body", job.sender.encode() + b"\0" + job.signal.encode() + b"\0" + digest)
        body: dict[str, Any] = {
            "body": content_mark(salt=salt, value=digest, type="sha256", rule=BODY_RULE),
            "bytes": len(job.body),
            "content_type": job.content_type[:200],
            "content_encoding": job.content_encoding[:50],
            "signal": job.signal.value,
            "kept": kept,
            "not_kept": not_kept,
        }
        rows.add(0, 0, ("body", "sha256", salt, None, None, key))
        if unknown_json is not None:
            extra = os.urandom(SALT_BYTES)
            # As a text: these objects are the sender's, and one shaped like a content mark must not be taken for ours.
            body["unknown"] = content_mark(salt=extra, value=unknown_json, type="s")
            rows.add(0, 1, ("unknown", "s", extra, unknown_json, None, None))
        nonce = os.urandom(NONCE_BYTES)
        return Prepared(parts=parts, leaves=leaves, kept=kept, not_kept=not_kept, body=body, contents=rows, duplicate_key=key, nonce=nonce)


def start_process(secret: bytes) -> Preparer:
    """Set up a decoder process.

    The collector of reference cycles is switched off: a request makes a hundred thousand containers and no cycle, and
    going over them costs half as much again as making them.
    """
    gc.disable()
    _keep_memory()
    # The parent ends its decoders by closing their pipes, after what is in work: a terminal's Ctrl-C must not end them first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return Preparer(secret)


def _keep_memory() -> None:
    """Tell glibc not to give large blocks back after each request: the page faults of taking them again cost a tenth of the time."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_M_TRIM_THRESHOLD, 1 << 28), (_M_TOP_PAD, 1 << 26), (_M_MMAP_THRESHOLD, 1 << 28)):
            mallopt(option, value)


def _nothing_unknown(message: Any, job: Job) -> bool:
    """True when every byte of the request is a field we know.

    Unknown fields are dropped from `message`; if what is left serialises to the very bytes received, there were none. Encoders that
    write fields in another order are compared by size before and after instead.
    """
    if job.encoding is Encoding.JSON:
        return True
    message.DiscardUnknownFields()
    known = message.SerializeToString()
    if known == job.body:
        return True
    whole = parse(job.signal, job.body, job.encoding).message
    return len(known) == whole.ByteSize()


def _check_services(message: Any, job: Job) -> None:
    for holder in getattr(message, "resource_spans", None) or getattr(message, "resource_logs", None) or []:
        names = [pair.value.string_value for pair in holder.resource.attributes if pair.key == "service.name"]
        for name in names or [""]:
            if name not in job.services:
                raise Forbidden(
                    f"the token {job.sender} may not speak for the service {name or '(none)'!r}",
                    hint=f"it may speak for: {', '.join(job.services)}",
                )
