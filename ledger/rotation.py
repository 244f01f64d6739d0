"""Rotations of a log's key: what a `key` record says, and how a verifier who knows the old key comes to believe the new one.

The record of a rotation (`{"event": "rotate", ...}`) holds a statement, signed by both keys:

    trail-key-rotation/1
    <origin>
    <vkey of the old key>
    <vkey of the new key>
    <records in the log when it was made>

Both signatures prove that the holders of the two keys agree, and nothing more: a thief of the old key can make such a record too, in a
history of his own. So a verifier follows a rotation only if the record is under a checkpoint that a quorum of the verifier's *own*
witnesses has cosigned: they have seen one history, and it has one rotation. In the other direction no witness is needed: whoever believes
the new key also believes its word on the one before it.

The store keeps for every rotation a line in `checkpoints/keys.jsonl` with everything that this takes. All of it is hostile input here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Self

import orjson

from ledger import merkle
from ledger.checkpoint import Checkpoint, parse_decimal
from ledger.durable import storage_errors
from ledger.errors import BadSignature, LedgerError, MalformedError, VerificationError
from ledger.layout import Layout
from ledger.note import Verifier, decode_base64, encode_base64, open_note
from ledger.policy import Policy
from ledger.record import parse_record
from ledger.regular import open_regular
from ledger.trust import MAX_KEYS, LogKeys, TrustedKey

KIND: Final = "key"
EVENT: Final = "rotate"
STATEMENT: Final = "trail-key-rotation/1"
MAX_LINES: Final = 2 * MAX_KEYS
"""Of `keys.jsonl`; more than a log may have keys, so that strange lines do not crowd out true ones at once."""
MAX_LINE_BYTES: Final = 256 * 1024
"""A record and its path take a third of it."""
MAX_NOTES: Final = 64
"""Further checkpoints tried for each rotation."""

PathIn = Callable[[int, int], list[bytes]]
"""`path_in(index, size)`: the inclusion path of a record in the tree of that size."""


def statement_text(*, old: Verifier, new: Verifier, size: int) -> str:
    """What both keys sign: the text of a note, ending in a newline."""
    return f"{STATEMENT}\n{old.name}\n{old.vkey}\n{new.vkey}\n{size}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A rotation that both keys have signed; holding one made by `parse` means that the signatures are right."""

    old: Verifier
    new: Verifier
    size: int
    """Records in the log when the statement was made; the record's index is at least this."""

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self.old.name

    @property
    def statement(self) -> str:
        """What both keys have signed."""
        return statement_text(old=self.old, new=self.new, size=self.size)

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """The rotation in a record of the log.

        Raises:
            MalformedError: it is no rotation, or not exactly as described above.
            BadSignature: one of the two keys has not signed.
        """
        value = parse_record(record)
        body = value.get(KIND)
        if value["kind"] != KIND or not isinstance(body, dict) or body.get("event") != EVENT:
            raise MalformedError("the record is not of a rotation of the key")
        text, lines = body.get("statement"), body.get("signatures")
        if not isinstance(text, str) or not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise MalformedError("a rotation has a statement and signature lines")
        rotation = cls.stated(text)
        if (body.get("old"), body.get("new")) != (rotation.old.vkey, rotation.new.vkey):
            raise MalformedError("the statement of the rotation names other keys than the record")
        note = (text + "\n" + "".join(f"{line}\n" for line in lines)).encode("utf-8", "surrogatepass")
        signed = {signature.key_id for signature in open_note(note, [rotation.old, rotation.new]).verified}
        for key in (rotation.old, rotation.new):
            if key.key_id not in signed:
                raise BadSignature(f"the rotation is not signed by {key.vkey}", expected=key.vkey)
        return rotation

    @classmethod
    def stated(cls, text: str) -> Self:
        """What a statement says; nothing is verified.

        Raises:
            MalformedError: it is not exactly what `statement_text` writes, or not of two keys of one log.
        """
        lines = text.split("\n")
        if len(lines) != 6 or lines[0] != STATEMENT:
            raise MalformedError(f"the statement of a rotation has five lines, the first is {STATEMENT}")
        old, new, size = Verifier.parse(lines[2]), Verifier.parse(lines[3]), parse_decimal(lines[4])
        if old.name != new.name or old.key_id == new.key_id or old.type != new.type:
            raise MalformedError("a rotation is from one key of a log to another key of the same log")
        if cls(old=old, new=new, size=size).statement != text:
            raise MalformedError("the statement of the rotation is not canonical, or is of another log")
        return cls(old=old, new=new, size=size)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationLine:
    """A line of `keys.jsonl`: the record, and that it is in the log. Nothing of it is verified by being read."""

    index: int
    record: bytes
    checkpoint: bytes
    """A note that covers the record."""
    path: tuple[bytes, ...]
    """The inclusion path of the record in the tree of that checkpoint."""

    def encode(self) -> bytes:
        """The line, with its newline."""
        value = {
            "index": self.index,
            "record": encode_base64(self.record),
            "checkpoint": self.checkpoint.decode(),
            "path": [encode_base64(node) for node in self.path],
        }
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """The inverse of `encode`.

        Raises:
            MalformedError: it is anything else.
        """
        if len(line) > MAX_LINE_BYTES:
            raise MalformedError(f"more than {MAX_LINE_BYTES} bytes")
        try:
            value = orjson.loads(line)
            index, path = value["index"], value["path"]
            good = type(index) is int and 0 <= index < merkle.MAX_TREE_SIZE and isinstance(path, list) and len(path) <= merkle.MAX_PATH
            if not good:
                raise MalformedError("no index, or no path")
            return cls(
                index=index,
                record=decode_base64(value["record"]),
                checkpoint=value["checkpoint"].encode(),
                path=tuple(decode_base64(node) for node in path),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise MalformedError(f"not the line of a rotation: {exc}") from exc

    def require_included(self, checkpoint: Checkpoint) -> None:
        """Check that the record is in the tree of this line's checkpoint.

        Raises:
            MalformedError, RootMismatch: it is not.
        """
        merkle.verify_inclusion(
            index=self.index, size=checkpoint.size, leaf=merkle.leaf_hash(self.record), path=self.path, root=checkpoint.root
        )


def read_lines(layout: Layout) -> list[bytes]:
    """The lines of a store's `keys.jsonl`, unjudged and without their newlines; a last line that was never ended is left out.

    Raises:
        StorageError: the file is there and cannot be read.
    """
    path = layout.key_rotations
    if not path.exists():
        return []
    with storage_errors("reading", path), open_regular(path) as file:
        lines = [file.readline(MAX_LINE_BYTES + 1) for _ in range(MAX_LINES)]
    return [line.removesuffix(b"\n") for line in lines if line.endswith(b"\n") or len(line) > MAX_LINE_BYTES]


@dataclass(slots=True)
class Followed:
    """What a verifier believes after reading a log's rotations."""

    keys: LogKeys
    used: list[str] = field(default_factory=list)
    """A sentence for each rotation that was followed."""
    refused: list[str] = field(default_factory=list)
    """A sentence for each one that was not, and why."""


def follow(
    lines: Iterable[bytes], keys: LogKeys, policy: Policy | None, *, notes: Iterable[bytes] = (), path_in: PathIn | None = None
) -> Followed:
    """Extend a verifier's trust over the rotations of a log; never raises.

    A verifier who trusts the old key without an end comes to trust the new one, and the old one for no more than the record's index and
    one, if a checkpoint that covers the record is signed by one of them (or by one that was rotated to later) and cosigned by a quorum of
    the verifier's policy. A verifier who trusts the new key comes to trust the one before it up to that size.

    Args:
        lines: of `keys.jsonl`; see `read_lines`.
        keys: what the verifier trusts.
        policy: the verifier's witnesses; never the ones that a store names.
        notes: further checkpoints of the log, cosigned perhaps, the best ones first.
        path_in: inclusion paths for `notes`; without it they are of no use.
    """
    followed = Followed(keys)
    further = list(islice(notes, MAX_NOTES)) if path_in is not None else []
    known = _readable(lines, keys.origin, followed)
    for place, (line, rotation) in enumerate(known):
        trusted = _trusted(followed.keys, rotation.old)
        if trusted is None or _trusted(followed.keys, rotation.new) is not None:
            continue
        if trusted.until is not None and line.index >= trusted.until:
            followed.refused.append(_refused(line, rotation, f"the old key is trusted up to {trusted.until} records only"))
            continue
        later = [after.new for _line, after in known[place:]]
        why = _why_not(line, rotation, later, policy, further, path_in)
        if why is None:
            _believe(followed, TrustedKey(rotation.old, line.index + 1), TrustedKey(rotation.new), line)
        else:
            followed.refused.append(_refused(line, rotation, why))
    for line, rotation in reversed(known):
        trusted = _trusted(followed.keys, rotation.new)
        if trusted is not None and _trusted(followed.keys, rotation.old) is None and _is_word_of(trusted, line, rotation):
            _believe(followed, TrustedKey(rotation.old, line.index + 1), trusted, line)
    return followed


def _readable(lines: Iterable[bytes], origin: str, followed: Followed) -> list[tuple[RotationLine, Rotation]]:
    """The rotations that both keys have signed, in the order of the log, each pair of keys once."""
    found: dict[tuple[int, str, str], tuple[RotationLine, Rotation]] = {}
    for number, data in enumerate(islice(lines, MAX_LINES), 1):
        try:
            line = RotationLine.parse(data)
            rotation = Rotation.parse(line.record)
            if rotation.origin != origin:
                raise VerificationError(f"it is of the log {rotation.origin}")
            if rotation.size > line.index:
                raise VerificationError(f"it was made when the log had {rotation.size} records, and claims to be record {line.index}")
        except LedgerError as exc:
            followed.refused.append(f"line {number} of the log's rotations is no rotation of its key: {exc.message}")
            continue
        found.setdefault((line.index, rotation.old.vkey, rotation.new.vkey), (line, rotation))
    return [found[key] for key in sorted(found)]


def _why_not(
    line: RotationLine,
    rotation: Rotation,
    later: Sequence[Verifier],
    policy: Policy | None,
    further: Sequence[bytes],
    path_in: PathIn | None,
) -> str | None:
    """Why a rotation must not be followed; None if a quorum of the verifier's witnesses confirms it."""
    if policy is None or not policy.wants_cosignatures:
        return "no witness of yours confirms it, for you name none (--trust FILE)"
    signers = list({key.vkey: key for key in (rotation.old, rotation.new, *later)}.values())
    whys = []
    for note in (line.checkpoint, *further):
        try:
            checkpoint = Checkpoint.parse(open_note(note, signers).text)
            if checkpoint.origin != rotation.origin:
                raise VerificationError("the checkpoint of another log")
            if checkpoint.size <= line.index:
                raise VerificationError(f"a checkpoint over {checkpoint.size} records does not cover it")
            names = {cosignature.witness.name for cosignature in policy.cosignatures(note)}
            if not policy.has_quorum(names):
                raise VerificationError(f"{len(names)} of your witnesses have cosigned a checkpoint that covers it: that is no quorum")
            path = line.path if note is line.checkpoint or path_in is None else path_in(line.index, checkpoint.size)
            leaf = merkle.leaf_hash(line.record)
            merkle.verify_inclusion(index=line.index, size=checkpoint.size, leaf=leaf, path=path, root=checkpoint.root)
        except LedgerError as exc:
            whys.append(exc.message)
            continue
        return None
    return whys[0]


def _is_word_of(trusted: TrustedKey, line: RotationLine, rotation: Rotation) -> bool:
    """Has the new key, within what it is trusted for, signed a tree with the record that names the key before it?"""
    try:
        line.require_included(LogKeys((trusted,)).open(line.checkpoint))
    except LedgerError:
        return False
    return rotation.new.vkey == trusted.verifier.vkey


def _trusted(keys: LogKeys, verifier: Verifier) -> TrustedKey | None:
    """How far a key is trusted: of several entries for it the widest."""
    entries = [key for key in keys.keys if key.verifier.vkey == verifier.vkey]
    return max(entries, key=lambda key: merkle.MAX_TREE_SIZE if key.until is None else key.until, default=None)


def _believe(followed: Followed, old: TrustedKey, new: TrustedKey, line: RotationLine) -> None:
    """Put the two keys, in this order, in the place of whatever was said of them."""
    pair = {old.verifier.vkey, new.verifier.vkey}
    place = next(place for place, key in enumerate(followed.keys.keys) if key.verifier.vkey in pair)
    rest = [key for key in followed.keys.keys if key.verifier.vkey not in pair]
    try:
        followed.keys = LogKeys((*rest[:place], old, new, *rest[place:]))
    except MalformedError as exc:
        followed.refused.append(f"the rotation in record {line.index} to {new.verifier.vkey} is not followed: {exc.message}")
        return
    followed.used.append(f"record {line.index} rotates the key: {old.verifier.vkey} up to {old.until} records, then {new.verifier.vkey}")


def _refused(line: RotationLine, rotation: Rotation, why: str) -> str:
    return (
        f"record {line.index} says that the key was rotated to {rotation.new.vkey}, which is not believed: {why}. "
        f"If its holder confirms it: --key '{rotation.old.vkey}@<={line.index + 1}' --key {rotation.new.vkey}"
    )


def body_of(statement: str, signatures: Sequence[str]) -> dict[str, Any]:
    """The `key` member of a rotation's record.

    Args:
        statement: see `statement_text`.
        signatures: the lines of the old and the new key, with or without their newlines.

    Raises:
        MalformedError: it is no statement.
    """
    stated = Rotation.stated(statement)
    return {
        "event": EVENT,
        "old": stated.old.vkey,
        "new": stated.new.vkey,
        "statement": statement,
        "signatures": [line.removesuffix("\n") for line in signatures],
    }


def replaced_by(lines: Iterable[bytes], vkey: str) -> tuple[int, str] | None:
    """Where a log gave up this key, if its own lines prove it: (index of the record, the new key); the key itself has signed that."""
    for data in islice(lines, MAX_LINES):
        try:
            line = RotationLine.parse(data)
            rotation = Rotation.parse(line.record)
        except LedgerError:
            continue
        if rotation.old.vkey == vkey:
            return line.index, rotation.new.vkey
    return None
