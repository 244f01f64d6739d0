"""A witness over real sockets: the protocol's answers, and bodies that are too large, too slow, chunked or abandoned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from otlp_sink import PROTOBUF, TRACES, Sink
from small_log import SmallLog, new_witness, started

from ingest.http import create_app
from ingest.server import configuration
from ingest.witness import create_witness_app, create_witness_router
from ledger.checkpoint import Checkpoint
from ledger.note import open_note
from ledger.witness import WitnessStore
from ledger.witness_files import WitnessFiles
from ledger.witness_protocol import MAX_BODY_BYTES, SIZE_TYPE, AddCheckpoint

LOG = SmallLog.make()
TEXT = "text/plain; charset=utf-8"


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Run the application under uvicorn as the command does; gives the URL."""
    opened = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configuration(app, drain_seconds=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[opened])))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def files(tmp_path: Path) -> WitnessFiles:
    return new_witness(tmp_path / "witness", LOG)


@pytest.fixture
def witness(files: WitnessFiles) -> Iterator[WitnessStore]:
    with contextlib.closing(started(files)) as store:
        yield store


@pytest.fixture
def client(witness: WitnessStore) -> Iterator[httpx.Client]:
    with served(create_witness_app(witness)) as url, httpx.Client(base_url=url, timeout=30) as opened:
        yield opened


def submit(client: httpx.Client, body: bytes) -> httpx.Response:
    return client.post("/add-checkpoint", content=body)


def text(response: httpx.Response, status: int) -> str:
    """The one line of an answer that is an error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == TEXT
    assert response.text.endswith("\n") and response.text.count("\n") == 1
    return response.text


def test_a_cosignature_and_what_monitors_read(client: httpx.Client, witness: WitnessStore) -> None:
    assert text(client.get(f"/{LOG.path}/checkpoint"), 404)
    response = submit(client, LOG.body(0, 5))
    assert (response.status_code, response.headers["content-type"]) == (200, TEXT)
    open_note(LOG.note(5) + response.content, [witness.cosigner])
    newest = client.get(f"/{LOG.path}/checkpoint")
    assert (newest.status_code, newest.headers["content-type"], newest.headers["cache-control"]) == (200, TEXT, "no-cache")
    note = open_note(newest.content, [witness.cosigner, LOG.signer.verifier])
    assert Checkpoint.parse(note.text) == LOG.checkpoint(5) and len(note.verified) == 2
    asked = client.head(f"/{LOG.path}/checkpoint")
    assert (asked.status_code, asked.content, asked.headers["content-length"]) == (200, b"", str(len(newest.content)))


def test_every_status_of_the_protocol(client: httpx.Client) -> None:
    assert submit(client, LOG.body(0, 5)).status_code == 200
    text(submit(client, SmallLog.make("example.com/stranger").body(0, 3)), 404)
    text(submit(client, SmallLog.make().body(5, 6)), 403)
    text(submit(client, AddCheckpoint(old=9, proof=(), note=LOG.note(5)).encode()), 400)
    text(submit(client, b"nonsense"), 400)
    text(submit(client, b""), 400)
    text(submit(client, LOG.fork(2).body(5, 9)), 422)
    text(submit(client, LOG.fork(2).body(5, 5)), 422)
    conflict = submit(client, LOG.body(0, 9))
    assert (conflict.status_code, conflict.headers["content-type"], conflict.content) == (409, SIZE_TYPE, b"5\n")


def test_the_states_fault_is_503_and_says_nothing_about_the_log(client: httpx.Client, files: WitnessFiles) -> None:
    assert submit(client, LOG.body(0, 5)).status_code == 200
    files.of(LOG.path).checkpoint.write_bytes(b"damaged")
    text(submit(client, LOG.body(5, 9)), 503)
    text(client.get(f"/{LOG.path}/checkpoint"), 503)


def test_an_error_of_ours_is_never_taken_for_a_judgement(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "open", lambda *arguments: 1 / 0)  # what nobody thought of
    response = submit(client, LOG.body(0, 5))
    monkeypatch.undo()
    assert "unexpectedly" in text(response, 503)
    assert "ZeroDivisionError" in caplog.text
    assert submit(client, LOG.body(0, 5)).status_code == 200


def test_the_page_for_the_operator_warns_of_itself(client: httpx.Client, witness: WitnessStore) -> None:
    page = client.get("/")
    assert page.status_code == 200 and page.headers["content-type"] == TEXT
    assert witness.cosigner.vkey in page.text and "proves nothing" in page.text
    assert client.head("/").status_code == 200


def test_other_paths_and_methods(client: httpx.Client) -> None:
    for path in ("/add-checkpoint/", "/x", "/..%2fkey", "/key", f"/{LOG.path}", f"/{LOG.path}/forks", "/%2e%2e/checkpoint"):
        text(client.get(path), 404)
    text(client.get(f"/{LOG.path.upper()}/checkpoint"), 404)
    assert text(client.get("/add-checkpoint"), 405) and client.get("/add-checkpoint").headers["allow"] == "POST"
    text(client.post(f"/{LOG.path}/checkpoint"), 405)
    text(client.put("/add-checkpoint"), 405)


def head(url: str, *lines: str) -> tuple[socket.socket, bytes]:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    return connection, "\r\n".join(("POST /add-checkpoint HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


def answer(connection: socket.socket) -> bytes:
    """Read one response: its head and the body its Content-Length announces."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"(closed)\r\n\r\n"
    top, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return top


def test_a_body_that_is_too_large_is_refused_before_it_is_read(client: httpx.Client) -> None:
    text(submit(client, b"x" * (MAX_BODY_BYTES + 1)), 413)
    connection, start = head(str(client.base_url), f"Content-Length: {10**15}")
    with connection:
        connection.sendall(start)  # and none of it
        assert answer(connection).startswith(b"HTTP/1.1 413 ")
    connection, start = head(str(client.base_url), "Transfer-Encoding: chunked")
    with connection:
        with contextlib.suppress(OSError):  # it may close before it was sent the rest
            connection.sendall(start)
            for _ in range(MAX_BODY_BYTES // 4096 + 2):
                connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 413 ")
    text(submit(client, b"x" * MAX_BODY_BYTES), 400)


def test_chunked_bodies_and_many_requests_on_one_connection(client: httpx.Client) -> None:
    connection, start = head(str(client.base_url), "Transfer-Encoding: chunked")
    with connection:
        for size in (1, 2, 3):
            body = LOG.body(size - 1, size)
            pieces = [body[place : place + 50] for place in range(0, len(body), 50)]
            connection.sendall(start + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_does_not_come_is_408_and_the_connection_ends(witness: WitnessStore) -> None:
    app = FastAPI()
    app.include_router(create_witness_router(witness, body_seconds=0.2))
    with served(app) as url:
        connection, start = head(url, "Content-Length: 100")
        with connection:
            connection.sendall(start + b"old 0\n")
            data = b""
            while piece := connection.recv(65536):
                data += piece
        assert data.startswith(b"HTTP/1.1 408 ")


def test_an_abandoned_body_changes_nothing(client: httpx.Client) -> None:
    connection, start = head(str(client.base_url), "Content-Length: 1000")
    connection.sendall(start + LOG.body(0, 5))
    connection.close()
    assert submit(client, LOG.body(0, 3)).status_code == 200


def test_of_many_at_once_from_one_size_one_is_cosigned(client: httpx.Client) -> None:
    assert submit(client, LOG.body(0, 1)).status_code == 200
    answers: list[httpx.Response] = []

    def send(size: int) -> None:
        answers.append(submit(client, LOG.body(1, size)))

    threads = [threading.Thread(target=send, args=(size,)) for size in range(2, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(response.status_code for response in answers)
    assert statuses == [200] + [409] * 11
    (winner,) = {response.content for response in answers if response.status_code == 409}
    newest = client.get(f"/{LOG.path}/checkpoint").content
    assert newest.split(b"\n")[1] + b"\n" == winner


def test_one_log_being_judged_holds_up_nobody_who_reads(client: httpx.Client, witness: WitnessStore) -> None:
    with witness._origin_lock(LOG.origin):  # as a slow disk would
        waiting = threading.Thread(target=lambda: submit(client, LOG.body(0, 5)))
        waiting.start()
        assert client.get("/").status_code == 200
        assert client.get(f"/{LOG.path}/checkpoint").status_code == 404
    waiting.join()
    assert client.get(f"/{LOG.path}/checkpoint").status_code == 200


def test_mounted_in_a_server_that_receives_telemetry(witness: WitnessStore) -> None:
    sink = Sink()
    app = create_app(sink, extra_routers=[create_witness_router(witness, "/witness")])
    with served(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert client.post("/witness/add-checkpoint", content=LOG.body(0, 5)).status_code == 200
        assert client.get(f"/witness/{LOG.path}/checkpoint").status_code == 200
        assert witness.cosigner.vkey in client.get("/witness/").text
        assert client.post("/v1/traces", content=TRACES, headers={"Content-Type": PROTOBUF}).status_code == 200
        assert text(client.post("/witness/add-checkpoint", content=b"x"), 400)
