"""The tree's side of `verify`: tiles against each other and the root, old checkpoints against the tree.

Tiles are checked from the top down in the sense that matters: every level is hashed from the level below, and the root from all of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ledger import merkle, tiles
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.fsck_files import Failure
from ledger.fsck_leaves import read_hashes, stored_nodes
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.regular import read_file
from ledger.trust import LogKeys

_MAX_HISTORY_BYTES = 64 << 20
_ELSEWHERE = re.compile(r"cosigned|timestamps|keys\.jsonl|.*\.cosigned\.jsonl")
"""Below `checkpoints/`: cosigned and time-stamped checkpoints, and rotations of keys, which are checked by others."""
Fail = Callable[[Failure], None]


def check_tiles(layout: Layout, head: Checkpoint, fail: Fail, *, since: int = 0) -> merkle.NodeReader | None:
    """Every tile of the tree's size: there, whole, and each full one the hash that stands for it in the tile above; and the root.

    Reads a tile at a time: memory does not grow with the tree.

    Args:
        layout: the store.
        head: the checkpoint.
        fail: takes failures.
        since: tiles with nothing but records before this one are left out.

    Returns:
        A node reader over the tiles, or None when they cannot be trusted.
    """
    good = True
    for level in range(tiles.MAX_LEVEL + 1):
        count = head.size >> (tiles.TILE_HEIGHT * level)
        if count == 0:
            break
        above = b""
        first = (since >> (tiles.TILE_HEIGHT * level)) // tiles.TILE_WIDTH
        for n in range(first, -(-count // tiles.TILE_WIDTH)):
            data = _whole_tile(layout, head, level, n, fail)
            if data is None:
                return None
            if len(data) < tiles.TILE_BYTES:
                continue
            parent, place = divmod(n, tiles.TILE_WIDTH)
            if place == 0 or not above:
                row = _whole_tile(layout, head, level + 1, parent, fail)
                if row is None:
                    return None
                above = row
            if _tile_root(data) != above[place * merkle.HASH_SIZE : (place + 1) * merkle.HASH_SIZE]:
                name = tiles.tile_path(level + 1, parent, len(above) // merkle.HASH_SIZE)
                fail(Failure("tile", None, name, "is not the hash of the tiles below it"))
                good = False
    if not good:
        return None
    nodes = stored_nodes(layout, head.size)
    if head.size and merkle.root_from(head.size, nodes) != head.root:
        fail(Failure("root", None, "checkpoint", "the tiles do not give the root of the checkpoint"))
        return None
    return nodes


def _whole_tile(layout: Layout, head: Checkpoint, level: int, n: int, fail: Fail) -> bytes | None:
    """A tile in the width it has in the tree; None, and the failure reported, when it is not there or short."""
    width = tiles.tile_width(level, n, head.size)
    data = read_hashes(layout.root, level, n, width)
    if data is None or len(data) != width * merkle.HASH_SIZE:
        why = "is missing" if data is None else f"has {len(data)} bytes, not {width * merkle.HASH_SIZE}"
        fail(Failure("tile", None, tiles.tile_path(level, n, width), why))
        return None
    return data


def check_stray_tiles(layout: Layout, head: Checkpoint, fail: Fail) -> None:
    """Older partial tiles and anything else below `tile/`: prefixes of the tree, or a failure."""
    for path in _files_below(layout.root / "tile"):
        name = path.relative_to(layout.root).as_posix()
        try:
            level, n, width = tiles.parse_tile_path(name)
        except LedgerError:
            if not path.name.startswith("."):
                fail(Failure("tile", None, name, "is no tile"))
            continue
        now = tiles.tile_width(level, n, head.size)
        if width > now:
            continue  # of a newer checkpoint, published while we read
        if width == tiles.TILE_WIDTH:
            continue  # the tile that stands: `check_tiles` has read this very file
        data = _read(path, limit=tiles.TILE_BYTES)
        whole = read_hashes(layout.root, level, n, now)
        if data is None or whole is None:
            continue
        if len(data) != width * merkle.HASH_SIZE or data != whole[: len(data)]:
            fail(Failure("tile", None, name, "is not the beginning of the tile that stands now"))


def _files_below(directory: Path) -> Iterator[Path]:
    """Every file, directory by directory."""
    # os.walk, because directories of partial tiles vanish under a running writer, and it takes no notice.
    for place, directories, names in os.walk(directory):
        directories.sort()
        yield from (Path(place) / name for name in sorted(names))


def check_history(layout: Layout, head: Checkpoint, keys: LogKeys | None, nodes: merkle.NodeReader, fail: Fail) -> None:
    """Old checkpoints: signed by the pinned key, and the root of this tree at their size."""
    if not layout.history.is_dir():
        return
    for path in sorted(layout.history.iterdir()):
        # Dots begin the names of files that are just being made.
        if _ELSEWHERE.fullmatch(path.name) or path.name.startswith("."):
            continue
        name = path.relative_to(layout.root).as_posix()
        data = _read(path, limit=_MAX_HISTORY_BYTES)
        if data is None:
            if path.exists():
                fail(Failure("checkpoint", None, name, "cannot be read"))
            continue
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                note = json.loads(line)["checkpoint"].encode()
                if keys is None:
                    continue
                checkpoint = keys.open(note)
            except (ValueError, KeyError, TypeError, AttributeError, LedgerError) as exc:
                fail(Failure("checkpoint", None, name, f"line {number} is not a checkpoint of this log: {exc}"))
                continue
            if checkpoint.size > head.size and not moved_on(layout, checkpoint):
                why = f"line {number} covers {checkpoint.size} records, the checkpoint {head.size}: it was rolled back"
                fail(Failure("rollback", head.size, name, why))
            elif checkpoint.size <= head.size and root_at(head, checkpoint.size, nodes) != checkpoint.root:
                fail(Failure("fork", checkpoint.size, name, f"line {number} is a checkpoint of another history"))


def root_at(head: Checkpoint, size: int, nodes: merkle.NodeReader) -> bytes:
    """The root of the tree when it had so many records, proven to lead to the checkpoint that is verified.

    Raises:
        RootMismatch: the tiles are damaged in a part that was left out.
    """
    return merkle.root_within(size, whole=head.size, root=head.root, reader=nodes)


def moved_on(layout: Layout, checkpoint: Checkpoint) -> bool:
    """True when the store has published at least this checkpoint by now: its writer went on while we read."""
    try:
        return Checkpoint.parse(parse_note(_read(layout.checkpoint, limit=MAX_NOTE_BYTES) or b"")[0]).size >= checkpoint.size
    except LedgerError:
        return False


def _tile_root(data: bytes) -> bytes:
    row = data
    while len(row) > merkle.HASH_SIZE:
        row = merkle.parents(row)
    return row


def _read(path: Path, *, limit: int) -> bytes | None:
    try:
        return read_file(path, limit=limit)
    except OSError:
        return None
