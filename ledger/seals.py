"""Which sealed files are the store: the seals that nothing supersedes, tiling the records from 0 on.

Reads side files; believes nothing: whether a seal record stands in the log is the caller's to prove.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.durable import storage_errors
from ledger.errors import CorruptSegment, MalformedError, StorageError
from ledger.layout import MAX_SIDE_FILE_BYTES, PARTS, Layout, SealedFile, seal_name
from ledger.regular import read_file
from ledger.segment import Seal, parse_side_file


@dataclass(frozen=True, slots=True)
class FoundSeal:
    """A seal and where it says that it stands in the log."""

    seal: Seal
    index: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """The live files of one range of records."""

    start: int
    end: int
    """Exclusive."""
    records: FoundSeal
    contents: FoundSeal | None
    """None when no record of the range has a content."""

    @property
    def seals(self) -> list[FoundSeal]:
        """Both seals, or the one."""
        return [self.records] if self.contents is None else [self.records, self.contents]


def read_side_files(layout: Layout) -> list[FoundSeal]:
    """All side files of a store.

    Raises:
        MalformedError: one of them is damaged; `path` names it.
    """
    found = []
    for part in PARTS:
        for path in sorted(layout.part(part).glob("*.parquet.seal")):
            try:
                with storage_errors("reading", path):
                    data = read_file(path, limit=MAX_SIDE_FILE_BYTES)
            except StorageError as exc:
                if isinstance(exc.__cause__, FileNotFoundError):
                    continue  # of a file that a merge has just replaced
                raise
            try:
                index, record = parse_side_file(data)
                seal = Seal.parse(record)
            except MalformedError as exc:
                exc.path = path.relative_to(layout.root).as_posix()
                raise
            found.append(FoundSeal(seal, index, record))
    return found


def sealed_files(layout: Layout) -> list[SealedFile]:
    """The Parquet files that lie in the store, whether sealed or not."""
    found = []
    for part in PARTS:
        for path in layout.part(part).glob("*.parquet"):
            file = SealedFile.parse(f"{part}/{path.name}")
            if file is not None:
                found.append(file)
    return sorted(found)


def side_path(layout: Layout, file: SealedFile) -> Path:
    """Where the side file of a Parquet file lies."""
    return layout.root / seal_name(file.name)


def in_force(seals: Iterable[FoundSeal]) -> list[FoundSeal]:
    """The seals that count: of several for one name the last; of contents only those whose records file was sealed too.

    A crash between the two seals of a segment leaves a contents seal alone; the files are then made, and sealed, again.
    """
    newest = {found.seal.file: found for found in sorted(seals, key=lambda found: found.index)}
    ranges = {(file.start, file.end) for file in newest if file.part == "records"}
    return [found for file, found in newest.items() if (file.start, file.end) in ranges]


def live_segments(seals: Iterable[FoundSeal], *, start: int = 0) -> list[Segment]:
    """The unsuperseded files as segments that tile `[start, ...)`.

    Raises:
        CorruptSegment: a range is missing, doubled, or lacks its contents file; `index` says where.
    """
    known = in_force(seals)
    superseded = {name for found in known for name in found.seal.supersedes}
    live = [found for found in known if found.seal.file.name not in superseded]
    contents = {(f.seal.file.start, f.seal.file.end): f for f in live if f.seal.file.part == "contents"}
    segments: list[Segment] = []
    expected = start
    for found in sorted((f for f in live if f.seal.file.part == "records"), key=lambda f: f.seal.file):
        file = found.seal.file
        if file.start != expected:
            what = "are sealed twice" if file.start < expected else "have no records file"
            low, high = sorted((file.start, expected))
            raise CorruptSegment(
                f"records {low} to {high} {what}",
                index=low,
                path=file.name,
                hint="restore the missing file from a backup; run trail verify",
            )
        beside = contents.get((file.start, file.end))
        if found.seal.contents is not None and beside is None:
            raise CorruptSegment(
                f"the contents file of records {file.start} to {file.end} has no seal beside it",
                index=file.start,
                path=found.seal.contents,
                hint="start trail serve once to rebuild side files, or restore them from a backup",
            )
        segments.append(Segment(file.start, file.end, found, beside))
        expected = file.end
    return segments


def merge_candidates(segments: Sequence[Segment], *, fan_in: int, target: int) -> list[Segment]:
    """Neighbouring small segments worth one merge, or an empty list.

    Tiers by powers of the fan-in keep each record from being rewritten more than about log(target) times, and the number of files
    of a store that runs for years near (records / target) + a few.
    """
    tier_limit = fan_in
    while tier_limit <= target:
        run: list[Segment] = []
        total = 0
        for segment in segments:
            size = segment.end - segment.start
            if size >= tier_limit or total + size > target:
                if len(run) >= fan_in:
                    return run
                run, total = [], 0
                if size >= tier_limit:
                    continue
            run.append(segment)
            total += size
        if len(run) >= fan_in:
            return run
        tier_limit *= fan_in
    return []
