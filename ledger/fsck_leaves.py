"""Reading hash tiles for `verify`: the file of the checkpoint's width, or a wider one when the writer has moved on meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from ledger import merkle, tiles
from ledger.layout import Layout
from ledger.regular import read_file

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


def stored_nodes(layout: Layout, size: int) -> merkle.NodeReader:
    """Node hashes of the tree of `size` records as its tiles have them, which nobody has checked; a missing tile gives no hashes."""
    return tiles.node_reader(size, lambda level, n, width: read_hashes(layout.root, level, n, width) or b"")


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
