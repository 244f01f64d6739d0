"""Contents: sensitive or large values kept beside the log, each bound to its record by a salted commitment.

A contents row belongs to the record `index` and to the `ordinal`-th content mark in that record's bytes. The
commitment itself is not stored again: it follows from salt and value, and it stands in the record.
Normative text: `ledger/FORMAT.md`, "Contents".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final, cast

import pyarrow as pa

SCHEMA: Final[pa.Schema] = pa.schema(
    cast(
        "list[pa.Field[Any]]",  # the stubs join the fields' types to object
        [
            pa.field("index", pa.int64(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("field", pa.string(), nullable=False),
            pa.field("type", pa.string(), nullable=False),
            pa.field("salt", pa.binary(16), nullable=False),
            pa.field("value", pa.binary()),
            pa.field("name", pa.string()),
            pa.field("keyed", pa.binary(16)),
        ],
    )
)
"""The Arrow schema of a contents file, ordered by (index, ordinal). A person's value stands in `name` and not in
`value`, so that the names of a large store can be read without its documents. Both are NULL where the value was
never kept. `keyed` is a keyed digest: a person's pseudonym, or the duplicate key of a request body."""

KEYED_BYTES: Final = 16

ContentRow = tuple[str, str, bytes, bytes | None, str | None, bytes | None]
"""field, type, salt, value, name, keyed; a plain tuple because the hot path of ingest makes three a span."""


@dataclass(slots=True)
class ContentRows:
    """Columns of contents under construction; `index` counts from the first record of the batch."""

    index: list[int]
    ordinal: list[int]
    field: list[str]
    type: list[str]
    salt: list[bytes]
    value: list[bytes | None]
    name: list[str | None]
    keyed: list[bytes | None]

    @classmethod
    def empty(cls) -> ContentRows:
        """No rows yet."""
        return cls([], [], [], [], [], [], [], [])

    @classmethod
    def transpose(cls, rows: list[tuple[int, int, str, str, bytes, bytes | None, str | None, bytes | None]]) -> ContentRows:
        """Rows given as (index, ordinal, *`ContentRow`)."""
        return cls(*(list(column) for column in zip(*rows, strict=True))) if rows else cls.empty()

    def add(self, index: int, ordinal: int, row: ContentRow) -> None:
        """Add one row."""
        field, type_, salt, value, name, keyed = row
        self.index.append(index)
        self.ordinal.append(ordinal)
        self.field.append(field)
        self.type.append(type_)
        self.salt.append(salt)
        self.value.append(value)
        self.name.append(name)
        self.keyed.append(keyed)

    def to_batch(self) -> pa.RecordBatch:
        """The rows as a batch of `SCHEMA`."""
        columns = [self.index, self.ordinal, self.field, self.type, self.salt, self.value, self.name, self.keyed]
        arrays = [pa.array(cast("Any", values), field.type) for values, field in zip(columns, SCHEMA, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def keyed_digest(secret: bytes, purpose: str, value: bytes) -> bytes:
    """HMAC-SHA-256 of `value` under the store's secret, cut to 16 bytes; equal values are equal only to us.

    Args:
        secret: lies with the signing key, outside the store.
        purpose: `person` or `body`; digests of different purposes are never equal.
        value: the bytes to recognise again.
    """
    return hmac.digest(secret, purpose.encode() + b"\0" + value, hashlib.sha256)[:KEYED_BYTES]


def pseudonym(keyed: bytes) -> str:
    """How a person is called in facts: `p:` and 16 hex digits."""
    return "p:" + keyed.hex()[:16]
