"""A log of a few records that signs whatever it is told to: for witnesses, which must not believe it.

Roots and proofs are the naive recursion of RFC 6962 (`reference`), not the production code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import reference

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.note import Signer, open_note
from ledger.witness import TEXT_TYPE, Answer, WitnessStore
from ledger.witness_files import WitnessFiles
from ledger.witness_protocol import SIZE_TYPE, AddCheckpoint, origin_path

NOW = 1_790_000_000
"""Unix seconds, where a test has no other clock."""


@dataclass
class SmallLog:
    """One history; `fork` gives another one under the same key."""

    signer: Signer
    records: tuple[bytes, ...] = tuple(b"record %d" % number for number in range(40))

    @classmethod
    def make(cls, origin: str = "example.com/log") -> SmallLog:
        return cls(Signer.generate(origin))

    @property
    def origin(self) -> str:
        return self.signer.name

    @property
    def path(self) -> str:
        return origin_path(self.origin)

    def fork(self, at: int) -> SmallLog:
        """The history that is another one from record `at` on."""
        return SmallLog(self.signer, (*self.records[:at], *(b"other " + record for record in self.records[at:])))

    def checkpoint(self, size: int) -> Checkpoint:
        return Checkpoint(self.origin, size, reference.mth(self.records[:size]))

    def note(self, size: int, signer: Signer | None = None) -> bytes:
        return sign_checkpoint(self.checkpoint(size), signer or self.signer)

    def proof(self, old: int, size: int) -> tuple[bytes, ...]:
        return tuple(reference.proof(old, self.records[:size])) if 0 < old < size else ()

    def body(self, old: int, size: int) -> bytes:
        """An honest request."""
        return AddCheckpoint(old=old, proof=self.proof(old, size), note=self.note(size)).encode()


def new_witness(directory: Path, *logs: SmallLog, name: str = "witness.example/w") -> WitnessFiles:
    """A witness that knows these logs, and is not running."""
    files = WitnessFiles(directory)
    files.make(name)
    for log in logs:
        files.add_log(log.signer.vkey)
    return files


def started(files: WitnessFiles, now: int = NOW) -> WitnessStore:
    """The same, running under a clock that stands still."""
    return WitnessStore.open(files.directory, clock=lambda: now)


def cosigned_at(witness: WitnessStore, note: bytes, answer: Answer) -> int:
    """The time of the cosignature in an answer, verified as a client would."""
    assert (answer.status, answer.content_type) == (200, TEXT_TYPE), answer
    (line,) = open_note(note + answer.body, [witness.cosigner]).verified
    assert line.timestamp is not None
    return line.timestamp


def conflict(answer: Answer) -> int:
    """The size that a 409 names."""
    assert (answer.status, answer.content_type) == (409, SIZE_TYPE), answer
    assert answer.body.endswith(b"\n")
    return int(answer.body)


def request(old: int, note: bytes, *proof: bytes) -> bytes:
    """Any request, honest or not."""
    return AddCheckpoint(old=old, proof=proof, note=note).encode()
