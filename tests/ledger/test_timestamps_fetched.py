"""Asking an authority over HTTP: what it may answer, how long it may take, and what is believed of it. Real servers, real tokens."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from pathlib import Path

import pytest
import tsa
from tsa import Authority, make_authority, needs_openssl, tst_info

from ledger import der
from ledger.anchors import MAX_TOKEN_BYTES
from ledger.errors import LedgerError, MalformedError, StorageError, VerificationError
from ledger.timestamps import fetch, request, verify_token

NOTE = b"example.com/agents\n4\nQOp8PrYTxjITH+KFxs1mF52sU+72Iwugj8Ra4A0xVxU=\n\n\xe2\x80\x94 example.com/agents 42CPrUQ7RWGDb9nw\n"
OTHER = NOTE.replace(b"\n4\n", b"\n5\n")

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tsa") / "tsa")


@pytest.mark.parametrize("intermediate", [False, True])
def test_a_token_is_fetched_as_it_came(tmp_path: Path, intermediate: bool) -> None:
    authority = make_authority(tmp_path / "tsa", intermediate=intermediate)
    given: list[bytes] = []

    def stamp(query: bytes) -> bytes:
        given.append(authority.stamp(query))
        return given[-1]

    with tsa.serving(tsa.answering(stamp)) as server:
        assert fetch(server.url, NOTE) == given[0]
        token = fetch(server.url + "?policy=1", NOTE, timeout=30, roots=authority.roots)
    assert token == given[1] != given[0]
    assert verify_token(token, NOTE, authority.roots)


def test_an_authority_that_is_not_the_one_it_should_be_is_found_out_at_once(authority: Authority, tmp_path: Path) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as server, pytest.raises(VerificationError):
        fetch(server.url, NOTE, roots=make_authority(tmp_path / "twin").roots)


def test_an_answer_to_another_request(authority: Authority) -> None:
    token = authority.stamp(request(NOTE)[0])
    with tsa.serving(tsa.answering(lambda _: token)) as server:
        with pytest.raises(VerificationError, match="nonce") as raised:
            fetch(server.url, NOTE)
        assert raised.value.path == server.url

        def other(query: bytes) -> bytes:
            nonce = int.from_bytes(der.read(query).children()[2].body, "big")
            return authority.forge(tst_info(hashlib.sha256(OTHER).digest(), "20260601120000Z", nonce=nonce))

        server.answer = tsa.answering(other)
        with pytest.raises(VerificationError, match="other bytes"):
            fetch(server.url, NOTE)
        server.answer = tsa.answering(lambda _: authority.forge(tst_info(hashlib.sha256(NOTE).digest(), "20260601120000Z")))  # none at all
        with pytest.raises(VerificationError, match="nonce"):
            fetch(server.url, NOTE)


def _redirect(where: str) -> tsa.Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler, _query: bytes) -> None:
        handler.send_response(307)
        handler.send_header("Location", where)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def dripping(piece: bytes, noticed: threading.Event, *, end_of_headers: bool) -> tsa.Answer:
    """Send one small piece after the other, for longer than anybody waits; note when the other side is gone."""

    def answer(handler: http.server.BaseHTTPRequestHandler, _query: bytes) -> None:
        handler.send_response(200)
        handler.end_headers() if end_of_headers else handler.flush_headers()
        try:
            for _ in range(90):  # a client takes a hundred headers at most
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(0.1)
        except ConnectionError:
            noticed.set()

    return answer


def _cut_off(handler: http.server.BaseHTTPRequestHandler, _query: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"0")


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (tsa.answering(lambda _: b""), MalformedError, "did not answer with a time stamp"),
        (tsa.answering(lambda _: b"<html>log in first</html>"), MalformedError, "did not answer with a time stamp"),
        (tsa.answering(lambda _: b"\x30" * (MAX_TOKEN_BYTES + 1)), StorageError, "more than 65536 bytes"),
        (tsa.answering(lambda _: b"\x30" * 10_000_000), StorageError, "more than 65536 bytes"),
        (tsa.answering(lambda _: b"no", status=500), StorageError, "answered 500"),
        (tsa.answering(lambda _: b"no", status=405), StorageError, "answered 405"),
        (tsa.answering(lambda _: b"no", status=404), StorageError, "answered 404"),
        (tsa.answering(lambda _: tsa.refused()), StorageError, "refused: no time stamp was granted, status 2: no time for you"),
        (_redirect("file:///etc/passwd"), StorageError, "elsewhere now: 'file:///etc/passwd'"),
        (_redirect("https://example.com/"), StorageError, "elsewhere now"),
        (_redirect("/other"), StorageError, "elsewhere now"),
        (_cut_off, StorageError, "cannot be reached"),
        (lambda _handler, _query: None, StorageError, "cannot be reached"),
    ],
)
def test_an_answer_that_is_no_token(answer: tsa.Answer, error: type[LedgerError], says: str) -> None:
    with tsa.serving(answer) as server:
        with pytest.raises(error, match=says) as raised:
            fetch(server.url, NOTE)
        assert len(server.queries) == 1
        assert raised.value.hint
        assert raised.value.path == server.url


@pytest.mark.parametrize(("status", "later"), [(400, False), (404, False), (405, False), (429, True), (500, True), (503, True)])
def test_later_is_only_said_where_later_may_help(status: int, later: bool) -> None:
    with tsa.serving(tsa.answering(lambda _: b"no", status=status)) as server, pytest.raises(StorageError) as raised:
        fetch(server.url, NOTE)
    assert ("again later" in raised.value.hint) is later


@pytest.mark.parametrize("place", ["signature", "certificate"])
def test_a_token_that_was_spoiled_on_the_way_is_refused_without_any_root(authority: Authority, place: str) -> None:
    def spoiled(query: bytes) -> bytes:
        token = bytearray(authority.stamp(query))
        token[-1 if place == "signature" else token.index(authority.signer.der) + len(authority.signer.der) - 1] ^= 1
        return bytes(token)

    with tsa.serving(tsa.answering(spoiled)) as server, pytest.raises(VerificationError):
        fetch(server.url, NOTE)


@pytest.mark.parametrize(("piece", "end_of_headers"), [(b"X: slow\r\n", False), (b"0", True)])
def test_an_answer_that_drips_is_cut_off(piece: bytes, end_of_headers: bool) -> None:
    noticed = threading.Event()
    with tsa.serving(dripping(piece, noticed, end_of_headers=end_of_headers)) as server:
        with pytest.raises(StorageError, match=r"did not answer within 0\.5 seconds"):
            fetch(server.url, NOTE, timeout=0.5)
        assert noticed.wait(30)


def test_a_server_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connections wait in its backlog for ever
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(StorageError, match=r"did not answer within 0\.2 seconds"):
            fetch(url, NOTE, timeout=0.2)
        with pytest.raises(StorageError, match=r"did not answer within 0\.2 seconds"):
            fetch(url.replace("http", "https"), NOTE, timeout=0.2)
    with pytest.raises(StorageError, match="cannot be reached"):
        fetch(url, NOTE)
    assert [thread.name for thread in threading.enumerate() if isinstance(thread, threading.Timer)] == []


def test_tls_where_there_is_none(authority: Authority) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as server, pytest.raises(StorageError, match="cannot be reached"):
        fetch(server.url.replace("http", "https"), NOTE, timeout=30)


@pytest.mark.parametrize(
    "url",
    [
        "", "ftp://example.com/", "file:///etc/passwd", "example.com", "http://", "http:///tsr", "http://example.com:0/", "http://[::1",
        "http://example.com:port/", "http://user:secret@example.com/", "http://example.com/a b", "http://example.com/\r\nHost: other", "http://é/",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(MalformedError) as raised:
        fetch(url, NOTE)
    assert "secret" not in raised.value.message
