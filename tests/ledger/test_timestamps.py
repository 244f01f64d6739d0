"""RFC 3161 tokens: what is believed, what is not, and what an authority may answer. The tokens are real ones, made by openssl."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tsa
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import VerifierBuilder, decode_timestamp_response
from tsa import (
    CERTIFICATES,
    SIGNED_DATA,
    SIGNER_INFOS,
    TST_INFO,
    UNCOVERED,
    Authority,
    Identity,
    changed,
    element,
    integer,
    make_authority,
    make_root,
    make_signer,
    needs_openssl,
    span,
    tst_info,
)

from ledger import der
from ledger.errors import LedgerError, MalformedError, StorageError, VerificationError
from ledger.timestamps import (
    MAX_ROOTS_BYTES,
    MAX_TOKEN_BYTES,
    Timestamp,
    UnknownAuthority,
    claimed_time,
    load_roots,
    request,
    verify_token,
)

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


def forged(authority: Authority, moment: str = "20260601120000Z", **changes: object) -> bytes:
    return authority.forge(tst_info(DIGEST, moment, **changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------------------- requests


def test_a_request_is_over_the_notes_digest_with_a_nonce_and_asks_for_certificates() -> None:
    data, nonce = request(NOTE)
    version, imprint, asked, certificates = der.read(data).children()
    assert version.body == b"\x01"
    assert imprint.child(1, der.OCTET_STRING).body == DIGEST
    assert element(0x30, *(child.encode() for child in imprint.child(0, der.SEQUENCE).children())) == tsa.SHA256
    assert int.from_bytes(asked.body, "big") == nonce
    assert (certificates.tag, certificates.body) == (der.BOOLEAN, b"\xff")
    assert len({request(NOTE)[1] for _ in range(20)}) == 20
    with pytest.raises(MalformedError):
        request(b"")


# ----------------------------------------------------------------------------------------------------------------------- what is true


@pytest.mark.parametrize("intermediate", [False, True])
@pytest.mark.parametrize("ess", ["sha256", "sha384", "sha1"])
def test_a_token_is_verified(tmp_path: Path, intermediate: bool, ess: str) -> None:
    authority = replace(make_authority(tmp_path / "tsa", intermediate=intermediate), ess=ess)
    before = datetime.now(UTC).replace(microsecond=0)
    token = authority.stamp(request(NOTE)[0])
    stamp = verify_token(token, NOTE, authority.roots)
    assert before <= stamp.time <= datetime.now(UTC)
    assert stamp == Timestamp(
        time=stamp.time, accuracy=timedelta(seconds=1.5), serial=2, policy=tsa.POLICY, authority="O=Trail tests,CN=TSA"
    )
    assert stamp.no_later_than == stamp.time + timedelta(seconds=2), "rounded up to whole seconds: never before the true end"
    assert claimed_time(token) == stamp.time


def test_a_fraction_of_a_second_and_a_missing_accuracy(authority: Authority) -> None:
    stamp = verify_token(forged(authority, "20260601120000.123456789Z"), NOTE, authority.roots)
    assert stamp.time == datetime(2026, 6, 1, 12, 0, 0, 123457, UTC)
    assert (stamp.accuracy, stamp.no_later_than) == (None, datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC))
    for fraction, second in (("", 0), (".000000001", 1), (".999999999", 1)):
        assert verify_token(forged(authority, f"20260601120000{fraction}Z"), NOTE, authority.roots).no_later_than.second == second


def test_one_of_several_roots_is_enough(authority: Authority, token: bytes) -> None:
    others = [make_root(f"Other {number}").certificate for number in range(3)]
    assert verify_token(token, NOTE, [*others, *authority.roots]).serial
    with pytest.raises(VerificationError):
        verify_token(token, NOTE, others)


def test_a_certificate_between_may_come_with_the_roots_and_vouches_for_nothing_alone(authority: Authority) -> None:
    chained = make_authority(authority.place.with_name("between"), intermediate=True)
    link = chained.chain[0]
    bare = changed(chained.stamp(request(NOTE)[0]), CERTIFICATES, lambda found: [one for one in found if one != link.der])
    assert verify_token(bare, NOTE, [link.certificate, *chained.roots])
    for roots in (chained.roots, [link.certificate]):
        with pytest.raises(UnknownAuthority, match="unable to get"):
            verify_token(bare, NOTE, roots)


def test_certificates_in_any_order_are_read(authority: Authority) -> None:
    token = make_authority(authority.place.with_name("chained"), intermediate=True)
    whole = token.stamp(request(NOTE)[0])
    backwards = changed(whole, CERTIFICATES, lambda found: found[::-1])
    assert backwards != whole
    assert verify_token(backwards, NOTE, token.roots) == verify_token(whole, NOTE, token.roots)


# ------------------------------------------------------------------------------------------------------------- attack 23 and its kind


def test_attack_23_a_token_for_another_digest(authority: Authority, token: bytes) -> None:
    with pytest.raises(VerificationError, match="other bytes") as raised:
        verify_token(token, OTHER, authority.roots)
    assert raised.value.actual == DIGEST.hex()
    with pytest.raises(VerificationError, match="other bytes"):
        verify_token(token, NOTE + b"\n", authority.roots)


def test_attack_23_an_authority_whose_certificate_expired_after_the_token(authority: Authority) -> None:
    for seconds in (2, 8, 30):  # a busy machine may take longer than that to stamp
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
        token = authority.certified(name="Short", end=end).stamp(request(NOTE)[0])
        if claimed_time(token) <= end:
            break
    while datetime.now(UTC) <= end + timedelta(seconds=1):
        time.sleep(0.1)
    stamp = verify_token(token, NOTE, authority.roots)
    assert (stamp.authority, stamp.time <= end < datetime.now(UTC)) == ("O=Trail tests,CN=Short", True)


@pytest.mark.parametrize(
    ("start", "end", "moment", "why"),
    [
        (2020, 2024, "20220601000000Z", None),
        (2020, 2024, "20190601000000Z", "was not valid then"),
        (2020, 2024, "20250601000000Z", "was not valid then"),
        (2020, 2024, "20231231235959Z", None),
        (2030, 2034, "20310601000000Z", None),
        (2030, 2034, "20260601000000Z", "was not valid then"),
    ],
)
def test_certificates_are_judged_at_the_time_of_the_token(authority: Authority, start: int, end: int, moment: str, why: str | None) -> None:
    window = {"start": datetime(start, 1, 1, tzinfo=UTC), "end": datetime(end, 1, 1, tzinfo=UTC)}
    token = forged(authority.certified(**window), moment)
    if why is None:
        assert verify_token(token, NOTE, authority.roots).time.strftime("%Y%m%d%H%M%SZ") == moment
        return
    with pytest.raises(VerificationError, match=why):
        verify_token(token, NOTE, authority.roots)


def test_a_root_that_has_expired_since_and_one_that_had(tmp_path: Path) -> None:
    years = [datetime(year, 1, 1, tzinfo=UTC) for year in (2010, 2015, 2040)]
    root = make_root("Old root", start=years[0], end=years[1])
    authority = Authority(tmp_path / "tsa", root, make_signer(root, start=years[0], end=years[2]))
    assert verify_token(forged(authority, "20140101000000Z"), NOTE, authority.roots)
    with pytest.raises(UnknownAuthority, match="expired"):
        verify_token(forged(authority, "20160101000000Z"), NOTE, authority.roots)


def test_an_authority_that_nobody_vouches_for(authority: Authority, token: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = make_authority(tmp_path / "twin")  # the same names, other keys
    for path in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(path, str(authority.roots_file if path.endswith("FILE") else authority.place))
    with pytest.raises(UnknownAuthority):
        verify_token(token, NOTE, twin.roots)
    with pytest.raises(UnknownAuthority):
        verify_token(twin.stamp(request(NOTE)[0]), NOTE, authority.roots)
    with pytest.raises(MalformedError, match="no root"):
        verify_token(token, NOTE, ())
    # A certificate of a TSA vouches for nobody, not for itself either: it is not self-signed.
    with pytest.raises(UnknownAuthority):
        verify_token(token, NOTE, [authority.signer.certificate])


@pytest.mark.parametrize(
    "certificate",
    [
        {"usage": None},
        {"usage": ExtendedKeyUsageOID.SERVER_AUTH},
        {"usage": ExtendedKeyUsageOID.TIME_STAMPING, "critical": False},
    ],
)
def test_a_certificate_that_is_not_for_time_stamps(authority: Authority, certificate: dict[str, object]) -> None:
    token = forged(authority.certified(**certificate))
    with pytest.raises(VerificationError):
        verify_token(token, NOTE, authority.roots)


# ---------------------------------------------------------------------------------------- what is not under the signature, or beside it


def test_another_statement_under_a_true_signature(authority: Authority, token: bytes) -> None:
    """CVE-2025-52556: the library once checked the chain and not the signature over the statement."""
    info = der.read(token).child(1, 0x30).child(1, 0xA0).child(0, 0x30).child(2, 0x30).child(1, 0xA0).child(0, 0x04).body
    swapped = changed(token, TST_INFO, lambda _: [element(0x04, info.replace(DIGEST, hashlib.sha256(OTHER).digest()))])
    assert len(swapped) == len(token)
    with pytest.raises(VerificationError, match="over another content"):
        verify_token(swapped, OTHER, authority.roots)
    earlier = changed(token, TST_INFO, lambda _: [element(0x04, info.replace(b"\x18\x0f2026", b"\x18\x0f2025"))])
    assert earlier != token
    with pytest.raises(VerificationError):
        verify_token(earlier, NOTE, authority.roots)


def _identities(authority: Authority) -> dict[str, Identity]:
    """Certificates that somebody who wants the token to be another authority's could put into it."""
    serial = authority.signer.certificate.serial_number
    pretender = make_root("TSA root")  # the name of the true one
    return {
        "another authority of the same root": make_signer(authority.root, "Bank"),
        "the name of another, self-made": make_signer(make_root("Bank root"), "Bank"),
        "the issuer and serial number of the true one": make_signer(pretender, "Bank", serial=serial),
    }


@pytest.mark.parametrize(
    "which",
    ["another authority of the same root", "the name of another, self-made", "the issuer and serial number of the true one"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_certificate_put_in_is_never_the_authority(authority: Authority, token: bytes, which: str, first: bool) -> None:
    """CVE-2026-33753: the library once took the authority from certificates that anybody can add."""
    put_in = _identities(authority)[which].der
    added = changed(token, CERTIFICATES, lambda found: [put_in, *found] if first else [*found, put_in])
    try:
        stamp = verify_token(added, NOTE, authority.roots)
    except VerificationError:
        assert which == "the issuer and serial number of the true one"
    else:
        assert stamp.authority == "O=Trail tests,CN=TSA"


def test_the_library_knows_the_leaf_by_what_is_signed(authority: Authority, token: bytes) -> None:
    """The installed rfc3161-client by itself: with the other authority's certificate expected, the token is not that authority's."""
    other = make_signer(authority.root, "Bank")
    added = changed(token, CERTIFICATES, lambda found: sorted([other.der, *found]))
    verifier = VerifierBuilder(roots=list(authority.roots), tsa_certificate=other.certificate).build()
    with pytest.raises(Exception, match="does not match"):
        verifier.verify(decode_timestamp_response(added), DIGEST)


def test_a_token_without_its_authoritys_certificate(authority: Authority, token: bytes) -> None:
    signer = authority.signer.der
    bare = changed(token, CERTIFICATES, lambda found: [one for one in found if one != signer])
    with pytest.raises(FALSE):
        verify_token(bare, NOTE, authority.roots)
    without = changed(token, SIGNED_DATA, lambda found: [*found[:3], found[4]])
    with pytest.raises(FALSE):
        verify_token(without, NOTE, authority.roots)


def test_a_certificate_exchanged_for_another_of_the_same_key(authority: Authority) -> None:
    """The signature and the name fit both; only the digest in the signed attributes tells them apart."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    expired = authority.certified(start=start, end=datetime(2021, 1, 1, tzinfo=UTC))
    renewed = make_signer(
        authority.root,
        start=start,
        end=datetime(2036, 1, 1, tzinfo=UTC),
        key=expired.signer.key,
        serial=expired.signer.certificate.serial_number,
    )
    token = forged(expired, "20260601120000Z")
    with pytest.raises(VerificationError, match="was not valid then"):
        verify_token(token, NOTE, authority.roots)
    exchanged = changed(token, CERTIFICATES, lambda found: sorted(renewed.der if one == expired.signer.der else one for one in found))
    VerifierBuilder(roots=list(authority.roots)).build().verify(decode_timestamp_response(exchanged), DIGEST)
    with pytest.raises(VerificationError, match="not the one that the signature names"):
        verify_token(exchanged, NOTE, authority.roots)


def test_a_certificate_of_the_same_key_put_beside_the_true_one(authority: Authority) -> None:
    """The chain would be judged by the one, the name and the digest by the other."""
    start = datetime(2020, 1, 1, tzinfo=UTC)
    expired = authority.certified(name="Time stamps", start=start, end=datetime(2021, 1, 1, tzinfo=UTC))
    same = {"key": expired.signer.key, "serial": expired.signer.certificate.serial_number}
    renewed = make_signer(authority.root, "T", start=start, end=datetime(2036, 1, 1, tzinfo=UTC), **same)  # type: ignore[arg-type]
    assert renewed.der < expired.signer.der  # and so found first
    both = changed(forged(expired), CERTIFICATES, lambda found: sorted([renewed.der, *found]))
    VerifierBuilder(roots=list(authority.roots)).build().verify(decode_timestamp_response(both), DIGEST)
    for _ in range(8):
        with pytest.raises(VerificationError, match="2 certificates"):
            verify_token(both, NOTE, authority.roots)


def test_a_signature_that_does_not_name_its_certificate(authority: Authority) -> None:
    token = authority.forge(tst_info(DIGEST, "20260601120000Z"), cades=False)
    with pytest.raises(VerificationError, match="does not name its certificate"):
        verify_token(token, NOTE, authority.roots)


def test_a_signature_over_a_broken_digest(authority: Authority) -> None:
    token = authority.forge(tst_info(DIGEST, "20260601120000Z"), digest="sha1")
    with pytest.raises(VerificationError, match="broken"):
        verify_token(token, NOTE, authority.roots)


def test_an_unsigned_attribute_changes_nothing(authority: Authority, token: bytes) -> None:
    attribute = element(0x30, bytes.fromhex("060b2a864886f70d010910020e"), element(0x31, element(0x30, integer(1))))
    added = changed(token, [*SIGNER_INFOS, 0], lambda found: [*found, element(0xA1, attribute)])
    assert verify_token(added, NOTE, authority.roots) == verify_token(token, NOTE, authority.roots)


def test_two_signatures_or_none(authority: Authority, token: bytes) -> None:
    other = forged(authority.certified(name="Another"))
    theirs = [child.encode() for child in der.read(other).child(1, 0x30).child(1, 0xA0).child(0, 0x30).child(4, 0x31).children()]
    for change in (lambda found: sorted([*found, *theirs]), lambda _: []):
        with pytest.raises(MalformedError, match="one signature"):
            verify_token(changed(token, SIGNER_INFOS, change), NOTE, authority.roots)


@pytest.mark.parametrize(("critical", "believed"), [(b"", True), (bytes.fromhex("0101ff"), False)])
def test_an_extension(authority: Authority, critical: bytes, believed: bool) -> None:
    extension = element(0x30, bytes.fromhex("06032a0305"), critical, element(0x04, b"\x05\x00"))
    token = forged(authority, rest=element(0xA1, extension))
    if believed:
        assert verify_token(token, NOTE, authority.roots)
        return
    with pytest.raises(VerificationError, match="critical extension"):
        verify_token(token, NOTE, authority.roots)


def test_an_imprint_by_another_digest_than_was_asked_for(authority: Authority) -> None:
    token = authority.forge(tst_info(hashlib.sha512(NOTE).digest(), "20260601120000Z", algorithm=tsa.SHA512))
    with pytest.raises(VerificationError, match="other bytes"):
        verify_token(token, NOTE, authority.roots)


# ------------------------------------------------------------------------------------------------------------------- systematic damage


def test_a_token_cut_anywhere_is_not_read(authority: Authority, token: bytes) -> None:
    for end in range(len(token)):
        with pytest.raises(MalformedError):
            verify_token(token[:end], NOTE, authority.roots)
    with pytest.raises(MalformedError):
        verify_token(token + b"\0", NOTE, authority.roots)
    with pytest.raises(MalformedError, match="too large"):
        verify_token(token.ljust(MAX_TOKEN_BYTES + 1, b"\0"), NOTE, authority.roots)


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(authority: Authority, token: bytes, bits: int) -> None:
    first = der.read(token).child(1, 0x30).child(1, 0xA0).child(0, 0x30).child(3, 0xA0).children()[0].encode()
    assert first == authority.signer.der  # so that UNCOVERED names the other one
    truth = verify_token(token, NOTE, authority.roots)
    uncovered = [span(token, path) for path in UNCOVERED.values()]
    unnoticed = []
    for place in range(len(token)):
        damaged = bytearray(token)
        damaged[place] ^= bits
        try:
            assert verify_token(bytes(damaged), NOTE, authority.roots) == truth
        except FALSE:
            continue
        unnoticed.append(place)
    assert [place for place in unnoticed if not any(place in found for found in uncovered)] == []


@pytest.mark.parametrize(
    "moment", ["20260601120000", "20260601120000+0100", "20260230120000Z", "20260601120000.Z", "20260601120000.10Z", "00000101000000Z", "x"]
)
def test_a_time_that_cannot_be_read(authority: Authority, moment: str) -> None:
    with pytest.raises(MalformedError):
        verify_token(forged(authority, moment), NOTE, authority.roots)


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x00", b"\x30\x80\x00\x00", b"<html></html>", tsa.granted(element(0x30)), tsa.granted(b""), b"\x1f\x00"]
)
def test_what_is_no_token(authority: Authority, data: bytes) -> None:
    with pytest.raises(MalformedError):
        verify_token(data, NOTE, authority.roots)
    with pytest.raises(MalformedError):
        claimed_time(data)


def test_a_refusal_is_no_token(authority: Authority, token: bytes) -> None:
    with pytest.raises(VerificationError, match="no time for you"):
        verify_token(tsa.refused(), NOTE, authority.roots)
    # The status is not signed: a token under a refusal is refused too.
    refused = changed(token, [0], lambda _: [integer(1)])
    with pytest.raises(VerificationError, match="granted"):
        verify_token(refused, NOTE, authority.roots)


@pytest.mark.parametrize("moment", [b"x", b"20260601120000", b"20260601120000,5Z", b"20261301120000Z"])
def test_a_time_is_read_strictly_by_us_too(moment: bytes) -> None:
    from ledger.timestamps import _time

    info = der.read(element(0x30, *[integer(1)] * 4, element(0x18, moment)))
    with pytest.raises(MalformedError, match="time of the time stamp"):
        _time(info)


def test_a_library_that_gives_up_is_an_input_that_cannot_be_read() -> None:
    from ledger.timestamps import _readable

    class PanicException(BaseException):
        """As pyo3 raises it: no `Exception`."""

    with pytest.raises(MalformedError, match="gave up"), _readable():
        raise PanicException
    with pytest.raises(KeyboardInterrupt), _readable():
        raise KeyboardInterrupt


def _attribute(kind: str, value: bytes) -> bytes:
    return element(0x30, element(0x06, bytes.fromhex(kind)), element(0x31, value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (element(0x30, element(0x30)), MalformedError),
        (element(0x30, element(0x30, element(0x30))), MalformedError),
        (element(0x30, element(0x30, element(0x30, element(0x30, element(0x06, b"\x2a")), element(0x04, b"x")))), MalformedError),
    ],
)
def test_a_certificate_named_in_a_way_that_cannot_be_read(authority: Authority, token: bytes, value: bytes, why: type[LedgerError]) -> None:
    from ledger.timestamps import _signing_certificate

    attribute = _attribute("2a864886f70d010910022f", value)
    read = der.read(changed(token, [*SIGNER_INFOS, 0, 3], lambda _: [attribute]))
    info = read.child(1, 0x30).child(1, 0xA0).child(0, 0x30).child(4, 0x31).child(0, 0x30)
    with pytest.raises(why):
        _signing_certificate(info)


# ---------------------------------------------------------------------------------------------------------------------------- roots


def test_roots_are_read_from_a_bundle(tmp_path: Path, authority: Authority, token: bytes) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(b"# roots of ours\n" + make_root("Another").pem + authority.root.pem)
    roots = load_roots(path)
    assert [root.subject.rfc4514_string() for root in roots] == ["O=Trail tests,CN=Another", "O=Trail tests,CN=TSA root"]
    assert verify_token(token, NOTE, roots)


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b" " * (MAX_ROOTS_BYTES + 1)]
)
def test_a_file_that_holds_no_roots(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(data)
    with pytest.raises(MalformedError) as raised:
        load_roots(path)
    assert raised.value.path == str(path)


def test_a_file_of_roots_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        load_roots(tmp_path / "none.pem")


def test_a_certificate_among_the_roots_that_vouches_for_nobody(authority: Authority, token: bytes) -> None:
    """A bundle may hold certificates that vouch for nobody; they do no harm beside the right one."""
    leaf = make_signer(authority.root, "Leaf", usage=None).certificate
    assert isinstance(leaf, x509.Certificate)
    assert verify_token(token, NOTE, [leaf, *authority.roots])
