"""OTLP/HTTP over a real socket: chunked, kept alive, half-sent, abandoned and refused requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from otlp_sink import JSON, PROTOBUF, TRACES, Sink

from ingest.http import Limits, create_app
from ingest.server import configuration


@pytest.fixture
def sink() -> Sink:
    return Sink()


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """Run the application under uvicorn as `trail serve` does; gives the port."""
    opened = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configuration(app, drain_seconds=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[opened])))
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield opened.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def port(sink: Sink) -> Iterator[int]:
    with served(create_app(sink, limits=Limits(body_seconds=1.0))) as number:
        yield number


def head(*lines: str, path: str = "/v1/traces") -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: trail", f"Content-Type: {PROTOBUF}", *lines, "", "")).encode()


def answer(connection: socket.socket) -> bytes:
    """Read one response: its head and the body its Content-Length announces."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"(closed)\r\n\r\n"
    top, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return top + b"\r\n\r\n" + body


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_chunked_bodies_and_one_connection_for_many_requests(sink: Sink, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for size in (7, 1000, len(TRACES)):
            connection.sendall(head("Transfer-Encoding: chunked"))
            for start in range(0, len(TRACES), size):
                chunk = TRACES[start : start + size]
                connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            connection.sendall(b"0\r\n\r\n")
            assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(head("Content-Length: 0", path="/v1/logs"))
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
    assert [kept["body"] for kept in sink.accepted] == [TRACES, TRACES, TRACES, b""]


def test_a_client_that_leaves_in_the_middle_leaves_nothing(sink: Sink, port: int) -> None:
    for framing in (f"Content-Length: {len(TRACES)}", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            body = TRACES[:4000] if "Length" in framing else b"fa0\r\n" + TRACES[:4000] + b"\r\n"
            connection.sendall(head(framing) + body)
            time.sleep(0.05)
    assert httpx.post(f"http://127.0.0.1:{port}/v1/traces", content=b"", headers={"Content-Type": PROTOBUF}).is_success
    assert [kept["body"] for kept in sink.accepted] == [b""]
    assert (sink.quarantined, sink.refused) == ([], [])


def test_a_half_sent_body_is_given_up_and_the_connection_closed(sink: Sink, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(f"Content-Length: {len(TRACES)}") + TRACES[:100])
        response = answer(connection)
        assert response.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in response.lower()
        assert connection.recv(10) == b""
    assert sink.accepted == []
    assert [refusal[0] for refusal in sink.refused] == [408]


def test_half_sent_bodies_hold_no_more_than_the_cap(sink: Sink) -> None:
    limits = Limits(body_bytes=1 << 20, in_flight_bytes=3 << 20, body_seconds=30)
    with served(create_app(sink, limits=limits)) as port, contextlib.ExitStack() as open_ones:
        for _ in range(3):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            open_ones.enter_context(connection)
            connection.sendall(head(f"Content-Length: {1 << 20}") + bytes((1 << 20) - 1))
        url, headers = f"http://127.0.0.1:{port}/v1/traces", {"Content-Type": PROTOBUF}
        until(lambda: httpx.post(url, content=TRACES, headers=headers).status_code == 503)
        response = httpx.post(url, content=TRACES, headers=headers)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        open_ones.close()
        until(lambda: httpx.post(url, content=TRACES, headers=headers).status_code == 200)


def test_a_body_over_the_limit_still_gets_its_answer_and_the_connection_lives(sink: Sink) -> None:
    with served(create_app(sink, limits=Limits(body_bytes=1 << 20))) as port, httpx.Client() as client:
        url, headers = f"http://127.0.0.1:{port}/v1/traces", {"Content-Type": PROTOBUF}

        def chunks() -> Iterator[bytes]:
            for _ in range(40):
                yield bytes(1 << 20)

        assert client.post(url, content=bytes(40 << 20), headers=headers).status_code == 413
        assert client.post(url, content=chunks(), headers=headers).status_code == 413
        assert client.post(url, content=TRACES, headers=headers).status_code == 200


def test_a_client_that_asks_before_sending_is_told_before_sending(sink: Sink) -> None:
    with (
        served(create_app(sink, limits=Limits(body_bytes=1 << 20))) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        connection.sendall(head("Content-Length: 5000000", "Expect: 100-continue"))
        assert answer(connection).startswith(b"HTTP/1.1 413 ")


def test_an_offer_of_http2_does_not_lose_the_body(sink: Sink, port: int) -> None:
    # Java's own HTTP client offers it on every first request.
    offer = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
    )
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head(*offer, f"Content-Length: {len(TRACES)}") + TRACES)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
    assert [kept["body"] for kept in sink.accepted] == [TRACES]


def test_the_real_exporter_sends_and_is_content(sink: Sink, port: int) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    for compression in Compression:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces", compression=compression)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.get_tracer("test").start_span(compression.name).end()
        provider.shutdown()
    codings = [kept["content_encoding"] for kept in sink.accepted]
    assert codings == [compression.value for compression in Compression]


def test_a_server_that_stops_answers_503_to_what_it_cannot_finish(sink: Sink) -> None:
    sink.wait = asyncio.Event()
    statuses: list[bytes] = []
    with served(create_app(sink)) as port:
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(head(f"Content-Length: {len(TRACES)}") + TRACES)
        reader = threading.Thread(target=lambda: statuses.append(answer(connection)))
        reader.start()
        time.sleep(0.1)
    reader.join()
    connection.close()
    assert statuses[0].startswith(b"HTTP/1.1 503 ")


def test_a_json_error_over_a_socket_is_json(port: int) -> None:
    response = httpx.post(f"http://127.0.0.1:{port}/v1/logs", content=b"{", headers={"Content-Type": JSON})
    assert (response.status_code, response.headers["content-type"]) == (400, JSON)
    assert json.loads(response.content)["code"] == 3
