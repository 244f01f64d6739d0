"""Proofs as files: they say exactly one thing, and every change to one is noticed."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import reference
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import BadSignature, MalformedError, RootMismatch, VerificationError
from ledger.merkle import MAX_TREE_SIZE, inclusion_path
from ledger.note import Signer, encode_base64
from ledger.proof import MAX_EXTRA_BYTES, MAX_PROOF_BYTES, Proof, verify_proof

RECORDS = tuple(f'{{"record":{i}}}'.encode() for i in range(11))
LOG = Signer("log.example/a", Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
HEAD = Checkpoint("log.example/a", len(RECORDS), reference.mth(RECORDS))
SIGNED = sign_checkpoint(HEAD, LOG)


def proof(index: int, extra: bytes = b"") -> Proof:
    path = inclusion_path(index, len(RECORDS), reference.node_reader(RECORDS))
    return Proof(index=index, path=tuple(path), checkpoint=SIGNED, extra=extra)


GOOD = proof(4)
DATA = proof(4, b"beside").format()


def test_the_form_of_the_specification() -> None:
    lines = DATA.decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra YmVzaWRl", "index 4"]
    assert lines[3:7] == [encode_base64(item) for item in reference.path(4, RECORDS)]
    assert lines[7] == ""
    assert "\n".join(lines[8:]).encode() == SIGNED
    assert GOOD.format().split(b"\n")[1] == b"index 4"


@pytest.mark.parametrize("index", range(len(RECORDS)))
def test_every_record_is_proved(index: int) -> None:
    parsed = Proof.parse(proof(index).format())
    assert verify_proof(parsed, RECORDS[index], LOG.verifier) == HEAD
    for other in range(len(RECORDS)):
        if other != index:
            with pytest.raises(RootMismatch):
                verify_proof(parsed, RECORDS[other], LOG.verifier)


def test_a_log_of_one_record_needs_no_path() -> None:
    head = Checkpoint("log.example/a", 1, reference.mth((b"only",)))
    data = Proof(index=0, path=(), checkpoint=sign_checkpoint(head, LOG)).format()
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nlog.example/a\n1\n")
    assert verify_proof(Proof.parse(data), b"only", LOG.verifier) == head


hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)


@given(index=st.integers(0, MAX_TREE_SIZE - 1), path=hashes, extra=st.binary(max_size=60))
def test_proofs_read_back(index: int, path: tuple[bytes, ...], extra: bytes) -> None:
    made = Proof(index=index, path=path, checkpoint=SIGNED, extra=extra)
    assert Proof.parse(made.format()) == made


def test_what_parses_is_written_the_same_whatever_byte_is_changed() -> None:
    """The root binds the index and the path, the signature the checkpoint, nothing the extra data."""
    extra = range(DATA.index(b"extra ") + len(b"extra "), DATA.index(b"\nindex"))
    for at in range(len(DATA)):
        for bit in range(8):
            damaged = DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
            try:
                parsed = Proof.parse(damaged)
            except MalformedError:
                continue
            assert parsed.format() == damaged
            if at in extra:
                verify_proof(parsed, RECORDS[4], LOG.verifier)
            else:
                with pytest.raises((MalformedError, VerificationError)):
                    verify_proof(parsed, RECORDS[4], LOG.verifier)


def test_every_cut_is_noticed() -> None:
    for end in range(len(DATA)):
        with pytest.raises(MalformedError):
            Proof.parse(DATA[:end])


HASH = encode_base64(hashlib.sha256(b"").digest()).encode()
MALFORMED = {
    "another version": DATA.replace(b"@v1", b"@v2"),
    "CRLF": DATA.replace(b"\n", b"\r\n"),
    "CRLF before the checkpoint": DATA[: -len(SIGNED)].replace(b"\n", b"\r\n") + SIGNED,
    "a space behind the header": DATA.replace(b"@v1\n", b"@v1 \n"),
    "a leading zero": DATA.replace(b"index 4", b"index 04"),
    "a signed index": DATA.replace(b"index 4", b"index +4"),
    "a spaced index": DATA.replace(b"index 4", b"index  4"),
    "an index of 2**63 - 1": DATA.replace(b"index 4", b"index %d" % (2**63 - 1)),
    "an index of 2**63": DATA.replace(b"index 4", b"index %d" % 2**63),
    "no index": DATA.replace(b"index 4\n", b""),
    "no number": DATA.replace(b"index 4", b"index "),
    "the index twice": DATA.replace(b"index 4\n", b"index 4\nindex 4\n"),
    "extra behind the index": DATA.replace(b"extra YmVzaWRl\nindex 4\n", b"index 4\nextra YmVzaWRl\n"),
    "extra twice": DATA.replace(b"extra YmVzaWRl\n", b"extra YmVzaWRl\nextra YmVzaWRl\n"),
    "extra without data": DATA.replace(b"extra YmVzaWRl", b"extra "),
    "extra without a space": DATA.replace(b"extra YmVzaWRl", b"extra"),
    "extra that is not canonical": DATA.replace(b"YmVzaWRl", b"YmVzaWR="),
    "a short hash": DATA.replace(b"index 4\n", b"index 4\nAAAA\n"),
    "a hash that is not canonical": DATA.replace(b"index 4\n", b"index 4\n" + HASH[:-2] + b"V=\n"),
    "64 hashes": GOOD.format().replace(b"index 4\n", b"index 4\n" + (HASH + b"\n") * 60),
    "a flood of hashes": GOOD.format().replace(b"index 4\n", b"index 4\n" + (HASH + b"\n") * 9000),
    "no empty line": DATA.replace(b"\n\nlog", b"\nlog"),
    "two empty lines": DATA[: -len(SIGNED)] + b"\n" + SIGNED,
    "a note that is no checkpoint": DATA[: -len(SIGNED)] + b"\n\n" + SIGNED.split(b"\n\n")[1],
    "no checkpoint": DATA[: -len(SIGNED)],
    "a checkpoint without signatures": DATA[: -len(SIGNED)] + HEAD.text().encode(),
    "not ASCII": DATA.replace(b"index 4", "index \N{FULLWIDTH DIGIT FOUR}".encode()),
    "bytes behind it": DATA + b"\n",
    "nothing": b"",
    "too much": DATA + b"x" * MAX_PROOF_BYTES,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_proofs(name: str) -> None:
    assert MALFORMED[name] != DATA
    with pytest.raises(MalformedError):
        Proof.parse(MALFORMED[name])


def test_a_proof_under_another_key_or_for_another_log_fails() -> None:
    stranger = Signer("log.example/a", Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32))
    with pytest.raises(BadSignature):
        verify_proof(GOOD, RECORDS[4], stranger.verifier)
    with pytest.raises(VerificationError):
        verify_proof(GOOD, RECORDS[4], LOG.verifier, origin="log.example/b")
    assert verify_proof(GOOD, RECORDS[4], LOG.verifier, origin="log.example/a") == HEAD


def test_a_proof_damaged_as_a_value_fails() -> None:
    path = GOOD.path
    for error, change in (
        (RootMismatch, {"index": 3}),
        (RootMismatch, {"index": 5}),
        (MalformedError, {"index": 11}),
        (MalformedError, {"path": path[:-1]}),
        (MalformedError, {"path": (*path, path[0])}),
        (RootMismatch, {"path": (path[1], path[0], *path[2:])}),
        (RootMismatch, {"path": (bytes(32), *path[1:])}),
    ):
        with pytest.raises(error):
            verify_proof(dataclasses.replace(GOOD, **change), RECORDS[4], LOG.verifier)


def test_what_cannot_be_written_cannot_be_held() -> None:
    for change in (
        {"index": -1},
        {"index": MAX_TREE_SIZE},
        {"path": (bytes(31),)},
        {"path": (bytes(32),) * 64},
        {"checkpoint": b"not a note"},
        {"extra": bytes(MAX_EXTRA_BYTES + 1)},
    ):
        with pytest.raises(MalformedError):
            dataclasses.replace(GOOD, **change)
