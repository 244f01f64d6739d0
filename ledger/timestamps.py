"""Time stamps over checkpoints: RFC 3161 with RFC 5816, by the library rfc3161-client.

A token says that exactly these bytes existed at its time, in the word of a time-stamping authority (TSA). It proves *no later than*,
never *the only version*. What is kept is the TimeStampResp as it came, so that `openssl ts -verify` reads it too; the data is the whole
note of a checkpoint, with all its signature lines.

Only roots that the verifier names are believed, never the system's: those are for web servers. Certificates are judged at the token's own
time (RFC 3161 appendix B): a token outlives its authority's certificate, and none is true that was made outside its validity. Revocation is
not looked at: that would need the network, and lists of that time.

What is false and what is unknown are kept apart. A token that its own certificate has not rightly signed, over these bytes, for time stamps
and at a time when that certificate was valid, is false, and no root is needed to say so: `require_signed`. Nothing else is kept in a store.
Whether anybody vouches for that certificate is another question: the chain is not under the signature, and whoever carries a token could
spoil or exchange it. A chain that does not lead to a root is therefore an authority that is not known, never a token that is false.

The library checks the signature, the chain, the key usage and the digest. Here is what it leaves out: that the signer's certificate is the
one that was signed (ESSCertID, RFC 3161 2.4.1), so that no other certificate for the same key can be put in its place; critical extensions;
fractions of a second; and digests that are broken.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    TimeStampTokenInfo,
    VerifierBuilder,
    decode_timestamp_response,
)
from rfc3161_client import VerificationError as TokenError

from ledger import cms, der
from ledger.anchors import MAX_TOKEN_BYTES
from ledger.durable import storage_errors
from ledger.errors import LedgerError, MalformedError, StorageError, VerificationError
from ledger.tsa_client import post

MAX_ROOTS_BYTES: Final = 4 << 20
"""Of a PEM bundle; those of whole operating systems have a quarter of a million bytes."""
TIMEOUT_SECONDS: Final = 15.0
"""How long an authority may take for its whole answer."""

_GRANTED: Final = 0
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_HASHES: Final = {
    bytes.fromhex("2b0e03021a"): "sha1",
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
"""By the encoded object identifier. SHA-1 only ever names a certificate here, where it would take a second preimage."""
_SIGNING_CERTIFICATE: Final = bytes.fromhex("2a864886f70d010910020c")
"""1.2.840.113549.1.9.16.2.12, RFC 2634 5.4: certificates by SHA-1."""
_SIGNING_CERTIFICATE_V2: Final = bytes.fromhex("2a864886f70d010910022f")
"""1.2.840.113549.1.9.16.2.47, RFC 5035: by any digest."""
_TST_INFO: Final = bytes.fromhex("2a864886f70d0109100104")
"""1.2.840.113549.1.9.16.1.4, the type of what is signed."""
_TIME: Final = re.compile(rb"([0-9]{14})(?:\.([0-9]{1,9}))?Z")
_WHY: Final = (re.compile(r'data: "Verify error: ([^"]{1,200})"'), re.compile(r'reason: "([^"]{1,200})"'))
"""Where the library says what OpenSSL found: of a certificate, and of anything else."""


class UnknownAuthority(VerificationError):
    """A time stamp by an authority that no root given vouches for: to this verifier it says nothing, true or false."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timestamp:
    """What a verified token says."""

    time: datetime
    """genTime, UTC, to the microsecond above."""
    accuracy: timedelta | None
    """How far off the authority says that its clock may be; None when it says nothing."""
    serial: int
    policy: str
    """Object identifier of the authority's policy."""
    authority: str
    """Subject of the certificate that signed (RFC 4514); never a name that the token merely claims."""

    @property
    def no_later_than(self) -> datetime:
        """The moment by which the stamped bytes surely existed, in the authority's word: rounded up to whole seconds, UTC."""
        moment = self.time + (self.accuracy or timedelta())
        return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)


def request(note: bytes) -> tuple[bytes, int]:
    """A TimeStampReq over SHA-256 of these bytes, which asks for the certificates, and its random nonce.

    Raises:
        MalformedError: there is nothing to stamp.
    """
    if not note:
        raise MalformedError("there is nothing to stamp")
    asked = (
        TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).nonce(nonce=True).cert_request(cert_request=True).build()
    )
    if asked.nonce is None:  # pragma: no cover
        raise MalformedError("the request has no nonce")
    return asked.as_bytes(), asked.nonce


def fetch(url: str, note: bytes, *, timeout: float = TIMEOUT_SECONDS, roots: Sequence[x509.Certificate] | None = None) -> bytes:
    """Have an authority stamp a note; its TimeStampResp as it came.

    The answer is to this very request: granted, with its nonce, over SHA-256 of the note, and rightly signed. Without `roots` nothing says
    who gave it.

    Args:
        url: of the authority, http or https; redirects are not followed.
        note: the bytes to stamp.
        timeout: seconds for the whole answer.
        roots: what `verify_token` then believes; None or none for `require_signed`.

    Raises:
        StorageError: no answer, or a refusal.
        MalformedError: the answer cannot be read, or the address is none.
        VerificationError: the token is for another request, or false.
    """
    query, nonce = request(note)
    answer = post(url, query, timeout=timeout, limit=MAX_TOKEN_BYTES)
    try:
        token = _Token.read(answer)
    except MalformedError as exc:
        raise MalformedError(
            f"{url} did not answer with a time stamp: {exc.message}", path=url, hint="is this the address of a time-stamping authority?"
        ) from exc
    except _NotGranted as exc:
        raise StorageError(f"{url} refused: {exc.message}", path=url, hint="ask another authority") from exc
    if token.info.nonce != nonce:
        raise VerificationError(f"{url} answered another request: the nonce is not ours", path=url, expected=nonce, actual=token.info.nonce)
    if roots:
        verify_token(answer, note, roots)
    else:
        token.require_signed(note, ())
    return answer


def require_signed(token: bytes, note: bytes) -> None:
    """Check everything about a token but who vouches for it, which takes a root: to be done before one is kept.

    Raises:
        MalformedError: it cannot be read.
        VerificationError: it was not granted, is over other bytes, or not signed by the certificate that it names, for time stamps and at a
            time when that certificate was valid.
    """
    _Token.read(token).require_signed(note, ())


def verify_token(token: bytes, note: bytes, roots: Sequence[x509.Certificate]) -> Timestamp:
    """Check everything about a token over a note, at the token's own time.

    Args:
        token: a TimeStampResp in DER.
        note: the stamped bytes.
        roots: self-signed certificates of authorities that the verifier believes; those between, where the token has none, may be among
            them and vouch for nothing by themselves.

    Raises:
        MalformedError: it cannot be read, or no root was given.
        UnknownAuthority: no root vouches for whoever signed it: to this verifier it says nothing, true or false.
        VerificationError: it is false: see `require_signed`.
    """
    if not roots:
        raise MalformedError("no root of a time-stamping authority is given", hint="name the PEM file of the authority's root certificate")
    read = _Token.read(token)
    signer = read.require_signed(note, roots)
    try:
        with _readable():
            VerifierBuilder(roots=list(roots)).build().verify(read.response, hashlib.sha256(note).digest())
    except TokenError as exc:
        raise UnknownAuthority(
            f"the time stamp of {read.time:%Y-%m-%d %H:%M:%S} UTC is by an authority that no root given vouches for: {_why(str(exc))}",
            hint="name the authority's root; the file of roots may hold the certificates between, too",
        ) from exc
    with _readable():
        return Timestamp(
            time=read.time,
            accuracy=_accuracy(read.info),
            serial=read.info.serial_number,
            policy=read.info.policy.dotted_string,
            authority=signer.subject.rfc4514_string(),
        )


def claimed_time(token: bytes) -> datetime:
    """The time that a token names, with NOTHING VERIFIED: for sorting, never as evidence.

    Raises:
        MalformedError: it cannot be read.
    """
    return _Token.read(token).time


def load_roots(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file.

    Raises:
        StorageError: it cannot be read.
        MalformedError: it holds no certificate, or something that is none.
    """
    with storage_errors("reading", path), path.open("rb") as file:
        data = file.read(MAX_ROOTS_BYTES + 1)
    if len(data) > MAX_ROOTS_BYTES:
        raise MalformedError(f"{path} is too large for certificates", path=path, expected=MAX_ROOTS_BYTES)
    try:
        with _readable():
            return tuple(x509.load_pem_x509_certificates(data))
    except MalformedError as exc:
        raise MalformedError(
            f"{path} is no file of certificates in PEM: {exc.message}",
            path=path,
            hint="from DER: openssl x509 -inform DER -in FILE -out root.pem",
        ) from exc


class _NotGranted(VerificationError):
    """The authority stamped nothing."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A TimeStampResp that was read and grants something, with nothing verified."""

    response: TimeStampResponse
    info: TimeStampTokenInfo
    time: datetime
    signed_data: der.Element
    """With one SignerInfo."""

    @classmethod
    def read(cls, data: bytes) -> _Token:
        """Read it with the library, and what the library does not show by ourselves."""
        if len(data) > MAX_TOKEN_BYTES:
            raise MalformedError("the time stamp is too large", expected=MAX_TOKEN_BYTES, actual=len(data))
        whole = der.read(data)
        with _readable():
            response = decode_timestamp_response(_with_sorted_certificates(whole).encode())
            if response.status != _GRANTED:
                said = "; ".join(response.status_string)
                raise _NotGranted(
                    f"no time stamp was granted, status {response.status}{f': {said}' if said else ''}", actual=response.status
                )
            info = response.tst_info
        signed_data = whole.child(1, der.SEQUENCE).child(1, der.CONTEXT_0).child(0, der.SEQUENCE)
        content = signed_data.child(2, der.SEQUENCE).child(1, der.CONTEXT_0).child(0, der.OCTET_STRING)
        signer_infos = signed_data.child(-1, der.SET)
        if len(signer_infos.children()) != 1:
            raise MalformedError("a time stamp has one signature", actual=len(signer_infos.children()))
        return cls(response, info, _time(der.read(content.body)), signed_data)

    def require_imprint(self, note: bytes) -> None:
        """Check that it is over SHA-256 of these bytes.

        Raises:
            VerificationError: it is over something else, or by another digest than was asked for.
        """
        with _readable():
            imprint = self.info.message_imprint
            algorithm, digest = imprint.hash_algorithm.dotted_string, imprint.message
        expected = hashlib.sha256(note).digest()
        if algorithm != _SHA256 or digest != expected:
            raise VerificationError("the time stamp is over other bytes", expected=expected.hex(), actual=digest.hex())

    def require_signed(self, note: bytes, others: Sequence[x509.Certificate]) -> x509.Certificate:
        """What `ledger.timestamps.require_signed` says; the signer's certificate, which may be among these others."""
        self.require_imprint(note)
        signer = self.signer([other.public_bytes(Encoding.DER) for other in others])
        with _readable():
            cms.require_signature(self.signed_data, _TST_INFO, signer)
            if not signer.not_valid_before_utc <= self.time.replace(microsecond=0) <= signer.not_valid_after_utc:
                raise VerificationError(
                    f"the time stamp of {self.time:%Y-%m-%d %H:%M:%S} UTC is false: its certificate was not valid then",
                    expected=f"{signer.not_valid_before_utc} to {signer.not_valid_after_utc}",
                )
            _require_for_time_stamps(signer)
        return signer

    def signer(self, roots: Sequence[bytes]) -> x509.Certificate:
        """The certificate that signed: the one in the token, or among the roots, that the signed attributes name by its digest.

        Issuer and serial number, by which the signature was checked, must name no other certificate: they are not signed.

        Raises:
            VerificationError: there is another, or none.
            MalformedError: the attributes cannot be read.
        """
        with _readable():
            signed_data = self.response.signed_data
            (info,) = signed_data.signer_infos
            known = [x509.load_der_x509_certificate(data) for data in {*signed_data.certificates, *roots}]
            named = [found for found in known if (found.issuer, found.serial_number) == (info.issuer, info.serial_number)]
            if len(named) != 1:
                raise VerificationError(f"{len(named)} certificates have the name of the one that signed", expected=1, actual=len(named))
            data = named[0].public_bytes(Encoding.DER)
        algorithm, digest = _signing_certificate(self.signed_data.child(-1, der.SET).child(0, der.SEQUENCE))
        if hashlib.new(algorithm, data).digest() != digest:
            raise VerificationError("the certificate is not the one that the signature names", expected=digest.hex())
        return named[0]


def _require_for_time_stamps(certificate: x509.Certificate) -> None:
    """RFC 3161 2.3: for this purpose alone, critically.

    Raises:
        VerificationError: it is not.
    """
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            if extension.critical and [*extension.value] == [ExtendedKeyUsageOID.TIME_STAMPING]:
                return
            break
    raise VerificationError("the certificate is not for time stamps alone, or not critically so (RFC 3161 2.3)")


def _with_sorted_certificates(response: der.Element) -> der.Element:
    """DER wants a set sorted, and the library insists; OpenSSL writes the certificates as they come. They are not under the signature."""
    parts = response.children()
    if len(parts) < 2:  # a refusal has no token
        return response
    signed_data = parts[1].child(1, der.CONTEXT_0).child(0, der.SEQUENCE).children()
    has_certificates = len(signed_data) > 3 and signed_data[3].tag == der.CONTEXT_0
    return der.in_set_order(response, (1, 1, 0, 3)) if has_certificates else response


def _signing_certificate(signer_info: der.Element) -> tuple[str, bytes]:
    """The digest of the signer's certificate in the signed attributes, and its name: the first ESSCertID (RFC 5816 2.2.1)."""
    digest_algorithm = signer_info.child(2, der.SEQUENCE).child(0, der.OBJECT_IDENTIFIER).body
    if _HASHES.get(digest_algorithm, "sha1") == "sha1":
        raise VerificationError("the signature is over a digest that is broken or not known", actual=digest_algorithm.hex())
    found = {}
    for attribute in signer_info.child(3, der.CONTEXT_0).children():
        kind = attribute.child(0, der.OBJECT_IDENTIFIER).body
        if kind in (_SIGNING_CERTIFICATE, _SIGNING_CERTIFICATE_V2) and kind not in found:
            value = attribute.child(1, der.SET).child(0, der.SEQUENCE)
            found[kind] = value.child(0, der.SEQUENCE).child(0, der.SEQUENCE)
    if (named := found.get(_SIGNING_CERTIFICATE_V2)) is not None:
        first = named.children()[0] if named.children() else named
        if first.tag != der.SEQUENCE:  # the default
            return "sha256", named.child(0, der.OCTET_STRING).body
        algorithm = _HASHES.get(first.child(0, der.OBJECT_IDENTIFIER).body)
        if algorithm is None:
            raise MalformedError("the signature names its certificate by a digest that is not known")
        return algorithm, named.child(1, der.OCTET_STRING).body
    if (named := found.get(_SIGNING_CERTIFICATE)) is not None:
        return "sha1", named.child(0, der.OCTET_STRING).body
    raise VerificationError(
        "the signature does not name its certificate", hint="RFC 3161 2.4.1 wants it: the certificate could be exchanged"
    )


def _time(info: der.Element) -> datetime:
    """The genTime of a TSTInfo with its fraction (to the microsecond above), which the library leaves out; refuses critical extensions.

    Raises:
        MalformedError: there is none.
        VerificationError: an extension is critical: none is known here.
    """
    match = _TIME.fullmatch(info.child(4, der.GENERALIZED_TIME).body)
    if match is None:
        raise MalformedError("the time of the time stamp cannot be read")
    try:
        time = datetime.strptime(match[1].decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as exc:
        raise MalformedError(f"the time of the time stamp cannot be read: {exc}") from exc
    for optional in info.children()[5:]:
        if optional.tag == der.CONTEXT_1 and any(found.children()[1].tag == der.BOOLEAN for found in optional.children()):
            raise VerificationError("the time stamp has a critical extension, which this program does not know")
    nanoseconds = int((match[2] or b"0").decode().ljust(9, "0"))
    return time + timedelta(microseconds=-(-nanoseconds // 1000))


def _why(said: str) -> str:
    """The finding in the library's account of OpenSSL's errors, the last of them, which comes nearest to it."""
    return next((found[-1] for found in (pattern.findall(said) for pattern in _WHY) if found), said)


def _accuracy(info: TimeStampTokenInfo) -> timedelta | None:
    accuracy = info.accuracy
    if accuracy is None:
        return None
    return timedelta(seconds=accuracy.seconds or 0, milliseconds=accuracy.millis or 0, microseconds=accuracy.micros or 0)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Whatever the libraries raise while they read foreign bytes means that they cannot be read.

    Raises:
        MalformedError: instead of anything but our own errors and the library's verdict.
    """
    try:
        yield
    except (LedgerError, TokenError):
        raise
    except Exception as exc:
        raise MalformedError(f"the bytes cannot be read: {exc}") from exc
    except BaseException as exc:
        # A panic of the library's Rust code is no Exception, so that nobody catches it by mistake; here it is the input's fault.
        if type(exc).__name__ != "PanicException":
            raise
        raise MalformedError("the bytes cannot be read: the library gave up on them") from exc
