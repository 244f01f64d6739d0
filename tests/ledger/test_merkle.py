"""The tree against three opinions: the recursion of the RFC, foreign vectors, published constants."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import InvariantError, MalformedError, NotAppendOnly, RootMismatch
from ledger.merkle import (
    EMPTY_ROOT,
    MAX_PATH,
    MAX_TREE_SIZE,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    leaf_hashes,
    node_hash,
    parents,
    root_from,
    root_of,
    verify_consistency,
    verify_inclusion,
)

VECTORS = Path(__file__).parents[1] / "vectors"
CT_LEAVES = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
LEAVES = tuple(bytes([i]) for i in range(130))
SIZES = range(101)


def cases(name: str) -> list[Any]:
    lines = (VECTORS / name).read_text("utf-8").splitlines()
    assert len(lines) == 98
    return [pytest.param(case, id=case["name"]) for case in map(json.loads, lines)]


def b64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# ---- foreign vectors


@pytest.mark.parametrize("case", cases("merkle_inclusion.jsonl"))
def test_inclusion_vectors(case: dict[str, Any]) -> None:
    claim = {
        "index": case["leafIdx"],
        "size": case["treeSize"],
        "leaf": b64(case["leafHash"]),
        "path": [b64(item) for item in case["proof"] or []],
        "root": b64(case["root"]),
    }
    if case["wantErr"]:
        with pytest.raises((MalformedError, RootMismatch)):
            verify_inclusion(**claim)
    else:
        verify_inclusion(**claim)


@pytest.mark.parametrize("case", cases("merkle_consistency.jsonl"))
def test_consistency_vectors(case: dict[str, Any]) -> None:
    claim = {
        "old_size": case["size1"],
        "new_size": case["size2"],
        "old_root": b64(case["root1"]),
        "new_root": b64(case["root2"]),
        "path": [b64(item) for item in case["proof"] or []],
    }
    if case["wantErr"]:
        with pytest.raises((MalformedError, RootMismatch, NotAppendOnly)):
            verify_consistency(**claim)
    else:
        verify_consistency(**claim)


# ---- published constants


def test_empty_root() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of([]) == Frontier().root() == root_from(0, reference.node_reader(())) == EMPTY_ROOT


def test_the_eight_leaves_of_certificate_transparency() -> None:
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    assert root_of(hashes).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def subtrees(end: int) -> Iterator[int]:
    """Starts of the valid subtrees that end there: 0, the end itself, multiples of bit_ceil(length)."""
    for start in range(end + 1):
        width = 1 << max(0, end - start - 1).bit_length()
        if start in (0, end) or start % width == 0:
            yield start


def hexes(hashes: Sequence[bytes]) -> str:
    return "".join(f" {item.hex()}" for item in hashes)


def test_accumulated_subtree_hashes() -> None:
    """draft-ietf-plants-merkle-tree-certs, appendix: tree sizes 0 to 130, leaf i is the byte i."""
    total = hashlib.sha256()
    for end in range(131):
        for start in subtrees(end):
            root = root_of([leaf_hash(leaf) for leaf in LEAVES[start:end]])
            total.update(f"[{start}, {end}) {root.hex()}\n".encode())
    assert total.hexdigest() == "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81"


def test_accumulated_inclusion_proofs() -> None:
    total = hashlib.sha256()
    for end in range(131):
        for start in subtrees(end):
            reader = reference.node_reader(LEAVES[start:end])
            for index in range(start, end):
                path = inclusion_path(index - start, end - start, reader)
                total.update(f"{index} [{start}, {end}){hexes(path)}\n".encode())
    assert total.hexdigest() == "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"


def test_accumulated_consistency_proofs() -> None:
    """Those from 0 are ours; we make none for subtrees that start later, so the reference fills them in."""
    total = hashlib.sha256()
    for size in range(131):
        tree = LEAVES[:size]
        reader = reference.node_reader(tree)
        for end in range(size + 1):
            for start in subtrees(end):
                if start == 0:
                    path = consistency_path(end, size, reader)
                else:
                    path = reference.subtree_proof(start, end, tree) if start < end else []
                total.update(f"[{start}, {end}) {size}{hexes(path)}\n".encode())
    assert total.hexdigest() == "10fa99b37bf9bf9ffa26b412fbd98bd75363256d0b75d61bc4538b9c9c5a0a74"


# ---- every size to 100 against the recursion of the RFC


def test_roots_of_every_small_tree() -> None:
    frontier = Frontier()
    for size in SIZES:
        tree = LEAVES[:size]
        expected = reference.mth(tree)
        assert root_of([leaf_hash(leaf) for leaf in tree]) == expected
        assert root_from(size, reference.node_reader(LEAVES)) == expected
        assert frontier.root() == expected
        assert Frontier(size, frontier.nodes).root() == expected
        frontier.append(leaf_hash(LEAVES[size]))
    assert frontier.size == 101


def test_inclusion_in_every_small_tree() -> None:
    for size in SIZES:
        tree = LEAVES[:size]
        for index in range(size):
            # The stored tree may be larger than the one proved about.
            path = inclusion_path(index, size, reference.node_reader(LEAVES))
            assert path == reference.path(index, tree)
            verify_inclusion(index=index, size=size, leaf=leaf_hash(tree[index]), path=path, root=reference.mth(tree))


def test_consistency_of_every_two_small_trees() -> None:
    for new in SIZES:
        tree = LEAVES[:new]
        for old in range(new + 1):
            path = consistency_path(old, new, reference.node_reader(LEAVES))
            assert path == (reference.proof(old, tree) if old else [])
            verify_consistency(
                old_size=old,
                new_size=new,
                old_root=reference.mth(LEAVES[:old]),
                new_root=reference.mth(tree),
                path=path,
            )


def test_a_proof_is_one_read() -> None:
    batches: list[int] = []
    inner = reference.node_reader(LEAVES)

    def counting(nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        batches.append(len(nodes))
        return inner(nodes)

    inclusion_path(64, 101, counting)
    consistency_path(37, 101, counting)
    root_from(101, counting)
    assert len(batches) == 3


# ---- beyond

sizes = st.integers(1, 1200)


@given(data=st.data(), size=sizes)
def test_proofs_of_larger_trees(data: st.DataObject, size: int) -> None:
    tree = tuple(i.to_bytes(2, "big") for i in range(size))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    reader = reference.node_reader(tree)
    root = root_from(size, reader)
    assert root == reference.mth(tree)
    path = inclusion_path(index, size, reader)
    assert path == reference.path(index, tree)
    verify_inclusion(index=index, size=size, leaf=leaf_hash(tree[index]), path=path, root=root)
    path = consistency_path(old, size, reader)
    old_root = reference.mth(tree[:old])
    verify_consistency(old_size=old, new_size=size, old_root=old_root, new_root=root, path=path)


@given(batches=st.lists(st.integers(0, 70), max_size=12))
def test_batching_never_changes_the_frontier(batches: list[int]) -> None:
    records = [i.to_bytes(2, "big") for i in range(sum(batches))]
    frontier, one_by_one = Frontier(), Frontier()
    start = 0
    for count in batches:
        frontier.extend(leaf_hashes(records[start : start + count]))
        start += count
    for record in records:
        one_by_one.append(leaf_hash(record))
    assert (frontier.size, frontier.nodes) == (one_by_one.size, one_by_one.nodes)
    assert frontier.root() == reference.mth(tuple(records))


def test_proofs_of_the_largest_tree_have_their_longest_form() -> None:
    """All leaves alike, so a node's hash depends on its level only and 2**63 - 1 leaves need no storage."""
    by_level = [leaf_hash(b"")]
    while len(by_level) < 63:
        by_level.append(node_hash(by_level[-1], by_level[-1]))

    def reader(nodes: Sequence[tuple[int, int]]) -> list[bytes]:
        return [by_level[level] for level, _ in nodes]

    size = MAX_TREE_SIZE
    root = root_from(size, reader)
    for index in (0, 1, size // 2, size - 2, size - 1):
        path = inclusion_path(index, size, reader)
        assert len(path) <= MAX_PATH
        verify_inclusion(index=index, size=size, leaf=by_level[0], path=path, root=root)
    for old in (1, 2, size // 2, size // 2 + 1, size - 1):
        path = consistency_path(old, size, reader)
        assert len(path) <= 64
        assert len(consistency_path(old // 2, 2**62, reader)) <= MAX_PATH
        verify_consistency(old_size=old, new_size=size, old_root=root_from(old, reader), new_root=root, path=path)


# ---- the edges


def test_from_the_empty_tree_everything_is_an_extension() -> None:
    claim: dict[str, Any] = {
        "old_size": 0,
        "new_size": 5,
        "old_root": EMPTY_ROOT,
        "new_root": reference.mth(LEAVES[:5]),
    }
    verify_consistency(**claim, path=[])
    verify_consistency(old_size=0, new_size=0, old_root=EMPTY_ROOT, new_root=EMPTY_ROOT, path=[])
    with pytest.raises(MalformedError):
        verify_consistency(**claim, path=[EMPTY_ROOT])
    with pytest.raises(RootMismatch):
        verify_consistency(**{**claim, "old_root": claim["new_root"]}, path=[])


def test_a_fork_is_named_as_one() -> None:
    with pytest.raises(NotAppendOnly):
        verify_consistency(old_size=5, new_size=5, old_root=leaf_hash(b"a"), new_root=leaf_hash(b"b"), path=[])


def test_a_record_is_never_taken_for_a_node() -> None:
    """A record that looks like an inner node hashes otherwise (RFC 6962 2.1, second-preimage resistance)."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    root = node_hash(left, right)
    for record in (b"\x01" + left + right, left + right):
        assert leaf_hash(record) != root
        with pytest.raises(RootMismatch):
            verify_inclusion(index=0, size=1, leaf=leaf_hash(record), path=[], root=root)


@pytest.mark.parametrize("size", [-1, MAX_TREE_SIZE + 1])
def test_sizes_out_of_range(size: int) -> None:
    reader = reference.node_reader(LEAVES)
    for call in (
        lambda: root_from(size, reader),
        lambda: inclusion_path(0, size, reader),
        lambda: consistency_path(0, size, reader),
        lambda: consistency_path(size, 7, reader),
        lambda: Frontier(size),
    ):
        with pytest.raises(MalformedError):
            call()


def test_what_a_tree_does_not_have_is_not_proved() -> None:
    reader = reference.node_reader(LEAVES)
    for index, size in ((0, 0), (7, 7), (-1, 7)):
        with pytest.raises(MalformedError):
            inclusion_path(index, size, reader)
    with pytest.raises(MalformedError):
        consistency_path(8, 7, reader)


def test_a_frontier_refuses_what_it_cannot_be() -> None:
    leaf = leaf_hash(b"")
    for size, nodes in ((1, []), (2, [leaf, leaf]), (3, [leaf]), (1, [leaf[:-1]])):
        with pytest.raises(MalformedError):
            Frontier(size, nodes)
    with pytest.raises(MalformedError):
        Frontier().append(leaf[:-1])
    with pytest.raises(MalformedError):
        Frontier().extend(leaf + b"x")
    with pytest.raises(MalformedError):
        Frontier(MAX_TREE_SIZE, [leaf] * 63).append(leaf)
    with pytest.raises(MalformedError):
        Frontier(MAX_TREE_SIZE, [leaf] * 63).extend(leaf)
    with pytest.raises(MalformedError):
        root_of([leaf, leaf[:-1]])


def test_broken_readers_and_odd_rows_are_bugs() -> None:
    with pytest.raises(InvariantError):
        root_from(3, lambda nodes: [leaf_hash(b"")])
    with pytest.raises(InvariantError):
        parents(leaf_hash(b""))
