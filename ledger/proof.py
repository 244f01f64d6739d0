"""Offline proofs of inclusion in one text file, c2sp.org/tlog-proof@v1.

    c2sp.org/tlog-proof@v1
    [extra <base64>]
    index <decimal>
    <base64 hash>            as many as the path has
    <empty line>
    <the signed checkpoint, verbatim>

The usual file extension is `.tlog-proof`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.checkpoint import Checkpoint, open_checkpoint, parse_decimal
from ledger.errors import MalformedError
from ledger.merkle import HASH_SIZE, MAX_PATH, MAX_TREE_SIZE, leaf_hash, verify_inclusion
from ledger.note import MAX_NOTE_BYTES, Verifier, decode_base64, encode_base64, parse_note

HEADER = "c2sp.org/tlog-proof@v1"
"""The first line of every proof; the version of the format is in it."""

MAX_EXTRA_BYTES = 1 << 20
"""The most extra data read, before base64."""

MAX_PROOF_BYTES = MAX_NOTE_BYTES + 2 * MAX_EXTRA_BYTES
"""The largest proof read: room for the largest checkpoint, the most extra data in base64, and the longest
path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof of inclusion; holding one means that it is well formed, not that it is true."""

    index: int
    """The record's index, from 0."""
    path: tuple[bytes, ...]
    """The inclusion path of RFC 6962 2.1.1, 32 bytes each, from the leaf's sibling up."""
    checkpoint: bytes
    """The signed checkpoint, a whole note as it was received."""
    extra: bytes = b""
    """Data for the application. Nothing authenticates it: never trust it. Empty means that there is none."""

    def __post_init__(self) -> None:
        """Check the form of every field, the checkpoint's too; whether they are true `verify_proof` checks.

        Raises:
            MalformedError: One of them could not be written and read back.
        """
        if not 0 <= self.index < MAX_TREE_SIZE:
            raise MalformedError(f"{self.index} is not an index", actual=self.index)
        if len(self.path) > MAX_PATH or any(len(item) != HASH_SIZE for item in self.path):
            raise MalformedError(f"a path has at most {MAX_PATH} hashes of {HASH_SIZE} bytes", actual=len(self.path))
        if len(self.extra) > MAX_EXTRA_BYTES:
            raise MalformedError("too much extra data", expected=MAX_EXTRA_BYTES, actual=len(self.extra))
        Checkpoint.parse(parse_note(self.checkpoint)[0])

    def format(self) -> bytes:
        """The bytes of the proof."""
        extra = [f"extra {encode_base64(self.extra)}"] if self.extra else []
        path = [encode_base64(item) for item in self.path]
        return "\n".join([HEADER, *extra, f"index {self.index}", *path, "", ""]).encode("ascii") + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """The proof in these bytes, the inverse of `format`.

        Raises:
            MalformedError: They are not exactly what `format` writes, or exceed a limit.
        """
        if len(data) > MAX_PROOF_BYTES:
            raise MalformedError(f"a proof of {len(data)} bytes is too large", expected=MAX_PROOF_BYTES, actual=len(data))
        head, _, checkpoint = data.partition(b"\n\n")
        try:
            header, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as exc:
            raise MalformedError("a proof is ASCII up to its checkpoint") from exc
        if header != HEADER:
            raise MalformedError("not a proof of this version", expected=HEADER, actual=header)
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "))
        if not lines or not lines[0].startswith("index "):
            raise MalformedError("a proof without an index")
        index = parse_decimal(lines.pop(0).removeprefix("index "))
        # Before they are decoded: a flood of lines costs nothing.
        if len(lines) > MAX_PATH:
            raise MalformedError(f"a path of {len(lines)} hashes", expected=MAX_PATH, actual=len(lines))
        proof = cls(index=index, path=tuple(decode_base64(line) for line in lines), checkpoint=checkpoint, extra=extra)
        if proof.format() != data:
            raise MalformedError("the proof is not canonical")
        return proof


def verify_proof(proof: Proof, record: bytes, verifier: Verifier, *, origin: str | None = None) -> Checkpoint:
    """Check that this record is at `proof.index` in the log of this key.

    Returns:
        The verified checkpoint; witnesses' cosignatures on it are not looked at.

    Raises:
        MalformedError: The checkpoint does not parse, or the path does not fit the index and the size.
        BadSignature: The key has not signed the checkpoint.
        VerificationError: The checkpoint is of another log than `origin` (the key's name where none is
            given).
        RootMismatch: The record is not there.
    """
    checkpoint = open_checkpoint(proof.checkpoint, verifier, origin)
    verify_inclusion(index=proof.index, size=checkpoint.size, leaf=leaf_hash(record), path=proof.path, root=checkpoint.root)
    return checkpoint
