"""Reading a store that somebody else may be writing: nothing is opened for writing, nothing is believed before it is checked.

What `open` has checked: the checkpoint's signature by the pinned key, every live seal's inclusion in the tree under that checkpoint, and
that the journal's records complete the tree to exactly its root. What it has not: the bytes of sealed files, which `verified_files` hashes
when they are first needed, and remembers in the user's cache (inode, size, times). `verify` (`ledger.fsck`) uses none of this.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pyarrow as pa

from ledger import columns, contents, durable, merkle
from ledger.anchors import newest_cosigned
from ledger.arrow import below, byte_strings
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import (
    CorruptSegment,
    LedgerError,
    MalformedError,
    RecordAltered,
    StorageError,
    VerificationError,
)
from ledger.journal import read_frames
from ledger.keys import Pins, cache_dir, slug
from ledger.layout import Layout, Part, parse_journal_name
from ledger.lookup import RecordLookup
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.proof import Proof
from ledger.regular import read_file
from ledger.seals import FoundSeal, Segment, live_segments, read_side_files
from ledger.segment import check_file, with_index
from ledger.settings import Settings
from ledger.tree import tile_nodes
from ledger.trust import LogKeys, TrustedKey

logger = logging.getLogger(__name__)

T = TypeVar("T")
KeyStatus = Literal["pinned", "unpinned"]
_TRIES: Final = 5
_RECORD_COLUMN: Final = columns.BATCH_SCHEMA.get_field_index("record")


@dataclass(frozen=True, slots=True)
class Tail:
    """Records that are not sealed yet."""

    records: pa.Table
    """`ledger.columns.SCHEMA`."""
    contents: pa.Table
    """`ledger.contents.SCHEMA`."""
    unsigned: int
    """How many of the records lie behind the checkpoint: acknowledged, not yet signed."""


class StoreReader:
    """A store as of one checkpoint."""

    def __init__(self, layout: Layout, settings: Settings, keys: LogKeys | None, cache: Path) -> None:
        """Use `open`."""
        self.layout = layout
        self.settings = settings
        self.origin = settings.origin
        self.key_status: KeyStatus = "unpinned" if keys is None else "pinned"
        self.keys = keys
        self._cache = _FileMemory(cache / f"{slug(settings.origin)}.json")
        self._lookup = RecordLookup()
        self.note = b""
        self.tree_head = Checkpoint(settings.origin, 0, merkle.EMPTY_ROOT)
        self.segments: list[Segment] = []
        self._tail = Tail(columns.SCHEMA.empty_table(), contents.SCHEMA.empty_table(), 0)

    @classmethod
    def open(cls, root: Path, *, vkeys: Sequence[str] | None = None, cache: Path | None = None, pins: Pins | None = None) -> StoreReader:
        """Open a store for reading.

        Args:
            root: its directory.
            vkeys: the public keys to believe, as `ledger.trust.TrustedKey` reads them, also several in one text; default `TRAIL_VKEY`,
                else the user's pins. Never a key found in the store.
            cache: where to remember which files were hashed.
            pins: the user's pins.

        Raises:
            StoreMissing, UnsupportedFormat, MalformedError: no store, a newer one, or a damaged side file.
            BadSignature: the checkpoint is not signed by the pinned key.
            RecordAltered, CorruptSegment: seals, tiles or journal contradict the checkpoint.
        """
        layout = Layout(root)
        settings, _text = Settings.load(layout)
        keys = pinned_keys(settings.origin, root, vkeys=vkeys, pins=pins)
        reader = cls(layout, settings, keys, cache or cache_dir())
        reader.refresh()
        return reader

    @property
    def vkey(self) -> str | None:
        """The public key that is believed for whatever the log signs next; None when none is pinned."""
        current = [key.verifier.vkey for key in (self.keys.keys if self.keys is not None else ()) if key.until is None]
        return current[-1] if current else None

    @property
    def size(self) -> int:
        """Records under the checkpoint."""
        return self.tree_head.size

    @property
    def root(self) -> str:
        """The root hash in hex."""
        return self.tree_head.root.hex()

    @property
    def sealed_end(self) -> int:
        """Records in Parquet: `[0, sealed_end)`."""
        return self.segments[-1].end if self.segments else 0

    def refresh(self) -> bool:
        """Move on to the newest checkpoint; True if there is something new.

        The writer may seal and merge between our looks at checkpoint, seals and journal; then they do not fit, and we look again.
        """
        for attempt in range(_TRIES):
            note = self._read_note()
            if note == self.note and self.note:
                return self._refresh_tail()
            try:
                head = self._open_note(note)
                segments = self._prove_seals(head)
                tail = self._read_tail(segments, head)
            except (CorruptSegment, RecordAltered):
                if attempt == _TRIES - 1 or (attempt and self._read_note() == note):
                    raise
                continue
            if segments != self.segments:
                self._lookup.close()
            self.note, self.tree_head, self.segments, self._tail = note, head, segments, tail
            return True
        raise StorageError("the store changes faster than it can be read", path=self.layout.root, hint="try again")

    def tail(self, *, include_unsigned: bool = False) -> Tail:
        """What the journal holds: records under the checkpoint, and if wanted the acknowledged ones behind it."""
        tail = self._tail
        if include_unsigned or tail.unsigned == 0:
            return tail
        return Tail(below(tail.records, "index", self.size), below(tail.contents, "index", self.size), 0)

    def verified_files(self, part: Part, segments: Iterable[Segment] | None = None) -> list[Path]:
        """The Parquet files of some segments, each with bytes equal to its seal.

        Raises:
            CorruptSegment: other bytes, or no file.
        """
        if segments is not None:
            return self._verified_files(part, segments)
        return self._listing_again(lambda: self._verified_files(part, self.segments))

    def record(self, index: int) -> bytes:
        """One record's bytes, proven to be the leaf at `index`.

        Raises:
            MalformedError: there is no such record.
            RecordAltered: the bytes there are not those committed.
        """
        return self._proven(index)[0]

    def prove(self, index: int, *, cosigned: bool = False) -> bytes:
        """A C2SP tlog-proof that the record at `index` is under the checkpoint.

        Args:
            index: the record.
            cosigned: under the newest checkpoint that witnesses have cosigned, if one covers the record: worth more to whoever trusts them.

        Raises:
            MalformedError: there is no such record.
            RootMismatch: tiles or record contradict the checkpoint.
        """
        record, path = self._proven(index)
        note = newest_cosigned(self.layout) if cosigned else None
        head = self._head_of(note) if note is not None else None
        if note is None or head is None or not index < head.size <= self.size:
            return Proof(index=index, path=tuple(path), checkpoint=self.note).format()
        path = merkle.inclusion_path(index, head.size, tile_nodes(self.layout.root, head.size))
        merkle.verify_inclusion(index=index, size=head.size, leaf=merkle.leaf_hash(record), path=path, root=head.root)
        return Proof(index=index, path=tuple(path), checkpoint=note).format()

    def _head_of(self, note: bytes) -> Checkpoint | None:
        """The checkpoint in an anchor, None if it is not the log's: then it is for `verify` to say so."""
        try:
            return self._open_note(note)
        except LedgerError:
            return None

    def consistency(self, old: int) -> list[bytes]:
        """The RFC 6962 proof that the tree of `old` records is a prefix of this one."""
        return merkle.consistency_path(old, self.size, tile_nodes(self.layout.root, self.size))

    def _listing_again(self, look: Callable[[], T]) -> T:
        """Run `look`, and once more after a refresh if it met a file that a merge has replaced since the last one."""
        try:
            return look()
        except CorruptSegment as exc:
            if exc.path is None or Path(exc.path).exists() or not self.refresh():
                raise
            return look()

    # ---- checking

    def _verified_files(self, part: Part, segments: Iterable[Segment]) -> list[Path]:
        paths = []
        for segment in segments:
            found = segment.records if part == "records" else segment.contents
            if found is not None:
                paths.append(self._verified(found))
        self._cache.save()
        return paths

    def _read_note(self) -> bytes:
        path = self.layout.checkpoint
        if not path.exists():
            return b""
        with storage_errors("reading", path):
            return read_file(path, limit=MAX_NOTE_BYTES)

    def _open_note(self, note: bytes) -> Checkpoint:
        if not note:
            return Checkpoint(self.origin, 0, merkle.EMPTY_ROOT)
        if self.keys is not None:
            return self.keys.open(note)
        text, _signatures = parse_note(note)
        return Checkpoint.parse(text)

    def _prove_seals(self, head: Checkpoint) -> list[Segment]:
        """The live segments whose seals are under the checkpoint, each proven to be in the tree."""
        seals = [found for found in read_side_files(self.layout) if found.index < head.size]
        nodes = tile_nodes(self.layout.root, head.size)
        segments = live_segments(seals)
        for found in (found for segment in segments for found in segment.seals):
            try:
                path = merkle.inclusion_path(found.index, head.size, nodes)
                merkle.verify_inclusion(index=found.index, size=head.size, leaf=merkle.leaf_hash(found.record), path=path, root=head.root)
            except VerificationError as exc:
                raise RecordAltered(
                    f"the seal of {found.seal.file.name} is not record {found.index} of this log", index=found.index,
                    path=found.seal.file.name + ".seal", hint="run trail verify",
                ) from exc  # fmt: skip
        return segments

    def _read_tail(self, segments: list[Segment], head: Checkpoint) -> Tail:
        """The journal behind the segments; its records must complete the tree to the checkpoint's root."""
        start = segments[-1].end if segments else 0
        batches: list[pa.RecordBatch] = []
        rows: list[pa.RecordBatch] = []
        expected = start
        for path in self._journal_files():
            with contextlib.suppress(FileNotFoundError):
                frames, _bad = read_frames(path)
                for frame in frames:
                    if frame.start != expected:
                        continue
                    index = frame.start
                    for batch in frame.records:
                        batches.append(with_index(batch, index))
                        index += batch.num_rows
                    rows += frame.contents
                    expected += frame.count
        if expected < head.size:
            raise CorruptSegment(
                f"records {expected} to {head.size} are under the checkpoint, and neither sealed nor in the journal", index=expected,
                path=self.layout.journal, hint="the store was cut: run trail verify, and restore a backup",
            )  # fmt: skip
        records = pa.Table.from_batches(batches, columns.SCHEMA)
        self._check_tail(records.slice(0, head.size - start), start, head)
        return Tail(records, pa.Table.from_batches(rows, contents.SCHEMA), expected - head.size)

    def _check_tail(self, records: pa.Table, start: int, head: Checkpoint) -> None:
        frontier = merkle.Frontier(start, frontier_nodes(self.layout.root, start, head.size))
        frontier.extend(merkle.leaf_hashes(byte_strings(records.column("record"))))
        if frontier.root() != head.root:
            raise RecordAltered(
                f"records {start} to {head.size} of the journal, or the tiles before them, do not give the checkpoint's root", index=start,
                expected=head.root.hex(), actual=frontier.root().hex(), path=self.layout.journal, hint="run trail verify",
            )  # fmt: skip

    def _refresh_tail(self) -> bool:
        before = self._tail.records.num_rows
        with contextlib.suppress(CorruptSegment, RecordAltered):
            self._tail = self._read_tail(self.segments, self.tree_head)
        return self._tail.records.num_rows != before

    def _journal_files(self) -> list[Path]:
        if not self.layout.journal.is_dir():
            return []
        return sorted(path for path in self.layout.journal.iterdir() if parse_journal_name(path.name))

    def _proven(self, index: int) -> tuple[bytes, list[bytes]]:
        """A record and its path to the checkpoint's root, one checked against the other."""
        if not 0 <= index < self.size:
            raise MalformedError(f"there is no record {index}: the checkpoint covers 0 to {self.size - 1}", index=index)
        data = self._listing_again(lambda: self._find(index))
        path = merkle.inclusion_path(index, self.size, tile_nodes(self.layout.root, self.size))
        merkle.verify_inclusion(index=index, size=self.size, leaf=merkle.leaf_hash(data), path=path, root=self.tree_head.root)
        return data, path

    def _find(self, index: int) -> bytes:
        start = self.sealed_end
        if index >= start:
            data: bytes = self._tail.records.column("record")[index - start].as_py()
            return data
        segment = self.segments[bisect_right(self.segments, index, key=lambda segment: segment.start) - 1]
        path = self._verified(segment.records)
        self._cache.save()
        return self._lookup.read(path, index - segment.start)

    def _verified(self, found: FoundSeal) -> Path:
        path = self.layout.root / found.seal.file.name
        if not self._cache.knows(path, found.seal.sha256):
            check_file(path, found.seal)
            self._cache.remember(path, found.seal.sha256)
        return path


def pinned_keys(origin: str, root: Path | None, *, vkeys: Sequence[str] | None, pins: Pins | None = None) -> LogKeys | None:
    """The keys to believe for a log: given, `TRAIL_VKEY` (several with spaces between them), or pinned; None when there is none.

    Args:
        origin: the log.
        root: its store, None if there is only a proof of it.
        vkeys: the keys given.
        pins: the user's pins.

    Raises:
        VerificationError: the path is known to hold another log than the one that is there, or the keys given are another log's.
        MalformedError: not a verifier key.
    """
    given = " ".join(vkeys or []).split() or os.environ.get("TRAIL_VKEY", "").split()
    pins = pins or Pins.default()
    if not given:
        if root is not None:
            pins.require_not_replaced(root, origin)
        pinned = pins.key(origin)
        return LogKeys.of(*pinned.split()) if pinned else None
    trusted = [TrustedKey.parse(spec) for spec in given]
    keys = tuple(key for key in trusted if key.verifier.name == origin)
    if not keys:
        other = trusted[0].verifier.name
        raise VerificationError(
            f"the key is for {other}, and the log is {origin}",
            expected=other,
            actual=origin,
            path=root,
            hint="name the key of this log",
        )
    return LogKeys(keys)


def frontier_nodes(root: Path, start: int, size: int) -> list[bytes]:
    """The roots of the complete subtrees that make up `[0, start)`, largest first, from the tiles of a tree of `size`."""
    wanted = []
    at = 0
    for level in reversed(range(start.bit_length())):
        if start >> level & 1:
            wanted.append((level, at >> level))
            at += 1 << level
    return tile_nodes(root, size)(wanted) if wanted else []


class _FileMemory:
    """Which files were hashed to what, by inode, size and times; in the user's cache and never in the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._dirty = False
        self._known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(path.read_bytes())
            self._known = value if isinstance(value, dict) else {}

    def knows(self, path: Path, sha256: str) -> bool:
        with contextlib.suppress(OSError):
            return self._known.get(str(path.resolve())) == [*_identity(path), sha256]
        return False

    def remember(self, path: Path, sha256: str) -> None:
        self._known[str(path.resolve())] = [*_identity(path), sha256]
        self._dirty = True

    def save(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            durable.replace(self._path, json.dumps(self._known).encode(), mode=0o600)
        except (LedgerError, OSError) as exc:
            logger.debug("the cache %s is not kept: %s", self._path, exc)


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
