"""One request to a stranger: over real sockets, and with a resolver that behaves badly. What it may answer is for its users' tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from witness_servers import HostileWitness, served

from ledger.bounded_http import Address, Client
from ledger.errors import MalformedError, StorageError


def client_of(url: str, *, timeout: float = 20.0, limit: int = 1000) -> Client:
    return Client(Address.parse(url), timeout=timeout, limit=limit)


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers every request on a connection with the number of the connection, and keeps it open; what it was sent."""
    opened = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []

    def answer(connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                heard.append(data)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

    def accept() -> None:
        for number in range(10):
            try:
                connection, _address = opened.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection, number), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}", heard
    finally:
        opened.shutdown(socket.SHUT_RDWR)
        opened.close()
        thread.join()


def test_a_connection_is_kept_and_nagle_is_off() -> None:
    with listening() as (url, heard), contextlib.closing(client_of(url)) as client:
        assert [client.ask("GET", "/x").body for _ in range(3)] == [b"0"] * 3
        assert client._connection is not None
        assert client._connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.close()
        assert client.ask("GET", "/x").body == b"1"
    assert heard[0] == f"GET /x HTTP/1.1\r\nHost: {url[7:]}\r\nUser-Agent: trail\r\nAccept-Encoding: identity\r\n\r\n".encode()


def test_the_time_is_for_finding_the_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver waits for as long as it likes; who asks does not."""
    asked, release = threading.Event(), threading.Event()

    def slow(*_arguments: Any, **_more: Any) -> list[Any]:
        asked.set()
        release.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(StorageError, match=r"within 0\.2 seconds"):
        client_of("http://example.com", timeout=0.2).ask("GET", "/")
    assert asked.is_set()
    assert not release.is_set()
    release.set()


def test_the_time_that_was_spent_on_the_way_is_not_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that the resolver moves on by a minute: nothing is left for connecting, and nobody is connected to."""
    now, true = [0.0], socket.getaddrinfo

    def late(*arguments: Any, **more: Any) -> list[Any]:
        now[0] += 60
        return true(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    monkeypatch.setattr("ledger.bounded_http.time.monotonic", lambda: now[0])
    with listening() as (url, heard):
        with pytest.raises(StorageError, match="within 59 seconds"):
            client_of(url, timeout=59).ask("GET", "/")
        assert heard == []
        with contextlib.closing(client_of(url, timeout=200)) as client:
            assert client.ask("GET", "/").body == b"0"


def test_another_address_of_the_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    true = socket.getaddrinfo
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, **more: [*true(host, closed, **more), *true(host, port, **more)])
    with listening() as (url, _heard), contextlib.closing(client_of(url)) as client:
        assert client.ask("GET", "/").body == b"0"


@pytest.mark.parametrize("found", [[], socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_a_host_without_an_address(monkeypatch: pytest.MonkeyPatch, found: object) -> None:
    def resolve(*_arguments: Any, **_more: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(StorageError, match="cannot be reached") as raised:
        client_of("http://nowhere.example").ask("GET", "/")
    assert raised.value.hint


def test_a_large_request_is_sent_whole() -> None:
    body = bytes(range(256)) * 400
    server = HostileWitness(lambda _method, _path, _body: (200, "Text/Plain; charset=x", b"ok"))
    with served(server), contextlib.closing(client_of(server.url)) as client:
        answer = client.ask("POST", "/p?q", body, content_type="application/x-test")
    assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", b"ok")
    assert server.asked == [("POST", "/p?q", body)]


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://example.com", "example.com"),
        ("https://example.com:443/a", "example.com"),
        ("https://example.com:80/a", "example.com:80"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ],
)
def test_whom_an_address_names(url: str, authority: str) -> None:
    assert Address.parse(url).authority == authority


@pytest.mark.parametrize("url", ["http://user:secret@example.com/", "http://secret@example.com/", "http://:@example.com/"])
def test_a_password_is_not_repeated(url: str) -> None:
    with pytest.raises(MalformedError) as raised:
        Address.parse(url)
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(raised.value.__dict__)
