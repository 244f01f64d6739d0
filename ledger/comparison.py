"""A store against what its witnesses know: the newest checkpoint of a witness, signed by the log itself, is a promise to account for.

A store that has less, or another history, was rolled back, replaced or forked, and must not be signed on. Only the log's own signature
makes a witness's word evidence: whatever else it says is an error of that witness and no more.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger import merkle
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError, NotAppendOnly, RootMismatch, StorageError, VerificationError
from ledger.evidence import PrefixProof, evidence_dir, save_checkpoint, save_fork_evidence
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES
from ledger.policy import Policy
from ledger.regular import read_file
from ledger.tree import tile_nodes
from ledger.trust import LogKeys
from ledger.witness_client import newest

logger = logging.getLogger(__name__)

START_SECONDS: Final = 5.0
"""A start waits no longer for a witness."""
_MOST_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a store can account for."""

    keys: LogKeys
    """Of the log."""
    nodes: merkle.NodeReader
    """Of its tree."""
    size: int
    """Records it has, signed or not."""
    root: bytes
    """Of its tree, computed and not only read."""
    signed: bytes | None
    """The newest checkpoint that it has signed, over at most `size` records."""
    evidence: Path
    """Where what contradicts it is kept."""

    @classmethod
    def of_store(cls, layout: Layout, keys: LogKeys, *, size: int, root: bytes, evidence: Path | None = None) -> Account:
        """Of a recovered store of `size` records with this root, the journal included.

        Raises:
            StorageError: its checkpoint cannot be read.
        """
        signed = None
        if layout.checkpoint.exists():
            with storage_errors("reading", layout.checkpoint):
                signed = read_file(layout.checkpoint, limit=MAX_NOTE_BYTES)
        return cls(keys=keys, nodes=tile_nodes(layout.root, size), size=size, root=root, signed=signed, evidence=evidence or evidence_dir())

    def compare(self, witness: str, note: bytes) -> Checkpoint:
        """Compare with a checkpoint that a witness shows.

        Returns:
            The checkpoint: it is the log's, and the store extends it.

        Raises:
            MalformedError, BadSignature, VerificationError: it is not the log's, which says nothing about the store.
            NotAppendOnly: it is the log's, and the store has less or another history; both sides have been kept as evidence.
            StorageError: the tiles cannot be read.
        """
        checkpoint = self.keys.open(note)
        if checkpoint.size > self.size:
            why = (
                f"the witness {witness} has a checkpoint over {checkpoint.size} records that this log has signed, and this store has "
                f"{self.size}: {checkpoint.size - self.size} records are missing"
            )
            raise self._contradicted(why, note, checkpoint, expected=checkpoint.size, actual=self.size)
        root = self._root_at(checkpoint.size)
        if root != checkpoint.root:
            why = (
                f"the witness {witness} has a checkpoint over {checkpoint.size} records that this log has signed, and up to there this "
                "store has another history"
            )
            raise self._contradicted(why, note, checkpoint, expected=checkpoint.root.hex(), actual=root.hex())
        return checkpoint

    def _root_at(self, size: int) -> bytes:
        """Proven to lead to the root that the store has now: of its tiles, somebody may have changed just those that one size needs."""
        try:
            return merkle.root_within(size, whole=self.size, root=self.root, reader=self.nodes)
        except RootMismatch as exc:
            raise NotAppendOnly(
                f"the tiles of this store do not lead from record {size} to its own {self.size} records: they are damaged, or forged",
                hint="keep the store as it is, and run trail verify; tiles can be made anew from the records (move tile/ away)",
            ) from exc

    def _contradicted(self, why: str, note: bytes, checkpoint: Checkpoint, *, expected: object, actual: object) -> NotAppendOnly:
        kept = ""
        try:
            kept = f" What the witness showed is kept in {self._keep(note, checkpoint)}."
        except StorageError as exc:
            logger.error("the evidence cannot be kept: %s", exc)
        hint = (
            "this store was rolled back or replaced: keep it as it is, restore the newest backup, or go on with trail init --continues; "
            f"nothing that contradicts the witness will be signed.{kept}"
        )
        return NotAppendOnly(why, hint=hint, expected=expected, actual=actual, index=min(checkpoint.size, self.size))

    def _keep(self, note: bytes, theirs: Checkpoint) -> Path:
        """Both sides; as the proof of a fork where they are one, and else so that `trail verify --against` can show them."""
        theirs_kept = save_checkpoint(self.evidence, note)
        if self.signed is None:
            return theirs_kept
        save_checkpoint(self.evidence, self.signed)
        ours = self.keys.open(self.signed)
        if ours.size < theirs.size:
            return theirs_kept
        proof = None if ours.size == theirs.size else PrefixProof.read(theirs.size, ours.size, self.nodes)
        try:
            return save_fork_evidence(self.evidence, note, self.signed, proof, [key.verifier for key in self.keys.keys])
        except VerificationError as exc:  # after a rotation no single key has signed both
            logger.warning("the two checkpoints are no proof of a fork by themselves: %s", exc)
            return theirs_kept


def compare_with_witnesses(policy: Policy, account: Account, *, timeout: float = START_SECONDS) -> list[str]:
    """Ask every witness of a policy for its newest checkpoint, and compare; to be called before anything is signed.

    Args:
        policy: whose witnesses; those without a URL cannot be asked.
        account: the store, recovered, the journal included.
        timeout: seconds for one witness; they are asked at the same time.

    Returns:
        For each witness that could not be compared with, why.

    Raises:
        NotAppendOnly: a witness knows more, or another history.
    """
    asked = [(witness.name, witness.url) for witness in policy.witnesses if witness.url is not None]
    if not asked:
        return []
    with ThreadPoolExecutor(min(len(asked), _MOST_AT_ONCE), thread_name_prefix="trail-witness") as threads:
        results = threads.map(lambda witness: _compared(witness[0], witness[1], account, timeout), asked)
        return [why for why in results if why]


def _compared(witness: str, url: str, account: Account, timeout: float) -> str:
    """Why nothing was compared, or nothing."""
    try:
        note = newest(url, account.keys.origin, timeout=timeout)
        if note is not None:
            account.compare(witness, note)
    except NotAppendOnly:
        raise
    except LedgerError as exc:
        return f"nothing was compared with the witness {witness}: {exc.message}"
    return ""
