"""Stores with witnesses: a writer whose checkpoints are submitted, what became of it, and what a lying witness says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stores import ORIGIN, Home, request, send
from witness_servers import HostileWitness, RealWitness, Reply, policy_of

from ledger.anchoring import Anchorer
from ledger.anchors import newest_cosigned
from ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.evidence import ForkEvidence
from ledger.layout import Layout
from ledger.note import Signer, parse_note
from ledger.policy import Policy
from ledger.trust import LogKeys
from ledger.witness_client import submit
from ledger.witness_protocol import SIZE_TYPE, AddCheckpoint
from ledger.witness_state import WitnessState
from ledger.writer import StoreWriter

FAST = {"witness_seconds": 0.02, "segment_records": 1000}


def keys_of(home: Home) -> LogKeys:
    return LogKeys.of(home.vkey)


@contextlib.contextmanager
def anchored(home: Home, policy: Policy, *, timeout: float = 5.0, **arguments: Any) -> Iterator[tuple[StoreWriter, Anchorer]]:
    """A writer whose checkpoints are submitted; a clean stop in the end."""
    with home.writing(**arguments) as writer:
        anchorer = begin(home, writer, policy, timeout=timeout)
        yield writer, anchorer


def begin(home: Home, writer: StoreWriter, policy: Policy, *, timeout: float = 5.0) -> Anchorer:
    anchorer = Anchorer(
        writer.log, policy, keys_of(home), states=home.base / "witnesses.json", evidence=home.base / "evidence", jitter=lambda: 0.0,
        timeout=timeout,
    )  # fmt: skip
    writer.on_stopped.append(anchorer.finish)
    anchorer.start()
    return anchorer


def state_of(anchorer: Anchorer, name: str) -> WitnessState:
    return next(state for state in anchorer.states() if state.name == name)


def cosigners(policy: Policy, note: bytes | None) -> set[str]:
    assert note is not None
    return {cosignature.witness.name for cosignature in policy.cosignatures(note)}


def has_cosigned(home: Home, size: int) -> bool:
    note = newest_cosigned(Layout(home.store))
    return note is not None and open_checkpoint(note, home.verifier).size >= size


def evidence_of(home: Home) -> list[ForkEvidence]:
    return [ForkEvidence.parse(path.read_bytes()) for path in (home.base / "evidence").glob("fork-*.txt")]


class Liar:
    """A hostile witness with a key of its own, and the policy that names it."""

    def __init__(self, answer: Callable[[str, str, bytes], Reply]) -> None:
        self.signer = Signer.generate("example.org/liar")
        self.server = HostileWitness(answer)
        self.policy = policy_of(f"witness liar {self.signer.cosigner.vkey} {self.server.url}\n")


def conflict(size: int) -> Reply:
    return 409, SIZE_TYPE, f"{size}\n".encode()


def by_path(post: Reply | Callable[[bytes], Reply], get: Reply) -> Callable[[str, str, bytes], Reply]:
    return lambda method, _path, body: get if method == "GET" else post(body) if callable(post) else post


def text_in(body: bytes) -> str:
    return parse_note(AddCheckpoint.parse(body).note)[0]


def lines_by(signer: Signer, text: str | None = None) -> Callable[[bytes], Reply]:
    def reply(body: bytes) -> Reply:
        return 200, "text/plain", signer.cosign(text or text_in(body), 1_795_000_000).encode()

    return reply


STRANGER = Signer.generate("example.org/stranger")
NOTHING: Reply = (404, "text/plain", b"")
FORGED = sign_checkpoint(Checkpoint(ORIGIN, 1 << 40, b"r" * 32), Signer.generate(ORIGIN))


def forked(home: Home, tmp_path: Path, *, first: int, second: int) -> tuple[Home, bytes]:
    """A copy of a log that goes on by itself for `second` requests, and the newest checkpoint of the original after `first` more."""
    with home.writing() as writer:
        send(writer, request(0))
    copy = home.copy(tmp_path / "copy")
    with home.writing() as writer:
        for seed in range(first):
            send(writer, request(100 + seed))
    with copy.writing() as writer:
        for seed in range(second):
            send(writer, request(200 + seed))
    return copy, home.checkpoint


def tell(witness: RealWitness, note: bytes) -> None:
    """Let a witness that knows nothing yet cosign a checkpoint."""
    submit(witness.url, AddCheckpoint(old=0, proof=(), note=note))
    assert witness.latest(ORIGIN) is not None


def home_with_records(home: Home) -> Home:
    with home.writing() as writer:
        send(writer, request(1))
    return home
