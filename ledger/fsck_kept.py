"""Checkpoints from elsewhere against the store: has it less than was signed, or another history?"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger import merkle
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, MalformedError, VerificationError
from ledger.evidence import PrefixProof
from ledger.fsck_files import Failure
from ledger.fsck_leaves import stored_nodes
from ledger.fsck_report import Fork, Report
from ledger.fsck_tree import root_at
from ledger.keys import LastSigned
from ledger.layout import Layout
from ledger.trust import LogKeys

AGAINST: Final = "the checkpoint given with --against"
OWN: Final = "the last checkpoint this machine signed"
_STORES: Final = "the checkpoint in the store"


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that the store must extend."""

    checkpoint: Checkpoint
    note: bytes
    where: str


def read_kept(keys: LogKeys | None, notes: Sequence[tuple[str, bytes]], last_signed: LastSigned | None, report: Report) -> list[Kept]:
    """Checkpoints from elsewhere, each signed by a key that is believed.

    Args:
        keys: the keys of the log.
        notes: (where it comes from, the note).
        last_signed: what this machine last signed.
        report: takes what cannot be used.
    """
    kept = []
    own = last_signed.read() if last_signed is not None else None
    for where, note in [*notes, *([(OWN, own)] if own is not None else [])]:
        if keys is None:
            report.not_checked.append(f"{where}: no key is pinned")
            continue
        try:
            kept.append(Kept(keys.open(note), note, where))
        except MalformedError as exc:
            report.unreadable.append(f"{where} cannot be read: {exc.message}")
        except VerificationError as exc:
            report.contradicted(Failure("against", None, where, f"is not this log's: {exc.message}"))
    return kept


def wait_for_the_first(path: Path, kept: list[Kept]) -> None:
    """Give the first checkpoint of a log that has just begun a second to appear: it is signed before it is published."""
    if any(item.checkpoint.size for item in kept):
        for _ in range(20):
            if path.exists():
                return
            time.sleep(0.05)


def signed_and_not_published(layout: Layout, head: Kept, kept: list[Kept], report: Report) -> Kept:
    """The last signed checkpoint in place of the store's, where a crash came between the two and the store holds what it covers.

    The store's own is then one of those that must be kept.
    """
    for number, item in enumerate(kept):
        checkpoint = item.checkpoint
        if item.where != OWN or checkpoint.size <= head.checkpoint.size:
            continue
        nodes = stored_nodes(layout, checkpoint.size)
        with contextlib.suppress(LedgerError):
            if merkle.root_from(checkpoint.size, nodes) == checkpoint.root:
                report.not_judged.append(
                    f"checkpoint: covers {head.checkpoint.size} records; {checkpoint.size} were signed, and those are checked"
                )
                kept[number] = Kept(head.checkpoint, head.note, _STORES)
                return item
    return head


def nothing_published(kept: list[Kept], report: Report) -> None:
    """A store without a checkpoint to believe, of which something was signed, was emptied or replaced."""
    for item in kept:
        if item.checkpoint.size:
            why = f"{item.checkpoint.size} records were signed, and the store has no checkpoint to believe"
            report.contradicted(Failure("rollback", None, item.where, why))


def check_shorter(head: Kept, kept: list[Kept], report: Report) -> None:
    """A checkpoint over more records than the store has is a rollback, whatever the tiles are like."""
    size = head.checkpoint.size
    for item in kept:
        if item.checkpoint.size > size:
            missing = item.checkpoint.size - size
            why = f"{missing} records are missing: it covers {item.checkpoint.size}, the store has {size}"
            report.contradicted(Failure("rollback", size, item.where, why))


def check_kept(head: Kept, kept: list[Kept], nodes: merkle.NodeReader, report: Report) -> None:
    """Compare each checkpoint that the store may extend with its tree; what contradicts it is a fork.

    Raises:
        RootMismatch: the tiles are damaged in a part that was left out.
    """
    for item in kept:
        if item.checkpoint.size <= head.checkpoint.size and root_at(head.checkpoint, item.checkpoint.size, nodes) != item.checkpoint.root:
            forked(head, item.checkpoint, item.note, item.where, nodes, report)


def forked(head: Kept, checkpoint: Checkpoint, note: bytes, where: str, nodes: merkle.NodeReader, report: Report) -> None:
    """Report a checkpoint of another history, and what proves it."""
    size = head.checkpoint.size
    why = f"the store has another history up to record {checkpoint.size}"
    proof = None if checkpoint.size == size else PrefixProof.read(checkpoint.size, size, nodes)
    report.contradicted(Failure("fork", checkpoint.size, where, why), Fork(note, head.note, proof))
