"""The tree's side of `verify`: tiles against each other and the root, old checkpoints against the tree.

Tiles are checked from the top down in the sense that matters: every level is hashed from the level below, and the root from all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from ledger import merkle, tiles
from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.errors import LedgerError
from ledger.fsck_files import Failure
from ledger.fsck_leaves import read_file, read_hashes
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, Verifier, parse_note

_MAX_HISTORY_BYTES = 64 << 20
Fail = Callable[[Failure], None]


def check_tiles(layout: Layout, head: Checkpoint, fail: Fail) -> merkle.NodeReader | None:
    """Every tile of the tree's size: there, whole, and the hash of the level below; and the root.

    Returns:
        A node reader over the tiles, or None when they cannot be trusted.
    """
    good = True
    below: dict[int, bytes] = {}
    for level in range(tiles.MAX_LEVEL + 1):
        count = head.size >> (tiles.TILE_HEIGHT * level)
        if count == 0:
            break
        above = bytearray()
        for n in range(-(-count // tiles.TILE_WIDTH)):
            width = tiles.tile_width(level, n, head.size)
            name = tiles.tile_path(level, n, width)
            data = read_hashes(layout.root, level, n, width)
            if data is None or len(data) != width * merkle.HASH_SIZE:
                why = "is missing" if data is None else f"has {len(data)} bytes, not {width * merkle.HASH_SIZE}"
                fail(Failure("tile", None, name, why))
                return None
            if level and data != below[level - 1][n * tiles.TILE_BYTES : n * tiles.TILE_BYTES + len(data)]:
                fail(Failure("tile", None, name, "is not the hash of the tiles below it"))
                good = False
            if width == tiles.TILE_WIDTH:
                above += _tile_root(data)
        below[level] = bytes(above)
        below.pop(level - 1, None)
    if not good:
        return None
    nodes = tiles.node_reader(head.size, lambda level, n, width: read_hashes(layout.root, level, n, width) or b"")
    if head.size and merkle.root_from(head.size, nodes) != head.root:
        fail(Failure("root", None, "checkpoint", "the tiles do not give the root of the checkpoint"))
        return None
    return nodes


def check_stray_tiles(layout: Layout, head: Checkpoint, fail: Fail) -> None:
    """Older partial tiles and anything else below `tile/`: prefixes of the tree, or a failure."""
    # os.walk, because directories of partial tiles vanish under a running writer, and it takes no notice.
    there = [Path(directory) / name for directory, _directories, names in os.walk(layout.root / "tile") for name in names]
    for path in sorted(there):
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
        data = _read(path, limit=tiles.TILE_BYTES)
        whole = read_hashes(layout.root, level, n, now)
        if data is None or whole is None:
            continue
        if len(data) != width * merkle.HASH_SIZE or data != whole[: len(data)]:
            fail(Failure("tile", None, name, "is not the beginning of the tile that stands now"))


def check_history(layout: Layout, head: Checkpoint, verifier: Verifier | None, nodes: merkle.NodeReader, fail: Fail) -> None:
    """Old checkpoints: signed by the pinned key, and the root of this tree at their size."""
    if not layout.history.is_dir():
        return
    for path in sorted(layout.history.iterdir()):
        name = path.relative_to(layout.root).as_posix()
        data = _read(path, limit=_MAX_HISTORY_BYTES)
        if data is None:
            fail(Failure("checkpoint", None, name, "cannot be read"))
            continue
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                note = json.loads(line)["checkpoint"].encode()
                if verifier is None:
                    continue
                checkpoint = open_checkpoint(note, verifier, head.origin)
            except (ValueError, KeyError, TypeError, AttributeError, LedgerError) as exc:
                fail(Failure("checkpoint", None, name, f"line {number} is not a checkpoint of this log: {exc}"))
                continue
            if checkpoint.size > head.size and not _moved_on(layout, checkpoint):
                why = f"line {number} covers {checkpoint.size} records, the checkpoint {head.size}: it was rolled back"
                fail(Failure("rollback", head.size, name, why))
            elif checkpoint.size <= head.size and merkle.root_from(checkpoint.size, nodes) != checkpoint.root:
                fail(Failure("fork", checkpoint.size, name, f"line {number} is a checkpoint of another history"))


def _moved_on(layout: Layout, checkpoint: Checkpoint) -> bool:
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
