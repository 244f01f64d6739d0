"""Tiles and bundles: their names, how they grow, and reading nodes back out of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoint import open_checkpoint
from ledger.errors import InvariantError, MalformedError
from ledger.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    MAX_TREE_SIZE,
    consistency_path,
    inclusion_path,
    leaf_hash,
    leaf_hashes,
    root_from,
    root_of,
)
from ledger.note import Verifier
from ledger.tiles import (
    MAX_RECORD_BYTES,
    TileBuilder,
    bundle_path,
    decode_bundle,
    encode_bundle,
    node_reader,
    parse_bundle_path,
    parse_tile_path,
    tile_path,
    tile_width,
    tiles_of,
)

TLOG = Path(__file__).parents[1] / "vectors" / "tlog-15"
TLOG_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


def leaf(i: int) -> bytes:
    return i.to_bytes(4, "big")


def packed(start: int, stop: int) -> bytes:
    return leaf_hashes([leaf(i) for i in range(start, stop)])


class Disk:
    """Holds tiles by path as a store would, and refuses to change one."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.reads: list[str] = []

    def write(self, tiles: list[tuple[int, int, int, bytes]]) -> None:
        for level, n, width, data in tiles:
            path = tile_path(level, n, width)
            assert len(data) == width * HASH_SIZE
            assert self.files.setdefault(path, data) == data, "tiles never change"

    def read(self, level: int, n: int, width: int) -> bytes:
        path = tile_path(level, n, width)
        self.reads.append(path)
        return self.files[path]


# ---- names


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((0, 0, 1), "tile/0/000.p/1"),
        ((3, 999, 255), "tile/3/999.p/255"),
        ((0, 1000, 256), "tile/0/x001/000"),
        ((0, 1234067, 256), "tile/0/x001/x234/067"),
        ((2, 1234067, 17), "tile/2/x001/x234/067.p/17"),
        ((63, MAX_TREE_SIZE // 256, 256), "tile/63/x036/x028/x797/x018/x963/967"),
    ],
)
def test_names_of_tiles(tile: tuple[int, int, int], path: str) -> None:
    assert tile_path(*tile) == path
    assert parse_tile_path(path) == tile
    bundle = path.replace(f"tile/{tile[0]}/", "tile/entries/")
    assert bundle_path(*tile[1:]) == bundle
    assert parse_bundle_path(bundle) == tile[1:]


@given(level=st.integers(0, 63), n=st.integers(0, MAX_TREE_SIZE // 256), width=st.integers(1, 256))
def test_names_read_back(level: int, n: int, width: int) -> None:
    assert parse_tile_path(tile_path(level, n, width)) == (level, n, width)
    assert parse_bundle_path(bundle_path(n, width)) == (n, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",  # zero-padded by a whole group
        "tile/0/001/000",  # the group before the last without its x
        "tile/0/x001",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/8/0/000",  # the height that golang.org/x/mod/sumdb has in its paths
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",  # full tiles have no width
        "tile/0/000.p/257",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/../000",
        "tile/0/\N{FULLWIDTH DIGIT ZERO}00",
        "tile/0/x036/x028/x797/x018/x963/968",  # beyond 2**63 - 1 leaves
        "tile/0/x001/x036/x028/x797/x018/x963/967",
    ],
)
def test_other_names_are_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_tile_path(path)
    with pytest.raises(MalformedError):
        parse_bundle_path(path.replace("tile/0/", "tile/entries/"))


def test_the_two_kinds_of_name_are_not_confused() -> None:
    with pytest.raises(MalformedError):
        parse_tile_path("tile/entries/000")
    with pytest.raises(MalformedError):
        parse_bundle_path("tile/0/000")


@pytest.mark.parametrize("tile", [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257), (0, 2**63, 1)])
def test_tiles_that_cannot_exist_have_no_name(tile: tuple[int, int, int]) -> None:
    with pytest.raises(MalformedError):
        tile_path(*tile)


# ---- which tiles there are


def test_the_examples_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert tiles[:273] == [(0, n, 256) for n in range(273)]
    assert tiles[273:] == [(0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1)]
    assert list(tiles_of(256)) == [(0, 0, 256), (1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 1 << 20))
def test_widths_agree_with_the_list_of_tiles(size: int) -> None:
    tiles = list(tiles_of(size))
    assert all(tile_width(level, n, size) == width > 0 for level, n, width in tiles)
    # floor(s / 256**l) mod 256, word for word.
    assert {level: width for level, _, width in tiles if width < 256} == {
        level: width for level in range(8) if (width := size // 256**level % 256)
    }
    for level in range(4):
        last = max((n for at, n, _ in tiles if at == level), default=-1)
        assert tile_width(level, last + 1, size) == 0


# ---- growing and reading back


def test_every_small_size_leaf_by_leaf() -> None:
    builder, disk = TileBuilder(), Disk()
    tree: reference.Leaves = ()
    for size in range(101):
        disk.write(builder.drain())
        assert builder.size == size
        assert builder.root() == reference.mth(tree)
        reader = node_reader(size, disk.read)
        assert root_from(size, reader) == reference.mth(tree)
        for index in range(size):
            assert inclusion_path(index, size, reader) == reference.path(index, tree)
            assert consistency_path(index + 1, size, reader) == reference.proof(index + 1, tree)
        builder.extend(packed(size, size + 1))
        tree = (*tree, leaf(size))


def test_a_tree_of_three_levels() -> None:
    """70,000 leaves, the specification's example: every tile is written, once, with the right hashes."""
    size = 70_000
    builder, disk = TileBuilder(), Disk()
    hashes = packed(0, size)
    builder.extend(hashes)
    disk.write(builder.drain())
    assert set(disk.files) == {tile_path(*tile) for tile in tiles_of(size)}
    assert b"".join(disk.files[tile_path(*tile)] for tile in tiles_of(size) if tile[0] == 0) == hashes
    tree = tuple(leaf(i) for i in range(size))
    assert disk.files["tile/2/000.p/1"] == reference.mth(tree[:65_536])
    assert disk.files["tile/1/001.p/17"][-HASH_SIZE:] == reference.mth(tree[272 * 256 : 273 * 256])
    assert builder.root() == reference.mth(tree)

    reader = node_reader(size, disk.read)
    disk.reads.clear()
    assert inclusion_path(69_999, size, reader) == reference.path(69_999, tree)
    assert len(disk.reads) == len(set(disk.reads)) <= 5, "each tile is read once a proof"
    for index in (0, 255, 256, 65_535, 65_536, 69_887, 69_888):
        assert inclusion_path(index, size, reader) == reference.path(index, tree)
    for old in (1, 256, 257, 65_535, 65_536, 65_537, 69_888, 69_999, 70_000):
        assert consistency_path(old, size, reader) == reference.proof(old, tree)
        assert root_from(old, reader) == reference.mth(tree[:old]), "an older root out of the newer tiles"


@given(batches=st.lists(st.integers(0, 700), max_size=8), resume=st.booleans())
def test_batching_and_resuming_never_change_a_tile(batches: list[int], resume: bool) -> None:
    builder, disk = TileBuilder(), Disk()
    for count in batches:
        builder.extend(packed(builder.size, builder.size + count))
        disk.write(builder.drain())
        size = builder.size
        hashes = [leaf_hash(leaf(i)) for i in range(size)]
        assert builder.root() == root_of(hashes) == root_from(size, node_reader(size, disk.read))
        assert {tile_path(*tile) for tile in tiles_of(size)} <= set(disk.files)
        if resume:
            builder = TileBuilder(size, builder.edge)
    at_once = TileBuilder()
    at_once.extend(packed(0, sum(batches)))
    assert at_once.edge == builder.edge


def test_tiles_above_the_first_level_keep_their_place() -> None:
    """A tile of level 1 fills in the middle of a batch, with many tiles of level 0 before it."""
    hashes = packed(0, 300) * 500
    at_once, disk = TileBuilder(), Disk()
    at_once.extend(hashes)
    disk.write(at_once.drain())
    builder, again = TileBuilder(), Disk()
    for start, stop in (
        (0, 60_000),
        (60_000, 70_000),
        (70_000, 131_071),
        (131_071, 131_072),
        (131_072, 150_000),
    ):
        builder.extend(hashes[start * HASH_SIZE : stop * HASH_SIZE])
        again.write(builder.drain())
    assert {path for path in again.files if ".p/" not in path} == {tile_path(*tile) for tile in tiles_of(150_000) if tile[2] == 256}
    assert disk.files.items() <= again.files.items()
    assert builder.root() == at_once.root()


def test_a_drain_gives_each_tile_once() -> None:
    builder = TileBuilder()
    builder.extend(packed(0, 300))
    assert [tile[:3] for tile in builder.drain()] == [(0, 0, 256), (0, 1, 44), (1, 0, 1)]
    assert builder.drain() == []
    builder.extend(packed(300, 301))
    assert [tile[:3] for tile in builder.drain()] == [(0, 1, 45)], "level 1 has not changed"
    builder.extend(packed(301, 512))
    assert [tile[:3] for tile in builder.drain()] == [(0, 1, 256), (1, 0, 2)]
    again = TileBuilder(512, builder.edge)
    assert [tile[:3] for tile in again.drain()] == [(1, 0, 2)], "a new builder does not know what is on disk"


def test_a_builder_refuses_what_it_cannot_be() -> None:
    row = packed(0, 1)
    for size, edge in (
        (-1, {}),
        (MAX_TREE_SIZE + 1, {}),
        (1, {}),
        (1, {0: row + row}),
        (1, {0: row[:-1]}),
        (1, {0: row, 1: row}),
        (256, {0: row}),
        (0, {0: row}),
    ):
        with pytest.raises(MalformedError):
            TileBuilder(size, edge)
    assert TileBuilder(1, {0: row, 1: b""}).root() == row
    assert TileBuilder().root() == EMPTY_ROOT
    builder = TileBuilder()
    with pytest.raises(MalformedError):
        builder.extend(row[:-1])
    full = TileBuilder(MAX_TREE_SIZE, {level: row * (255 if level < 7 else 127) for level in range(8)})
    with pytest.raises(MalformedError):
        full.extend(row)


def test_the_edge_is_a_copy() -> None:
    builder = TileBuilder(1, {0: packed(0, 1)})
    builder.edge.clear()
    assert builder.edge == {0: packed(0, 1)}


def test_a_tile_of_another_width_is_noticed() -> None:
    def short(level: int, n: int, width: int) -> bytes:
        return packed(0, width)[:-1]

    def wide(level: int, n: int, width: int) -> bytes:
        return packed(0, width + 1)

    for read in (short, wide):
        with pytest.raises(MalformedError) as caught:
            root_from(5, node_reader(5, read))
        assert caught.value.path == "tile/0/000.p/5"


def test_nodes_that_are_not_complete_are_not_read() -> None:
    reader = node_reader(5, Disk().read)
    for node in ((0, 5), (1, 2), (3, 0)):
        with pytest.raises(InvariantError):
            reader([node])


# ---- bundles


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_bundles_read_back(records: list[bytes]) -> None:
    data = encode_bundle(records)
    assert decode_bundle(data, len(records)) == records


@given(data=st.binary(max_size=60), width=st.integers(1, 8))
def test_what_is_read_as_a_bundle_is_one(data: bytes, width: int) -> None:
    try:
        records = decode_bundle(data, width)
    except MalformedError:
        return
    assert encode_bundle(records) == data


def test_the_longest_record() -> None:
    longest = bytes(MAX_RECORD_BYTES)
    assert decode_bundle(encode_bundle([longest, b"", longest]), 3) == [longest, b"", longest]
    with pytest.raises(MalformedError):
        encode_bundle([longest + b"x"])


def test_damaged_bundles() -> None:
    data = encode_bundle([b"a", b"", b"ccc"])
    assert data == b"\x00\x01a\x00\x00\x00\x03ccc"
    for cut in range(len(data)):
        with pytest.raises(MalformedError):
            decode_bundle(data[:cut], 3)
    for width in (0, 1, 2, 4, 257):
        with pytest.raises(MalformedError):
            decode_bundle(data, width)
    with pytest.raises(MalformedError):
        decode_bundle(data + b"\x00", 3)
    for count in (0, 257):
        with pytest.raises(MalformedError):
            encode_bundle([b""] * count)


# ---- a real log


def test_every_checkpoint_of_the_tessera_log() -> None:
    """Each signature is verified, each root recomputed three ways: from entries, from tiles, by growing."""
    verifier = Verifier.parse(TLOG_KEY)
    builder = TileBuilder()
    records: list[bytes] = []

    def read_tile(level: int, n: int, width: int) -> bytes:
        return (TLOG / tile_path(level, n, width)).read_bytes()

    for size in range(16):
        path = TLOG / f"checkpoint.{size}"
        checkpoint = open_checkpoint(path.read_bytes(), verifier)
        assert checkpoint.size == size
        if size:
            entries = decode_bundle((TLOG / bundle_path(0, size)).read_bytes(), size)
            assert entries[:-1] == records
            records = entries
            builder.extend(leaf_hash(entries[-1]))
            assert builder.drain() == [(0, 0, size, read_tile(0, 0, size))]
        assert root_of([leaf_hash(record) for record in records]) == checkpoint.root
        assert root_from(size, node_reader(size, read_tile)) == checkpoint.root
        assert builder.root() == checkpoint.root
        assert reference.mth(tuple(records)) == checkpoint.root
    assert (TLOG / "checkpoint").read_bytes() == (TLOG / "checkpoint.15").read_bytes()


def test_a_changed_entry_of_the_tessera_log_is_noticed() -> None:
    checkpoint = open_checkpoint((TLOG / "checkpoint").read_bytes(), Verifier.parse(TLOG_KEY))
    data = (TLOG / bundle_path(0, 15)).read_bytes()
    honest = decode_bundle(data, 15)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
        try:
            records = decode_bundle(changed, 15)
        except MalformedError:
            continue
        assert records != honest
        assert root_of([leaf_hash(record) for record in records]) != checkpoint.root


def test_leaf_hashes_are_those_of_the_specification() -> None:
    records = [b"", b"\x00", b"entry"]
    expected = b"".join(hashlib.sha256(b"\x00" + record).digest() for record in records)
    assert leaf_hashes(records) == b"".join(map(leaf_hash, records)) == expected
