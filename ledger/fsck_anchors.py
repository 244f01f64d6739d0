"""The third verdict of `verify`: who outside has confirmed this history, and when.

Counted are witnesses in the *verifier's* policy only; what the store says of its own witnesses is nothing. Every cosigned or time-stamped
checkpoint must be the log's and a prefix of the tree: one that is not is evidence of another history, however well it is signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ledger import merkle
from ledger.anchors import cosigned_notes, timestamps
from ledger.checkpoint import Checkpoint
from ledger.errors import BadSignature, LedgerError, MalformedError, StorageError, VerificationError
from ledger.fsck_files import Failure
from ledger.fsck_kept import Kept, forked
from ledger.fsck_report import Report, iso
from ledger.fsck_tree import moved_on, root_at
from ledger.layout import Layout
from ledger.policy import Cosignature, Policy
from ledger.timestamps import UnknownAuthority, verify_token
from ledger.trust import Trust

MAX_TIMESTAMPS: Final = 1_000
"""Listed; all are checked."""


@dataclass(slots=True)
class _Anchors:
    """What is needed to judge one anchor after the other."""

    layout: Layout
    head: Kept
    trust: Trust
    nodes: merkle.NodeReader
    report: Report
    cosigned_by_others: int = 0
    """Checkpoints in the store with signatures of witnesses that the verifier does not know."""


def check_anchors(
    layout: Layout, head: Kept, trust: Trust, nodes: merkle.NodeReader, witnessed: Sequence[tuple[str, bytes]], report: Report
) -> None:
    """Judge every cosigned and time-stamped checkpoint of the store, and what witnesses themselves show.

    Args:
        layout: the store.
        head: the checkpoint that is verified, checked already.
        trust: what the verifier believes.
        nodes: of the tree under `head`, checked already.
        witnessed: (where, note) as witnesses show them; compared with the tree by `fsck_kept`, here only their cosignatures count.
        report: takes the anchoring, and forks.
    """
    if trust.keys is None:
        report.anchoring.not_checked.append("cosignatures and time stamps: no key is pinned")
        return
    anchors = _Anchors(layout, head, trust, nodes, report)
    report.anchoring.policy = trust.policy is not None
    for where, note in witnessed:
        checkpoint = _of_this_log(anchors, note)
        if checkpoint is not None and checkpoint.size <= head.checkpoint.size and _is_prefix(anchors, checkpoint):
            _count(anchors, where, checkpoint, note)
    try:
        for where, note in _store_notes(layout, head):
            checkpoint = _judged(anchors, where, note)
            if checkpoint is not None:
                _count(anchors, where, checkpoint, note)
        _check_timestamps(anchors)
    except StorageError as exc:
        report.anchoring.fail(Failure("anchor", None, None, exc.message))
    if anchors.cosigned_by_others and trust.policy is None:
        count = anchors.cosigned_by_others
        why = "no witness is named (--trust FILE), and the store's own list of them counts for nothing"
        report.anchoring.not_checked.append(f"the cosignatures on {count} checkpoints: {why}")


def _store_notes(layout: Layout, head: Kept) -> Iterator[tuple[str, bytes]]:
    yield "checkpoint", head.note
    yield from cosigned_notes(layout)


def _of_this_log(anchors: _Anchors, note: bytes) -> Checkpoint | None:
    try:
        return anchors.trust.keys.open(note) if anchors.trust.keys is not None else None
    except LedgerError:
        return None


def _is_prefix(anchors: _Anchors, checkpoint: Checkpoint) -> bool:
    return root_at(anchors.head.checkpoint, checkpoint.size, anchors.nodes) == checkpoint.root


def _judged(anchors: _Anchors, where: str, note: bytes) -> Checkpoint | None:
    """The checkpoint of a note, if it is the log's and a prefix of the tree; else the failure is reported."""
    if anchors.trust.keys is None:
        return None
    anchoring, size = anchors.report.anchoring, anchors.head.checkpoint.size
    try:
        checkpoint = anchors.trust.keys.open(note)
    except LedgerError as exc:
        anchoring.fail(Failure("cosigned", None, where, f"is not a checkpoint of this log: {exc.message}"))
        return None
    if checkpoint.size > size:
        if not moved_on(anchors.layout, checkpoint):
            why = f"covers {checkpoint.size} records, and the store has {size}: it was rolled back"
            anchors.report.contradicted(Failure("rollback", size, where, why))
        return None
    if not _is_prefix(anchors, checkpoint):
        forked(anchors.head, checkpoint, note, where, anchors.nodes, anchors.report)
        return None
    return checkpoint


def _count(anchors: _Anchors, where: str, checkpoint: Checkpoint, note: bytes) -> None:
    """Count the cosignatures of known witnesses on a checkpoint that is a prefix of the tree."""
    policy, anchoring = anchors.trust.policy, anchors.report.anchoring
    if policy is None:
        anchors.cosigned_by_others += note.count(b"\n\xe2\x80\x94 ") > 1
        return
    try:
        cosignatures = policy.cosignatures(note)
    except (BadSignature, MalformedError) as exc:
        anchoring.fail(Failure("cosigned", checkpoint.size, where, f"a cosignature is wrong: {exc.message}"))
        return
    for cosignature in cosignatures:
        name, time = cosignature.witness.name, iso(cosignature.timestamp)
        known = anchoring.witnesses.get(name)
        if known is None or (known["size"], known["time"]) < (checkpoint.size, time):
            anchoring.witnesses[name] = {"name": name, "size": checkpoint.size, "time": time, "where": where}
    complete = _quorum_time(policy, cosignatures)
    # Of no record nothing can be confirmed.
    if complete is not None and checkpoint.size and (checkpoint.size, complete) > (anchoring.to or 0, anchoring.time or 0):
        anchoring.to, anchoring.time = checkpoint.size, complete


def _quorum_time(policy: Policy, cosignatures: Sequence[Cosignature]) -> int | None:
    """The latest time such that the cosignatures since then are a quorum by themselves; None when all together are none."""
    by_time = sorted(cosignatures, key=lambda cosignature: cosignature.timestamp, reverse=True)
    for count in range(1, len(by_time) + 1):
        if policy.has_quorum({cosignature.witness.name for cosignature in by_time[:count]}):
            return by_time[count - 1].timestamp
    return None


def _check_timestamps(anchors: _Anchors) -> None:
    anchoring, roots = anchors.report.anchoring, anchors.trust.tsa_roots
    unchecked = strangers = 0
    for where, note, token in timestamps(anchors.layout):
        checkpoint = _judged(anchors, where, note)
        if checkpoint is None:
            continue
        if not roots:
            unchecked += 1
            continue
        try:
            stamp = verify_token(token, note, roots)
        except UnknownAuthority:
            strangers += 1
            continue
        except (VerificationError, MalformedError) as exc:
            anchoring.fail(Failure("time stamp", checkpoint.size, where, exc.message))
            continue
        if len(anchoring.timestamps) < MAX_TIMESTAMPS:
            moment = stamp.no_later_than.strftime("%Y-%m-%dT%H:%M:%SZ")
            anchoring.timestamps.append({"size": checkpoint.size, "time": moment, "authority": stamp.authority, "where": where})
    if unchecked:
        anchoring.not_checked.append(f"{unchecked} time stamps: no root of an authority is named (--trust FILE)")
    if strangers:
        anchoring.not_checked.append(f"{strangers} time stamps: by authorities that no root you named vouches for")
