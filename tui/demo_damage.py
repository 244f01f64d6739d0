"""The demo's tampering: one byte of a sealed file, changed so that hardly anything would notice."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from ledger.errors import InvariantError

_TRIES: Final = 300


def change_one_byte(path: Path) -> int:
    """Change a byte near the middle of the records in a Parquet file, so that it can still be read and one record says something else.

    Compressed data does not always survive a change, and a file that cannot be opened at all would be too easy to notice.

    Returns:
        Where the byte is.
    """
    data = path.read_bytes()
    true = pq.read_table(pa.BufferReader(data), columns=["record"]).column(0).to_pylist()
    group = pq.read_metadata(path).row_group(0)
    chunk = next(group.column(place) for place in range(group.num_columns) if group.column(place).path_in_schema == "record")
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    found: tuple[int, int, bytes] | None = None
    for place in range(middle, middle + min(_TRIES, chunk.total_compressed_size // 2)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with contextlib.suppress(pa.ArrowException, OSError):
            now = pq.read_table(pa.BufferReader(changed), columns=["record"]).column(0).to_pylist()
            altered = sum(before != after for before, after in zip(true, now, strict=True))
            if altered and (found is None or altered < found[0]):
                found = altered, place, changed
            if altered == 1:
                break
    if found is None:
        raise InvariantError(f"no byte of {path} could be changed")
    path.write_bytes(found[2])
    return found[1]
