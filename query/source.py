"""What this package needs of a store's reader; `ledger.reader.StoreReader` offers it.

Every path and every table obtained here has been verified by the ledger: hashed against its seal, or compared with
the tree's leaf hashes. The query package never opens a store file that it did not get from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from ledger.layout import Layout, Part


class Held(Protocol):
    """Records that are not sealed yet."""

    @property
    def records(self) -> pa.Table:
        """Of `ledger.columns.SCHEMA`."""

    @property
    def contents(self) -> pa.Table:
        """Of `ledger.contents.SCHEMA`."""

    @property
    def unsigned(self) -> int:
        """How many of the records are acknowledged and not yet under the checkpoint."""


class Source(Protocol):
    """A store opened for reading, at one checkpoint that was verified when it was opened."""

    @property
    def layout(self) -> Layout:
        """Where its tiles lie; what is read from them is checked against `root`."""

    @property
    def size(self) -> int:
        """How many records the checkpoint covers."""

    @property
    def root(self) -> str:
        """The checkpoint's root hash, 64 hex digits."""

    @property
    def key_status(self) -> str:
        """`pinned`, or `unpinned`: then the checkpoint's signature was not checked."""

    @property
    def segments(self) -> Sequence[Any]:
        """The live segments in order, each with `start` and `end` (exclusive)."""

    def verified_files(self, part: Part, segments: Iterable[Any] | None = None) -> list[Path]:
        """The Parquet files of some segments (all by default), each hashed against its seal.

        Raises:
            CorruptSegment: one of them is not the file that was sealed.
        """

    def tail(self, *, include_unsigned: bool = False) -> Held:
        """Records and contents not yet sealed."""

    def record(self, index: int) -> bytes:
        """The bytes of one record under the checkpoint."""
