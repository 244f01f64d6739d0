"""Proofs damaged in every way there is, with what must come of each, and the little that goes unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import reference

from ledger.errors import LedgerError, MalformedError, NotAppendOnly, RootMismatch
from ledger.merkle import leaf_hash, verify_consistency, verify_inclusion

LEAVES = tuple(bytes([i]) for i in range(101))


def flip(data: bytes) -> bytes:
    """Change one bit."""
    return data[:-1] + bytes([data[-1] ^ 1])


Inclusion = dict[str, Any]


def inclusion(index: int, size: int) -> Inclusion:
    tree = LEAVES[:size]
    return {
        "index": index,
        "size": size,
        "leaf": leaf_hash(tree[index]),
        "path": reference.path(index, tree),
        "root": reference.mth(tree),
    }


def damaged_inclusion(good: Inclusion) -> Iterator[tuple[str, Inclusion, type[LedgerError]]]:
    index, size, path, root, leaf = (good[key] for key in ("index", "size", "path", "root", "leaf"))
    yield "index - 1", {**good, "index": index - 1}, LedgerError
    yield "index + 1", {**good, "index": index + 1}, LedgerError
    yield "index = size", {**good, "index": size}, MalformedError
    yield "index of 64 bits", {**good, "index": 2**64 - 1}, MalformedError
    yield "size 0", {**good, "size": 0}, MalformedError
    yield "size 2**63", {**good, "size": 2**63}, MalformedError
    yield "leaf flipped", {**good, "leaf": flip(leaf)}, RootMismatch
    yield "root flipped", {**good, "root": flip(root)}, RootMismatch
    yield "leaf cut", {**good, "leaf": leaf[:-1]}, MalformedError
    yield "root cut", {**good, "root": root[:-1]}, MalformedError
    yield "extra hash before", {**good, "path": [root, *path]}, MalformedError
    yield "extra hash behind", {**good, "path": [*path, root]}, MalformedError
    yield "63 more hashes", {**good, "path": [*path, *[root] * 63]}, MalformedError
    if size > 1:
        yield "leaf and root swapped", {**good, "leaf": root, "root": leaf}, RootMismatch
    for at in range(len(path)):
        yield f"hash {at} missing", {**good, "path": path[:at] + path[at + 1 :]}, MalformedError
        yield f"hash {at} twice", {**good, "path": path[: at + 1] + path[at:]}, MalformedError
        yield (
            f"hash {at} flipped",
            {**good, "path": [*path[:at], flip(path[at]), *path[at + 1 :]]},
            RootMismatch,
        )
        yield f"hash {at} cut", {**good, "path": [*path[:at], path[at][:-1], *path[at + 1 :]]}, MalformedError
    for at in range(1, len(path)):
        swapped = [*path[: at - 1], path[at], path[at - 1], *path[at + 1 :]]
        yield f"hashes {at - 1}, {at} reordered", {**good, "path": swapped}, RootMismatch


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100])
def test_a_damaged_inclusion_proof_fails(size: int) -> None:
    for index in range(size):
        good = inclusion(index, size)
        verify_inclusion(**good)
        for what, bad, error in damaged_inclusion(good):
            with pytest.raises(error):
                verify_inclusion(**bad)
                pytest.fail(f"{what} of record {index} of {size} was not noticed")


def shape(index: int, size: int) -> list[str]:
    """On which side each sibling lies, from the naive recursion: what a path alone says about the tree."""
    if size == 1:
        return []
    k = reference.split(size)
    return [*shape(index, k), "right"] if index < k else [*shape(index - k, size - k), "left"]


def test_an_inclusion_proof_binds_the_size_only_by_its_shape() -> None:
    """Another size is refused exactly where its path would have another shape.

    So a size is believed only from a verified checkpoint."""
    accepted = []
    for size in range(1, 40):
        for index in range(size):
            for other in (size - 1, size + 1):
                bad = {**inclusion(index, size), "size": other}
                if index < other and shape(index, other) == shape(index, size):
                    verify_inclusion(**bad)
                    accepted.append((index, size, other))
                else:
                    with pytest.raises((MalformedError, RootMismatch)):
                        verify_inclusion(**bad)
    assert (0, 3, 4) in accepted
    assert (0, 4, 3) in accepted


Consistency = dict[str, Any]


def consistency(old: int, new: int) -> Consistency:
    return {
        "old_size": old,
        "new_size": new,
        "old_root": reference.mth(LEAVES[:old]),
        "new_root": reference.mth(LEAVES[:new]),
        "path": reference.proof(old, LEAVES[:new]),
    }


def damaged_consistency(good: Consistency) -> Iterator[tuple[str, Consistency, type[LedgerError]]]:
    old, new, path = good["old_size"], good["new_size"], good["path"]
    old_root, new_root = good["old_root"], good["new_root"]
    false = NotAppendOnly if old == new else RootMismatch
    yield "old root flipped", {**good, "old_root": flip(old_root)}, false
    yield "new root flipped", {**good, "new_root": flip(new_root)}, false
    yield "old size 0", {**good, "old_size": 0}, LedgerError
    yield "sizes swapped", {**good, "old_size": new + 1}, MalformedError
    yield "new size 2**63", {**good, "new_size": 2**63}, MalformedError
    yield "extra hash before", {**good, "path": [new_root, *path]}, MalformedError
    yield "extra hash behind", {**good, "path": [*path, new_root]}, MalformedError
    if old < new:
        yield "roots swapped", {**good, "old_root": new_root, "new_root": old_root}, RootMismatch
        yield "old root twice", {**good, "new_root": old_root}, RootMismatch
        yield "old root cut", {**good, "old_root": old_root[:-1]}, MalformedError
        yield "new root cut", {**good, "new_root": new_root[:-1]}, MalformedError
        yield "path empty", {**good, "path": []}, MalformedError
    for at in range(len(path)):
        yield f"hash {at} missing", {**good, "path": path[:at] + path[at + 1 :]}, MalformedError
        yield f"hash {at} twice", {**good, "path": path[: at + 1] + path[at:]}, MalformedError
        yield (
            f"hash {at} flipped",
            {**good, "path": [*path[:at], flip(path[at]), *path[at + 1 :]]},
            RootMismatch,
        )
        yield f"hash {at} cut", {**good, "path": [*path[:at], path[at][:-1], *path[at + 1 :]]}, MalformedError
    for at in range(1, len(path)):
        swapped = [*path[: at - 1], path[at], path[at - 1], *path[at + 1 :]]
        yield f"hashes {at - 1}, {at} reordered", {**good, "path": swapped}, RootMismatch


@pytest.mark.parametrize("new", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100])
def test_a_damaged_consistency_proof_fails(new: int) -> None:
    for old in range(1, new + 1):
        good = consistency(old, new)
        verify_consistency(**good)
        for what, bad, error in damaged_consistency(good):
            with pytest.raises(error):
                verify_consistency(**bad)
                pytest.fail(f"{what} from {old} to {new} was not noticed")


def test_a_consistency_proof_with_a_wrong_size_fails_unless_it_proves_that_one_too() -> None:
    """Sizes off by one, the roots unchanged. A proof keeps its shape at some other new sizes, as above; it is
    then still held against the roots of the honest trees, so nothing false about *roots* is accepted."""
    refused = accepted = 0
    for new in range(1, 34):
        for old in range(1, new + 1):
            good = consistency(old, new)
            for change in (
                {"old_size": old - 1},
                {"old_size": old + 1},
                {"new_size": new - 1},
                {"new_size": new + 1},
            ):
                try:
                    verify_consistency(**{**good, **change})
                except (MalformedError, RootMismatch, NotAppendOnly):
                    refused += 1
                else:
                    assert "new_size" in change, "the old size is bound by the old root"
                    accepted += 1
    assert refused > accepted > 0


def test_evidence_travels_with_the_error() -> None:
    good = inclusion(3, 7)
    with pytest.raises(RootMismatch) as caught:
        verify_inclusion(**{**good, "root": flip(good["root"])})
    assert (caught.value.expected, caught.value.actual) == (flip(good["root"]), good["root"])
    assert caught.value.index == 3
