"""The request of c2sp.org/tlog-witness: a checkpoint, and a proof that it extends the one the witness knows.

    old <size>
    <base64 hash>            as many as the consistency proof has, at most 63
    <empty line>
    <the signed checkpoint, verbatim>

The answer is the witness's signature line or lines as text, except to a wrong old size: then it is the size the witness knows, of the
content type `SIZE_TYPE`. Both sides use this module; what the witness decides is in `ledger.witness`.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ledger.checkpoint import parse_decimal
from ledger.errors import MalformedError
from ledger.merkle import HASH_SIZE, MAX_TREE_SIZE
from ledger.note import decode_base64, encode_base64, parse_note

MAX_PROOF_LINES: Final = 63
"""The most hashes a request may carry (tlog-witness, add-checkpoint)."""

MAX_BODY_BYTES: Final = 256 * 1024
"""The largest request read: a checkpoint with 64 signature lines of the longest type there is (ML-DSA-44) fits."""

SIZE_TYPE: Final = "text/x.tlog.size"
"""The content type of the answer that names the size the witness knows."""

_OLD: Final = "old "


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request; holding one means that it is well formed, not that anything in it is true.

    Of the note only the form is checked here, not that it is a checkpoint: a witness answers in the protocol's order, in which a log it
    does not know comes before a checkpoint that does not parse.
    """

    old: int
    """The size of the checkpoint that the witness is thought to know, 0 for none."""
    proof: tuple[bytes, ...]
    """The consistency proof from `old` to the checkpoint's size, RFC 6962 2.1.2, 32 bytes each."""
    note: bytes
    """The signed checkpoint, a whole note."""

    def __post_init__(self) -> None:
        """Check the form of every field.

        Raises:
            MalformedError: one of them could not be written and read back.
        """
        if not 0 <= self.old <= MAX_TREE_SIZE:
            raise MalformedError(f"{self.old} is not a tree size", actual=self.old)
        if len(self.proof) > MAX_PROOF_LINES or any(len(item) != HASH_SIZE for item in self.proof):
            raise MalformedError(f"a proof has at most {MAX_PROOF_LINES} hashes of {HASH_SIZE} bytes", actual=len(self.proof))
        parse_note(self.note)

    @property
    def origin(self) -> str:
        """The log that the checkpoint claims to be of: its first line, with NO SIGNATURE VERIFIED."""
        return parse_note(self.note)[0].partition("\n")[0]

    def encode(self) -> bytes:
        """The body of the request."""
        return "\n".join([f"{_OLD}{self.old}", *map(encode_base64, self.proof), "", ""]).encode("ascii") + self.note

    @classmethod
    def parse(cls, data: bytes) -> AddCheckpoint:
        """The request in a body, the inverse of `encode`.

        Raises:
            MalformedError: it is not exactly what `encode` writes, or exceeds a limit.
        """
        if len(data) > MAX_BODY_BYTES:
            raise MalformedError(f"a request of {len(data)} bytes is too large", expected=MAX_BODY_BYTES, actual=len(data))
        head, _, note = data.partition(b"\n\n")
        try:
            old, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as exc:
            raise MalformedError("a request is ASCII up to its checkpoint") from exc
        # Before they are decoded: a flood of lines costs nothing.
        if len(lines) > MAX_PROOF_LINES:
            raise MalformedError(f"a proof of {len(lines)} hashes", expected=MAX_PROOF_LINES, actual=len(lines))
        request = cls(old=parse_decimal(old.removeprefix(_OLD)), proof=tuple(decode_base64(line) for line in lines), note=note)
        if request.encode() != data:
            raise MalformedError("the request is not canonical")
        return request


def origin_path(origin: str) -> str:
    """What stands for a log in the path `<monitoring prefix>/<this>/checkpoint`: SHA-256 of its origin, 64 lower-case hex digits."""
    return sha256(origin.encode()).hexdigest()
