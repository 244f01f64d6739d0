"""The record: the canonical bytes that the log commits to, and the commitments inside them.

Normative text: `ledger/FORMAT.md`, "Records" and "Contents". Pure: bytes and values in, bytes and values out. What a
span or a log record becomes is decided in `ingest.normalise`; this module fixes what every record has in common.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ledger.errors import InvariantError, MalformedError, UnsupportedFormat

RECORD_VERSION: Final = 1
MAX_RECORD_BYTES: Final = 65_535
"""An entry of c2sp.org/tlog-tiles has a 16-bit length."""
SALT_BYTES: Final = 16
SUBTREE: Final = "t"
"""Type of the content that a subtree of an oversized record became: the only one in which further marks stand."""
NONCE_BYTES: Final = 16
_CONTENT_TAG: Final = b"trail-content/1\0"

_CONTENT_IN_RECORD: Final = re.compile(
    rb'"\$content":\{"bytes":(\d+),"commitment":"([0-9a-f]{64})"(?:,"rule":"([^"\\]*)")?,"type":"([a-z0-9]+)"\}'
)
"""Finds our content marks in canonical bytes. No text an emitter sent can look like one: inside a JSON string every
quotation mark is preceded by a backslash, and an emitter's own maps are kept as lists of pairs, never as objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentMark:
    """What a record says of a value that is kept beside the log."""

    commitment: str
    """SHA-256 in hex, see `commitment`."""
    size_bytes: int
    type: str
    """`s` UTF-8 text, `x` bytes, `j` canonical JSON of a value wrapper, `t` of a moved subtree, `sha256` the SHA-256 of a request body."""
    rule: str | None
    """Why the value was never kept; None when it was kept."""


def canonical(value: Mapping[str, Any]) -> bytes:
    """Encode a record: UTF-8 JSON, keys sorted, no white space, shortest round-trip numbers."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def parse_record(data: bytes) -> dict[str, Any]:
    """Read a record's bytes.

    Raises:
        MalformedError: not a JSON object with a `v` and a `kind`.
        UnsupportedFormat: a record version this program does not know.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise MalformedError(f"a record is not JSON: {exc}") from exc
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        raise MalformedError("a record is a JSON object with a kind")
    if value.get("v") != RECORD_VERSION:
        raise UnsupportedFormat(
            f"record version {value.get('v')!r} is not known (this program reads version {RECORD_VERSION})",
            hint="use the version of trail that wrote this store, or a newer one",
        )
    return value


def commitment(salt: bytes, value: bytes) -> bytes:
    """SHA-256("trail-content/1" NUL salt value): binds the value, and tells nothing about it without the salt.

    Raises:
        MalformedError: the salt is not 16 bytes long (another length would let bytes move between salt and value).
    """
    if len(salt) != SALT_BYTES:
        raise MalformedError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return hashlib.sha256(_CONTENT_TAG + salt + value).digest()


def content_mark(*, salt: bytes, value: bytes, type: str, rule: str | None = None) -> dict[str, Any]:
    """The `{"$content": ...}` object that stands in a record for `value`."""
    mark: dict[str, Any] = {"bytes": len(value), "commitment": commitment(salt, value).hex(), "type": type}
    if rule is not None:
        mark["rule"] = rule
    return {"$content": mark}


def content_marks(record: bytes) -> list[ContentMark]:
    """The content marks of a record in document order: the n-th one is `ordinal` n of its contents rows."""
    return [
        ContentMark(size_bytes=int(size), commitment=digest.decode(), rule=rule.decode() if rule is not None else None, type=kind.decode())
        for size, digest, rule, kind in (match.groups() for match in _CONTENT_IN_RECORD.finditer(record))
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRecord:
    """A record that trail itself makes (a batch, a seal, a start, ...), before it is sequenced."""

    kind: str
    received: int
    """Unix nanoseconds, our clock."""
    sender: str
    role: str | None
    body: Mapping[str, Any]
    """The member named after the kind."""
    facts: Mapping[str, Any]
    nonce: bytes
    """16 random bytes, so that the leaf hash tells nothing about a record somebody could guess."""

    def members(self) -> dict[str, Any]:
        """The record as a mapping, as it is encoded."""
        if len(self.nonce) != NONCE_BYTES:
            raise InvariantError(f"a nonce has {NONCE_BYTES} bytes, not {len(self.nonce)}")
        value = {
            "v": RECORD_VERSION,
            "kind": self.kind,
            "received": str(self.received),
            "sender": self.sender,
            "nonce": self.nonce.hex(),
            "facts": {"time": str(self.received), "event": self.kind, **self.facts},
            self.kind: self.body,
        }
        if self.role is not None:
            value["role"] = self.role
        return value

    def encode(self) -> bytes:
        """The canonical bytes.

        Raises:
            InvariantError: larger than a record may be; what we make ourselves is bounded before it gets here.
        """
        data = canonical(self.members())
        if len(data) > MAX_RECORD_BYTES:
            raise InvariantError(f"a {self.kind} record of {len(data)} bytes is over {MAX_RECORD_BYTES}")
        return data
