"""What a start finds: finish or discard what a crash left, and refuse to go on where that would sign a lie.

Reads seals and journal, rebuilds the tree's edge, and compares with the last signed checkpoint (in the store and outside it). The
store is never shortened: a store that has less than was signed is refused with what is missing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import pyarrow as pa

from ledger import durable, merkle
from ledger.arrow import byte_strings, is_equal, numbers, where_equal
from ledger.checkpoint import Checkpoint
from ledger.duplicates import DuplicateWindow
from ledger.durable import storage_errors
from ledger.errors import CorruptSegment, MalformedError, NotAppendOnly, StorageError, VerificationError
from ledger.journal import BadTail, Frame, read_frames
from ledger.keys import LastSigned
from ledger.layout import MAX_SIDE_FILE_BYTES, PARTS, Layout, SealedFile, parse_journal_name
from ledger.note import MAX_NOTE_BYTES
from ledger.regular import read_file
from ledger.seals import FoundSeal, Segment, live_segments, read_side_files, sealed_files, side_path
from ledger.segment import Seal, check_file, encode_side_file, parse_side_file, read_batches
from ledger.settings import Settings
from ledger.submission import LogState
from ledger.tree import TILE_WIDTH, TreeWriter, read_tile, remove_stale, require_tiles, tile_nodes
from ledger.trust import LogKeys

logger = logging.getLogger(__name__)

_HOUR_NS: Final = 3_600_000_000_000
_MAX_LISTED: Final = 100


@dataclass(slots=True)
class Found:
    """What recovery did, for the `lifecycle` record and for the operator."""

    clean: bool = True
    removed: list[str] = field(default_factory=list)
    """Files that no seal committed to, or that a merge had replaced."""
    rebuilt: list[str] = field(default_factory=list)
    """Side files or tiles made again from the records."""
    torn: list[dict[str, object]] = field(default_factory=list)
    """Journal bytes behind the last good frame."""

    def body(self) -> dict[str, object]:
        """For the `lifecycle` record: bounded, because a record is; long lists end with how many more there were."""
        return {name: _bounded(getattr(self, name)) for name in ("removed", "rebuilt", "torn")}

    @property
    def nothing(self) -> bool:
        """True when there was nothing to do."""
        return not (self.removed or self.rebuilt or self.torn)


def _bounded(values: list[object]) -> list[object]:
    more = len(values) - _MAX_LISTED
    return values if more <= 0 else [*values[:_MAX_LISTED], f"and {more} more"]


@dataclass(slots=True)
class Recovered:
    """A store that can be written again."""

    state: LogState
    seals: list[FoundSeal]
    found: Found


@dataclass(frozen=True, slots=True)
class _Journal:
    frames: list[Frame]
    paths: list[Path]
    """Files with records that are not sealed."""
    spent: list[Path]
    """Files with nothing but sealed records, or with nothing."""
    end: int


def recover(layout: Layout, settings: Settings, keys: LogKeys, last_signed: LastSigned, *, now: int) -> Recovered:
    """Bring a store into a state from which the log can go on.

    Args:
        layout: the store; the caller holds its lock.
        settings: the store's settings.
        keys: the public keys of the log.
        last_signed: the state outside the store.
        now: Unix nanoseconds, for the duplicate window.

    Raises:
        StorageError: records are missing that a signed checkpoint covers, or the files contradict it; says which.
    """
    found = Found()
    _remove_temporary(layout, found)
    seals = _finish_seals(layout, _seals(layout), found)
    segments = live_segments(seals)
    sealed_end = segments[-1].end if segments else 0
    journal = _read_journal(layout, sealed_end, found)
    _require_files(layout, segments, journal)
    tree = _tree(layout, segments, sealed_end, found)
    signed = _signed(layout, keys, last_signed)
    _require_seals(segments, max((checkpoint.size for checkpoint in signed), default=0), journal)
    _integrate(layout, tree, journal, signed)
    # Nothing is removed before this line: only now is it known that what stays is what was signed.
    _discard(layout, seals, segments, journal, found)
    window = DuplicateWindow(window_ns=int(settings.dedupe_hours * _HOUR_NS))
    _remember_requests(layout, segments, journal, window, since=now - int(settings.dedupe_hours * _HOUR_NS))
    size_bytes = sum(path.stat().st_size for path in journal.paths)
    signed_size = signed[-1].size if signed else 0
    state = LogState(tree, signed_size, journal.paths, sealed_end, size_bytes, window)
    return Recovered(state, [f for s in segments for f in s.seals], found)


def _remove_temporary(layout: Layout, found: Found) -> None:
    """Temporary files of a crash; nobody ever read them."""
    for directory in (layout.root, *(layout.part(part) for part in PARTS), layout.quarantine, layout.history, layout.timestamps):
        for path in directory.glob(f".*{durable.TEMPORARY_SUFFIX}"):
            found.removed.append(path.relative_to(layout.root).as_posix())
            durable.remove([path])
    for path in (layout.root / "tile").rglob(f".*{durable.TEMPORARY_SUFFIX}"):
        durable.remove([path])


def _seals(layout: Layout) -> list[FoundSeal]:
    """The side files that hold a record of the log; any other one counts as missing."""
    try:
        seals = read_side_files(layout)
    except MalformedError:
        seals = []
        for file in sealed_files(layout):
            with contextlib.suppress(MalformedError, OSError):
                index, record = parse_side_file(read_file(side_path(layout, file), limit=MAX_SIDE_FILE_BYTES))
                seals.append(FoundSeal(Seal.parse(record), index, record))
    return [found for found in seals if _may_be_leaf(layout, found)]


def _may_be_leaf(layout: Layout, found: FoundSeal) -> bool:
    """False if the tiles say that another record stands where this one claims to; what tiles cannot tell, the roots will."""
    n, place = divmod(found.index, TILE_WIDTH)
    try:
        row = read_tile(layout.root, 0, n, place + 1)
    except CorruptSegment:
        return True
    except MalformedError:  # no log has so many records
        return False
    return row[place * merkle.HASH_SIZE :] == merkle.leaf_hash(found.record)


def _read_journal(layout: Layout, sealed_end: int, found: Found) -> _Journal:
    """All good frames behind what is sealed, in order."""
    names = sorted(path.name for path in layout.journal.iterdir() if parse_journal_name(path.name))
    frames: list[Frame] = []
    paths: list[Path] = []
    spent: list[Path] = []
    expected = sealed_end
    found.torn.clear()
    for name in names:
        path = layout.journal / name
        before = len(frames)
        reading, bad = read_frames(path)
        for frame in reading:
            if frame.start + frame.count <= sealed_end:
                continue
            if frame.start != expected:
                raise StorageError(
                    f"the journal jumps from record {expected} to {frame.start} in {name}", path=path, index=expected,
                    hint="journal files are missing: restore them from a backup; run trail verify for what is left",
                )  # fmt: skip
            frames.append(frame)
            expected += frame.count
        _note_torn(name, bad, found)
        if len(frames) > before:
            paths.append(path)
        elif not any(tail.frames_behind for tail in bad):  # no crash leaves whole frames behind a broken one: that file is evidence
            spent.append(path)
    return _Journal(frames, paths, spent, expected)


def _note_torn(name: str, bad: Iterable[BadTail], found: Found) -> None:
    for tail in bad:
        found.clean = False
        found.torn.append(
            {"file": name, "offset": tail.offset, "bytes": tail.size_bytes, "why": tail.why, "frames_behind": tail.frames_behind}
        )
        logger.warning("journal %s: %d bytes behind offset %d are not a frame (%s)", name, tail.size_bytes, tail.offset, tail.why)


def _finish_seals(layout: Layout, seals: list[FoundSeal], found: Found) -> list[FoundSeal]:
    """Rebuild side files whose seal record is in the log."""
    lacking = {file.name for file in sealed_files(layout)} - {f.seal.file.name for f in seals}
    if not lacking:
        return seals
    superseded = {name for f in seals for name in f.seal.supersedes}
    for candidate in _seal_records(layout):
        name = candidate.seal.file.name
        if name not in lacking or name in superseded:
            continue
        try:
            check_file(layout.root / name, candidate.seal)
        except CorruptSegment:  # of an earlier file of that name, which never got its second seal
            continue
        side = side_path(layout, candidate.seal.file)
        durable.replace(side, encode_side_file(index=candidate.index, record=candidate.record))
        found.rebuilt.append(side.relative_to(layout.root).as_posix())
        seals = [*seals, candidate]
        lacking.discard(name)
        if not lacking:
            break
    return seals


def _seal_records(layout: Layout) -> Iterator[FoundSeal]:
    """Every seal record that can be read, newest first: those of the journal, then those of the sealed files."""
    in_journal = []
    for name in sorted(path.name for path in layout.journal.iterdir() if parse_journal_name(path.name)):
        frames, _bad = read_frames(layout.journal / name)
        for frame in frames:
            index = frame.start
            for batch in frame.records:
                in_journal += _seals_in(batch, range(index, index + batch.num_rows))
                index += batch.num_rows
    yield from reversed(in_journal)
    for file in reversed(sealed_files(layout)):
        if file.part == "records":
            for batch in read_batches(layout.root / file.name, names=["index", "kind", "record"]):
                yield from _seals_in(batch, numbers(batch.column("index")))


def _seals_in(batch: pa.RecordBatch, indexes: Iterable[int]) -> list[FoundSeal]:
    hits = is_equal(batch.column("kind"), "seal").to_pylist()
    records = batch.column("record")
    return [FoundSeal(Seal.parse(records[i].as_py()), index, records[i].as_py()) for i, index in enumerate(indexes) if hits[i]]


def _require_files(layout: Layout, segments: list[Segment], journal: _Journal) -> None:
    """A seal is no file: what it names must be there, and must be right before the journal or the files it replaces may go.

    Raises:
        CorruptSegment: a file is missing, or is not what was sealed.
    """
    starts = [name[0] for path in [*journal.spent, *journal.paths] if (name := parse_journal_name(path.name))]
    for segment in segments:
        last_copy_goes = any(start < segment.end for start in starts)
        for found in segment.seals:
            path = layout.root / found.seal.file.name
            replaces = any((layout.root / name).exists() for name in found.seal.supersedes)
            if replaces or last_copy_goes or not path.exists():
                check_file(path, found.seal)


def _require_seals(segments: list[Segment], signed: int, journal: _Journal) -> None:
    """The record that seals a file is in the log behind the file's own, so a store that has the file had that record too.

    A store whose journal was lost with it would go on with other records at those indexes, which no seal could ever be again.

    Raises:
        StorageError: it is missing. Not where signed records are: that is said of all of them at once.
    """
    late = [found for segment in segments for found in segment.seals if found.index >= journal.end]
    if late and journal.end >= signed:
        first = min(late, key=lambda found: found.index)
        raise StorageError(
            f"{first.seal.file.name} was sealed in record {first.index}, and the store has {journal.end} records: the journal is missing",
            path=first.seal.file.name, index=first.index, expected=first.index + 1, actual=journal.end,
            hint="restore the journal, or the newest backup with its journal; nothing else will be written in the place of that record",
        )  # fmt: skip


def _discard(layout: Layout, seals: list[FoundSeal], segments: list[Segment], journal: _Journal, found: Found) -> None:
    """Remove files that a merge replaced, files that never got a seal while their records are elsewhere, and spent journal."""
    durable.remove(journal.spent)
    live = {f.seal.file.name for s in segments for f in s.seals}
    superseded = {name for f in seals for name in f.seal.supersedes}
    sealed_end = segments[-1].end if segments else 0
    for file in sealed_files(layout):
        if file.name in live:
            continue
        if file.name not in superseded and not _covered(file, segments, sealed_end, journal):
            raise CorruptSegment(
                f"{file.name} has no seal in the log and its records are nowhere else", path=layout.root / file.name, index=file.start,
                hint="keep the file; run trail verify; restore the journal or the seals from a backup",
            )  # fmt: skip
        durable.remove([layout.root / file.name, side_path(layout, file)])
        found.removed.append(file.name)
    for part in PARTS:
        for path in layout.part(part).glob("*.parquet.seal"):
            if not path.with_suffix("").exists():
                durable.remove([path])


def _covered(file: SealedFile, segments: list[Segment], sealed_end: int, journal: _Journal) -> bool:
    if file.end <= sealed_end:
        return bool(segments)  # they tile [0, sealed_end)
    return file.start >= sealed_end and file.end <= journal.end


def _tree(layout: Layout, segments: list[Segment], sealed_end: int, found: Found) -> TreeWriter:
    """The tree of the sealed records, from its tiles, or from the records when tiles are missing."""
    try:
        require_tiles(layout.root, sealed_end)
        return TreeWriter.load(layout.root, sealed_end)
    except CorruptSegment as exc:
        logger.warning("tiles are rebuilt from the records: %s", exc)
    tree = TreeWriter(layout.root, size=0, edge={})
    for segment in segments:
        check_file(layout.root / segment.records.seal.file.name, segment.records.seal)
        for batch in read_batches(layout.root / segment.records.seal.file.name, names=["record"]):
            tree.extend(merkle.leaf_hashes(byte_strings(batch.column(0))))
            tree.write()
    found.rebuilt.append("tile")
    return tree


def _signed(layout: Layout, keys: LogKeys, last_signed: LastSigned) -> list[Checkpoint]:
    """The checkpoints that this log is known to have signed, smallest first: the store's own, and the last one as noted outside.

    Both count. A restored backup that somebody has written to since has a larger checkpoint of its own than the one noted outside.
    """
    notes = [(last_signed.path, last_signed.read())]
    if layout.checkpoint.exists():
        with storage_errors("reading", layout.checkpoint):
            notes.append((layout.checkpoint, read_file(layout.checkpoint, limit=MAX_NOTE_BYTES)))
    signed = []
    for path, note in notes:
        if note is None:
            continue
        try:
            signed.append(keys.open(note))
        except (MalformedError, VerificationError) as exc:
            raise StorageError(f"{path} is not a checkpoint signed by this log's key: {exc}", path=path, hint="run trail verify") from exc
    return sorted(signed, key=lambda checkpoint: checkpoint.size)


def _integrate(layout: Layout, tree: TreeWriter, journal: _Journal, signed: list[Checkpoint]) -> None:
    """Integrate the journal, and check on the way that every signed root comes out.

    Raises:
        NotAppendOnly: one does not, or the store has fewer records than were signed.
        CorruptSegment: the tiles contradict each other.
    """
    size = signed[-1].size if signed else 0
    if journal.end < size:
        raise NotAppendOnly(
            f"the store has {journal.end} records, but a checkpoint over {size} was signed: {size - journal.end} records are missing",
            path=layout.root,
            index=journal.end,
            hint="restore the newest backup with its journal; nothing that contradicts the signed checkpoint will be signed",
        )
    tree.write()
    for checkpoint in signed:
        if checkpoint.size <= tree.size and (root := _proven_root(layout, tree, checkpoint.size)) != checkpoint.root:
            raise _refused(checkpoint, root, layout.root)
    waiting = [checkpoint for checkpoint in signed if checkpoint.size > tree.size]
    for frame in journal.frames:
        for batch in frame.records:
            leaves = merkle.leaf_hashes(byte_strings(batch.column("record")))
            while waiting and waiting[0].size <= tree.size + len(leaves) // merkle.HASH_SIZE:
                checkpoint = waiting.pop(0)
                left = (checkpoint.size - tree.size) * merkle.HASH_SIZE
                tree.extend(leaves[:left])
                leaves = leaves[left:]
                if tree.root() != checkpoint.root:
                    raise _refused(checkpoint, tree.root(), layout.journal)
            tree.extend(leaves)
    tree.write()
    remove_stale(layout.root, tree.size)


def _proven_root(layout: Layout, tree: TreeWriter, size: int) -> bytes:
    """The root at a smaller size, proven to be of the tree that is written on: of tiles, somebody may have changed just those it needs.

    Raises:
        CorruptSegment: the tiles contradict each other.
    """
    try:
        return merkle.root_within(size, whole=tree.size, root=tree.root(), reader=tile_nodes(layout.root, tree.size))
    except VerificationError as exc:
        raise CorruptSegment(
            f"the tiles do not lead from record {size} to the {tree.size} records of the store: {exc.message}",
            path=layout.root / "tile",
            hint="run trail verify; if the records are what was signed, move tile/ away and start again: it is made anew from them",
        ) from exc


def _refused(signed: Checkpoint, root: bytes, path: Path) -> NotAppendOnly:
    return NotAppendOnly(
        f"the records of this store do not give the root that was signed at size {signed.size}",
        path=path,
        expected=signed.root.hex(),
        actual=root.hex(),
        hint="this is another history: keep the store as evidence, run trail verify, and restore a backup; a fork is never signed",
    )


def _remember_requests(layout: Layout, segments: list[Segment], journal: _Journal, window: DuplicateWindow, *, since: int) -> None:
    """Rebuild the duplicate window from the contents rows of `batch` records."""
    keys: dict[int, bytes] = {}
    for segment in segments:
        if segment.contents is None or segment.records.seal.max_received < since:
            continue
        for batch in read_batches(layout.root / segment.contents.seal.file.name, names=["index", "type", "keyed"]):
            keys.update(_body_keys(batch))
        for batch in read_batches(layout.root / segment.records.seal.file.name, names=["index", "kind", "record"]):
            _remember(batch, numbers(batch.column("index")), keys, window)
    for frame in journal.frames:
        for batch in frame.contents:
            keys.update(_body_keys(batch))
        index = frame.start
        for batch in frame.records:
            _remember(batch, range(index, index + batch.num_rows), keys, window)
            index += batch.num_rows


def _body_keys(batch: pa.RecordBatch) -> dict[int, bytes]:
    rows = where_equal(batch, "type", "sha256")
    return dict(zip(numbers(rows.column("index")), byte_strings(rows.column("keyed")), strict=True))


def _remember(batch: pa.RecordBatch, indexes: Iterable[int], keys: dict[int, bytes], window: DuplicateWindow) -> None:
    hits = is_equal(batch.column("kind"), "batch").to_pylist()
    records = batch.column("record")
    for i, index in enumerate(indexes):
        if hits[i] and keys.get(index):
            value = orjson.loads(records[i].as_py())
            window.add(keys[index], value["batch"]["start"], value["batch"]["end"], index, received=int(value["received"]))
