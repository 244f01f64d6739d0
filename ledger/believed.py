"""What a verifier believes of a store's log once its rotations are taken into account."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from ledger import merkle
from ledger.anchors import cosigned_notes
from ledger.errors import StorageError
from ledger.fsck_leaves import stored_nodes
from ledger.layout import Layout
from ledger.rotation import MAX_NOTES, Followed, PathIn, follow, read_lines
from ledger.trust import Trust


def follow_rotations(layout: Layout, trust: Trust, *, notes: Sequence[bytes] = ()) -> tuple[Trust, Followed | None]:
    """Extend a verifier's trust over the rotations in a store, as far as the verifier's own witnesses confirm them.

    Args:
        layout: the store; whatever it says is only believed under a quorum of `trust.policy`.
        trust: what the verifier brings.
        notes: checkpoints from elsewhere, cosigned perhaps.

    Returns:
        What is believed now; and what was followed or refused, None where there is nothing to follow.
    """
    if trust.keys is None:
        return trust, None
    try:
        lines = read_lines(layout)
        if not lines:
            return trust, None
        # The newest first, then the history from its end: what covers a rotation is rather late than early.
        notes_in_store = (note for _where, note in cosigned_notes(layout))
        newest = list(islice(notes_in_store, 1))
        stored = [*newest, *reversed(deque(notes_in_store, maxlen=MAX_NOTES // 2))]
    except StorageError as exc:
        return trust, Followed(trust.keys, refused=[f"the rotations of the key cannot be read: {exc.message}"])
    followed = follow(lines, trust.keys, trust.policy, notes=[*notes, *stored], path_in=_paths(layout))
    return replace(trust, keys=followed.keys), followed


def _paths(layout: Layout) -> PathIn:
    """Inclusion paths from tiles that nobody has checked yet: a wrong one proves nothing."""

    def path_in(index: int, size: int) -> list[bytes]:
        return merkle.inclusion_path(index, size, stored_nodes(layout, size))

    return path_in
