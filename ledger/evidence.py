"""Evidence of a fork: one key has signed two checkpoints of one log that cannot both be true. The file format `trail-fork/1`.

    trail-fork/1
    signer <vkey>                    one line or more: keys that signed both
    root <base64>                    only where the sizes differ: the root of the second tree at the size of the first
    <base64>                         the consistency proof from that root to the second checkpoint (RFC 6962 2.1.2), a hash a line
    first <lines>
    <the smaller checkpoint, a whole note of so many lines, verbatim>
    second <lines>
    <the larger checkpoint, verbatim>

Of equal sizes, two roots are a contradiction in themselves. Of different sizes, the proof shows which root the second tree has at the
first's size, and the first says another one: the log of the one is not a beginning of the log of the other, and no further record can
make it one. A file proves nothing by itself, and its `signer` lines least of all: `ForkEvidence.check` is given the keys from elsewhere.
It holds no record and may be shown to anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from ledger import durable, merkle
from ledger.checkpoint import Checkpoint, parse_decimal
from ledger.errors import BadSignature, LedgerError, MalformedError, VerificationError
from ledger.keys import state_dir
from ledger.note import MAX_NOTE_BYTES, Verifier, decode_base64, encode_base64, open_note, parse_note

VERSION: Final = "trail-fork/1"
MAX_SIGNERS: Final = 64
MAX_EVIDENCE_BYTES: Final = 2 * MAX_NOTE_BYTES + 64 * 1024
_DIGEST_CHARS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixProof:
    """That a tree begins with another: its root at the smaller size, and the consistency proof from there."""

    root: bytes
    """Of the larger tree, at the smaller size."""
    path: tuple[bytes, ...]
    """RFC 6962 2.1.2, 32 bytes each."""

    @classmethod
    def read(cls, old: int, new: int, nodes: merkle.NodeReader) -> PrefixProof:
        """The proof from a stored tree of at least `new` records."""
        return cls(root=merkle.root_from(old, nodes), path=tuple(merkle.consistency_path(old, new, nodes)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkEvidence:
    """A file of evidence; holding one means that it is well formed, not that it proves anything: see `check`."""

    first: bytes
    """A signed checkpoint."""
    second: bytes
    """Another one, at least as large."""
    proof: PrefixProof | None
    """None where the sizes are equal."""
    signers: tuple[str, ...]
    """The vkeys that are said to have signed both."""

    def encode(self) -> bytes:
        """The text of the file."""
        lines = [VERSION, *(f"signer {vkey}" for vkey in self.signers)]
        if self.proof is not None:
            lines += [f"root {encode_base64(self.proof.root)}", *map(encode_base64, self.proof.path)]
        head = "".join(f"{line}\n" for line in lines).encode()
        return head + b"".join(
            f"{name} {note.count(10)}\n".encode() + note for name, note in (("first", self.first), ("second", self.second))
        )

    @classmethod
    def parse(cls, data: bytes) -> ForkEvidence:
        """The inverse of `encode`.

        Raises:
            MalformedError: it is not exactly what `encode` writes, or exceeds a limit.
        """
        if len(data) > MAX_EVIDENCE_BYTES:
            raise MalformedError(f"evidence of {len(data)} bytes is too large", expected=MAX_EVIDENCE_BYTES, actual=len(data))
        try:
            lines = data.decode().split("\n")
        except UnicodeDecodeError as exc:
            raise MalformedError("the evidence is not UTF-8") from exc
        if lines.pop(0) != VERSION:
            raise MalformedError(f"evidence of a fork starts with {VERSION}", hint="a newer one needs a newer version of trail")
        signers = _take_signers(lines)
        proof = _take_proof(lines)
        first, second = _take_note(lines, "first"), _take_note(lines, "second")
        evidence = cls(first=first, second=second, proof=proof, signers=signers)
        if evidence.encode() != data:
            raise MalformedError("the evidence is not canonical, or something follows it")
        return evidence

    def check(self, verifiers: Sequence[Verifier]) -> tuple[Verifier, ...]:
        """Which of these keys signed both checkpoints; it is proved that each of them has contradicted itself.

        Args:
            verifiers: keys from elsewhere, of logs or of witnesses.

        Raises:
            MalformedError: a part of it does not parse.
            BadSignature: none of the keys has signed both, or a signature of one is wrong.
            VerificationError: it proves no fork.
        """
        first, second = _checkpoint(self.first), _checkpoint(self.second)
        _require_contradiction(first, second, self.proof)
        signed = [_signed_by(note, verifiers) for note in (self.first, self.second)]
        both = tuple(verifier for verifier in verifiers if all(verifier.vkey in names for names in signed))
        if not both:
            raise BadSignature("no known key has signed both checkpoints", expected=[verifier.vkey for verifier in verifiers])
        return both


def save_fork_evidence(directory: Path, first: bytes, second: bytes, proof: PrefixProof | None, signers: Sequence[Verifier]) -> Path:
    """Write two contradicting checkpoints down, under a name made of the content; the same fork again is the same file.

    Args:
        directory: where to; `evidence_dir` by default for everybody.
        first: a signed checkpoint.
        second: another, at least as large.
        proof: None where the sizes are equal.
        signers: keys of which at least one signed both; only those that did are named.

    Raises:
        VerificationError: they prove no fork; see `ForkEvidence.check`.
        StorageError: it cannot be written.
    """
    signed_both = ForkEvidence(first=first, second=second, proof=proof, signers=()).check(signers)
    evidence = ForkEvidence(first=first, second=second, proof=proof, signers=tuple(verifier.vkey for verifier in signed_both))
    return _save(directory, "fork", ".txt", ForkEvidence.parse(evidence.encode()).encode())


def save_checkpoint(directory: Path, note: bytes) -> Path:
    """Keep a checkpoint that a store cannot account for, so that `trail verify --against` can show it.

    Raises:
        StorageError: it cannot be written.
    """
    return _save(directory, "checkpoint", "", note)


def evidence_dir() -> Path:
    """Where evidence is kept: outside every store, because it is evidence against one."""
    return state_dir() / "evidence"


def _save(directory: Path, what: str, ending: str, data: bytes) -> Path:
    durable.make_dirs(directory, mode=0o700)
    path = directory / f"{what}-{sha256(data).hexdigest()[:_DIGEST_CHARS]}{ending}"
    durable.write_once(path, data)
    return path


def _checkpoint(note: bytes) -> Checkpoint:
    return Checkpoint.parse(parse_note(note)[0])


def _require_contradiction(first: Checkpoint, second: Checkpoint, proof: PrefixProof | None) -> None:
    if first.origin != second.origin:
        raise VerificationError("the checkpoints are of two logs", expected=first.origin, actual=second.origin)
    if first.size > second.size:
        raise MalformedError("the smaller checkpoint comes first", expected=first.size, actual=second.size)
    if (first.size == second.size) != (proof is None):
        raise MalformedError("a proof belongs to checkpoints of different sizes, and to no others")
    root = second.root
    if proof is not None:
        merkle.verify_consistency(
            old_size=first.size, new_size=second.size, old_root=proof.root, new_root=second.root, path=proof.path
        )  # fmt: skip
        root = proof.root
    if first.root == root:
        raise VerificationError(f"the checkpoints agree: both have this root at size {first.size}", actual=root)


def _signed_by(note: bytes, verifiers: Sequence[Verifier]) -> set[str]:
    found = {(signature.name, signature.key_id) for signature in open_note(note, verifiers).verified}
    return {verifier.vkey for verifier in verifiers if (verifier.name, verifier.key_id) in found}


def _take_signers(lines: list[str]) -> tuple[str, ...]:
    signers: list[str] = []
    while lines and lines[0].startswith("signer "):
        if len(signers) == MAX_SIGNERS:
            raise MalformedError(f"more than {MAX_SIGNERS} signers", expected=MAX_SIGNERS)
        signers.append(Verifier.parse(lines.pop(0).removeprefix("signer ")).vkey)
    if not signers:
        raise MalformedError("evidence names the key that signed twice")
    return tuple(signers)


def _take_proof(lines: list[str]) -> PrefixProof | None:
    if not lines or not lines[0].startswith("root "):
        return None
    root = decode_base64(lines.pop(0).removeprefix("root "))
    path: list[bytes] = []
    while lines and not lines[0].startswith("first "):
        if len(path) > merkle.MAX_PATH:
            raise MalformedError(f"a proof of more than {merkle.MAX_PATH} hashes", expected=merkle.MAX_PATH)
        path.append(decode_base64(lines.pop(0)))
    return PrefixProof(root=root, path=tuple(path))


def _take_note(lines: list[str], name: str) -> bytes:
    word, _, count = (lines.pop(0) if lines else "").partition(" ")
    if word != name:
        raise MalformedError(f"evidence has a line {name!r} with the lines of a checkpoint", actual=word)
    number = parse_decimal(count)
    if number >= len(lines):
        raise MalformedError(f"the {name} checkpoint is cut off", expected=number, actual=len(lines))
    taken, lines[:number] = lines[:number], []
    note = "".join(f"{line}\n" for line in taken).encode()
    try:
        _checkpoint(note)
    except LedgerError as exc:
        raise MalformedError(f"the {name} checkpoint does not parse: {exc.message}") from exc
    return note
