"""Reading hash tiles for `verify`: the file of the checkpoint's width, or a wider one when the writer has moved on meanwhile."""

from __future__ import annotations

import contextlib
import errno
import stat
from collections.abc import Callable
from pathlib import Path

from ledger import merkle, tiles
from ledger.layout import Layout

LeafReader = Callable[[int, int], bytes]
"""Packed leaf hashes of records `[start, end)`; shorter where tiles are missing."""


def level_zero(layout: Layout, size: int) -> LeafReader:
    """A reader of leaf hashes `[start, end)` from `tile/0`; what is missing is left out (and fails in `check_tiles`)."""

    def read(start: int, end: int) -> bytes:
        pieces = []
        for n in range(start // tiles.TILE_WIDTH, -(-end // tiles.TILE_WIDTH)):
            width = tiles.tile_width(0, n, size)
            data = read_hashes(layout.root, 0, n, width) or b""
            first = max(0, start - n * tiles.TILE_WIDTH)
            last = min(width, end - n * tiles.TILE_WIDTH)
            pieces.append(data[first * merkle.HASH_SIZE : last * merkle.HASH_SIZE])
        return b"".join(pieces)

    return read


def read_hashes(root: Path, level: int, n: int, width: int) -> bytes | None:
    """The first `width` hashes of a tile, or None when no file has them; fewer when a file is short."""
    exact = root / tiles.tile_path(level, n, width)
    whole = root / tiles.tile_path(level, n)
    for path in (exact, whole):
        with contextlib.suppress(OSError):
            return read_file(path, limit=tiles.TILE_BYTES)[: width * merkle.HASH_SIZE]
    partial = whole.with_name(whole.name + ".p")
    wider = sorted(int(p.name) for p in partial.glob("*") if p.name.isdecimal() and int(p.name) > width)
    for candidate in wider:
        with contextlib.suppress(OSError):
            return read_file(partial / str(candidate), limit=tiles.TILE_BYTES)[: width * merkle.HASH_SIZE]
    return None


def read_file(path: Path, *, limit: int) -> bytes:
    """The bytes of a small file. Where one of a few kilobytes belongs, somebody may have put a pipe, a device or a hole of a terabyte.

    Raises:
        OSError: it is no ordinary file, is larger than `limit` bytes, or cannot be read.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no ordinary file", str(path))
    if found.st_size > limit:
        raise OSError(errno.EFBIG, f"has {found.st_size} bytes, more than {limit}", str(path))
    with path.open("rb") as handle:
        return handle.read(limit)
