"""`verify`: the rotations of the log's key.

Every one in the log is signed by both keys and goes on from the one before, and every line of `checkpoints/keys.jsonl` is true. That a line
is missing is no failure: a crash leaves a rotation without one, and `trail key rotate` then writes it. Nothing here says which key to
believe: see `ledger.rotation.follow`.

A line holds a checkpoint, which is a promise like any other: whoever has only a stolen old key can make a history of its own and put the
true lines beside it, and the checkpoints in them then show what that history lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.fsck_files import Failure
from ledger.note import open_note
from ledger.record import parse_record
from ledger.rotation import EVENT, KIND, MAX_LINES, Rotation, RotationLine
from ledger.trust import LogKeys

_FILE = "checkpoints/keys.jsonl"
MovedOn = Callable[[Checkpoint], bool]
"""Has the store published at least this by now, because its writer went on while we read?"""


def _never(_checkpoint: Checkpoint) -> bool:
    return False


def check_keys(
    records: Iterable[tuple[int, bytes]],
    lines: Iterable[bytes],
    *,
    origin: str,
    size: int,
    root_at: Callable[[int], bytes] | None = None,
    moved_on: MovedOn = _never,
) -> list[Failure]:
    """Judge the rotations of a log.

    Args:
        records: (index, bytes) of its records of kind `key` below `size`, in order, each proven to be the leaf there.
        lines: of `keys.jsonl`; see `ledger.rotation.read_lines`.
        origin: the log's name.
        size: records under the checkpoint that is verified.
        root_at: the root of the verified tree at a smaller size; without it only what a line says of itself is checked.
        moved_on: excuses a line of records behind the checkpoint, see `ledger.fsck_tree.moved_on`; any other such line is false.
    """
    failures: list[Failure] = []
    rotations: dict[int, bytes] = {}
    before: tuple[int, Rotation] | None = None
    for index, record in records:
        try:
            if parse_record(record).get(KIND, {}).get("event") != EVENT:
                continue
            rotations[index] = record
            rotation = Rotation.parse(record)
        except (LedgerError, AttributeError) as exc:
            failures.append(Failure("key", index, None, f"is no rotation signed by both keys: {exc}"))
            continue
        if rotation.origin != origin:
            failures.append(Failure("key", index, None, f"is a rotation of the log {rotation.origin}"))
        elif rotation.size > index:
            failures.append(Failure("key", index, None, f"was signed when the log had {rotation.size} records"))
        elif before is not None and before[1].new.vkey != rotation.old.vkey:
            why = f"rotates from {rotation.old.vkey}, and since record {before[0]} the key is {before[1].new.vkey}"
            failures.append(Failure("key", index, None, why))
        before = index, rotation
    for number, data in enumerate(islice(lines, MAX_LINES), 1):
        why_not = _why_not(data, rotations, size, root_at, moved_on)
        if why_not is not None:
            failures.append(Failure("key", None, _FILE, f"line {number}: {why_not}"))
    return failures


def kept_in(lines: Iterable[bytes], keys: LogKeys, *, size: int, moved_on: MovedOn) -> list[tuple[str, bytes]]:
    """The checkpoints in the lines that a believed key has signed: the log must extend each of them, like one that was kept elsewhere.

    Args:
        lines: of `keys.jsonl`; see `ledger.rotation.read_lines`.
        keys: the keys that are believed, those included that were believed because of these lines.
        size: records under the checkpoint that is verified.
        moved_on: as for `check_keys`; such a checkpoint is left out.

    Returns:
        (Where, the note), each note once.
    """
    found: dict[bytes, str] = {}
    for number, data in enumerate(islice(lines, MAX_LINES), 1):
        try:
            note = RotationLine.parse(data).checkpoint
            checkpoint = keys.open(note)
        except LedgerError:  # of keys that nobody believes, or no line at all, which `check_keys` says
            continue
        if checkpoint.size <= size or not moved_on(checkpoint):
            found.setdefault(note, f"line {number} of {_FILE}")
    return [(where, note) for note, where in found.items()]


def _why_not(data: bytes, rotations: dict[int, bytes], size: int, root_at: Callable[[int], bytes] | None, moved_on: MovedOn) -> str | None:
    """What is wrong with a line; None for nothing, and for one of records behind the checkpoint that are published by now."""
    try:
        line = RotationLine.parse(data)
        rotation = Rotation.parse(line.record)
        checkpoint = Checkpoint.parse(open_note(line.checkpoint, [rotation.old, rotation.new]).text)
        line.require_included(checkpoint)
        if line.index < size and rotations.get(line.index) != line.record:
            return f"it is not record {line.index} of this log"
        if checkpoint.size > size and not moved_on(checkpoint):
            return f"its checkpoint covers {checkpoint.size} records, and the log has {size}: it was rolled back, or replaced"
        if root_at is not None and checkpoint.size <= size and root_at(checkpoint.size) != checkpoint.root:
            return f"its checkpoint over {checkpoint.size} records is of another history"
    except LedgerError as exc:
        return exc.message
    return None
