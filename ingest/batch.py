"""The records of one request under construction, and their columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from ledger import columns
from ledger.contents import ContentRow, ContentRows


@dataclass(frozen=True, slots=True)
class Origin:
    """What is the same for all records of a request."""

    received: int
    """Unix nanoseconds."""
    sender: str
    role: str | None


CHUNK_RECORDS: Final = 256
"""Records turned into columns together: few enough to lie in the processor's cache still, which is worth a tenth of the time."""


class Batch:
    """The records of one request under construction."""

    def __init__(self, kind: str, origin: Origin, *, full: Callable[[Batch], None] | None = None) -> None:
        """Nothing yet.

        Args:
            kind: `span` or `log`.
            origin: receipt time and sender.
            full: called whenever `CHUNK_RECORDS` records have come together, which the batch then lets go; None keeps all.
        """
        self.kind = kind
        self.origin = origin
        self._full = full
        self.records: list[bytes] = []
        self.facts: list[dict[str, Any]] = []
        self.vocabularies: list[str | None] = []
        self._rows: list[tuple[int, int, str, str, bytes, bytes | None, str | None, bytes | None]] = []

    @property
    def rows(self) -> ContentRows:
        """The contents of all records."""
        return ContentRows.transpose(self._rows)

    def add(self, data: bytes, facts: dict[str, Any], vocabulary: str | None, rows: list[ContentRow]) -> None:
        """Add one record with its contents in the order of their marks."""
        index = len(self.records)
        self.records.append(data)
        self.facts.append(facts)
        self.vocabularies.append(vocabulary)
        for ordinal, row in enumerate(rows):
            self._rows.append((index, ordinal, *row))
        if self._full is not None and index + 1 == CHUNK_RECORDS:
            self._full(self)
            self.records, self.facts, self.vocabularies, self._rows = [], [], [], []

    def project(self) -> pa.RecordBatch:
        """The Arrow batch of `ledger.columns.BATCH_SCHEMA`."""
        origin = self.origin
        tops = {
            "kind": self.kind,
            "received": str(origin.received),
            "sender": origin.sender,
            "role": origin.role,
            "vocabulary": self.vocabularies,
        }
        return columns.project(self.records, tops, self.facts)

    def leaf_hashes(self) -> bytes:
        """The leaf hashes of the records, packed."""
        sha256 = hashlib.sha256
        return b"".join([sha256(b"\0" + data).digest() for data in self.records])
