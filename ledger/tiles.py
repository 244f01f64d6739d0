"""Hash tiles and entry bundles of c2sp.org/tlog-tiles: their names, their bytes, and how they grow.

The hash tile (level, n) holds up to 256 packed hashes, each over 256 ** level leaves: the nodes (8 * level,
256 * n + i) of the tree. Full tiles have 256 hashes and never change. A partial tile exists for the size it
was made at; it is never hashed into the level above. The seven levels between two tile levels are recomputed
from a tile when they are needed.

Pure: `node_reader` is given a function that fetches a tile, `TileBuilder` returns the tiles to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ledger.errors import InvariantError, MalformedError
from ledger.merkle import EMPTY_ROOT, HASH_SIZE, MAX_TREE_SIZE, NodeReader, node_hash, parents

TILE_HEIGHT = 8
"""Levels of the tree in one tile; tlog-tiles fixes it."""

TILE_WIDTH = 1 << TILE_HEIGHT
"""Hashes in a full tile, records in a full entry bundle."""

TILE_BYTES = TILE_WIDTH * HASH_SIZE
"""Bytes of a full tile."""

MAX_LEVEL = 63
"""The highest tile level the format can name; a tree of MAX_TREE_SIZE leaves ends at level 7."""

MAX_RECORD_BYTES = 65_535
"""An entry bundle gives each record's length in 16 bits."""

TileReader: TypeAlias = Callable[[int, int, int], bytes]
"""read_tile(level, n, width) -> width packed hashes; may cut them from a wider tile of the same (level,
n)."""

_TILE_PATH = re.compile(r"tile/([0-9]{1,2}|entries)/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?", re.ASCII)


def tile_path(level: int, n: int, width: int = TILE_WIDTH) -> str:
    """The path of a hash tile below the log's prefix.

    >>> tile_path(0, 1234067), tile_path(1, 0, 17)
    ('tile/0/x001/x234/067', 'tile/1/000.p/17')

    Raises:
        MalformedError: The tile cannot exist.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise MalformedError(f"{level} is not a tile level", actual=level)
    return f"tile/{level}/{_tile_index(n, width)}"


def bundle_path(n: int, width: int = TILE_WIDTH) -> str:
    """The path of an entry bundle below the log's prefix.

    >>> bundle_path(273, 112)
    'tile/entries/273.p/112'
    """
    return f"tile/entries/{_tile_index(n, width)}"


def parse_tile_path(path: str) -> tuple[int, int, int]:
    """The (level, n, width) of a hash tile's path, the inverse of `tile_path`.

    Raises:
        MalformedError: It is not exactly what `tile_path` writes.
    """
    level, n, width = _parse_path(path)
    if level == "entries" or tile_path(int(level), n, width) != path:
        raise MalformedError("not the path of a hash tile", actual=path)
    return int(level), n, width


def parse_bundle_path(path: str) -> tuple[int, int]:
    """The (n, width) of an entry bundle's path, the inverse of `bundle_path`.

    Raises:
        MalformedError: It is not exactly what `bundle_path` writes.
    """
    _, n, width = _parse_path(path)
    if bundle_path(n, width) != path:
        raise MalformedError("not the path of an entry bundle", actual=path)
    return n, width


def tile_width(level: int, n: int, size: int) -> int:
    """How many hashes the tile (level, n) has in a tree of this size: 256 if full, 0 if there is none."""
    hashes = size >> (TILE_HEIGHT * level)
    return max(0, min(TILE_WIDTH, hashes - n * TILE_WIDTH))


def tiles_of(size: int) -> Iterator[tuple[int, int, int]]:
    """Every tile (level, n, width) of a tree of this size, lowest level first and from left to right.

    >>> list(tiles_of(256))
    [(0, 0, 256), (1, 0, 1)]
    """
    level = 0
    while size >> (TILE_HEIGHT * level):
        full, width = divmod(size >> (TILE_HEIGHT * level), TILE_WIDTH)
        for n in range(full):
            yield level, n, TILE_WIDTH
        if width:
            yield level, full, width
        level += 1


def node_reader(size: int, read_tile: TileReader) -> NodeReader:
    """A reader of nodes for `ledger.merkle` over the tiles of a tree of `size` leaves.

    Each tile is fetched once per batch. The hashes are as true as the tiles: believe them once the root
    computed from them is the root of a verified checkpoint.

    Raises (when called):
        InvariantError: A node was asked for that is not complete at this size.
        MalformedError: `read_tile` returned a tile of another width than asked for.
    """

    def read(nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        fetched: dict[tuple[int, int], bytes] = {}
        hashes = []
        for node_level, node_index in nodes:
            if (node_index + 1) << node_level > size:
                raise InvariantError(f"node {node_level},{node_index} is not complete at size {size}")
            level, height = divmod(node_level, TILE_HEIGHT)
            n, first = divmod(node_index << height, TILE_WIDTH)
            tile = fetched.get((level, n))
            if tile is None:
                tile = fetched[level, n] = _read_exactly(read_tile, level, n, tile_width(level, n, size))
            packed = tile[first * HASH_SIZE : (first + (1 << height)) * HASH_SIZE]
            for _ in range(height):
                packed = parents(packed)
            hashes.append(packed)
        return hashes

    return read


def encode_bundle(records: Sequence[bytes]) -> bytes:
    """The entry bundle of 1 to 256 records: each as its length in 16 bits, big-endian, and its bytes.

    Raises:
        MalformedError: Too many records, none, or one too long for its length.
    """
    _require_width(len(records))
    parts = []
    for record in records:
        if len(record) > MAX_RECORD_BYTES:
            raise MalformedError(f"a record of {len(record)} bytes is too long", expected=MAX_RECORD_BYTES, actual=len(record))
        parts.append(len(record).to_bytes(2, "big"))
        parts.append(record)
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The records of an entry bundle of `width` records, the inverse of `encode_bundle`.

    Raises:
        MalformedError: The width is not one, the bytes end early, or something follows the last record.
    """
    _require_width(width)
    records = []
    offset = 0
    for _ in range(width):
        start = offset + 2
        offset = start + int.from_bytes(data[offset:start], "big")
        records.append(data[start:offset])
    # A slice beyond the end is short and raises nothing; where data was cut, the last record ends beyond it.
    if offset != len(data):
        raise MalformedError(
            f"the bundle has {len(data)} bytes and its {width} records end at {offset}",
            expected=offset,
            actual=len(data),
        )
    return records


class TileBuilder:
    """Grows the tiles of a tree as leaves are appended, at one node hash per leaf.

    It holds only the *edge*: for each level the packed hashes of its partial tile. Rows at level 1 and above
    hold a hash for each full tile below, so with the size the edge is enough to go on, and to compute the
    root.
    """

    __slots__ = ("_edge", "_full", "_handed_out", "_size")

    def __init__(self, size: int = 0, edge: Mapping[int, bytes] | None = None) -> None:
        """Resume at `size` leaves with the `edge` of an earlier builder: the partial tiles of that size.

        Raises:
            MalformedError: The size is out of range or the edge is not the one a tree of this size has.
        """
        if not 0 <= size <= MAX_TREE_SIZE:
            raise MalformedError(f"{size} is not a tree size", actual=size)
        given = {level: row for level, row in (edge or {}).items() if row}
        widths = {level: width for level, _, width in _partial_tiles(size)}
        if {level: len(row) for level, row in given.items()} != {k: v * HASH_SIZE for k, v in widths.items()}:
            raise MalformedError(
                f"not the edge of a tree of size {size}",
                expected=widths,
                actual={level: len(row) / HASH_SIZE for level, row in given.items()},
            )
        self._size = size
        self._edge = given
        self._full: list[tuple[int, int, int, bytes]] = []
        self._handed_out: dict[int, tuple[int, int]] = {}

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    @property
    def edge(self) -> dict[int, bytes]:
        """For each level that has a partial tile now, its packed hashes; a copy."""
        return dict(self._edge)

    def extend(self, packed: bytes) -> None:
        """Append packed leaf hashes.

        Raises:
            MalformedError: The bytes are not whole hashes, or the tree would exceed MAX_TREE_SIZE.
        """
        count, rest = divmod(len(packed), HASH_SIZE)
        if rest:
            raise MalformedError(f"{len(packed)} bytes are not a whole number of hashes", actual=len(packed))
        if self._size + count > MAX_TREE_SIZE:
            raise MalformedError(f"the tree would exceed {MAX_TREE_SIZE} leaves", actual=self._size + count)
        first = self._size // TILE_WIDTH
        self._size += count
        level = 0
        while packed:
            row = self._edge.pop(level, b"") + packed
            whole = len(row) - len(row) % TILE_BYTES
            if len(row) > whole:
                self._edge[level] = row[whole:]
            for n, start in enumerate(range(0, whole, TILE_BYTES), first):
                self._full.append((level, n, TILE_WIDTH, row[start : start + TILE_BYTES]))
            # All full tiles of the row at once: eight levels up, 256 neighbours have become one hash.
            packed = row[:whole]
            for _ in range(TILE_HEIGHT if packed else 0):
                packed = parents(packed)
            level += 1
            first //= TILE_WIDTH

    def drain(self) -> list[tuple[int, int, int, bytes]]:
        """The tiles (level, n, width, packed hashes) to write before a checkpoint of the current size.

        Those are the tiles that became full since the last drain, then the partial tiles of this size, lowest
        level first, without the partial ones an earlier drain of this builder already gave in the same width.
        """
        tiles, self._full = self._full, []
        handed_out = {}
        for level, n, width in _partial_tiles(self._size):
            handed_out[level] = (n, width)
            if self._handed_out.get(level) != (n, width):
                tiles.append((level, n, width, self._edge[level]))
        self._handed_out = handed_out
        return tiles

    def root(self) -> bytes:
        """The root at the current size; hashes the edge anew, at most 255 hashes a level."""
        root: bytes | None = None
        for level in sorted(self._edge):
            # A row falls into complete subtrees by the bits of its width, the smallest at its right end.
            row = self._edge[level]
            while row:
                width = len(row) // HASH_SIZE
                smallest = width & -width
                subtree, row = row[-smallest * HASH_SIZE :], row[: -smallest * HASH_SIZE]
                while len(subtree) > HASH_SIZE:
                    subtree = parents(subtree)
                root = subtree if root is None else node_hash(subtree, root)
        return EMPTY_ROOT if root is None else root


def _partial_tiles(size: int) -> Iterator[tuple[int, int, int]]:
    """The partial tiles (level, n, width) of a tree of this size, lowest level first."""
    level = 0
    while hashes := size >> (TILE_HEIGHT * level):
        n, width = divmod(hashes, TILE_WIDTH)
        if width:
            yield level, n, width
        level += 1


def _read_exactly(read_tile: TileReader, level: int, n: int, width: int) -> bytes:
    tile = read_tile(level, n, width)
    if len(tile) != width * HASH_SIZE:
        path = tile_path(level, n, width)
        raise MalformedError(f"{path} has {len(tile)} bytes", expected=width * HASH_SIZE, actual=len(tile), path=path)
    return tile


def _tile_index(n: int, width: int) -> str:
    """N in groups of three digits, all but the last marked with an x, and the width of a partial tile."""
    if not 0 <= n <= MAX_TREE_SIZE // TILE_WIDTH:
        raise MalformedError(f"{n} is not the index of a tile", actual=n)
    _require_width(width)
    name = f"{n % 1000:03d}"
    while n := n // 1000:
        name = f"x{n % 1000:03d}/{name}"
    return name if width == TILE_WIDTH else f"{name}.p/{width}"


def _parse_path(path: str) -> tuple[str, int, int]:
    """Level or "entries", n and width; whether they were written canonically is for the caller to compare."""
    match = _TILE_PATH.fullmatch(path)
    if match is None:
        raise MalformedError("not the path of a tile", actual=path)
    level, groups, width = match.groups()
    return level, int(groups.replace("x", "").replace("/", "")), int(width) if width else TILE_WIDTH


def _require_width(width: int) -> None:
    if not 1 <= width <= TILE_WIDTH:
        raise MalformedError(f"{width} is not the width of a tile or bundle", expected=TILE_WIDTH, actual=width)
