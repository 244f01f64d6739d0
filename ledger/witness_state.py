"""What a server knows of its witnesses, for `trail status`: a small file in the state directory, beside the one that says where it runs.

It is no evidence: what a witness has confirmed is in the store, under its signature.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ledger import durable
from ledger.keys import slug, state_dir

_MAX_BYTES: Final = 1 << 20
_TYPES: Final = {"name": str, "url": str, "size": int, "cosigned": int | None, "error": str, "tries": int}


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessState:
    """How it stands with one witness."""

    name: str
    """The policy's name for it."""
    url: str
    size: int = 0
    """Of the newest checkpoint that it has cosigned, as far as we know; 0 before the first."""
    cosigned: int | None = None
    """When it last cosigned, by its own clock, Unix seconds; None if it has not since the server's start."""
    error: str = ""
    """Why the last try failed; empty when it did not."""
    tries: int = 0
    """That failed, one after the other."""


def states_path(origin: str) -> Path:
    """Where the server of a log writes them."""
    return state_dir() / f"{slug(origin)}.witnesses.json"


def write_states(path: Path, states: Sequence[WitnessState]) -> None:
    """Write them for readers.

    Raises:
        StorageError: the state directory cannot be written.
    """
    durable.make_dirs(path.parent, mode=0o700)
    durable.replace(path, json.dumps({"witnesses": [asdict(state) for state in states]}, indent=1).encode() + b"\n", mode=0o600)


def read_states(path: Path) -> list[WitnessState]:
    """What `write_states` wrote; nothing if there is no such file, or one that is none."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_BYTES))
        states = [WitnessState(**state) for state in value["witnesses"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [state for state in states if all(isinstance(getattr(state, name), kind) for name, kind in _TYPES.items())]
