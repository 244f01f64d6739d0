"""The HTTP server process: where it listens, and how it stops without losing anything.

Without tokens it listens on this machine only. On SIGTERM or SIGINT it takes no new connections, lets
requests in progress finish, then runs the closing steps in order; a second signal does not wait for the
requests. It prints nothing: uvicorn's warnings go to the `uvicorn.error` logger.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from ingest.connections import BoundedConnection, connection_limit
from ledger.errors import LedgerError, MalformedError

KEEP_ALIVE_SECONDS = 75
"""uvicorn's own 5 s equals the interval of the Python exporter, whose requests then often meet a connection
being closed."""
BACKLOG = 512
DRAIN_SECONDS = 10
"""For requests in progress at the end; as long as an exporter waits for its answer."""

Step = Callable[[], Awaitable[None]]


class CannotListen(LedgerError):
    """The address is taken, not ours, or not one to listen on without tokens."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a host name or IP address, and a port (0 for any free one)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, with IPv6 addresses in brackets.

        Raises:
            MalformedError: it is not of that form.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed) or not (port.isascii() and port.isdecimal()):
            raise MalformedError(f"{text!r} is not HOST:PORT", hint="for example 127.0.0.1:4318 or [::1]:4318")
        if int(port) > 65_535:
            raise MalformedError(f"{text!r} has no port below 65536", hint="the port of OTLP/HTTP is 4318")
        return cls(host[1:-1] if bracketed else host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: Address, *, tokens_in_use: bool) -> list[socket.socket]:
    """Open the listening sockets, one for each address of the host; the first has to work.

    `localhost` is two addresses, and emitters try either one first.

    Raises:
        CannotListen: the address is public and there are no tokens, or it cannot be bound.
    """
    addresses = _resolve(address)
    if not tokens_in_use and not all(_is_loopback(host) for _, host in addresses):
        raise CannotListen(
            f"{address} can be reached from other machines, and without tokens anyone could write to the log",
            hint="listen on 127.0.0.1, or make a token first: trail token add NAME --role emitter",
        )
    sockets: list[socket.socket] = []
    port = address.port
    for family, host in addresses:
        try:
            opened = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as exc:
            if sockets:
                continue
            hint = "is another server running there? Choose another one with --http HOST:PORT"
            raise CannotListen(f"cannot listen on {address}: {exc.strerror or exc}", hint=hint) from exc
        # Those accepted inherit it. asyncio sets it itself only where a socket was made with the protocol's number; without, an answer
        # whose body follows its headers waits 40 ms for the client's delayed acknowledgement.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(opened)
        port = opened.getsockname()[1]  # the same for all, where any would do
    return sockets


def addresses_of(sockets: Sequence[socket.socket]) -> list[Address]:
    """Say where sockets listen, with the ports that were chosen for them."""
    names = [opened.getsockname() for opened in sockets]
    return [Address(str(name[0]), int(name[1])) for name in names]


def configuration(app: FastAPI, *, drain_seconds: int = DRAIN_SECONDS) -> uvicorn.Config:
    """How uvicorn is to serve the application."""
    return uvicorn.Config(
        app,
        # Not httptools: its parser skips the body of a request that offers an upgrade, as Java's HTTP client
        # does with `Upgrade: h2c`, and we would acknowledge an empty request. It saves 0.3 ms on 1.5 MB.
        http=BoundedConnection,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a sender is who its token says, never what a header says
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        backlog=min(BACKLOG, connection_limit()),  # asyncio accepts all that wait before it looks at the first one
    )


async def run(
    app: FastAPI,
    sockets: Sequence[socket.socket],
    *,
    on_start: Sequence[Step] = (),
    on_stop: Sequence[Step] = (),
    drain_seconds: int = DRAIN_SECONDS,
) -> None:
    """Serve until a signal comes.

    Args:
        app: What to serve.
        sockets: From `listen`; closed at the end.
        on_start: Awaited in order before the first request is taken.
        on_stop: Awaited in order after the last one was answered, each of them whatever the others raise, and
            also when starting failed.
        drain_seconds: How long requests in progress may take after the signal.
    """
    server = _Server(configuration(app, drain_seconds=drain_seconds))
    # The signals stay ours until the last closing step: their default is to end the process at once.
    with _signals(server):
        async with contextlib.AsyncExitStack() as closing:
            for opened in sockets:
                closing.callback(opened.close)
            for step in reversed(on_stop):
                closing.push_async_callback(step)
            for step in on_start:
                await step()
            if not server.should_exit:
                await server.serve(sockets=list(sockets))


def serve(
    app: FastAPI,
    sockets: Sequence[socket.socket],
    *,
    on_start: Sequence[Step] = (),
    on_stop: Sequence[Step] = (),
    drain_seconds: int = DRAIN_SECONDS,
) -> None:
    """`run` in an event loop of its own, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run(app, sockets, on_start=on_start, on_stop=on_stop, drain_seconds=drain_seconds))


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: it raises them again at its end, before our closing steps."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.force_exit = server.should_exit  # the second time
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it is not built for every platform
        return None
    return uvloop.new_event_loop


def _resolve(address: Address) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise CannotListen(f"cannot listen on {address}: {exc.strerror or exc}", hint="check the host name") from exc
    # IPv4 first: it is what most emitters are told, and on it the port is chosen.
    hosts = dict.fromkeys((family, str(name[0])) for family, _, _, _, name in found)
    return sorted(hosts, key=lambda host: host[0] != socket.AF_INET)


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
