"""What a request may become: limits, tokens bound to services, and JSON that imitates our own marks."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest import prepare
from ingest.auth import Forbidden
from ingest.bodies import TooLarge
from ingest.otlp import Encoding, Signal
from ingest.prepare import Job, Preparer
from ledger import journal
from ledger.errors import InvariantError
from ledger.journal import Part, encode_frame
from ledger.record import content_marks

PREPARER = Preparer(b"s" * 32)


def job(body: bytes, encoding: Encoding = Encoding.PROTOBUF, services: tuple[str, ...] = ()) -> Job:
    return Job(
        signal=Signal.TRACES,
        body=body,
        encoding=encoding,
        content_type=encoding.media_type,
        content_encoding="none",
        received=1,
        sender="loopback",
        role=None,
        services=services,
    )


def request(spans: int, **resource: str) -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    holder = message.resource_spans.add()
    for key, value in resource.items():
        holder.resource.attributes.add(key=key.replace("_", ".")).value.string_value = value
    scope = holder.scope_spans.add()
    for _ in range(spans):
        scope.spans.add()
    return message


def test_a_request_of_too_many_items_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "MAX_ITEMS", 10)
    assert PREPARER.prepare(job(request(10).SerializeToString())).kept == 10
    with pytest.raises(TooLarge, match="11 items"):
        PREPARER.prepare(job(request(11).SerializeToString()))


def test_a_small_body_that_becomes_very_much_is_refused() -> None:
    body = request(5_000, big="x" * 60_000).SerializeToString()
    assert len(body) < 100_000
    with pytest.raises(TooLarge, match="bytes of records"):
        PREPARER.prepare(job(body))


def test_a_frame_that_no_reader_takes_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_FRAME_BYTES", 100)
    with pytest.raises(InvariantError):
        encode_frame(0, [Part(1, b"x" * 100, b"")])


def test_a_token_speaks_for_its_services_only() -> None:
    mine = request(1, service_name="mine")
    mine.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="service.name").value.string_value = "payments"
    assert PREPARER.prepare(job(mine.SerializeToString(), services=("mine",))).kept == 1
    for message in (request(1, service_name="payments"), request(1)):
        with pytest.raises(Forbidden):
            PREPARER.prepare(job(message.SerializeToString(), services=("mine",)))


def test_unknown_json_cannot_hold_marks_of_ours() -> None:
    mark = {"$content": {"bytes": 5, "commitment": "0" * 64, "type": "s"}}
    prepared = PREPARER.prepare(job(json.dumps({"resourceSpans": [], "x": mark}).encode(), Encoding.JSON))
    assert prepared.contents.type == ["sha256", "s"]  # the second verifier and verify look for marks in type t only
    assert content_marks(json.dumps(prepared.body, separators=(",", ":"), sort_keys=True).encode())[1].type == "s"
