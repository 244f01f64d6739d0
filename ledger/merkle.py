"""The Merkle tree of RFC 6962 section 2.1 (the same tree as RFC 9162 section 2.1), with SHA-256.

Pure functions: bytes in, values out. Nothing here reads a file. A function that needs hashes of a stored tree
is given a `NodeReader` and asks it once, in one batch, for all it needs (the idea of `HashReader` in
golang.org/x/mod/sumdb/tlog).

A *node* is a complete subtree, named (level, n): the hash over the leaves [n << level, (n + 1) << level).
Every other hash of the tree (its root, most elements of proofs) is combined here from nodes, because only
complete subtrees never change again.

Hashes are 32 bytes. *Packed* hashes are n of them end to end, 32 * n bytes: that spares a Python object per
leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from struct import Struct
from typing import TypeAlias

from ledger.errors import InvariantError, MalformedError, NotAppendOnly, RootMismatch

HASH_SIZE = 32
"""Bytes in a SHA-256 hash."""

MAX_TREE_SIZE = (1 << 63) - 1
"""The most leaves a tree may have: sizes and indexes fit a signed 64-bit integer everywhere."""

MAX_PATH = 63
"""The most hashes in an inclusion proof, and in a consistency proof of up to 2**62 leaves.

Beyond that a consistency proof could have 64, one more than tlog-witness takes; no log will come near.
"""

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves (RFC 6962 2.1)."""

NodeReader: TypeAlias = Callable[[Sequence[tuple[int, int]]], list[bytes]]
"""Given nodes as (level, n), returns their hashes in the same order."""

_PAIR = Struct("64s")


def leaf_hash(record: bytes) -> bytes:
    """The leaf hash of a record, SHA-256(0x00 || record)."""
    return sha256(b"\x00" + record).digest()


def leaf_hashes(records: Iterable[bytes]) -> bytes:
    """The packed leaf hashes of many records, in their order."""
    return b"".join([sha256(b"\x00" + record).digest() for record in records])


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node, SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def parents(packed: bytes) -> bytes:
    """One level up: packed hashes of 2n neighbours become the n packed hashes of their parents.

    This is the hot loop of the tree, about 0.4 us a parent, almost all of it inside SHA-256. The two hashes
    of a pair are never taken apart: they are already adjacent, as the node hash wants them.

    Raises:
        InvariantError: There is not an even number of whole hashes.
    """
    if len(packed) % _PAIR.size:
        raise InvariantError(f"{len(packed)} bytes are not pairs of hashes")
    return b"".join([sha256(b"\x01" + pair).digest() for (pair,) in _PAIR.iter_unpack(packed)])


def root_of(hashes: Sequence[bytes]) -> bytes:
    """MTH over the given leaf hashes (RFC 6962 2.1); reads each once.

    Raises:
        MalformedError: One of them is not 32 bytes.
    """
    _require_hashes(hashes)
    frontier = Frontier()
    frontier.extend(b"".join(hashes))
    return frontier.root()


class Frontier:
    """The right edge of a growing tree: the roots of the complete subtrees it falls into.

    There is one per bit set in the size, largest (leftmost) first. This is a "compact range" from 0: all that
    is needed to append leaves and to know the root, at most 63 hashes however large the tree is.
    """

    __slots__ = ("_nodes", "_size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """Resume at `size` leaves with the `nodes` of an earlier frontier.

        Raises:
            MalformedError: The size is out of range or the nodes are not as many, or as long, as it needs.
        """
        _require_size(size)
        _require_hashes(nodes)
        if len(nodes) != size.bit_count():
            raise MalformedError(
                f"a frontier of {size} leaves has {size.bit_count()} nodes, not {len(nodes)}",
                expected=size.bit_count(),
                actual=len(nodes),
            )
        self._size = size
        self._nodes = list(nodes)

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._size

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, leftmost first."""
        return tuple(self._nodes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf, by its leaf hash."""
        _require_hashes((leaf,))
        self._push(leaf, 0)

    def extend(self, packed: bytes) -> None:
        """Add packed leaf hashes; one node hash per leaf in all, whatever the batches.

        Raises:
            MalformedError: The bytes are not whole hashes, or the tree would exceed MAX_TREE_SIZE.
        """
        count, rest = divmod(len(packed), HASH_SIZE)
        if rest:
            raise MalformedError(f"{len(packed)} bytes are not a whole number of hashes", actual=len(packed))
        _require_size(self._size + count)
        start = 0
        while start < count:
            # The largest complete subtree that may begin at this size and is all here.
            level = (count - start).bit_length() - 1
            if self._size:
                level = min(level, (self._size & -self._size).bit_length() - 1)
            stop = start + (1 << level)
            subtree = packed[start * HASH_SIZE : stop * HASH_SIZE]
            for _ in range(level):
                subtree = parents(subtree)
            self._push(subtree, level)
            start = stop

    def root(self) -> bytes:
        """The root of the tree at the current size."""
        return _fold(self._nodes) if self._nodes else EMPTY_ROOT

    def _push(self, node: bytes, level: int) -> None:
        """Add a complete subtree of 1 << level leaves; the size is a multiple of that. A binary carry."""
        _require_size(self._size + (1 << level))
        carries = self._size >> level
        while carries & 1:
            node = node_hash(self._nodes.pop(), node)
            carries >>= 1
        self._nodes.append(node)
        self._size += 1 << level


def root_from(size: int, reader: NodeReader) -> bytes:
    """The root of the tree of the first `size` leaves, from a stored tree at least that large."""
    _require_size(size)
    if size == 0:
        return EMPTY_ROOT
    return _read_ranges([(0, size)], reader)[0]


def root_within(size: int, *, whole: int, root: bytes, reader: NodeReader) -> bytes:
    """The root of the first `size` leaves, proven to be that of the beginning of the tree (whole, root).

    `root_from` alone believes the reader, and of a stored tree somebody may have changed just the nodes that one size needs.

    Raises:
        MalformedError: The size is larger than the whole.
        RootMismatch: The nodes do not lead from there to the root: they are damaged, or forged.
    """
    found = root_from(size, reader)
    if size == whole:
        if found != root:
            raise RootMismatch(f"the nodes of the tree of {whole} records do not give its root", expected=root, actual=found)
    elif size:
        path = consistency_path(size, whole, reader)
        verify_consistency(old_size=size, new_size=whole, old_root=found, new_root=root, path=path)
    return found


def inclusion_path(index: int, size: int, reader: NodeReader) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 2.1.1: the siblings from the leaf's to the root's child.

    At most MAX_PATH hashes.

    Raises:
        MalformedError: There is no such leaf in a tree of that size.
    """
    _require_index(index, size)
    siblings = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            siblings.append((middle, stop))
            stop = middle
        else:
            siblings.append((start, middle))
            start = middle
    siblings.reverse()
    return _read_ranges(siblings, reader)


def consistency_path(old: int, new: int, reader: NodeReader) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 2.1.2, none when old is 0 or equals new.

    Raises:
        MalformedError: The sizes are out of range or old is larger than new.
    """
    _require_growth(old, new)
    if old in (0, new):
        return []
    # SUBPROOF as a loop. It adds MTH of the part it does not enter after what the recursion returns, so the
    # list is built from the root down and reversed.
    parts = []
    start, stop = 0, new
    while old != stop:
        middle = start + _split(stop - start)
        if old <= middle:
            parts.append((middle, stop))
            stop = middle
        else:
            parts.append((start, middle))
            start = middle
    # Where the walk never went right, the part is the whole old tree, whose root the verifier has already.
    if start > 0:
        parts.append((start, stop))
    parts.reverse()
    return _read_ranges(parts, reader)


def verify_inclusion(*, index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Check that the record with this leaf hash is at `index` in the tree (size, root). RFC 9162 2.1.3.2.

    The proof does not bind the size where the path keeps its shape (index 0 at sizes 3 and 4 with the same
    root): believe `size` only from a verified checkpoint.

    Raises:
        MalformedError: The index is not in the tree, a hash is not 32 bytes, or the path is not as long as it
            must be.
        RootMismatch: The path leads to another root; `expected` is `root`, `actual` what was computed.
    """
    _require_index(index, size)
    _require_hashes((leaf, root))
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    _require_path(path, inner + border)
    computed = _climb(leaf, path, inner, index)
    if computed != root:
        raise RootMismatch(
            f"record {index} is not in the tree of size {size} with this root",
            expected=root,
            actual=computed,
            index=index,
        )


def verify_consistency(*, old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree (new_size, new_root) extends the tree (old_size, old_root). RFC 9162 2.1.4.2.

    From the empty tree everything is an extension, and an equal tree needs no proof: the path is then empty.

    Raises:
        MalformedError: The sizes are out of order, a hash is not 32 bytes, or the path is not as long as it
            must be.
        NotAppendOnly: The sizes are equal and the roots are not: no proof could mend that, the log is forked.
        RootMismatch: The path does not lead to one of the two roots (or the root given for size 0 is not
            EMPTY_ROOT).
    """
    _require_growth(old_size, new_size)
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise RootMismatch("not the root of the empty tree", expected=EMPTY_ROOT, actual=root)
    if old_size == new_size:
        _require_path(path, 0)
        if old_root != new_root:
            raise NotAppendOnly(f"two roots for size {old_size}", expected=old_root, actual=new_root)
        return
    _require_hashes((old_root, new_root))
    if old_size == 0:
        _require_path(path, 0)
        return

    # The proof starts from the largest complete subtree that ends at old_size. When that is the whole old
    # tree, its hash is old_root and is left out of the proof.
    shift = (old_size & -old_size).bit_length() - 1
    whole = old_size == 1 << shift
    inner = ((old_size - 1) ^ (new_size - 1)).bit_length()
    border = ((old_size - 1) >> inner).bit_count()
    inner -= shift
    _require_path(path, inner + border + (0 if whole else 1))
    seed, siblings = (old_root, path) if whole else (path[0], path[1:])
    position = (old_size - 1) >> shift

    old_computed = _climb(seed, siblings, inner, position, left_only=True)
    if old_computed != old_root:
        raise RootMismatch(
            f"the proof does not lead to the old root, size {old_size}",
            expected=old_root,
            actual=old_computed,
        )
    new_computed = _climb(seed, siblings, inner, position)
    if new_computed != new_root:
        raise RootMismatch(
            f"the proof does not lead to the new root, size {new_size}",
            expected=new_root,
            actual=new_computed,
        )


def _complete_nodes(start: int, stop: int) -> list[tuple[int, int]]:
    """The complete subtrees (level, n) that make up the leaves [start, stop), leftmost and largest first.

    For the ranges RFC 6962 recurses into: start is a multiple of the smallest power of two not below stop -
    start.
    """
    nodes = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def _climb(seed: bytes, path: Sequence[bytes], inner: int, position: int, *, left_only: bool = False) -> bytes:
    """Hash from `seed` to a root along `path`.

    The first `inner` siblings lie left or right as the bits of `position` say, the rest (the border) all
    left. With `left_only` the siblings on the right are skipped, which leads to the root of the tree that
    ends at the seed.
    """
    computed = seed
    for bit, sibling in enumerate(path):
        if bit >= inner or position >> bit & 1:
            computed = node_hash(sibling, computed)
        elif not left_only:
            computed = node_hash(computed, sibling)
    return computed


def _read_ranges(ranges: Sequence[tuple[int, int]], reader: NodeReader) -> list[bytes]:
    """MTH over each range of leaves, with one call of the reader for all of them."""
    wanted = [_complete_nodes(start, stop) for start, stop in ranges]
    flat = [node for nodes in wanted for node in nodes]
    hashes = reader(flat) if flat else []
    if len(hashes) != len(flat):
        raise InvariantError(f"asked for {len(flat)} nodes, got {len(hashes)}")
    parts = iter(hashes)
    return [_fold([next(parts) for _ in nodes]) for nodes in wanted]


def _fold(nodes: Sequence[bytes]) -> bytes:
    """The hash over neighbouring complete subtrees of falling size: the smallest two are joined first."""
    computed = nodes[-1]
    for node in reversed(nodes[:-1]):
        computed = node_hash(node, computed)
    return computed


def _split(count: int) -> int:
    """The largest power of two strictly less than count, which is at least 2 (the k of RFC 6962 2.1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _require_size(size: int) -> None:
    if not 0 <= size <= MAX_TREE_SIZE:
        raise MalformedError(f"{size} is not a tree size", actual=size)


def _require_index(index: int, size: int) -> None:
    _require_size(size)
    if not 0 <= index < size:
        raise MalformedError(f"index {index} is not in a tree of size {size}", index=index, actual=size)


def _require_growth(old: int, new: int) -> None:
    _require_size(old)
    _require_size(new)
    if old > new:
        raise MalformedError(f"size {new} is smaller than size {old}", expected=old, actual=new)


def _require_hashes(hashes: Sequence[bytes]) -> None:
    for item in hashes:
        if len(item) != HASH_SIZE:
            raise MalformedError(f"a hash has {HASH_SIZE} bytes, not {len(item)}", expected=HASH_SIZE, actual=len(item))


def _require_path(path: Sequence[bytes], length: int) -> None:
    if len(path) != length:
        raise MalformedError(f"the proof has {len(path)} hashes, not {length}", expected=length, actual=len(path))
    _require_hashes(path)
