"""Is anything of a store open to accounts that should not have it?

The ledger should run under an account the agents cannot become: whoever can write the store, the key or the last-signed state can undo
what they protect.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.keys import LastSigned
from ledger.layout import Layout

_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_READ: Final = stat.S_IRGRP | stat.S_IROTH


@dataclass(frozen=True, slots=True)
class Exposure:
    """One path with too wide a mode."""

    path: Path
    what: str
    fix: str


def exposures(layout: Layout, *, origin: str, key: Path) -> Iterator[Exposure]:
    """What others can write, or read though it is secret.

    Args:
        layout: the store.
        origin: its log.
        key: the signing key's file.
    """
    # Also the next key of a rotation, the ones that were given up, and what says that one was begun.
    beside = sorted(path for path in key.parent.iterdir() if path.name.startswith(f"{key.name}.")) if key.parent.is_dir() else []
    for path in (key, *beside):
        if _mode(path) & (_READ | _WRITE):
            yield Exposure(path, f"the signing key {path} is open to other accounts", f"chmod 600 {path}")
    for path in (layout.quarantine, layout.part("contents")):
        if _mode(path) & _READ and _mode(layout.root) & _READ:
            yield Exposure(path, f"{path} can be read by other accounts, prompts and persons included", f"chmod 700 {layout.root}")
            break
    for path in (
        layout.root,
        layout.journal,
        layout.part("records"),
        layout.part("contents"),
        layout.checkpoint,
        layout.settings,
        key.parent,
    ):
        if _mode(path) & _WRITE:
            yield Exposure(path, f"{path} can be written by other accounts", f"chmod go-w {path}")
    state = LastSigned.default(origin).path
    for path in (state, state.parent):
        if _mode(path) & _WRITE:
            yield Exposure(path, f"the last signed state {path} can be written by other accounts", f"chmod go-w {path}")


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0
