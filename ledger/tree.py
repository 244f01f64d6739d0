"""The tree on disk: hash tiles that grow with the log, and reading them back.

Tiles are written without fsync, because until their records are sealed the journal can rebuild them; `sync_tiles` makes them
durable before a journal file is dropped. Formats: c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

from ledger import durable, merkle, tiles
from ledger.durable import storage_errors
from ledger.errors import CorruptSegment
from ledger.regular import read_file

HASH_BYTES: Final = 32
TILE_WIDTH: Final = 256


def read_tile(root: Path, level: int, n: int, width: int) -> bytes:
    """Read `width` hashes of a tile: from the full tile, from the partial one, or from a wider partial one.

    Raises:
        CorruptSegment: it is missing or shorter than that.
    """
    full = root / tiles.tile_path(level, n)
    candidates = [full, root / tiles.tile_path(level, n, width)] if width < TILE_WIDTH else [full]
    for path in candidates:
        with contextlib.suppress(FileNotFoundError), storage_errors_but_missing(path):
            data = read_file(path, limit=TILE_WIDTH * HASH_BYTES)
            if len(data) >= width * HASH_BYTES:
                return data[: width * HASH_BYTES]
            raise CorruptSegment(f"tile {path.name} is shorter than {width} hashes", path=path, hint="run trail verify")
    for path in _wider(full, width):
        with contextlib.suppress(FileNotFoundError), storage_errors_but_missing(path):
            data = read_file(path, limit=TILE_WIDTH * HASH_BYTES)
            if len(data) >= width * HASH_BYTES:
                return data[: width * HASH_BYTES]
    raise CorruptSegment(f"{tiles.tile_path(level, n, width)} is missing", path=full, hint="run trail verify")


def _wider(full: Path, width: int) -> list[Path]:
    """The partial tiles at least so wide, and the full one again: the writer may have put it in their place since the first look."""
    partial = full.with_name(full.name + ".p")
    try:
        names = [path for path in partial.iterdir() if path.name.isdecimal() and int(path.name) >= width]
    except (FileNotFoundError, NotADirectoryError):
        names = []
    return [*names, full]


@contextlib.contextmanager
def storage_errors_but_missing(path: Path):  # type: ignore[no-untyped-def]  # a generator of None, see durable.storage_errors
    """`storage_errors`, letting a missing file through: readers then look for another tile."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as exc:
        with storage_errors("reading", path):
            raise exc


def require_tiles(root: Path, size: int) -> None:
    """Every full tile of a tree must be there: a power cut may leave a file empty that was named and never synced.

    Raises:
        CorruptSegment: one is not.
    """
    for level, n, width in tiles.tiles_of(size):
        path = root / tiles.tile_path(level, n)
        if width == TILE_WIDTH and not (path.exists() and path.stat().st_size == TILE_WIDTH * HASH_BYTES):
            raise CorruptSegment(f"tile {tiles.tile_path(level, n)} is missing or short", path=path, hint="run trail verify")


def remove_stale(root: Path, size: int) -> None:
    """Remove partial tiles at the right edge of a tree that are not the beginning of the present ones: another thing a power cut leaves."""
    for level, n, width in tiles.tiles_of(size):
        if width == TILE_WIDTH:
            continue
        now = read_tile(root, level, n, width)
        for path in (root / tiles.tile_path(level, n, width)).parent.iterdir():
            if not path.name.isdecimal() or int(path.name) > width or path.read_bytes() != now[: int(path.name) * HASH_BYTES]:
                durable.remove([path])


def tile_nodes(root: Path, size: int) -> merkle.NodeReader:
    """Node hashes of the tree of `size` records, read from its tiles; tiles are remembered for the life of the reader."""
    cache: dict[tuple[int, int, int], bytes] = {}

    def read(level: int, n: int, width: int) -> bytes:
        key = (level, n, width)
        if key not in cache:
            if len(cache) > 4096:
                cache.clear()
            cache[key] = read_tile(root, level, n, width)
        return cache[key]

    return tiles.node_reader(size, read)


class TreeWriter:
    """Appends leaf hashes and writes the tiles of each published size."""

    def __init__(self, root: Path, *, size: int, edge: dict[int, bytes]) -> None:
        """Continue a tree whose right edge (the partial row of each level) is `edge`."""
        self._root = root
        self._builder = tiles.TileBuilder(size, edge)
        self._unwritten: list[tuple[int, int, int, bytes]] = []
        self._unsynced: list[Path] = []

    @classmethod
    def load(cls, root: Path, size: int) -> TreeWriter:
        """Continue the tree of `size` records from its tiles.

        Raises:
            CorruptSegment: a tile of the right edge is missing or short.
        """
        edge: dict[int, bytes] = {}
        level, count = 0, size
        while count:
            width = count % TILE_WIDTH
            if width:
                edge[level] = read_tile(root, level, count // TILE_WIDTH, width)
            level, count = level + 1, count // TILE_WIDTH
        return cls(root, size=size, edge=edge)

    @property
    def size(self) -> int:
        """Records integrated."""
        return self._builder.size

    def extend(self, leaf_hashes: bytes) -> None:
        """Integrate packed leaf hashes."""
        self._builder.extend(leaf_hashes)

    def root(self) -> bytes:
        """The root hash of all records integrated."""
        return self._builder.root()

    def write(self) -> None:
        """Write the tiles that the present size has and disk has not; atomic each, durable after `sync_tiles`."""
        # The builder gives each full tile once: what a failed write leaves must be written by the next call.
        self._unwritten += self._builder.drain()
        while self._unwritten:
            level, n, width, data = self._unwritten[0]
            path = self._root / tiles.tile_path(level, n, width)
            with storage_errors("creating", path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
            durable.put(path, data)
            self._unsynced.append(path)
            self._unwritten.pop(0)
            if width == TILE_WIDTH:
                # c2sp.org/tlog-tiles: partial tiles may go once the full tile stands.
                shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)

    def take_unsynced(self) -> list[Path]:
        """The tiles written since the last call, for `sync_tiles`."""
        paths, self._unsynced = self._unsynced, []
        return paths


def sync_tiles(root: Path, paths: list[Path]) -> None:
    """Make tiles durable, with the names of the directories above them."""
    directories = set()
    for path in paths:
        if not path.exists():  # a partial tile may have gone since
            continue
        durable.sync_file(path)
        parent = path.parent
        while parent != root and parent not in directories:
            directories.add(parent)
            parent = parent.parent
    for directory in directories:
        if directory.exists():
            durable.sync_dir(directory)
