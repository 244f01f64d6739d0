"""The tree of RFC 6962, word for word: slow recursion, to hold against the production code.

Nothing is shared with `ledger`: neither code nor cleverness. Leaves are given as their inputs d(i), not as
hashes. The subtree proof at the end is of draft-ietf-plants-merkle-tree-certs section 4.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

Leaves = tuple[bytes, ...]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n, by counting."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


@lru_cache(maxsize=100_000)
def mth(leaves: Leaves) -> bytes:
    """RFC 6962 2.1."""
    n = len(leaves)
    if n == 0:
        return sha(b"")
    if n == 1:
        return sha(b"\x00" + leaves[0])
    k = split(n)
    return sha(b"\x01" + mth(leaves[:k]) + mth(leaves[k:]))


def path(m: int, leaves: Leaves) -> list[bytes]:
    """RFC 6962 2.1.1."""
    n = len(leaves)
    if n == 1:
        return []
    k = split(n)
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: Leaves) -> list[bytes]:
    """RFC 6962 2.1.2."""
    return subproof(m, leaves, True)


def subproof(m: int, leaves: Leaves, b: bool) -> list[bytes]:
    n = len(leaves)
    if m == n:
        return [] if b else [mth(leaves)]
    k = split(n)
    if m <= k:
        return [*subproof(m, leaves[:k], b), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def subtree_proof(start: int, end: int, leaves: Leaves) -> list[bytes]:
    """That the subtree [start, end) is in the tree; with start 0 it is `proof`."""
    return subtree_subproof(start, end, leaves, True)


def subtree_subproof(start: int, end: int, leaves: Leaves, b: bool) -> list[bytes]:
    n = len(leaves)
    if start == 0 and end == n:
        return [] if b else [mth(leaves)]
    k = split(n)
    if end <= k:
        return [*subtree_subproof(start, end, leaves[:k], b), mth(leaves[k:])]
    if k <= start:
        return [*subtree_subproof(start - k, end - k, leaves[k:], b), mth(leaves[:k])]
    return [*subtree_subproof(0, end - k, leaves[k:], False), mth(leaves[:k])]


def node_reader(leaves: Leaves) -> Callable[[Sequence[tuple[int, int]]], list[bytes]]:
    """Reads nodes (level, n) of a tree by computing them from its leaves; refuses incomplete ones."""

    def read(nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        hashes = []
        for level, n in nodes:
            part = leaves[n << level : (n + 1) << level]
            assert len(part) == 1 << level, f"node {level},{n} is not complete"
            hashes.append(mth(part))
        return hashes

    return read
