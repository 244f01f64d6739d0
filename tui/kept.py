"""Checkpoints that somebody kept elsewhere and names on the command line."""

from __future__ import annotations

from pathlib import Path

from ledger.errors import MalformedError
from ledger.note import MAX_NOTE_BYTES


def read_kept(path: Path) -> bytes:
    """A checkpoint that somebody kept, unverified; it may come through a pipe.

    Raises:
        MalformedError: it cannot be read, or is far too long: that leaves the question open, it does not answer it.
    """
    try:
        with path.open("rb") as file:
            note = file.read(MAX_NOTE_BYTES + 1)
    except OSError as exc:
        raise MalformedError(f"the checkpoint {path} cannot be read: {exc.strerror}", path=path, hint="name the file you kept") from exc
    if len(note) > MAX_NOTE_BYTES:
        raise MalformedError(
            f"{path} has more than {MAX_NOTE_BYTES:,} bytes: it is no checkpoint", path=path, hint="name the file you kept"
        )
    return note
