"""Attacks on the proof of a record of a real store: its path, index, checkpoint and bytes. Each is refused for the reason written."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from stores import Home, new_home

from ledger import merkle
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import BadSignature, LedgerError, MalformedError, RootMismatch
from ledger.keys import KeyFile
from ledger.merkle import EMPTY_ROOT, MAX_TREE_SIZE
from ledger.note import encode_base64
from ledger.proof import Proof, verify_proof
from ledger.tree import tile_nodes

INDEX = 4
SIZE = 21


@pytest.fixture(scope="module")
def proof(original: Home) -> Proof:
    """Of record 4 of the store, by the reader that `trail prove` uses."""
    return Proof.parse(original.read().prove(INDEX))


@pytest.fixture(scope="module")
def record(original: Home) -> bytes:
    return original.read().record(INDEX)


def test_the_undamaged_proof_is_verified(original: Home, proof: Proof, record: bytes) -> None:
    assert verify_proof(proof, record, original.verifier).size == SIZE


def longer(path: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return (*path, bytes(32))


PATHS: dict[str, tuple[Callable[[tuple[bytes, ...]], tuple[bytes, ...]], type[LedgerError], str]] = {
    "an extra hash": (longer, MalformedError, "hashes"),
    "an extra hash in front": (lambda path: (bytes(32), *path), MalformedError, "hashes"),
    "the last hash missing": (lambda path: path[:-1], MalformedError, "hashes"),
    "the first hash missing": (lambda path: path[1:], MalformedError, "hashes"),
    "no hash": (lambda path: (), MalformedError, "hashes"),
    "the first hash twice": (lambda path: (path[0], *path), MalformedError, "hashes"),
    "the first hash in the second's place": (lambda path: (path[0], path[0], *path[2:]), RootMismatch, "root"),
    "two hashes exchanged": (lambda path: (path[1], path[0], *path[2:]), RootMismatch, "root"),
    "all in reverse": (lambda path: path[::-1], RootMismatch, "root"),
    "one hash of nothing": (lambda path: (*path[:-1], bytes(32)), RootMismatch, "root"),
}


@pytest.mark.parametrize("name", PATHS)
def test_16_a_proof_with_another_path(original: Home, proof: Proof, record: bytes, name: str) -> None:
    change, error, why = PATHS[name]
    with pytest.raises(error, match=why):
        verify_proof(dataclasses.replace(proof, path=change(proof.path)), record, original.verifier)


@pytest.mark.parametrize("index", range(SIZE))
def test_16_a_proof_for_another_index(original: Home, proof: Proof, record: bytes, index: int) -> None:
    if index != INDEX:
        with pytest.raises((RootMismatch, MalformedError)):
            verify_proof(dataclasses.replace(proof, index=index), record, original.verifier)


@pytest.mark.parametrize("index", [SIZE, SIZE + 1, 2**32 + INDEX, 2**62])
def test_16_an_index_not_below_the_size(original: Home, proof: Proof, record: bytes, index: int) -> None:
    with pytest.raises(MalformedError, match="index"):
        verify_proof(dataclasses.replace(proof, index=index), record, original.verifier)


@pytest.mark.parametrize("index", [2**63 - 1, 2**63, 2**63 + INDEX, 2**64 + INDEX, -1])
def test_16_an_index_beyond_every_tree(original: Home, proof: Proof, index: int) -> None:
    text = proof.format().replace(b"index 4\n", f"index {index}\n".encode())
    with pytest.raises(MalformedError):
        Proof.parse(text)


def holder_signs(home: Home, size: int, root: bytes) -> bytes:
    """A checkpoint of any size, with a right signature: the holder of the key can make one."""
    key = KeyFile.load(home.key, origin=home.verifier.name)
    return sign_checkpoint(Checkpoint(home.verifier.name, size, root), key.signer)


def test_16_size_0_proves_nothing(original: Home, proof: Proof, record: bytes) -> None:
    note = holder_signs(original, 0, EMPTY_ROOT)
    for path, index in (((), 0), (proof.path, INDEX)):
        with pytest.raises(MalformedError, match="index"):
            verify_proof(dataclasses.replace(proof, checkpoint=note, path=path, index=index), record, original.verifier)


def test_16_a_size_beyond_every_tree(original: Home, proof: Proof, record: bytes) -> None:
    head = original.read().tree_head
    for size in (2**63, 2**63 + SIZE, 2**64):
        text = original.checkpoint.replace(b"\n%d\n" % SIZE, b"\n%d\n" % size)
        assert text != original.checkpoint
        with pytest.raises(MalformedError):
            dataclasses.replace(proof, checkpoint=text)
        with pytest.raises(MalformedError):
            holder_signs(original, size, head.root)
    # The largest size that there is has paths of another length.
    note = holder_signs(original, MAX_TREE_SIZE, head.root)
    with pytest.raises(MalformedError, match="hashes"):
        verify_proof(dataclasses.replace(proof, checkpoint=note), record, original.verifier)


def test_16_another_record_under_a_right_proof(original: Home, proof: Proof) -> None:
    reader = original.read()
    for index in range(SIZE):
        if index != INDEX:
            with pytest.raises(RootMismatch):
                verify_proof(proof, reader.record(index), original.verifier)


def test_16_a_proof_under_the_checkpoint_of_another_store(original: Home, proof: Proof, record: bytes, tmp_path: Path) -> None:
    other = new_home(tmp_path / "other")
    with other.writing():
        pass
    with pytest.raises(BadSignature):
        verify_proof(dataclasses.replace(proof, checkpoint=other.checkpoint), record, original.verifier)


def test_15_two_records_passed_off_as_one(original: Home) -> None:
    """A record whose bytes are the two children of a node would have the node's hash, were it not for the prefix of leaves.

    Then a tree of 18 records and one of 17, whose last record is made up, would have one root, and one signature would do for both.
    """
    nodes, whole = tile_nodes(original.store, SIZE), 18
    left, right = (merkle.leaf_hash(original.read().record(index)) for index in (16, 17))
    (sixteen,) = nodes([(4, 0)])
    root = merkle.root_from(whole, nodes)
    forged = b"\x01" + left + right
    assert merkle.node_hash(sixteen, hashlib.sha256(forged).digest()) == root, "without the prefix it would do"
    note = holder_signs(original, whole - 1, root)
    proof = Proof(index=16, path=(sixteen,), checkpoint=note)
    for record in (forged, left + right, b"\x00" + left + right):
        with pytest.raises(RootMismatch):
            verify_proof(proof, record, original.verifier)
        # Whichever of the prefixes were left out, or were the same, one of these would be the node.
        node = merkle.node_hash(left, right)
        assert merkle.leaf_hash(record) != node
        assert bytes(merkle.leaf_hashes([record])) != node
    assert bytes(merkle.parents(left + right)) == merkle.node_hash(left, right) != hashlib.sha256(left + right).digest()


def test_16_a_root_as_a_path(original: Home, proof: Proof, record: bytes) -> None:
    # A tree of one record has the leaf itself as its root, and no path: nothing of the larger tree may pass for that.
    root = original.read().tree_head.root
    note = holder_signs(original, 1, root)
    with pytest.raises(RootMismatch):
        verify_proof(dataclasses.replace(proof, checkpoint=note, path=(), index=0), record, original.verifier)
    with pytest.raises(MalformedError, match="hashes"):
        verify_proof(dataclasses.replace(proof, checkpoint=note, path=(root,), index=0), record, original.verifier)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"index 4\n", b"index 04\n"),
        (b"index 4\n", b"index +4\n"),
        (b"index 4\n", b"index 4 \n"),
        (b"index 4\n", b"index 4\r\n"),
        (b"index 4\n", b"index 4\nindex 4\n"),
        (b"@v1\n", b"@v2\n"),
    ],
)
def test_16_a_proof_has_one_form(proof: Proof, old: bytes, new: bytes) -> None:
    with pytest.raises(MalformedError):
        Proof.parse(proof.format().replace(old, new))


def test_16_a_hash_in_another_form_of_base64(proof: Proof) -> None:
    line = encode_base64(proof.path[0])
    assert line.endswith("=")
    # The last digit before the padding has two bits that mean nothing: of its four forms only one is written.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    digit = alphabet.index(line[-2])
    other = line[:-2] + alphabet[digit ^ 1] + "="
    for form in (other, line.rstrip("="), line + "=", f" {line}", line.replace("+", "-").replace("/", "_") + "\t"):
        with pytest.raises(MalformedError):
            Proof.parse(proof.format().replace(line.encode(), form.encode()))
