"""One record of a sealed file by its place: the footers stay open, and only the pages before the record are decoded.

A whole row group of 16,384 records costs as much as everything else of a proof together. Nothing here is believed: the caller has
compared the file with its seal, and proves the record to be the leaf at its index.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.errors import CorruptSegment

_OPEN_FILES: Final = 32
"""A footer of a million records is some megabytes once it is parsed."""
_BATCH_RECORDS: Final = 512


@dataclass(frozen=True, slots=True)
class _Opened:
    file: pq.ParquetFile
    starts: list[int]
    """The first row of each row group, and behind the last one the number of rows."""
    identity: tuple[int, int, int, int]


class RecordLookup:
    """Records by place, for any number of threads."""

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._opened: dict[Path, _Opened] = {}
        self._lock = threading.Lock()

    def read(self, path: Path, row: int) -> bytes:
        """The bytes of the record in row `row`, counted from 0, of a records file.

        Raises:
            CorruptSegment: there is no such file or row, or it is not Parquet.
        """
        try:
            with self._lock:
                found = _read(self._open(path), row)
        except FileNotFoundError as exc:
            raise CorruptSegment(f"{path.name} is missing", path=path, hint="restore it from a backup; run trail verify") from exc
        except (pa.ArrowException, OSError, KeyError) as exc:
            raise CorruptSegment(f"{path.name} cannot be read as Parquet: {exc}", path=path, hint="run trail verify") from exc
        if found is None:
            raise CorruptSegment(f"{path.name} has no row {row}", path=path, hint="run trail verify")
        return found

    def close(self) -> None:
        """Let go of all files: one that a merge has replaced would keep its space on disk."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].file.close()

    def _open(self, path: Path) -> _Opened:
        """The file, opened before or now, the one used longest ago closed; another file under the same name is another file."""
        found = path.stat()
        identity = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        opened = self._opened.pop(path, None)
        if opened is not None and opened.identity != identity:
            opened.file.close()
            opened = None
        if opened is None:
            if len(self._opened) >= _OPEN_FILES:
                self._opened.pop(next(iter(self._opened))).file.close()
            file = pq.ParquetFile(path, memory_map=True)
            rows = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
            opened = _Opened(file, list(accumulate(rows, initial=0)), identity)
        self._opened[path] = opened
        return opened


def _read(opened: _Opened, row: int) -> bytes | None:
    group = bisect_right(opened.starts, row) - 1
    if not 0 <= group < len(opened.starts) - 1:
        return None
    skip = row - opened.starts[group]
    for batch in opened.file.iter_batches(_BATCH_RECORDS, row_groups=[group], columns=["record"], use_threads=False):
        if skip < batch.num_rows:
            data: bytes = batch.column(0)[skip].as_py()
            return data
        skip -= batch.num_rows
    return None
