"""Checkpoints: exactly one text for each, and none taken for another log's."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, open_checkpoint, parse_decimal, sign_checkpoint
from ledger.errors import BadSignature, MalformedError, VerificationError
from ledger.merkle import EMPTY_ROOT, MAX_TREE_SIZE, leaf_hash
from ledger.note import Signer, Verifier, encode_base64, sign

TLOG = Path(__file__).parents[1] / "vectors" / "tlog-15"
TLOG_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
ROOT = leaf_hash(b"a record")
LOG = Signer("log.example/a", Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
HEAD = Checkpoint("log.example/a", 7, ROOT)

lines = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize("size", range(16))
def test_checkpoints_of_tessera(size: int) -> None:
    data = (TLOG / f"checkpoint.{size}").read_bytes()
    checkpoint = open_checkpoint(data, Verifier.parse(TLOG_KEY))
    assert (checkpoint.origin, checkpoint.size) == ("example.com/log/testdata", size)
    assert data.startswith(checkpoint.text().encode() + b"\n")


def test_the_example_of_the_specification() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint.parse(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() == text


@given(
    origin=lines,
    size=st.integers(1, MAX_TREE_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(lines, max_size=3).map(tuple),
)
def test_checkpoints_read_back(origin: str, size: int, root: bytes, extensions: tuple[str, ...]) -> None:
    checkpoint = Checkpoint(origin, size, root, extensions)
    assert Checkpoint.parse(checkpoint.text()) == checkpoint
    assert open_checkpoint(sign_checkpoint(checkpoint, LOG), LOG.verifier, origin) == checkpoint


@given(st.text(max_size=60) | st.integers().map(lambda size: f"log\n{size}\n{encode_base64(ROOT)}\n"))
def test_what_parses_is_written_the_same(text: str) -> None:
    try:
        checkpoint = Checkpoint.parse(text)
    except MalformedError:
        return
    assert checkpoint.text() == text


B64 = encode_base64(ROOT)
MALFORMED = {
    "nothing": "",
    "two lines": "log\n7\n",
    "no newline at the end": f"log\n7\n{B64}",
    "no newline after an extension": f"log\n7\n{B64}\nx",
    "an empty origin": f"\n7\n{B64}\n",
    "a leading zero": f"log\n07\n{B64}\n",
    "zero written twice": f"log\n00\n{B64}\n",
    "a plus": f"log\n+7\n{B64}\n",
    "a minus": f"log\n-7\n{B64}\n",
    "an underscore": f"log\n7_0\n{B64}\n",
    "a space before the size": f"log\n 7\n{B64}\n",
    "a space behind the size": f"log\n7 \n{B64}\n",
    "full-width digits": f"log\n\N{FULLWIDTH DIGIT SEVEN}\n{B64}\n",
    "hexadecimal": f"log\n0x7\n{B64}\n",
    "2**63": f"log\n{2**63}\n{B64}\n",
    "a thousand digits": f"log\n{'9' * 1000}\n{B64}\n",
    "five thousand digits, more than int() takes": f"log\n{'9' * 5000}\n{B64}\n",
    "no size": f"log\n\n{B64}\n",
    "no root": "log\n7\n\n",
    "a short root": f"log\n7\n{encode_base64(ROOT[:-1])}\n",
    "a long root": f"log\n7\n{encode_base64(ROOT + b'x')}\n",
    "an unpadded root": f"log\n7\n{B64.rstrip('=')}\n",
    "a root with bits in its padding": f"log\n7\n{B64[:-2]}{chr(ord(B64[-2]) + 1)}=\n",
    "a space behind the root": f"log\n7\n{B64} \n",
    "an empty extension": f"log\n7\n{B64}\n\n",
    "an empty extension before another": f"log\n7\n{B64}\n\nx\n",
    "CRLF": f"log\r\n7\r\n{B64}\r\n",
    "size 0 with another root": f"log\n0\n{B64}\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_texts(name: str) -> None:
    assert Checkpoint.parse(f"log\n7\n{B64}\n") == Checkpoint("log", 7, ROOT)
    with pytest.raises(MalformedError):
        Checkpoint.parse(MALFORMED[name])


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 7, ROOT, ()),
        ("a\nb", 7, ROOT, ()),
        ("a\tb", 7, ROOT, ()),
        ("log\n999\n" + B64, 7, ROOT, ()),
        ("log", -1, ROOT, ()),
        ("log", MAX_TREE_SIZE + 1, ROOT, ()),
        ("log", 7, ROOT[:-1], ()),
        ("log", 0, ROOT, ()),
        ("log", 7, ROOT, ("",)),
        ("log", 7, ROOT, ("a\nb",)),
    ],
)
def test_what_cannot_be_written_cannot_be_held(origin: str, size: int, root: bytes, extensions: tuple[str, ...]) -> None:
    with pytest.raises(MalformedError):
        Checkpoint(origin, size, root, extensions)


def test_the_empty_tree_has_a_checkpoint() -> None:
    empty = Checkpoint("log.example/a", 0, EMPTY_ROOT)
    assert open_checkpoint(sign_checkpoint(empty, LOG), LOG.verifier) == empty


def test_the_checkpoint_of_another_log_is_not_taken() -> None:
    """Even when the same key has signed it: the origin is the log."""
    other = Checkpoint("log.example/b", 7, ROOT)
    data = sign_checkpoint(other, LOG)
    with pytest.raises(VerificationError) as caught:
        open_checkpoint(data, LOG.verifier)
    assert (caught.value.expected, caught.value.actual) == ("log.example/a", "log.example/b")
    assert open_checkpoint(data, LOG.verifier, "log.example/b") == other
    with pytest.raises(VerificationError):
        open_checkpoint(sign_checkpoint(HEAD, LOG), LOG.verifier, "log.example/b")


def test_a_checkpoint_under_another_key_is_not_taken() -> None:
    for name, seed in (("log.example/a", 2), ("log.example/b", 1)):
        other = Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))
        with pytest.raises(BadSignature):
            open_checkpoint(sign_checkpoint(HEAD, LOG), other.verifier)


def test_a_signed_note_need_not_be_a_checkpoint() -> None:
    with pytest.raises(MalformedError):
        open_checkpoint(sign("log.example/a\n", [LOG]), LOG.verifier)


@given(st.integers(0, MAX_TREE_SIZE))
def test_decimals_read_back(number: int) -> None:
    assert parse_decimal(str(number)) == number


@given(st.text("0123456789+-_ .\n\u0663", max_size=20))
def test_decimals_have_one_form(text: str) -> None:
    try:
        number = parse_decimal(text)
    except MalformedError:
        return
    assert str(number) == text
