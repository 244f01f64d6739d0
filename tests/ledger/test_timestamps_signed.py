"""Tokens that are false whoever vouches for them: found out without any root, before they are kept."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from tsa import CERTIFICATES, UNCOVERED, Authority, changed, make_authority, make_signer, needs_openssl, span, tst_info

from ledger import cms, der
from ledger.errors import MalformedError, VerificationError
from ledger.timestamps import UnknownAuthority, request, require_signed, verify_token

NOTE = b"example.com/agents\n4\nQOp8PrYTxjITH+KFxs1mF52sU+72Iwugj8Ra4A0xVxU=\n\n\xe2\x80\x94 example.com/agents 42CPrUQ7RWGDb9nw\n"
OTHER = NOTE.replace(b"\n4\n", b"\n5\n")
DIGEST = hashlib.sha256(NOTE).digest()
FALSE = (VerificationError, MalformedError)

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tsa") / "tsa")


@pytest.fixture(scope="module")
def token(authority: Authority) -> bytes:
    return authority.stamp(request(NOTE)[0])


def forged(authority: Authority, moment: str) -> bytes:
    return authority.forge(tst_info(DIGEST, moment))


@pytest.mark.parametrize("key", ["rsa", "ecdsa"])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_token_is_found_to_be_rightly_signed_without_any_root(authority: Authority, key: str, digest: str) -> None:
    signer = authority.certified(**({"key": rsa.generate_private_key(65537, 2048)} if key == "rsa" else {}))
    token = signer.forge(tst_info(DIGEST, "20260601120000Z"), digest=digest)
    require_signed(token, NOTE)
    assert verify_token(token, NOTE, authority.roots), "what the library takes"
    with pytest.raises(VerificationError, match="other bytes"):
        require_signed(token, OTHER)


def test_a_kind_of_key_that_is_not_known_is_no_right_signature(authority: Authority, token: bytes) -> None:
    signed_data = der.read(token).child(1, der.SEQUENCE).child(1, der.CONTEXT_0).child(0, der.SEQUENCE)
    tst_info_type = bytes.fromhex("2a864886f70d0109100104")
    cms.require_signature(signed_data, tst_info_type, authority.signer.certificate)
    other = make_signer(authority.root, key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(MalformedError, match="a kind that is not known"):
        cms.require_signature(signed_data, tst_info_type, other.certificate)
    with pytest.raises(VerificationError, match="is wrong"):
        cms.require_signature(signed_data, tst_info_type, make_signer(authority.root).certificate)
    with pytest.raises(VerificationError, match="another kind"):
        cms.require_signature(signed_data, b"\x2a", authority.signer.certificate)


@pytest.mark.parametrize("bits", [0x01, 0x80])
def test_every_byte_flipped_is_noticed_without_any_root(authority: Authority, token: bytes, bits: int) -> None:
    """What is kept in a store for ever must not turn out to be false as soon as somebody names the root."""
    require_signed(token, NOTE)
    uncovered = [span(token, path) for path in UNCOVERED.values()]
    for place in range(len(token)):
        damaged = token[:place] + bytes([token[place] ^ bits]) + token[place + 1 :]
        try:
            require_signed(damaged, NOTE)
        except FALSE:
            continue
        assert any(place in found for found in uncovered), place
        with contextlib.suppress(UnknownAuthority):
            verify_token(damaged, NOTE, authority.roots)


@pytest.mark.parametrize(
    "certificate",
    [
        {"usage": None},
        {"usage": ExtendedKeyUsageOID.SERVER_AUTH},
        {"critical": False},
        {"also": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"end": datetime(2026, 5, 1, tzinfo=UTC)},
        {"start": datetime(2026, 7, 1, tzinfo=UTC)},
    ],
)
def test_a_certificate_that_is_not_for_this_is_noticed_without_any_root(authority: Authority, certificate: dict[str, object]) -> None:
    with pytest.raises(VerificationError):
        require_signed(forged(authority.certified(**certificate), "20260601120000Z"), NOTE)


def test_a_chain_that_was_spoiled_on_the_way_is_an_authority_that_is_not_known(authority: Authority) -> None:
    """The certificates between are not under the signature: whoever carries the token can change them, and makes it no false one."""
    chained = make_authority(authority.place.with_name("spoiled"), intermediate=True)
    link = chained.chain[0].der
    for place in range(0, len(link), 37):
        spoiled = link[:place] + bytes([link[place] ^ 1]) + link[place + 1 :]
        token = changed(chained.stamp(request(NOTE)[0]), CERTIFICATES, lambda found: [spoiled if one == link else one for one in found])  # noqa: B023
        with contextlib.suppress(MalformedError), pytest.raises(UnknownAuthority):
            verify_token(token, NOTE, chained.roots)
