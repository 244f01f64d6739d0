"""What witnesses have cosigned, as others remember it: a witness that knows less than that has forgotten.

A witness promises never to cosign two histories, and keeps that promise by what it remembers. One that was restored from a backup, or lost
its state, would cosign another history from there on, and neither of the two cosignatures would be false. Its word counts for nothing any
more, although every signature of it is right: what it has cosigned, and shows no longer, is known from the notes that others have kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ledger.anchors import recent_cosigned_notes
from ledger.checkpoint import Checkpoint
from ledger.errors import BadSignature, LedgerError, MalformedError
from ledger.layout import Layout
from ledger.note import parse_note
from ledger.policy import Policy

DAYS: Final = 31
"""Of a store's history that a start looks through; a witness that was silent for longer is taken at its word."""


def remembered(layout: Layout, policy: Policy, origin: str, *, days: int = DAYS) -> dict[str, int]:
    """The sizes up to which a store shows that the witnesses of a policy have cosigned its log, by their names in the policy.

    Only verified cosignatures count. Sizes grow with time, so that of each witness the last one is enough.

    Raises:
        StorageError: the history cannot be read.
    """
    found: dict[str, int] = {}
    missing = {witness.name for witness in policy.witnesses}
    for note in recent_cosigned_notes(layout, days=days):
        for name, size in _cosigned(policy, origin, note).items():
            found[name] = max(size, found.get(name, 0))
            missing.discard(name)
        if not missing:
            break
    return found


def forgetful(policy: Policy, shown: bytes, stored: Iterable[bytes]) -> str | None:
    """Whether the witness that shows a checkpoint has cosigned a larger one of the same log; why, or None if nothing says so.

    Args:
        policy: the verifier's; of other witnesses nothing is known.
        shown: the newest checkpoint that the witness says that it knows, with its own cosignature.
        stored: notes from elsewhere, as those of the store, which must have been read BEFORE the witness was asked: while a log is
            written, they are newer a moment later.
    """
    try:
        checkpoint = Checkpoint.parse(parse_note(shown)[0])
        cosigned = _cosigned(policy, checkpoint.origin, shown)
    except LedgerError:
        return None
    newest = dict(cosigned)
    for note in stored:
        for name, size in _cosigned(policy, checkpoint.origin, note, beyond=checkpoint.size).items():
            if name in newest:
                newest[name] = max(size, newest[name])
    # A note may carry the lines of several: the one who shows it is certainly among them, and which one it is does not matter if all are.
    if not newest or min(newest.values()) <= checkpoint.size:
        return None
    name, size = min(newest.items(), key=lambda item: item[1])
    return forgot(f"the witness {name}", knows=checkpoint.size, cosigned=size)


def forgot(who: str, *, knows: int, cosigned: int) -> str:
    """What to say of a witness that has forgotten."""
    return (
        f"{who} forgot {cosigned - knows} records: it has cosigned {cosigned} and knows {knows}, as one that was restored from a backup; "
        "it could cosign another history, so retire it: a new key, in a policy of its own"
    )


def _cosigned(policy: Policy, origin: str, note: bytes, *, beyond: int = -1) -> dict[str, int]:
    """The size of a note by the names of those who have cosigned it; nothing if it is damaged, of another log, or not larger."""
    try:
        checkpoint = Checkpoint.parse(parse_note(note)[0])
        if checkpoint.origin != origin or checkpoint.size <= beyond:
            return {}
        return {cosignature.witness.name: checkpoint.size for cosignature in policy.cosignatures(note)}
    except (MalformedError, BadSignature):  # `verify` reports it
        return {}
