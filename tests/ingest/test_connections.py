"""Clients that hold connections and ask for nothing, over real sockets; and how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from trail_process import PATIENCE_SECONDS, ROOT

from ingest import connections, server
from ingest.connections import BoundedConnection, connection_limit

GET = b"GET /small HTTP/1.1\r\nHost: trail\r\n\r\n"
LARGE = 64 << 20
"""More than the kernel holds for a client that does not read."""


def application() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/small")
    async def small() -> Response:
        return Response(b"done")

    @app.get("/slow")
    async def slow() -> Response:
        await asyncio.sleep(1.0)
        return Response(b"done")

    @app.post("/body")
    async def body(request: Request) -> Response:
        return Response(str(len(await request.body())).encode())

    @app.get("/large")
    async def large() -> Response:
        return Response(bytes(LARGE))

    return app


@pytest.fixture(params=["asyncio", "uvloop"])
def running(request: pytest.FixtureRequest) -> Iterator[uvicorn.Server]:
    """The application as `ingest.server` serves it, in either event loop; limits are patched before this."""
    opened = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(server.configuration(application(), drain_seconds=1))
    factory = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def serve() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(running.serve(sockets=[opened]))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        while not running.started:
            time.sleep(0.005)
        yield running
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture
def port(running: uvicorn.Server) -> int:
    (listening,) = running.servers
    number: int = listening.sockets[0].getsockname()[1]
    return number


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server closes; false if it says something instead."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def answered(connection: socket.socket) -> bool:
    """Read one small answer to its end."""
    data = b""
    while not data.endswith(b"\r\n\r\ndone") and not data.endswith(b"\r\n\r\n4"):
        if not (more := connection.recv(4096)):
            return False
        data += more
    return data.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("said", [b"", b"G", GET[:-2]], ids=["nothing", "a byte", "all but the end"])
def test_who_sends_no_whole_header_is_let_go(hasty: None, port: int, said: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(said)
        assert is_closed(connection)


def test_a_byte_now_and_then_does_not_make_a_connection_last(hasty: None, port: int) -> None:
    with connected(port) as connection:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not select.select([connection], [], [], 0.05)[0]:
                assert time.monotonic() < deadline
                connection.sendall(b"G")
        assert is_closed(connection)


def test_a_further_request_must_be_whole_in_time_too(hasty: None, port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET)
        assert answered(connection)
        connection.sendall(GET[:9])
        assert is_closed(connection)


def test_a_body_that_nobody_waits_for_does_not_make_a_connection_last(hasty: None, port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /small HTTP/1.1\r\nHost: trail\r\nContent-Length: 1000000\r\n\r\n")
        assert answered(connection)
        connection.sendall(b"x")
        assert is_closed(connection)


def test_between_requests_a_connection_stays(hasty: None, port: int) -> None:
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert answered(connection)
            assert not select.select([connection], [], [], 0.6)[0], "closed, or it said something unasked"


def test_neither_a_slow_answer_nor_a_slow_body_is_a_missing_header(hasty: None, port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET.replace(b"/small", b"/slow"))
        assert answered(connection)
        connection.sendall(b"POST /body HTTP/1.1\r\nHost: trail\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            time.sleep(0.2)
            connection.sendall(b"x")
        assert answered(connection)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)


def test_who_reads_nothing_of_an_answer_is_let_go(impatient: None, running: uvicorn.Server, port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET.replace(b"/small", b"/large"))
        connection.recv(1)
        assert running.server_state.connections
        # Seen from the server: the kernel goes on holding what it has of the answer for the client.
        deadline = time.monotonic() + PATIENCE_SECONDS
        while running.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_who_reads_slowly_gets_all_of_it(impatient: None, port: int) -> None:
    with connected(port) as connection:
        connection.sendall(GET.replace(b"/small", b"/large"))
        got = 0
        while got < LARGE:
            data = connection.recv(1 << 20)
            assert data
            got += len(data)
            time.sleep(0.02)


# ----------------------------------------------------------------------------------------------------------- how many


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(BoundedConnection, "_said", float("-inf"))


def test_one_too_many_is_closed_at_once_and_said_once(three: None, port: int, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.ExitStack() as held, caplog.at_level(logging.WARNING, "ingest.connections"):
        for _ in range(3):
            connection = held.enter_context(connected(port))
            connection.sendall(GET)
            assert answered(connection)
        for _ in range(3):
            with connected(port) as refused:
                assert is_closed(refused)
        connection.sendall(GET)
        assert answered(connection), "those that are open go on"
    assert [record.getMessage() for record in caplog.records] == ["3 connections are open, so another one was closed; said once a minute"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:  # and when they are closed, there is room again
        with connected(port) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(GET)
            if answered(connection):
                break
        assert time.monotonic() < deadline


@pytest.mark.parametrize(("soft", "limit"), [(65536, 1024), (4096, 1024), (1024, 256), (200, 50), (3, 1), (resource.RLIM_INFINITY, 1024)])
def test_the_log_keeps_most_of_the_descriptors(monkeypatch: pytest.MonkeyPatch, soft: int, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, soft))
    assert connection_limit() == limit


# Opens a file at each request, as sealing does.
SERVER = """
import json, resource, sys
from fastapi import FastAPI, Response
from ingest import server
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
app = FastAPI()

@app.get("/small")
async def small() -> Response:
    held = [open("/dev/null") for _ in range(20)]
    for file in held:
        file.close()
    return Response(b"done")

sockets = server.listen(server.Address("127.0.0.1", 0), tokens_in_use=False)
print(server.addresses_of(sockets)[0].port, flush=True)
server.serve(app, sockets)
"""


def test_four_hundred_silent_connections_leave_descriptors_for_the_log(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())
        with contextlib.ExitStack() as held, connected(port) as early:
            early.sendall(GET)
            assert answered(early)
            for _ in range(400):
                held.enter_context(connected(port))
            early.sendall(GET)
            assert answered(early)
            assert len(os.listdir(f"/proc/{process.pid}/fd")) < 100  # noqa: PTH208 - names are all there is
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()
    assert "Too many open files" not in (tmp_path / "log").read_text()
