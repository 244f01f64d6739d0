"""Time-stamping authorities for tests: a certificate tree of their own, and a real TSA (`openssl ts -reply`) behind HTTP.

`Authority.stamp` answers a request as a TSA does, at the time that it is. `Authority.forge` signs any TSTInfo with a certificate of the
tree by `openssl cms`: whatever time, digest or nonce a test wants, under a true signature.
"""

from __future__ import annotations

import contextlib
import http.server
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ledger import der

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="NO TIME STAMP IS TESTED: there is no openssl in PATH")
DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
POLICY = "1.3.6.1.4.1.13762.3"
REPLY = "application/timestamp-reply"
_CONFIG = """
[tsa]
default_tsa = trail_test
[trail_test]
serial = {serial}
signer_digest = sha256
default_policy = {policy}
digests = sha256, sha512
accuracy = secs:1, millisecs:500
ordering = no
ess_cert_id_alg = {ess}
"""


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def make_root(name: str = "Root", *, start: datetime | None = None, end: datetime | None = None) -> Identity:
    """A self-signed certificate of an authority, valid for ten years around now unless told otherwise."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, name, key, start or now - 3650 * DAY, end or now + 3650 * DAY)
    return Identity(_as_ca(builder, key).sign(key, hashes.SHA256()), key)


def make_intermediate(issuer: Identity, name: str = "Intermediate") -> Identity:
    """An authority that another vouches for."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, _name_of(issuer), key, now - 3650 * DAY, now + 3650 * DAY)
    return Identity(_as_ca(builder, key).sign(issuer.key, hashes.SHA256()), key)


def make_signer(
    issuer: Identity,
    name: str = "TSA",
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.TIME_STAMPING,
    also: tuple[x509.ObjectIdentifier, ...] = (),
    critical: bool = True,
    key: Key | None = None,
    serial: int | None = None,
) -> Identity:
    """The certificate of a TSA: for time stamps, critically, as RFC 3161 2.3 wants it, unless told otherwise."""
    now = datetime.now(UTC)
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, _name_of(issuer), key, start or now - 365 * DAY, end or now + 365 * DAY, serial)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage, *also]), critical=critical)
    return Identity(builder.sign(issuer.key, hashes.SHA256()), key)


def _builder(name: str, issuer: str, key: Key, start: datetime, end: datetime, serial: int | None = None) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Trail tests")])


def _name_of(identity: Identity) -> str:
    return str(identity.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def _as_ca(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(usage, critical=True)


@dataclass(frozen=True)
class Authority:
    """A TSA in a directory of its own."""

    place: Path
    root: Identity
    signer: Identity
    chain: tuple[Identity, ...] = ()
    """Certificates between signer and root, which go into every token."""
    ess: str = "sha256"
    """The digest by which the signature names its certificate; sha1 makes the older attribute."""

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return (self.root.certificate,)

    @property
    def roots_file(self) -> Path:
        path = self.place / "root.pem"
        self._keep("root.pem", self.root.pem)
        return path

    def stamp(self, query: bytes) -> bytes:
        """The answer to a TimeStampReq, by `openssl ts -reply`."""
        self._write()
        (self.place / "query.tsq").write_bytes(query)
        config = _CONFIG.format(serial=self.place / "serial", policy=POLICY, ess=self.ess)
        (self.place / "tsa.cnf").write_text(config)
        self._run("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query.tsq", "-signer", "signer.pem", "-inkey", "signer.key",
                  "-chain", "chain.pem", "-out", "answer.tsr")  # fmt: skip
        return (self.place / "answer.tsr").read_bytes()

    def forge(self, info: bytes, *, cades: bool = True, digest: str = "sha256") -> bytes:
        """A granted TimeStampResp around a TSTInfo of the test's own making, truly signed."""
        self._write()
        (self.place / "info.der").write_bytes(info)
        self._run("cms", "-sign", "-binary", "-nodetach", "-in", "info.der", "-econtent_type", "1.2.840.113549.1.9.16.1.4", "-md", digest,
                  "-signer", "signer.pem", "-inkey", "signer.key", "-certfile", "chain.pem", "-nosmimecap", *(["-cades"] if cades else []),
                  "-outform", "DER", "-out", "token.der")  # fmt: skip
        return granted((self.place / "token.der").read_bytes())

    def certified(self, **changes: object) -> Authority:
        """The same authority with another certificate of its root (arguments as of `make_signer`), in a directory of its own."""
        place = self.place.with_name(f"{self.place.name}-{secrets.token_hex(4)}")
        return replace(self, place=place, signer=make_signer(self.chain[0] if self.chain else self.root, **changes))  # type: ignore[arg-type]

    def _write(self) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        self._keep("signer.pem", self.signer.pem)
        self._keep("signer.key", self.signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._keep("chain.pem", b"".join(link.pem for link in (*self.chain, self.root)))
        if not (self.place / "serial").exists():
            (self.place / "serial").write_text("01\n")

    def _keep(self, name: str, data: bytes) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / name).write_bytes(data)

    def _run(self, *args: str) -> None:
        assert OPENSSL is not None
        done = subprocess.run([OPENSSL, *args], cwd=self.place, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr


def make_authority(place: Path, name: str = "TSA", *, intermediate: bool = False) -> Authority:
    """A TSA with a root of its own."""
    root = make_root(f"{name} root")
    chain = (make_intermediate(root, f"{name} intermediate"),) if intermediate else ()
    return Authority(place, root, make_signer(chain[0] if chain else root, name), chain)


# ----------------------------------------------------------------------------------------------- DER, for what a test makes or changes


def element(tag: int, *bodies: bytes) -> bytes:
    """One element of DER."""
    body = b"".join(bodies)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def integer(value: int) -> bytes:
    return element(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


SHA256 = element(0x30, bytes.fromhex("0609608648016503040201"), b"\x05\x00")
SHA512 = element(0x30, bytes.fromhex("0609608648016503040203"), b"\x05\x00")


def tst_info(digest: bytes, time: str, *, algorithm: bytes = SHA256, nonce: int | None = None, rest: bytes = b"") -> bytes:
    """A TSTInfo; `time` is a GeneralizedTime as text, `rest` what follows the nonce."""
    imprint = element(0x30, algorithm, element(0x04, digest))
    asked = b"" if nonce is None else integer(nonce)
    return element(0x30, integer(1), bytes.fromhex("06032a0304"), imprint, integer(7), element(0x18, time.encode()), asked, rest)


def changed(token: bytes, path: list[int], change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """A token with the children of one of its elements exchanged."""

    def within(found: der.Element, path: list[int]) -> bytes:
        children = [child.encode() for child in found.children()]
        if path:
            children[path[0]] = within(found.children()[path[0]], path[1:])
        else:
            children = change(children)
        return element(found.tag, *children)

    return within(der.read(token), path)


SIGNED_DATA = [1, 1, 0]
CERTIFICATES = [*SIGNED_DATA, 3]
SIGNER_INFOS = [*SIGNED_DATA, 4]
TST_INFO = [*SIGNED_DATA, 2, 1]

UNCOVERED = {
    "version of the SignedData": [*SIGNED_DATA, 0],
    "version of the SignerInfo": [*SIGNER_INFOS, 0, 0],
    "signature algorithm, where the key has only one": [*SIGNER_INFOS, 0, 4],
    "certificate of the root, which the verifier has": [*CERTIFICATES, 1],
}
"""The parts of this token that a flipped byte may change unnoticed; none says what was stamped, when, or by whom."""


def span(token: bytes, path: list[int]) -> range:
    """Where the element at a path lies."""
    found, start = der.read(token), 0
    for place in path:
        children = found.children()
        start += len(found.encode()) - len(found.body) + sum(len(child.encode()) for child in children[:place])
        found = children[place]
    return range(start, start + len(found.encode()))


def granted(token: bytes) -> bytes:
    """A TimeStampResp around a token."""
    return element(0x30, element(0x30, integer(0)), token)


def refused(text: str = "no time for you") -> bytes:
    """A TimeStampResp of status *rejection*."""
    return element(0x30, element(0x30, integer(2), element(0x30, element(0x0C, text.encode()))))


# -------------------------------------------------------------------------------------------------------------------------- over HTTP

Answer = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]


def answering(make: Callable[[bytes], bytes], *, status: int = 200) -> Answer:
    """Answer each query with the bytes that `make` makes of it."""

    def answer(handler: http.server.BaseHTTPRequestHandler, query: bytes) -> None:
        body = make(query)
        handler.send_response(status)
        handler.send_header("Content-Type", REPLY)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@dataclass
class Running:
    """A TSA that listens."""

    url: str
    queries: list[bytes]
    answer: Answer


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[Running]:
    """Listen on a free port of this machine; `answer` may be exchanged while it runs."""
    running = Running("", [], answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            running.queries.append(query)
            with contextlib.suppress(ConnectionError):
                running.answer(self, query)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="tsa")
    thread.start()
    running.url = f"http://127.0.0.1:{server.server_address[1]}/tsr"
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
