"""Is the store what this machine last signed? A restored backup and a rewritten history are noticed here, before anything is read.

The last signed checkpoint lies outside the store (`ledger.keys.LastSigned`). It may be a moment ahead of the store's own, because it is
written first; the records it covers are then in the journal, and that is no rollback.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ledger import merkle
from ledger.checkpoint import Checkpoint
from ledger.errors import MalformedError, VerificationError
from ledger.reader import StoreReader, frontier_nodes
from ledger.tree import tile_nodes


@dataclass(frozen=True, slots=True)
class Signed:
    """The store against the last signed checkpoint."""

    state: Literal["kept", "rollback", "fork", "none", "not_checked", "unreadable"]
    size: int | None
    """Records that were signed."""
    why: str = ""

    @property
    def is_false(self) -> bool:
        """The store contradicts what was signed."""
        return self.state in ("rollback", "fork")


def compare(reader: StoreReader, note: bytes | None) -> Signed:
    """Compare a store with the last signed checkpoint, which must have been read before the store was opened.

    Args:
        reader: the store.
        note: the checkpoint, None if this machine never signed for the log.
    """
    if note is None:
        return Signed("none", None, "this machine never signed for this log")
    if reader.keys is None:
        return Signed("not_checked", None, "no key is pinned")
    try:
        head = reader.keys.open(note)
    except MalformedError as exc:
        return Signed("unreadable", None, f"the checkpoint that this machine last signed cannot be read: {exc.message}")
    except VerificationError as exc:
        # The store's own is by a key that is believed. What was signed after a rotation is not: this is the store of before.
        return Signed("rollback", None, f"what this machine last signed is by no key that is believed for it: {exc.message}")
    covered = reader.size + reader.tail(include_unsigned=True).unsigned
    if head.size > covered:
        return Signed(
            "rollback", head.size, f"{head.size} records were signed, and the store has {covered}: {head.size - covered} are missing"
        )
    try:
        root = _root_at(reader, head)
    except VerificationError as exc:
        return Signed(
            "fork", head.size, f"the tiles do not lead from the {head.size} records that were signed to the checkpoint: {exc.message}"
        )
    if root != head.root:
        return Signed("fork", head.size, f"the store has another history than the {head.size} records that were signed")
    return Signed("kept", head.size)


def _root_at(reader: StoreReader, head: Checkpoint) -> bytes:
    root = reader.layout.root
    if head.size <= reader.size:
        return merkle.root_within(head.size, whole=reader.size, root=reader.tree_head.root, reader=tile_nodes(root, reader.size))
    start = reader.sealed_end
    frontier = merkle.Frontier(start, frontier_nodes(root, start, reader.size))
    records = reader.tail(include_unsigned=True).records.column("record").slice(0, head.size - start)
    frontier.extend(merkle.leaf_hashes(record.as_py() for record in records))
    return frontier.root()
