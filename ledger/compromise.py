"""What a stolen key exposes: up to which record something holds that the thief could not make.

Whoever has the key can sign another history. What was cosigned by witnesses, time-stamped, or kept by somebody *before* the theft names a
history that he cannot have made; every record under it is covered. Later ones may be his, however well they are signed and cosigned: he
could have sent his own records to the witnesses too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from ledger import merkle
from ledger.anchors import cosigned_notes, timestamps
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.layout import Layout
from ledger.timestamps import verify_token
from ledger.trust import LogKeys, Trust

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """A checkpoint of this history that is older than the theft."""

    size: int
    by: str
    where: str
    time: datetime | None
    """UTC; None of one that somebody kept: when is for whoever kept it to say."""


@dataclass(slots=True)
class Exposure:
    """Which records are covered, and which are not."""

    size: int
    """Records under the store's checkpoint."""
    covers: list[Cover] = field(default_factory=list)
    """The largest of each kind."""
    contradictions: list[str] = field(default_factory=list)
    """What names another history than the store's, or more of it than there is."""
    ignored: list[str] = field(default_factory=list)
    """What there is and was not counted, and why."""

    @property
    def covered(self) -> int:
        """Records `[0, covered)` cannot be the thief's."""
        return max((cover.size for cover in self.covers), default=0)


def exposure(
    layout: Layout,
    keys: LogKeys,
    head: Checkpoint,
    nodes: merkle.NodeReader,
    trust: Trust,
    kept: Iterable[tuple[str, bytes]],
    *,
    since: int,
) -> Exposure:
    """Judge everything that is older than the theft.

    Args:
        layout: the store.
        keys: the log's keys, the stolen one among them.
        head: the store's checkpoint, verified.
        nodes: of the tree under it.
        trust: the verifier's witnesses and authorities of time.
        kept: (where, note) of checkpoints that the verifier vouches for having kept since before the theft.
        since: when the key may have been stolen, Unix nanoseconds.
    """
    found = Exposure(head.size)
    for cover, note in [*_cosigned(layout, trust, since, found), *_stamped(layout, trust, since, found), *_kept(kept)]:
        try:
            checkpoint = keys.open(note)
        except LedgerError as exc:
            found.contradictions.append(f"{cover.where} is not a checkpoint of this log: {exc.message}")
            continue
        if checkpoint.size > head.size:
            found.contradictions.append(
                f"{cover.where} covers {checkpoint.size} records, and the store has {head.size}: it was rolled back"
            )
        elif merkle.root_within(checkpoint.size, whole=head.size, root=head.root, reader=nodes) != checkpoint.root:
            found.contradictions.append(f"{cover.where} is of another history than the store's {head.size} records")
        else:
            _add(found.covers, Cover(size=checkpoint.size, by=cover.by, where=cover.where, time=cover.time))
    return found


def _cosigned(layout: Layout, trust: Trust, since: int, found: Exposure) -> Iterator[tuple[Cover, bytes]]:
    policy = trust.policy
    late = 0
    for where, note in cosigned_notes(layout):
        if policy is None or not policy.wants_cosignatures:
            found.ignored.append(
                "cosigned checkpoints: name your witnesses (--trust FILE), for the store's own list of them counts for nothing"
            )
            return
        try:
            before = [one for one in policy.cosignatures(note) if one.timestamp * 10**9 < since]
        except LedgerError as exc:
            found.contradictions.append(f"{where}: {exc.message}")
            continue
        names = sorted({one.witness.name for one in before})
        if policy.has_quorum(names):
            latest = _moment(max(one.timestamp for one in before) * 10**9)
            yield Cover(size=0, by=f"cosigned by {', '.join(names)}", where=where, time=latest), note
        else:
            late += 1
    if late:
        found.ignored.append(f"{late} cosigned checkpoints: no quorum of your witnesses has cosigned them before that time")


def _stamped(layout: Layout, trust: Trust, since: int, found: Exposure) -> Iterator[tuple[Cover, bytes]]:
    late = 0
    for where, note, token in timestamps(layout):
        if not trust.tsa_roots:
            found.ignored.append("time stamps: name the roots of their authorities (tsa_roots, --trust FILE)")
            return
        try:
            stamp = verify_token(token, note, trust.tsa_roots)
        except LedgerError as exc:
            found.contradictions.append(f"{where}: {exc.message}")
            continue
        if (stamp.no_later_than - _EPOCH) // timedelta(microseconds=1) * 1000 < since:
            yield Cover(size=0, by=f"time-stamped by {stamp.authority}", where=where, time=stamp.no_later_than), note
        else:
            late += 1
    if late:
        found.ignored.append(f"{late} time stamps: they are not older than that time")


def _kept(kept: Iterable[tuple[str, bytes]]) -> Iterator[tuple[Cover, bytes]]:
    for where, note in kept:
        yield Cover(size=0, by="kept", where=where, time=None), note


def _add(covers: list[Cover], new: Cover) -> None:
    """Keep the largest by each who vouches."""
    same = next((cover for cover in covers if cover.by == new.by), None)
    if same is None:
        covers.append(new)
    elif new.size > same.size:
        covers[covers.index(same)] = new


def _moment(nanoseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def advice(origin: str, vkey: str, found: Exposure, *, is_current: bool) -> Sequence[str]:
    """What to do next, in order."""
    steps = []
    if found.contradictions:
        steps.append("keep the store and whatever contradicts it as evidence: somebody has signed two histories; trail verify says where")
    if is_current:
        steps.append("stop the server, and rotate to a key that the thief does not have: trail key rotate")
    steps += [
        f"tell everyone who verifies {origin} to end their trust in it: --key '{vkey}@<={found.covered}', and --key with the new one",
        f"compare records {found.covered} to {found.size} with what the senders know of them: for these the signature alone proves nothing"
        if found.covered < found.size
        else "nothing in the store rests on that key alone",
        "ask your witnesses for their newest checkpoint: trail verify --witness URL",
    ]
    return steps
