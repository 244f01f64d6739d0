"""What callers hand to the log and get back, and what recovery hands over: values, no behaviour but encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger import columns
from ledger.contents import ContentRows
from ledger.duplicates import DuplicateWindow
from ledger.journal import Part, encode_part
from ledger.record import OwnRecord
from ledger.tree import TreeWriter


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an accepted request is told."""

    start: int
    end: int
    """The request's own records, end exclusive."""
    batch: int
    """Index of its `batch` record."""
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class BatchNote:
    """What the `batch` record says of a request, and how it is recognised again."""

    received: int
    sender: str
    role: str | None
    body: Mapping[str, Any]
    """The `batch` member, without `start` and `end`."""
    contents: ContentRows
    """The row of the body's commitment (its value is never kept), and what else the batch record holds."""
    duplicate_key: bytes
    nonce: bytes

    def record(self, *, start: int, end: int) -> OwnRecord:
        """The `batch` record of a request whose own records are `[start, end)`."""
        body = {**self.body, "start": start, "end": end}
        return OwnRecord(kind="batch", received=self.received, sender=self.sender, role=self.role, body=body, facts={}, nonce=self.nonce)


@dataclass(slots=True)
class Submission:
    """What waits for the writer thread: a request, a record of our own, or a call."""

    parts: list[Part]
    leaves: bytes
    note: BatchNote | None
    own: OwnRecord | None
    contents: ContentRows | None = None
    """Of `own`."""
    call: Callable[[], Any] | None = None
    """Something to run on the writer thread, after everything queued before it."""
    result: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class OwnReceipt:
    """Where a record of our own ended up."""

    index: int
    record: bytes


@dataclass(frozen=True, slots=True)
class SealJob:
    """A closed stretch of journal, ready to become a segment."""

    paths: tuple[Path, ...]
    start: int
    end: int
    size_bytes: int


@dataclass(slots=True)
class LogState:
    """Where recovery (or creation) left the log."""

    tree: TreeWriter
    signed_size: int
    pending: list[Path]
    """Journal files not yet sealed, in order."""
    pending_start: int
    pending_bytes: int
    duplicates: DuplicateWindow


def own_part(own: OwnRecord, content_rows: ContentRows | None = None) -> tuple[Part, bytes]:
    """(The journal part, the bytes) of a record of our own."""
    record = own.encode()
    tops = {"kind": own.kind, "received": str(own.received), "sender": own.sender, "role": own.role}
    facts = own.members()["facts"]
    return encode_part(columns.project([record], tops, [facts]), content_rows.to_batch() if content_rows else None), record
