"""Asking a witness: every answer of the protocol, and everything that is none, over real sockets."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from witness_servers import HostileWitness, RealWitness, Reply, served

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import MalformedError, WitnessUnreachable
from ledger.merkle import leaf_hash
from ledger.note import Signer
from ledger.witness_client import MAX_ANSWER_BYTES, Conflict, Cosigned, Refused, WitnessClient, newest, submit
from ledger.witness_protocol import SIZE_TYPE, AddCheckpoint, origin_path

ORIGIN = "example.com/agents"
LOG = Signer.generate(ORIGIN)
ROOT = leaf_hash(b"one")
NOTE = sign_checkpoint(Checkpoint(ORIGIN, 1, ROOT), LOG)
REQUEST = AddCheckpoint(old=0, proof=(), note=NOTE)
TEXT = "text/plain"


def answering(status: int, kind: str, body: bytes) -> HostileWitness:
    return HostileWitness(lambda _method, _path, _body: (status, kind, body))


@contextlib.contextmanager
def talking(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server below HTTP: to each connection it sends these bytes and hangs up; the URL."""
    opened = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def talk() -> None:
        while not ended.is_set():
            try:
                connection, _address = opened.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                for piece in pieces:
                    if ended.wait(pause):
                        break
                    connection.sendall(piece)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        ended.set()
        opened.shutdown(socket.SHUT_RDWR)
        opened.close()
        thread.join()


def test_a_real_witness_cosigns_refuses_and_shows(tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", LOG.vkey)
    with served(witness):
        assert newest(witness.url, ORIGIN) is None
        answer = submit(witness.url, REQUEST)
        assert isinstance(answer, Cosigned)
        assert answer.lines.startswith("— example.org/w ")
        assert newest(witness.url + "/", ORIGIN) == NOTE + answer.lines.encode()
        assert submit(witness.url, REQUEST) == Conflict(1)
        other = sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(b"two")), LOG)
        refused = submit(witness.url, AddCheckpoint(old=1, proof=(), note=other))
        assert isinstance(refused, Refused)
        assert refused.status == 422
        unknown = sign_checkpoint(Checkpoint("example.com/b", 1, ROOT), Signer.generate("example.com/b"))
        assert submit(witness.url, AddCheckpoint(old=0, proof=(), note=unknown)).status == 404  # type: ignore[union-attr]


def test_one_connection_serves_many_requests_and_is_made_anew_when_it_was_closed(tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", LOG.vkey)
    with served(witness), contextlib.closing(WitnessClient(witness.url)) as client:
        assert client.newest(ORIGIN) is None
        first = client._http._connection
        assert isinstance(client.submit(REQUEST), Cosigned)
        assert first is not None
        assert client._http._connection is first
        witness.stop()
        with pytest.raises(WitnessUnreachable, match="cannot be reached"):
            client.newest(ORIGIN)
        witness.start()
        assert client.newest(ORIGIN) is not None
        witness.stop()
        witness.start()
        # The connection that was kept is dead; that is nobody's failure.
        assert client.newest(ORIGIN) is not None


def test_it_asks_what_the_protocol_says() -> None:
    witness = answering(409, f"{SIZE_TYPE}; charset=utf-8", b"7\n")
    with served(witness):
        assert submit(f"{witness.url}/a/b/", REQUEST) == Conflict(7)
        with pytest.raises(WitnessUnreachable, match="answers 409"):
            newest(f"{witness.url}/a/b", ORIGIN)
    assert witness.asked == [("POST", "/a/b/add-checkpoint", REQUEST.encode()), ("GET", f"/a/b/{origin_path(ORIGIN)}/checkpoint", b"")]


@pytest.mark.parametrize("body", [b"", b"x\n", b"07\n", b"-1\n", b"9223372036854775808\n", "\uff17\n".encode(), b"7\n\n", b"\xff"])
def test_a_conflict_without_a_size_is_a_refusal_like_any_other(body: bytes) -> None:
    witness = answering(409, SIZE_TYPE, body)
    with served(witness):
        answer = submit(witness.url, REQUEST)
    assert isinstance(answer, Refused)
    assert answer.status == 409


@pytest.mark.parametrize("status", [202, 301, 307, 400, 403, 404, 409, 422, 500, 503])
def test_every_other_status_is_a_refusal_and_no_redirect_is_followed(status: int) -> None:
    witness = answering(status, TEXT, b"no,\r\n  never " + b"x" * 1000)
    with served(witness):
        answer = submit(witness.url, REQUEST)
    assert isinstance(answer, Refused)
    assert answer.status == status
    assert answer.text.startswith("no, never xxx")
    assert len(answer.text) <= 200
    assert len(witness.asked) == 1


def test_an_answer_is_bounded() -> None:
    for size, fits in ((MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False)):
        witness = answering(200, TEXT, b"x" * size)
        with served(witness):
            if fits:
                assert submit(witness.url, REQUEST) == Cosigned("x" * size)
            else:
                with pytest.raises(WitnessUnreachable, match=f"more than {MAX_ANSWER_BYTES}"):
                    submit(witness.url, REQUEST)
    with (
        talking(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", *[b"x" * 60_000] * 9) as url,
        pytest.raises(WitnessUnreachable, match="more than"),
    ):
        submit(url, REQUEST)


@pytest.mark.parametrize("size", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_an_answer_that_is_cut_off_is_none(size: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + size + b"\r\n\r\n"
    with talking(head, b"3\r\nabc\r\n" if b"chunked" in size else b"abc") as url:
        with pytest.raises(WitnessUnreachable, match="cut off"):
            newest(url, ORIGIN)
        with pytest.raises(WitnessUnreachable, match="cut off"):
            submit(url, REQUEST)


def test_a_witness_that_dribbles_or_hangs_does_not_keep_us() -> None:
    # Each piece comes in time, and all of them together never would.
    for first in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", b""):
        with talking(first, *[b"x"] * 10_000, pause=0.05) as url, pytest.raises(WitnessUnreachable, match="did not answer within"):
            submit(url, REQUEST, timeout=0.5)


@pytest.mark.parametrize("said", [b"", b"hello\r\n\r\n", b"HTTP/1.1 xx\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000])
def test_what_is_no_http_is_no_answer(said: bytes) -> None:
    with talking(said) as url, pytest.raises(WitnessUnreachable):
        submit(url, REQUEST)


def test_nobody_there_and_no_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(WitnessUnreachable, match="cannot be reached") as caught:
        newest(f"http://127.0.0.1:{port}", ORIGIN)
    assert caught.value.path == f"http://127.0.0.1:{port}"
    with talking(b"HTTP/1.1 200 OK\r\n\r\n") as url, pytest.raises(WitnessUnreachable):
        newest(url.replace("http:", "https:"), ORIGIN)


def test_a_certificate_that_nobody_vouches_for_is_named(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, today - datetime.timedelta(1), today + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "pem").write_bytes(key.private_bytes(*pem) + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    witness = answering(404, TEXT, b"")
    witness.use_tls(context)
    with served(witness), pytest.raises(WitnessUnreachable, match="certificate that is not trusted"):
        newest(witness.url.replace("127.0.0.1", "localhost"), ORIGIN)
    assert witness.asked == []


def test_closing_from_another_thread_ends_a_request() -> None:
    with talking(*[b""] * 1000, pause=0.05) as url:
        client = WitnessClient(url, timeout=60)
        threading.Timer(0.3, client.close).start()
        with pytest.raises(WitnessUnreachable):
            client.submit(REQUEST)


@pytest.mark.parametrize(
    "url",
    ["", "example.org", "ftp://example.org", "http://", "http://:80", "https://a:b@example.org", "http://h/?q", "http://h/#f", "http://h:99999",
     "http://[::1", "http://h/a b", "http://h/\n", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_url_of_a_witness(url: str) -> None:
    with pytest.raises(MalformedError):
        WitnessClient(url)


def test_the_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    reply: Reply = (404, TEXT, b"")
    witness = answering(*reply)
    with served(witness):
        assert newest(witness.url, ORIGIN) is None
