"""One HTTP request to a stranger, with an end to its time, its size and its errors: for asking witnesses and time-stamping authorities.

The time is for all of it: finding the address, connecting, TLS, sending, and an answer however slowly it comes. An answer that is cut off
is none. No redirect is followed, no proxy of the environment used, no cookie or password sent. Over https the certificates of the system
count.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from ledger.errors import MalformedError, StorageError

_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = re.compile(r"[!-~]+", re.ASCII)
_SHOWN: Final = 200
"""Characters of a foreign text in a message."""
_PIECE: Final = 16 * 1024
"""Bytes that are sent at once: what one record of TLS takes."""


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https URL, in parts."""

    url: str
    scheme: str
    host: str
    port: int
    path: str
    """As it was given, perhaps empty."""
    query: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            MalformedError: it is no http or https URL that names a host, or holds a password: that would be in every listing of processes.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise MalformedError(f"that is no URL: {exc}") from exc
        if "@" in parts.netloc:
            raise MalformedError("a URL with a user or a password in it", hint="a service that wants a password is not supported")
        # Of the text as it was given: urlsplit drops line feeds.
        if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.fragment or not _VISIBLE.fullmatch(url):
            raise MalformedError(f"{url!r} is no http or https URL", hint="for example https://example.com/path", actual=url)
        return cls(url, parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path, parts.query)

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, of a stranger's choosing."""

    status: int
    reason: str
    """At most 200 characters."""
    content_type: str
    """Without parameters, in small letters."""
    location: str
    """Of a redirect, which is not followed; at most 200 characters."""
    body: bytes


class Client:
    """Asks one server, over one connection that is kept open if the server allows. For one thread at a time; only `close` for any."""

    def __init__(self, address: Address, *, timeout: float, limit: int) -> None:
        """Connect later, with the first request.

        Args:
            address: the server; messages name its URL.
            timeout: seconds for each request as a whole.
            limit: bytes of an answer.
        """
        self.address = address
        self.timeout = timeout
        self._limit = limit
        self._connection: _Connection | None = None

    def ask(self, method: str, target: str, body: bytes | None = None, *, content_type: str = "") -> Answer:
        """One request; a second time, on a new connection, if the one that was kept open has been closed meanwhile.

        Args:
            method: GET or POST.
            target: path and query.
            body: what to send.
            content_type: of `body`.

        Raises:
            StorageError: nobody there, no whole answer in time, or too much of it.
        """
        headers = {"Host": self.address.authority, "User-Agent": "trail", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = content_type
        until = time.monotonic() + self.timeout
        kept = self._connection is not None
        with self._failures():
            try:
                return self._once(until, method, target, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.close()
                if not kept:
                    raise
            return self._once(until, method, target, body, headers)

    def close(self) -> None:
        """Close the connection; a request in progress fails. Another request would connect again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cut()

    def _once(self, until: float, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = self._connection = self._connection or _Connection.open(self.address, until)
        connection.until = until
        connection.http.request(method, target, body, headers)
        with connection.http.getresponse() as response:
            data = response.read(self._limit + 1)
            missing = response.length or 0
        if len(data) > self._limit:  # the rest is not worth reading
            raise StorageError(
                f"{self.address.url} answered with more than {self._limit} bytes",
                path=self.address.url,
                hint="is this the address of such a service?",
            )
        if missing:
            raise http.client.IncompleteRead(data, missing)
        if response.will_close:
            self.close()
        return Answer(
            status=response.status,
            reason=response.reason[:_SHOWN],
            content_type=response.headers.get_content_type(),
            location=(response.getheader("Location") or "")[:_SHOWN],
            body=data,
        )

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Say what went wrong, and use that connection no more.

        Raises:
            StorageError: instead of whatever the library raises.
        """
        url = self.address.url
        try:
            yield
        except StorageError:
            self.close()
            raise
        except TimeoutError as exc:
            self.close()
            raise StorageError(f"{url} did not answer within {self.timeout:g} seconds", path=url, hint="try again later") from exc
        except ssl.SSLCertVerificationError as exc:
            self.close()
            raise StorageError(
                f"{url} shows a certificate that is not trusted: {exc.verify_message}",
                path=url,
                hint="check the address, and the certificates of this machine",
            ) from exc
        except OSError as exc:
            self.close()
            raise StorageError(
                f"{url} cannot be reached: {exc.strerror or exc}", path=url, hint="check the address and the network"
            ) from exc
        except (http.client.HTTPException, ValueError) as exc:
            self.close()
            why = "its answer is cut off" if isinstance(exc, http.client.IncompleteRead) else f"no HTTP ({type(exc).__name__})"
            raise StorageError(f"{url} cannot be reached: {why}", path=url, hint="check the address and the network") from exc


class _Connection:
    """A connected socket that ends whatever is done with it at one moment; `http.client` takes it for its socket.

    A timeout of a socket's own begins anew with every byte that comes.
    """

    def __init__(self, address: Address, connected: socket.socket, until: float) -> None:
        self.until = until
        self._socket = connected
        self.http = http.client.HTTPConnection(address.host, address.port)
        self.http.auto_open = 0
        self.http.sock = self

    @classmethod
    def open(cls, address: Address, until: float) -> _Connection:
        """Connect to the first of the host's addresses that answers; each has its share of the time that is left."""
        found = _resolved(address, until)
        failure: Exception = OSError(f"{address.host} has no address")
        for number, (family, kind, protocol, _name, where) in enumerate(found):
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(_left(until) / (len(found) - number))
                opened.connect(where)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                opened.settimeout(_left(until))
                if address.scheme == "https":
                    opened = ssl.create_default_context().wrap_socket(opened, server_hostname=address.host)
                return cls(address, opened, until)
            except (OSError, ValueError) as exc:
                opened.close()
                failure = exc
        raise failure

    def sendall(self, data: bytes) -> None:
        """Send, in pieces: TLS would give each of its records the whole of the time."""
        for start in range(0, len(data), _PIECE):
            self._socket.settimeout(_left(self.until))
            self._socket.sendall(data[start : start + _PIECE])

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What is received."""
        return io.BufferedReader(_Received(self._socket.makefile("rb", buffering=0), self._limit_next))

    def close(self) -> None:
        """Close it, once the file of `makefile` is closed too."""
        self._socket.close()

    def cut(self) -> None:
        """Wake whoever reads from it, which closing alone does not do, and close it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.http.close()

    def _limit_next(self) -> None:
        self._socket.settimeout(_left(self.until))


class _Received(io.RawIOBase):
    """A socket's file that is told before every read how long that may take."""

    def __init__(self, inner: io.RawIOBase | socket.SocketIO, before: Callable[[], None]) -> None:
        super().__init__()
        self._inner = inner
        self._before = before

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._before()
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


def _left(until: float) -> float:
    """Seconds.

    Raises:
        TimeoutError: none.
    """
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _resolved(address: Address, until: float) -> list[Any]:
    """The addresses of a host, as `socket.getaddrinfo` gives them.

    On a thread of its own: the system's resolver cannot be interrupted, and has its own idea of how long it may take.
    """
    found: list[list[Any] | OSError] = []

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            found.append(exc if isinstance(exc, OSError) else OSError(f"{address.host} is no name of a host"))

    thread = threading.Thread(target=resolve, name="trail-resolve", daemon=True)
    thread.start()
    thread.join(_left(until))
    if not found:
        raise TimeoutError
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]
