"""OTLP/HTTP against a recording sink: statuses, bodies, receipts and limits."""

from __future__ import annotations

import asyncio
import gzip
import logging
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fastapi import APIRouter, HTTPException
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_sink import JSON, NOW, PAYLOADS, PROTOBUF, TRACES, Send, Sink, failure, sender_to

from ingest.auth import LOOPBACK, Forbidden, LiveTokens, Role, Sender, TokenFile
from ingest.bodies import Overloaded
from ingest.http import Limits, create_app
from ingest.otlp import Encoding, Signal
from ledger.errors import DiskFull, StorageError


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def send(sink: Sink) -> Send:
    return sender_to(create_app(sink, clock=lambda: NOW))


# -------------------------------------------------------------------------------------------------- success


def test_a_real_body_is_handed_over_whole_and_acknowledged_with_a_receipt(sink: Sink, send: Send) -> None:
    response = send()
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == PROTOBUF
    assert (response.headers["trail-receipt"], response.headers["trail-batch"]) == ("10-28", "10")
    assert "trail-duplicate" not in response.headers
    assert sink.accepted == [
        {
            "signal": Signal.TRACES,
            "body": TRACES,
            "encoding": Encoding.PROTOBUF,
            "sender": LOOPBACK,
            "received": NOW,
            "content_type": PROTOBUF,
            "content_encoding": "none",
        }
    ]
    assert sink.refused == []
    assert send().headers["trail-duplicate"] == "1"


@pytest.mark.parametrize("kind", [JSON, "Application/JSON; charset=utf-8", " application/json ;x=1"])
def test_json_is_chosen_by_content_type_whatever_its_parameters(sink: Sink, send: Send, kind: str) -> None:
    response = send("/v1/logs", (PAYLOADS / "claude_code_logs.json").read_bytes(), kind=kind)
    assert (response.status_code, response.content) == (200, b"{}")
    assert response.headers["content-type"] == JSON
    assert sink.accepted[0]["signal"] is Signal.LOGS


@pytest.mark.parametrize(("kind", "body"), [(PROTOBUF, b""), (JSON, b"{}")])
@pytest.mark.parametrize("signal", Signal)
def test_an_empty_request_is_a_success(send: Send, signal: Signal, kind: str, body: bytes) -> None:
    response = send(f"/v1/{signal}", body, kind=kind)
    assert (response.status_code, response.content) == (200, body)


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress), ("none", bytes)],
)
def test_every_coding_ends_as_the_same_body(sink: Sink, send: Send, coding: str, compress: Any) -> None:
    assert send(content=compress(TRACES), Content_Encoding=coding).status_code == 200
    assert (sink.accepted[0]["body"], sink.accepted[0]["content_encoding"]) == (TRACES, coding)


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_metrics_are_accepted_counted_and_said_not_to_be_kept(sink: Sink, send: Send, kind: str) -> None:
    request = ExportMetricsServiceRequest()
    points = request.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens").sum.data_points
    for _ in range(3):
        points.add(as_int=1)
    body = request.SerializeToString() if kind == PROTOBUF else json_format.MessageToJson(request).encode()
    response = send("/v1/metrics", body, kind=kind)
    assert response.status_code == 200
    read = (
        ExportMetricsServiceResponse.FromString(response.content)
        if kind == PROTOBUF
        else json_format.Parse(response.content, ExportMetricsServiceResponse())
    )
    assert read.partial_success.rejected_data_points == 3
    assert "not kept" in read.partial_success.error_message
    assert sink.accepted[0]["signal"] is Signal.METRICS


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("kind", "body", "why", "place"),
    [
        (PROTOBUF, TRACES[:-3], "truncated", ""),
        (PROTOBUF, b'{"resourceSpans":[]}', "like JSON", ""),
        (PROTOBUF, b"\x0a\x09\x12\x07\x12\x05\x2a\x03a\xff\xfe", "not UTF-8", ""),
        (
            JSON,
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"abc"}]}]}]}',
            "spanId must be",
            "spanId",
        ),
        (JSON, b"[" * 10_000, "nested too deeply", ""),
        (JSON, b'{"a":NaN}', "in quotes", ""),
        (JSON, b"", "empty", ""),
    ],
)
def test_undecodable_bodies_are_400_and_quarantined(sink: Sink, send: Send, kind: str, body: bytes, why: str, place: str) -> None:
    response = send(content=body, kind=kind)
    status = failure(response, kind)
    assert response.status_code == 400
    assert why in status.message
    detail = json_format.MessageToDict(status)["details"][0]
    assert detail["@type"].endswith("google.rpc.BadRequest")
    assert detail["fieldViolations"][0].get("field", "").endswith(place)
    assert [quarantined["body"] for quarantined in sink.quarantined] == [body]
    assert (sink.accepted, sink.refused) == ([], [])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_body_that_does_not_decompress_is_400_and_quarantined_as_it_came(sink: Sink, send: Send, coding: str) -> None:
    response = send(content=b"no such thing", Content_Encoding=coding)
    assert response.status_code == 400
    assert coding in failure(response).message
    quarantined = sink.quarantined[0]
    assert quarantined["body"] == b"no such thing"
    assert (quarantined["sender"], quarantined["received"]) == (LOOPBACK, NOW)
    assert sink.refused == []


@pytest.mark.parametrize("kind", ["", "text/plain", "application/protobuf", "multipart/form-data"])
def test_an_unknown_content_type_is_415_in_json(sink: Sink, send: Send, kind: str) -> None:
    response = send(kind=kind)
    assert response.status_code == 415
    assert "application/x-protobuf or application/json" in failure(response, JSON).message
    assert [refusal[0] for refusal in sink.refused] == [415]


def test_an_unknown_coding_is_415_with_those_we_know(sink: Sink, send: Send) -> None:
    response = send(Content_Encoding="br")
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert "gzip" in failure(response).message
    assert sink.refused[0][2] == "loopback"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_405_with_allow(sink: Sink, send: Send, method: str) -> None:
    response = send(content=b"", method=method)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert sink.refused[0][0] == 405


@pytest.mark.parametrize("path", ["/", "/v1/traces/", "/v1/trace", "/v1/profiles", "/docs", "/openapi.json", "/%0d%0a"])
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_unknown_paths_are_404_and_never_a_redirect(sink: Sink, send: Send, path: str, kind: str) -> None:
    response = send(path, kind=kind)
    assert response.status_code == 404
    assert "/v1/traces, /v1/logs, /v1/metrics" in failure(response, kind).message
    assert [refusal[0] for refusal in sink.refused] == [404]
    assert sink.refused[0][1].isprintable()


# --------------------------------------------------------------------------------------------------- limits


def small(sink: Sink, **limits: Any) -> Send:
    return sender_to(create_app(sink, limits=Limits(**limits)))


def test_over_the_limit_as_declared_as_sent_and_decompressed_is_413(sink: Sink) -> None:
    send = small(sink, body_bytes=len(TRACES))
    assert send().status_code == 200

    async def chunks() -> Any:
        yield TRACES
        yield b"x"

    larger = ExportTraceServiceRequest.FromString(TRACES * 2).SerializeToString()
    for content, coding in ((TRACES + b"x", "none"), (chunks(), "none"), (gzip.compress(larger), "gzip")):
        response = send(content=content, Content_Encoding=coding)
        assert response.status_code == 413
        assert str(len(TRACES)) in failure(response).message
    assert [refusal[0] for refusal in sink.refused] == [413] * 3
    assert len(sink.accepted) == 1


def test_a_gzip_bomb_is_413_and_never_unpacked(sink: Sink, send: Send) -> None:
    bomb = zlib.compressobj(1, wbits=31)
    body = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(400)]) + bomb.flush()
    tracemalloc.start()
    try:
        assert send(content=body, Content_Encoding="gzip").status_code == 413
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
    assert sink.quarantined == []


def test_a_100_mb_attribute_is_413_and_a_large_one_within_the_limit_is_kept(sink: Sink, send: Send) -> None:
    for size, status in ((100_000_000, 413), (20_000_000, 200)):
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.attributes.add(key="large").value.string_value = "x" * size
        assert send(content=request.SerializeToString()).status_code == status
    assert len(sink.accepted) == 1


@pytest.mark.parametrize("coding", ["none", "gzip"])
def test_more_in_flight_than_allowed_is_503_and_given_back(sink: Sink, coding: str) -> None:
    send = small(sink, in_flight_bytes=len(TRACES) + len(gzip.compress(TRACES)))
    larger = TRACES + bytes(50_000) if coding == "none" else gzip.compress(TRACES + bytes(50_000))
    response = send(content=larger, Content_Encoding=coding)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "try again" in failure(response).message
    assert sink.refused[0][0] == 503
    assert send().status_code == 200
    assert send(content=gzip.compress(TRACES), Content_Encoding="gzip").status_code == 200


# --------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fault", "retry_after", "noted"),
    [
        (DiskFull("no room in STORE/journal", hint="free some"), "1", False),
        (StorageError("fsync failed"), "1", False),
        (Overloaded("Too much at once.", retry_after=2), "2", True),
        (Overloaded("Too much at once.", retry_after=300), "2", True),
        (RuntimeError("the body said: SECRET"), "1", False),
        (MemoryError(), "1", False),
        (UnicodeEncodeError("utf-8", "SECRET", 0, 1, "no"), "1", False),
        (asyncio.CancelledError(), "2", False),
    ],
)
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_our_own_faults_are_503_so_that_the_sender_tries_again(
    sink: Sink,
    send: Send,
    caplog: pytest.LogCaptureFixture,
    fault: Any,
    retry_after: str,
    noted: bool,
    kind: str,
) -> None:
    sink.fault = fault
    with caplog.at_level(logging.DEBUG):
        response = send(content=TRACES if kind == PROTOBUF else b"{}", kind=kind)
    assert (response.status_code, response.headers["retry-after"]) == (503, retry_after)
    assert "STORE" not in failure(response, kind).message
    assert bool(sink.refused) == noted
    assert "SECRET" not in caplog.text
    sink.fault = None
    assert send(kind=PROTOBUF).status_code == 200


def test_an_unexpected_fault_is_logged_with_its_way_and_without_its_words(sink: Sink, send: Send, caplog: pytest.LogCaptureFixture) -> None:
    sink.fault = KeyError("SECRET")
    send()
    assert "KeyError" in caplog.text
    assert "in accept" in caplog.text
    assert "SECRET" not in caplog.text


def test_a_quarantine_that_cannot_be_written_is_503(sink: Sink, send: Send) -> None:
    sink.fault = DiskFull("full")
    assert send(content=b"no gzip", Content_Encoding="gzip").status_code == 503


# --------------------------------------------------------------------------------------------------- tokens


def test_tokens_decide_who_may_send(sink: Sink, tmp_path: Path) -> None:
    file = TokenFile.load(tmp_path / "tokens.json")
    secrets = {role: file.add(f"the-{role}", role, ["shop"], now=NOW) for role in Role}
    send = sender_to(create_app(sink, tokens=LiveTokens(tmp_path / "tokens.json"), clock=lambda: NOW))
    for authorization in (None, "Bearer trail_wrong", "Basic eDp5"):
        response = send(**({} if authorization is None else {"Authorization": authorization}))
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert failure(response).message
    assert [refusal[::2] for refusal in sink.refused] == [(401, "unauthenticated")] * 3
    for role, secret in secrets.items():
        response = send(Authorization=f"Bearer {secret}")
        if role in (Role.READER, Role.AUDITOR):
            assert response.status_code == 403
            assert role in failure(response).message
            assert sink.refused[-1][::2] == (403, f"the-{role}")
        else:
            assert response.status_code == 200
            assert sink.accepted[-1]["sender"] == Sender(f"the-{role}", role, ("shop",))


def test_a_service_the_token_may_not_speak_for_is_403(sink: Sink, send: Send) -> None:
    sink.fault = Forbidden("This token may not speak for the service billing.")
    assert send().status_code == 403
    assert sink.refused == [(403, "This token may not speak for the service billing.", "loopback")]


def test_a_token_file_that_cannot_be_trusted_is_our_fault(sink: Sink, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    secret = TokenFile.load(path).add("shop", Role.EMITTER, now=NOW)
    send = sender_to(create_app(sink, tokens=LiveTokens(path)))
    path.chmod(0o666)
    response = send(Authorization=f"Bearer {secret}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert sink.accepted == []


# ---------------------------------------------------------------------------------------------- other routes


def test_health_and_readiness(sink: Sink) -> None:
    reasons = [""]
    send = sender_to(create_app(sink, ready=lambda: reasons[0]))
    for path in ("/healthz", "/readyz"):
        response = send(path, b"", method="GET", kind="")
        assert (response.status_code, response.text) == (200, "ok\n")
        assert send(path, b"", method="HEAD", kind="").status_code == 200
    reasons[0] = "the disk is full"
    response = send("/readyz", b"", method="GET", kind="")
    assert (response.status_code, response.text) == (503, "the disk is full\n")
    assert send("/healthz", b"", method="GET", kind="").status_code == 200
    assert send("/healthz", b"", method="POST").status_code == 405


def test_other_routers_keep_their_own_errors(sink: Sink) -> None:
    router = APIRouter(prefix="/api")

    @router.get("/records/{index}")
    async def record(index: int) -> dict[str, int]:
        if index > 5:
            raise HTTPException(404, "no such record")
        return {"index": index}

    send = sender_to(create_app(sink, extra_routers=[router]))
    assert send("/api/records/3", b"", method="GET", kind="").json() == {"index": 3}
    response = send("/api/records/6", b"", method="GET", kind="")
    assert (response.status_code, response.json()) == (404, {"detail": "no such record"})
    assert sink.refused == []
