"""Where things lie in a store, and the names of its files (`ledger/FORMAT.md`, "Store on disk").

Pure but for `SealedFile.parse` of names found in a listing: no file is opened here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ledger.errors import InvariantError

FORMAT_VERSION: Final = 1
Part = Literal["records", "contents"]
PARTS: Final[tuple[Part, Part]] = ("records", "contents")
_SEALED_NAME: Final = re.compile(r"(0|[1-9][0-9]*)-([1-9][0-9]*)\.(0|[1-9][0-9]*)\.parquet")
MAX_JOURNAL_GENERATION: Final = 9999
MAX_SIDE_FILE_BYTES: Final = 1 << 17
"""A record of 65,535 bytes in base64, and a little."""
_JOURNAL_NAME: Final = re.compile(r"([0-9]{16})-([0-9]{4})\.journal")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store."""

    root: Path

    @property
    def settings(self) -> Path:
        """`trail.toml`."""
        return self.root / "trail.toml"

    @property
    def lock(self) -> Path:
        """The writer's lock."""
        return self.root / "lock"

    @property
    def checkpoint(self) -> Path:
        """The latest signed checkpoint."""
        return self.root / "checkpoint"

    @property
    def history(self) -> Path:
        """Directory of older checkpoints, one file a day."""
        return self.root / "checkpoints"

    @property
    def policy(self) -> Path:
        """The witnesses that the server asks, a `tlog-policy`; not a policy that a verifier should believe."""
        return self.root / "tlog-policy"

    @property
    def cosigned(self) -> Path:
        """The newest checkpoint that met the store's quorum, with all signature lines."""
        return self.history / "cosigned"

    @property
    def timestamps(self) -> Path:
        """Directory of time-stamped checkpoints and their tokens."""
        return self.history / "timestamps"

    @property
    def key_rotations(self) -> Path:
        """Every rotation of the log's key."""
        return self.history / "keys.jsonl"

    @property
    def journal(self) -> Path:
        """Directory of frames not yet sealed."""
        return self.root / "journal"

    @property
    def quarantine(self) -> Path:
        """Directory of bodies that could not be decoded."""
        return self.root / "quarantine"

    def part(self, part: Part) -> Path:
        """`records/` or `contents/`."""
        return self.root / part

    def directories(self) -> list[Path]:
        """All directories of a store."""
        return [self.root, self.history, self.journal, self.quarantine, self.root / "tile", *(self.part(p) for p in PARTS)]


@dataclass(frozen=True, slots=True, order=True)
class SealedFile:
    """The name of a Parquet file: which part it holds, of which records, in which generation."""

    start: int
    end: int
    """Exclusive."""
    generation: int
    """Counts rewrites of the range; 0 is the file that sealing made."""
    part: Part = "records"

    @property
    def name(self) -> str:
        """As seals name it: `records/0-250.0.parquet`."""
        return f"{self.part}/{self.start}-{self.end}.{self.generation}.parquet"

    @classmethod
    def parse(cls, name: str) -> SealedFile | None:
        """The inverse of `name`; None for any other text."""
        part, _, rest = name.partition("/")
        match = _SEALED_NAME.fullmatch(rest)
        if match is None or part not in PARTS:
            return None
        start, end, generation = (int(text) for text in match.groups())
        return cls(start, end, generation, "records" if part == "records" else "contents") if start < end else None

    def sibling(self, part: Part) -> SealedFile:
        """The same range and generation of the other part."""
        return SealedFile(self.start, self.end, self.generation, part)


def seal_name(name: str) -> str:
    """The side file that carries the seal record of a Parquet file."""
    return name + ".seal"


def journal_name(*, start: int, generation: int) -> str:
    """Journal files sort by name in the order of their frames.

    Raises:
        InvariantError: a generation that would not sort, and that no reader would look for.
    """
    if generation > MAX_JOURNAL_GENERATION:
        raise InvariantError(f"{generation} journal files begin at record {start}")
    return f"{start:016d}-{generation:04d}.journal"


def parse_journal_name(name: str) -> tuple[int, int] | None:
    """(start, generation), or None for another file."""
    match = _JOURNAL_NAME.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None
