"""From journal to Parquet: writing the files of a segment, and merging small segments into larger ones.

Only files are made here, under temporary names; `ledger.sealer` gives them their names once their seals are in the log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ledger import contents
from ledger.durable import temporary
from ledger.errors import CorruptSegment
from ledger.journal import Frame, read_frames
from ledger.layout import Layout, SealedFile
from ledger.seals import Segment
from ledger.segment import (
    MERGED_LEVEL,
    Extent,
    Seal,
    check_file,
    hash_file,
    read_batches,
    with_index,
    write_contents,
    write_records,
)


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A Parquet file that is written and synced and does not have its name yet."""

    seal: Seal
    temporary: Path


@dataclass(slots=True)
class _Making:
    """Files under construction; what a failure leaves half made is removed, or every new try on a full disk would fill it further."""

    layout: Layout
    made: list[MadeFile] = field(default_factory=list)
    temporaries: list[Path] = field(default_factory=list)

    def temporary(self, file: SealedFile) -> Path:
        """A temporary name for a file, remembered."""
        self.temporaries.append(temporary(self.layout.root / file.name))
        return self.temporaries[-1]


@contextlib.contextmanager
def _making(layout: Layout) -> Iterator[_Making]:
    making = _Making(layout)
    try:
        yield making
    except BaseException:
        for path in making.temporaries:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def journal_frames(paths: Sequence[Path], *, start: int, end: int) -> Iterator[Frame]:
    """The frames of `[start, end)` from journal files in order.

    Raises:
        CorruptSegment: the files do not hold exactly that range.
    """
    expected = start
    for path in paths:
        frames, _bad = read_frames(path)
        for frame in frames:
            if frame.start != expected or expected >= end:
                continue
            yield frame
            expected += frame.count
    if expected != end:
        raise CorruptSegment(
            f"the journal holds records {start} to {expected}, not to {end}", index=expected, path=paths[-1] if paths else None
        )


def seal_journal(layout: Layout, paths: Sequence[Path], *, start: int, end: int) -> list[MadeFile]:
    """Write the Parquet files of journal records `[start, end)`: the contents file, if there is any content, then the records file."""
    frames = list(journal_frames(paths, start=start, end=end))
    extent = Extent()
    for frame in frames:
        for batch in frame.records:
            extent.add(batch)
    contents_file = SealedFile(start, end, 0, "contents")
    rows = sum(batch.num_rows for frame in frames for batch in frame.contents)
    with _making(layout) as making:
        if rows:
            temp = making.temporary(contents_file)
            write_contents(temp, (batch for frame in frames for batch in frame.contents))
            making.made.append(MadeFile(_seal(contents_file, temp, rows, extent, (), None), temp))
        records_file = contents_file.sibling("records")
        temp = making.temporary(records_file)
        write_records(temp, _indexed(frames))
        making.made.append(MadeFile(_seal(records_file, temp, extent.rows, extent, (), contents_file.name if rows else None), temp))
    return making.made


def merge(layout: Layout, segments: Sequence[Segment]) -> list[MadeFile]:
    """Write one segment in place of neighbouring ones, each checked against its seal first: a merge must not launder a changed file.

    Raises:
        CorruptSegment: a file is not what was sealed.
    """
    for segment in segments:
        for found in segment.seals:
            check_file(layout.root / found.seal.file.name, found.seal)
    start, end = segments[0].start, segments[-1].end
    generation = 1 + max(found.seal.file.generation for segment in segments for found in segment.seals)
    extent = Extent()
    for segment in segments:
        seal = segment.records.seal
        _widen(extent, seal)
    contents_file = SealedFile(start, end, generation, "contents")
    with_contents = [s.contents for s in segments if s.contents is not None]
    with _making(layout) as making:
        if with_contents:
            temp = making.temporary(contents_file)
            rows = write_contents(
                temp, _rows_of([layout.root / found.seal.file.name for found in with_contents], contents.SCHEMA), level=MERGED_LEVEL
            )
            names = tuple(found.seal.file.name for found in with_contents)
            making.made.append(MadeFile(_seal(contents_file, temp, rows, extent, names, None), temp))
        records_file = contents_file.sibling("records")
        temp = making.temporary(records_file)
        written = write_records(temp, _rows_of([layout.root / s.records.seal.file.name for s in segments], None))
        if written.rows != end - start:
            raise CorruptSegment(f"records {start} to {end} are {written.rows} rows", index=start, path=temp)
        names = tuple(s.records.seal.file.name for s in segments)
        seal = _seal(records_file, temp, written.rows, extent, names, contents_file.name if with_contents else None)
        making.made.append(MadeFile(seal, temp))
    return making.made


def _rows_of(paths: Sequence[Path], schema: pa.Schema | None) -> Iterator[pa.RecordBatch]:
    for path in paths:
        for batch in read_batches(path):
            yield batch if schema is None else batch.cast(schema)


def _indexed(frames: Sequence[Frame]) -> Iterator[pa.RecordBatch]:
    for frame in frames:
        index = frame.start
        for batch in frame.records:
            yield with_index(batch, index)
            index += batch.num_rows


def _widen(extent: Extent, seal: Seal) -> None:
    extent.rows += seal.rows
    for name in ("min_time", "min_received"):
        values = [value for value in (getattr(extent, name), getattr(seal, name)) if value is not None]
        setattr(extent, name, min(values) if values else None)
    for name in ("max_time", "max_received"):
        values = [value for value in (getattr(extent, name), getattr(seal, name)) if value is not None]
        setattr(extent, name, max(values) if values else None)


def _seal(file: SealedFile, path: Path, rows: int, extent: Extent, supersedes: tuple[str, ...], contents_name: str | None) -> Seal:
    digest, size = hash_file(path)
    return Seal(
        file=file,
        sha256=digest,
        size_bytes=size,
        rows=rows,
        supersedes=supersedes,
        contents=contents_name,
        min_time=extent.min_time,
        max_time=extent.max_time,
        min_received=extent.min_received or 0,
        max_received=extent.max_received or 0,
    )
