"""The request of c2sp.org/tlog-witness: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import MalformedError
from ledger.note import Signer, encode_base64
from ledger.witness_protocol import MAX_BODY_BYTES, MAX_PROOF_LINES, AddCheckpoint, origin_path

LOG = Signer.generate("example.com/log")
NOTE = sign_checkpoint(Checkpoint(LOG.name, 9, bytes(32)), LOG)
HASH = encode_base64(bytes(range(32)))

SPECIFICATION = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\N{EM DASH} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
\N{EM DASH} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""
"""The example of the page, an excerpt of c2sp.org/tlog-witness (CC BY 4.0)."""


def test_the_example_of_the_specification() -> None:
    request = AddCheckpoint.parse(SPECIFICATION.encode())
    assert (request.old, len(request.proof), request.origin) == (20_852_014, 4, "example.com/behind-the-sofa")
    assert request.encode() == SPECIFICATION.encode()


@given(st.integers(0, 2**63 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_PROOF_LINES))
def test_what_is_written_is_read(old: int, proof: list[bytes]) -> None:
    request = AddCheckpoint(old=old, proof=tuple(proof), note=NOTE)
    assert AddCheckpoint.parse(request.encode()) == request


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"\n\n",
        b"old 0",
        b"old 0\n\n",
        b"old 0\n" + NOTE,
        b"old\n\n" + NOTE,
        b"0\n\n" + NOTE,
        b"old \n\n" + NOTE,
        b"old  0\n\n" + NOTE,
        b"old 0 \n\n" + NOTE,
        b" old 0\n\n" + NOTE,
        b"Old 0\n\n" + NOTE,
        b"old 00\n\n" + NOTE,
        b"old 01\n\n" + NOTE,
        b"old +1\n\n" + NOTE,
        b"old -1\n\n" + NOTE,
        b"old 1_0\n\n" + NOTE,
        b"old 0x1\n\n" + NOTE,
        "old \u0661\n\n".encode() + NOTE,
        b"old 9223372036854775808\n\n" + NOTE,
        b"old " + b"9" * 10_000 + b"\n\n" + NOTE,
        b"old 0\r\n\r\n" + NOTE,
        b"old 0\n\n" + NOTE.replace(b"\n", b"\r\n"),
        b"old 0\n\n" + NOTE[:-1],
        b"old 0\n\n" + NOTE + b"\n",
        b"old 0\n\n" + NOTE + b"more\n",
        b"\xff\xfe\n\n" + NOTE,
        f"old 5\n{HASH} \n\n".encode() + NOTE,
        f"old 5\n {HASH}\n\n".encode() + NOTE,
        f"old 5\n{HASH[:-1]}\n\n".encode() + NOTE,
        f"old 5\n{HASH[:-2]}9=\n\n".encode() + NOTE,  # bits in the padding
        f"old 5\n{encode_base64(bytes(31))}\n\n".encode() + NOTE,
        f"old 5\n{encode_base64(bytes(33))}\n\n".encode() + NOTE,
        b"old 5\n!!!!\n\n" + NOTE,
        f"old 5\n{HASH}\n{HASH}".encode(),
        (f"old 5\n{HASH}" + f"\n{HASH}" * MAX_PROOF_LINES + "\n\n").encode() + NOTE,
        b"old 0\n\n" + b"x" * MAX_BODY_BYTES,
    ],
)
def test_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        AddCheckpoint.parse(body)


def test_values_that_could_not_be_written_are_refused() -> None:
    for old, proof, note in (
        (-1, (), NOTE),
        (2**63, (), NOTE),
        (0, (bytes(31),), NOTE),
        (0, (bytes(32),) * 64, NOTE),
        (0, (), b"x"),
        (0, (), NOTE[:-1]),
    ):
        with pytest.raises(MalformedError):
            AddCheckpoint(old=old, proof=proof, note=note)


@given(st.binary(max_size=300))
def test_any_octets_are_a_request_or_malformed(data: bytes) -> None:
    for body in (data, b"old 0\n\n" + data, b"old 3\n" + data + b"\n\n" + NOTE):
        try:
            assert AddCheckpoint.parse(body).encode() == body
        except MalformedError:
            continue


def test_the_path_of_a_log_is_the_digest_of_its_origin() -> None:
    # printf 'example.com/behind-the-sofa' | sha256sum
    assert origin_path("example.com/behind-the-sofa") == "5fd2dc0beb4ce54da5050cf6d5c75248b023abad441c3cecde3976fbe9da4fe4"
