"""Records by range, for whoever copies the log: the entry bundles of c2sp.org/tlog-tiles, from sealed files and the journal.

A `StoreReader` would hold the whole journal in memory and prove every seal again at each new checkpoint, once a second in a server. This
reader holds one place in one file and a few bundles: tools read bundles in order, so the next records are where the last ones ended.

Every record leaves only when its leaf hash is the one in `tile/0`, and a Parquet file is decoded only when its bytes are those of a seal
that is itself in `tile/0`. Whether `tile/0` is what was signed is for the reader to say who has the checkpoint.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ledger import columns
from ledger.arrow import byte_strings
from ledger.errors import CorruptSegment, MalformedError, RecordAltered
from ledger.fsck_leaves import read_hashes
from ledger.journal import read_frames
from ledger.layout import Layout, parse_journal_name
from ledger.merkle import HASH_SIZE, leaf_hash, leaf_hashes
from ledger.seals import FoundSeal, Segment, live_segments, read_side_files
from ledger.segment import check_file
from ledger.tiles import TILE_WIDTH, encode_bundle, tile_path, tile_width

KEPT_BYTES: Final = 8 << 20
"""Of the full bundles read last: tools that fetch several at once ask for them out of order."""
_TRIES: Final = 4
_RECORD_COLUMN: Final = columns.BATCH_SCHEMA.get_field_index("record")


class EntryReader:
    """Entry bundles of a store that somebody else writes. For one thread."""

    def __init__(self, layout: Layout) -> None:
        """Nothing is opened yet."""
        self._layout = layout
        self._segments: list[Segment] = []
        self._checked: dict[str, tuple[int, ...]] = {}
        self._records: Iterator[bytes] = iter(())
        self._at = -1
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()
        self._kept_bytes = 0

    def bundle(self, n: int, width: int, size: int) -> bytes:
        """The first `width` records of bundle `n`, encoded.

        Args:
            n: the bundle, from 0.
            width: 1 to 256.
            size: how many records are under the newest published checkpoint; a smaller size's bundles are narrower ones of this size.

        Raises:
            MalformedError: there are fewer, or a side file is damaged.
            RecordAltered: a record, or the seal of its file, is not the one that the log commits to.
            CorruptSegment: a file is missing or is not what was sealed, or a tile is missing.
        """
        there = tile_width(0, n, size)
        if width > there:
            raise MalformedError(f"bundle {n} has {there} records at size {size}", expected=there, actual=width)
        records = self._kept.get(n)
        if records is not None:
            self._kept.move_to_end(n)
        elif there < TILE_WIDTH:
            records = self._proven(n, width, size)
        else:
            records = self._proven(n, TILE_WIDTH, size)
            self._keep(n, records)
        return encode_bundle(records[:width])

    def _keep(self, n: int, records: list[bytes]) -> None:
        self._kept[n] = records
        self._kept_bytes += _bytes_of(records)
        while self._kept_bytes > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= _bytes_of(oldest)

    def _proven(self, n: int, width: int, size: int) -> list[bytes]:
        start = n * TILE_WIDTH
        records = self._read(start, start + width, size)
        committed = self._leaves(n, width)
        if leaf_hashes(records) == committed:
            return records
        index = next(start + i for i in range(width) if leaf_hash(records[i]) != committed[i * HASH_SIZE : (i + 1) * HASH_SIZE])
        raise RecordAltered(f"record {index} is not the one that tile/0 commits to", index=index, hint="run trail verify for the extent")

    def _leaves(self, n: int, width: int) -> bytes:
        # Twice, because partial tiles go as soon as the full one stands, which may be between our two looks.
        for _ in range(2):
            hashes = read_hashes(self._layout.root, 0, n, width)
            if hashes is not None and len(hashes) == width * HASH_SIZE:
                return hashes
        name = tile_path(0, n, width)
        raise CorruptSegment(f"{name} is missing or short", path=name, hint="run trail verify")

    # ---- where records are

    def _read(self, start: int, end: int, size: int) -> list[bytes]:
        """Records `[start, end)`, unproven; goes on where the last call ended.

        Meanwhile the writer seals and merges. A source that ends, or a file that is gone, is looked for once more where we know the files
        to be, and then among the files that are there now.
        """
        found: list[bytes] = []
        in_vain = 0
        if self._at != start:
            self._seek(start, size)
        while True:
            gone = None
            got: list[bytes] = []
            try:
                got = list(itertools.islice(self._records, end - start - len(found)))
            except CorruptSegment as exc:
                if exc.path is None or Path(exc.path).exists():
                    self._at = -1
                    raise
                gone = exc
            found += got
            self._at += len(got)
            if len(found) == end - start:
                return found
            in_vain = 0 if got else in_vain + 1
            if in_vain == _TRIES:
                at, self._at = self._at, -1
                raise gone or CorruptSegment(
                    f"record {at} is under the checkpoint, and neither sealed nor in the journal", index=at, path="journal",
                    hint="the store was cut: run trail verify, and restore a backup",
                )  # fmt: skip
            if in_vain > 1:
                self._segments = self._list(size)
            self._seek(self._at, size)

    def _seek(self, index: int, size: int) -> None:
        self._at = index
        segment = next((segment for segment in self._segments if segment.start <= index < segment.end), None)
        self._records = self._journal(index) if segment is None else self._sealed(segment, index, size)

    def _list(self, size: int) -> list[Segment]:
        """The live segments; a merge between our looks at two directories makes them not fit, and then we look again."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(CorruptSegment):
                return self._segments_now(size)
        return self._segments_now(size)

    def _segments_now(self, size: int) -> list[Segment]:
        return live_segments(found for found in read_side_files(self._layout) if found.index < size)

    def _sealed(self, segment: Segment, index: int, size: int) -> Iterator[bytes]:
        path = self._layout.root / segment.records.seal.file.name
        self._check(segment.records, path, size)
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                yield from _rows(file, segment.start, index)
        except (pa.ArrowException, OSError) as exc:
            raise CorruptSegment(f"{path.name} cannot be read as Parquet: {exc}", path=path, hint="run trail verify") from exc

    def _check(self, found: FoundSeal, path: Path, size: int) -> None:
        """Compare a file with its seal before anything decodes it, once for each state of the file."""
        name = found.seal.file.name
        try:
            stat = path.stat()
        except FileNotFoundError as exc:
            raise CorruptSegment(f"{name} is missing", path=path, hint="restore it from a backup; run trail verify") from exc
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if self._checked.get(name) == state:
            return
        n, i = divmod(found.index, TILE_WIDTH)
        if self._leaves(n, tile_width(0, n, size))[i * HASH_SIZE : (i + 1) * HASH_SIZE] != leaf_hash(found.record):
            why = f"the seal of {name} is not record {found.index} of this log"
            raise RecordAltered(why, index=found.index, path=f"{name}.seal", hint="run trail verify")
        check_file(path, found.seal)
        self._checked[name] = state

    def _journal(self, index: int) -> Iterator[bytes]:
        for path in sorted(path for path in self._layout.journal.iterdir() if parse_journal_name(path.name)):
            with contextlib.suppress(FileNotFoundError):  # sealed just now
                frames, _bad = read_frames(path, start=index)
                for frame in frames:
                    first = frame.start
                    for batch in frame.records:
                        if first <= index < first + batch.num_rows:
                            yield from byte_strings(batch.column(_RECORD_COLUMN).slice(index - first))
                            index = first + batch.num_rows
                        first += batch.num_rows


def _rows(file: pq.ParquetFile, first: int, index: int) -> Iterator[bytes]:
    """The records of a file from `index` on, a few at a time: a row group may hold a gigabyte."""
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows <= index:
            first += rows
            continue
        for batch in file.iter_batches(batch_size=TILE_WIDTH, row_groups=[group], columns=["record"], use_threads=False):
            if index < first + batch.num_rows:
                yield from byte_strings(batch.column(0).slice(max(0, index - first)))
            first += batch.num_rows


def _bytes_of(records: list[bytes]) -> int:
    return sum(map(len, records))
