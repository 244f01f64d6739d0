"""Checkpoints, c2sp.org/tlog-checkpoint v1.0.0: a tree head as the text of a signed note.

    <origin>
    <tree size, decimal>
    <root hash, base64>
    [extension lines]

A checkpoint says that the log with this origin has this many records under this root. It carries no time and
no name of a signer: those are in the note's signature lines. Extension lines are read, kept and signed, and
mean nothing here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ledger.errors import MalformedError, VerificationError
from ledger.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE
from ledger.note import TextSigner, Verifier, decode_base64, encode_base64, open_note, require_text, sign

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head of a named log; holding one means that it is well formed, not that anyone signed it."""

    origin: str
    """The identity of the log, one non-empty line."""
    size: int
    """How many records the tree has."""
    root: bytes
    """The RFC 6962 root at that size, 32 bytes."""
    extensions: tuple[str, ...] = ()
    """Further lines, none of them empty."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            MalformedError: One of them could not be written and read back.
        """
        for line in (self.origin, *self.extensions):
            require_text(line)
            if not line or "\n" in line:
                raise MalformedError("not a line of a checkpoint", actual=line)
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise MalformedError(f"{self.size} is not a tree size", actual=self.size)
        if len(self.root) != HASH_SIZE:
            raise MalformedError(f"a root has {HASH_SIZE} bytes", expected=HASH_SIZE, actual=len(self.root))
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise MalformedError("not the root of the empty tree", expected=EMPTY_ROOT, actual=self.root)

    def text(self) -> str:
        """The text to sign, ending in a newline."""
        return "\n".join([self.origin, str(self.size), encode_base64(self.root), *self.extensions, ""])

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint of a note's text, the inverse of `text`.

        Raises:
            MalformedError: It is not exactly what `text` writes.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop():
            raise MalformedError("a checkpoint has three lines or more, each ended by a newline", actual=text)
        origin, size, root, *extensions = lines
        return cls(origin, parse_decimal(size), decode_base64(root), tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, signer: TextSigner) -> bytes:
    """The checkpoint as a note signed by this signer.

    Never sign one that is inconsistent with one signed before: seeing to that is the caller's part
    (tlog-checkpoint, Signatures).
    """
    return sign(checkpoint.text(), [signer])


def open_checkpoint(data: bytes, verifier: Verifier, origin: str | None = None) -> Checkpoint:
    """The checkpoint in a note signed by this key; signatures by other keys are ignored.

    Args:
        data: The whole note.
        verifier: The log's key.
        origin: The origin it must have; the name of the key where none is given, as tlog-checkpoint
            recommends for logs.

    Raises:
        MalformedError: It is not a note, or its text is not a checkpoint.
        BadSignature: The key has not signed it.
        VerificationError: The key has signed it for another origin; it must not be taken for this log's.
    """
    checkpoint = Checkpoint.parse(open_note(data, [verifier]).text)
    expected = verifier.name if origin is None else origin
    if checkpoint.origin != expected:
        raise VerificationError("the checkpoint of another log", expected=expected, actual=checkpoint.origin)
    return checkpoint


def parse_decimal(text: str) -> int:
    """A number from 0 to 2**63 - 1 in ASCII digits without leading zeros.

    `int` alone also takes signs, spaces, underscores and the digits of other scripts.

    Raises:
        MalformedError: It is anything else.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > MAX_TREE_SIZE:
        raise MalformedError("not a canonical decimal number", actual=text)
    return int(text)
