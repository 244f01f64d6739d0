"""A log that goes on from another one: its first record names the last checkpoint of the log before it.

That is the way on when the old log must not be signed any more: its key is lost or stolen, its store is gone, or it has two histories. The
new log has a name and a key of its own, and vouches for nothing in the old one but that this checkpoint was the last that is known.

The checkpoint waits in a small file of the new store until the first record holds it; a crash in between leaves it for the next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger import durable
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError, MalformedError, StoreMissing, VerificationError
from ledger.keys import LastSigned, Pins
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.regular import read_file
from ledger.settings import Settings
from ledger.trust import LogKeys

MAX_CONTINUED_BYTES: Final = 32 * 1024
"""Of the old checkpoint with its cosignatures: it goes into a record."""
_NAME: Final = "continues"


@dataclass(frozen=True, slots=True)
class Continued:
    """The last checkpoint of an old log."""

    checkpoint: Checkpoint
    note: bytes

    @classmethod
    def parse(cls, note: bytes) -> Continued:
        """What a note says; no signature is verified.

        Raises:
            MalformedError: it is no checkpoint, or too large for a record.
        """
        if len(note) > MAX_CONTINUED_BYTES:
            raise MalformedError(f"a checkpoint of {len(note)} bytes is too large to go on from", expected=MAX_CONTINUED_BYTES)
        return cls(Checkpoint.parse(parse_note(note)[0]), note)

    def body(self) -> dict[str, Any]:
        """For the first record: origin, size, root in hex, and the whole note."""
        head = self.checkpoint
        return {"origin": head.origin, "size": head.size, "root": head.root.hex(), "checkpoint": self.note.decode()}


def put_continued(layout: Layout, continued: Continued | None) -> None:
    """Leave it for the first record of a store that is being made; None also takes away what an interrupted attempt has left.

    Raises:
        StorageError: it cannot be written.
    """
    path = layout.root / _NAME
    if continued is not None:
        durable.replace(path, continued.note)
    elif path.exists():
        durable.remove([path])


def get_continued(layout: Layout) -> Continued | None:
    """What the first record has to name.

    Raises:
        MalformedError, StorageError: it is damaged, or cannot be read.
    """
    path = layout.root / _NAME
    if not path.exists():
        return None
    with storage_errors("reading", path):
        return Continued.parse(read_file(path, limit=MAX_CONTINUED_BYTES))


def last_checkpoint(old: Path, *, vkeys: str | None = None, pins: Pins | None = None) -> Continued:
    """The last checkpoint of an old log that is known here: the greatest of what is at `old` and the last-signed state.

    Args:
        old: the directory of its store, or a file with a checkpoint of it.
        vkeys: its public keys, as `ledger.trust.TrustedKey` reads them, with spaces between; default the pinned ones.
        pins: the user's pins.

    Raises:
        StoreMissing: there is neither.
        VerificationError: no key is known for the log, or one of the checkpoints is not signed by it.
        MalformedError: it is no checkpoint.
    """
    origin, found = _at(old)
    given = vkeys or (pins or Pins.default()).key(origin)
    if given is None:
        raise VerificationError(
            f"no key is pinned for {origin}, so nothing says whether {old} is its checkpoint", path=old, hint="name its key: --old-key VKEY"
        )
    keys = LogKeys.of(*given.split())
    state = LastSigned.default(origin)
    signed = state.read()
    notes = [*([(state.path, signed)] if signed is not None else []), *([(old, found)] if found is not None else [])]
    if not notes:
        raise MalformedError(f"the log {origin} has signed nothing yet that is known here", path=old, hint="make a new store: trail init")
    opened = []
    for path, note in notes:
        try:
            opened.append((keys.open(note).size, note))
        except LedgerError as exc:
            raise VerificationError(
                f"{path} is not a checkpoint of {keys.origin}: {exc.message}", path=path, hint="name the old log's key: --old-key VKEY"
            ) from exc
    # The first of equals: what lies outside of the store.
    return Continued.parse(max(opened, key=lambda one: one[0])[1])


def _at(old: Path) -> tuple[str, bytes | None]:
    """(The log's name, its checkpoint if one is there) of a store's directory or a checkpoint's file."""
    if old.is_dir():
        layout = Layout(old)
        settings, _text = Settings.load(layout)
        return settings.origin, _read(layout.checkpoint) if layout.checkpoint.exists() else None
    if not old.exists():
        raise StoreMissing(f"there is neither a store nor a checkpoint at {old}", path=old, hint="name the last-signed state: trail info")
    note = _read(old)
    return Continued.parse(note).checkpoint.origin, note


def _read(path: Path) -> bytes:
    with storage_errors("reading", path):
        return read_file(path, limit=MAX_NOTE_BYTES)
