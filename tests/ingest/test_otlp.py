"""OTLP bodies in both encodings: real captures, round trips, damage, counts and responses."""

from __future__ import annotations

import base64
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from otlp_bodies import parse_json, traces

from ingest.json_scalars import ID_BYTES
from ingest.otlp import Encoding, Partial, Signal, Undecodable, count, parse, response

PAYLOADS = Path(__file__).parents[1] / "payloads"
REQUESTS = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
ID_NAMES = {"traceId", "spanId", "parentSpanId", *ID_BYTES}


def recode_ids(value: Any, recode: Any) -> Any:
    """Change every id of a JSON body, by key."""
    if isinstance(value, list):
        return [recode_ids(item, recode) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: recode(member) if key in ID_NAMES and member else recode_ids(member, recode) for key, member in value.items()}


def to_hex(text: str) -> str:
    return base64.b64decode(text).hex()


def to_base64(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


# ------------------------------------------------------------------------------------------------ real ones


@pytest.mark.parametrize("name", ["claude_code_logs", "claude_code_traces"])
def test_a_real_json_body_is_read_as_the_protobuf_runtime_reads_it_once_its_ids_are_base64(name: str) -> None:
    signal = Signal.LOGS if "logs" in name else Signal.TRACES
    body = (PAYLOADS / f"{name}.json").read_bytes()
    parsed = parse(signal, body, Encoding.JSON)
    expected = json_format.ParseDict(recode_ids(json.loads(body), to_base64), REQUESTS[signal]())
    assert parsed.message == expected
    assert parsed.unknown_json is None
    assert count(parsed.message) == (13 if signal is Signal.LOGS else 17)


@pytest.mark.parametrize("name", ["claude_code_logs", "claude_code_traces"])
def test_a_real_protobuf_body_is_read_without_loss(name: str) -> None:
    signal = Signal.LOGS if "logs" in name else Signal.TRACES
    body = (PAYLOADS / f"{name}.pb").read_bytes()
    parsed = parse(signal, body, Encoding.PROTOBUF)
    assert parsed.message.SerializeToString() == body
    assert count(parsed.message) == (13 if signal is Signal.LOGS else 17)


# ----------------------------------------------------------------------------------------------- round trips

INTEGERS = {
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_ENUM: (0, 2**31 - 1),
}


def scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return st.text(max_size=8)
        case FieldDescriptor.TYPE_BYTES:
            size = ID_BYTES.get(field.name)
            return st.binary(max_size=8) if size is None else st.binary(min_size=size, max_size=size)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.TYPE_DOUBLE:
            return st.floats().map(lambda number: math.nan if math.isnan(number) else number)  # JSON has one NaN
        case _:
            return st.integers(*INTEGERS[field.type])


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, depth: int = 8) -> Message:
    """Any message of a type, any of its fields set."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        taken = field.containing_oneof and message.WhichOneof(field.containing_oneof.name)
        if taken or (field.message_type and depth == 0) or not draw(st.booleans()):
            continue
        values = messages(field.message_type, depth - 1) if field.message_type else scalars(field)
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(values, max_size=2)))
        elif field.message_type:
            getattr(message, field.name).CopyFrom(draw(values))
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, draw(values))
    return message


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("snake_case", [False, True])
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_protobuf_to_json_and_back_is_the_same_message(signal: Signal, snake_case: bool, data: st.DataObject) -> None:
    message = data.draw(messages(REQUESTS[signal].DESCRIPTOR))
    written = json_format.MessageToDict(message, preserving_proto_field_name=snake_case)
    read = parse_json(recode_ids(written, to_hex), signal)
    # By their bytes: NaN does not equal itself.
    assert read.message.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    assert read.unknown_json is None
    assert parse(signal, message.SerializeToString(), Encoding.PROTOBUF).message.ByteSize() == message.ByteSize()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(["traceId", "attributes", "kind", "name", "status", "flags", "newer"]))
def test_anything_in_any_place_is_read_or_refused_and_nothing_else(value: Any, key: str) -> None:
    try:
        parse_json(traces({key: value, "attributes" if key != "attributes" else "events": [{"name": value}]}))
    except Undecodable as exc:
        assert exc.why.endswith(".")


@given(st.binary(max_size=64), st.sampled_from(Signal), st.sampled_from(Encoding))
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes, signal: Signal, encoding: Encoding) -> None:
    try:
        parse(signal, body, encoding)
    except Undecodable as exc:
        assert exc.why.endswith((".", "?"))


# ------------------------------------------------------------------------------------------- bad protobuf


def test_unknown_protobuf_fields_stay_in_the_message() -> None:
    body = ExportTraceServiceRequest().SerializeToString() + b"\xfa\x07\x03new"
    parsed = parse(Signal.TRACES, body, Encoding.PROTOBUF)
    assert parsed.message.SerializeToString() == body
    assert parsed.unknown_json is None


def test_a_refusal_crosses_processes_whole() -> None:
    # Bodies are decoded in worker processes; the path has to come back with the sentence.
    with pytest.raises(Undecodable) as refused:
        parse_json(traces({"traceId": "5b8e"}))
    again = pickle.loads(pickle.dumps(refused.value))  # noqa: S301
    assert isinstance(again, Undecodable)
    assert (again.why, again.field) == (refused.value.why, refused.value.field)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x0a\xff", "truncated or not protobuf"),
        (b'{"resourceSpans":[]}', "begins like JSON"),
        (b"\x1f\x8b\x08\x00", "begins like gzip"),
        (b"\x0a\x09\x12\x07\x12\x05\x2a\x03a\xff\xfe", "not UTF-8"),
    ],
)
def test_bad_protobuf_is_refused_with_a_hint(body: bytes, why: str) -> None:
    with pytest.raises(Undecodable, match=why):
        parse(Signal.TRACES, body, Encoding.PROTOBUF)


def test_a_real_body_cut_anywhere_is_refused_or_a_shorter_request() -> None:
    body = (PAYLOADS / "claude_code_traces.pb").read_bytes()
    whole = count(parse(Signal.TRACES, body, Encoding.PROTOBUF).message)
    for end in range(0, len(body), 97):
        try:
            assert count(parse(Signal.TRACES, body[:end], Encoding.PROTOBUF).message) < whole
        except Undecodable as exc:
            assert "truncated" in exc.why


def test_ten_thousand_attributes_and_a_large_one_are_decodable() -> None:
    many = [{"key": f"k{number}", "value": {"intValue": number}} for number in range(10_000)]
    body = traces({"attributes": many}, {"attributes": [{"key": "large", "value": {"stringValue": "x" * 10_000_000}}]})
    spans = parse_json(body).message.resource_spans[0].scope_spans[0].spans
    assert (len(spans[0].attributes), len(spans[1].attributes[0].value.string_value)) == (10_000, 10_000_000)


# -------------------------------------------------------------------------------------- count and response


def test_metrics_are_counted_by_data_point() -> None:
    message = ExportMetricsServiceRequest()
    metrics = message.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="none")
    metrics.add().gauge.data_points.add()
    for kind in ("sum", "histogram", "exponential_histogram", "summary"):
        points = getattr(metrics.add(), kind).data_points
        points.add()
        points.add()
    assert count(message) == 9


def test_full_success_sets_nothing() -> None:
    for signal in Signal:
        assert response(signal, Encoding.PROTOBUF) == b""
        assert response(signal, Encoding.JSON) == b"{}"


def test_partial_success_in_both_encodings() -> None:
    partial = Partial(3, "not kept")
    read = ExportMetricsServiceResponse.FromString(response(Signal.METRICS, Encoding.PROTOBUF, partial))
    assert (read.partial_success.rejected_data_points, read.partial_success.error_message) == (3, "not kept")
    assert json.loads(response(Signal.TRACES, Encoding.JSON, partial)) == {
        "partialSuccess": {"rejectedSpans": "3", "errorMessage": "not kept"}
    }
    for signal, name in ((Signal.LOGS, "rejectedLogRecords"), (Signal.METRICS, "rejectedDataPoints")):
        assert json.loads(response(signal, Encoding.JSON, partial))["partialSuccess"][name] == "3"


def test_a_warning_rejects_nothing_and_is_not_too_long() -> None:
    warning = Partial(0, "w" * 5_000_000)
    for encoding in Encoding:
        assert len(response(Signal.TRACES, encoding, warning)) < 2_000
    assert "rejectedSpans" not in json.loads(response(Signal.TRACES, Encoding.JSON, warning))["partialSuccess"]
    read = ExportTraceServiceResponse.FromString(response(Signal.TRACES, Encoding.PROTOBUF, warning))
    assert read.partial_success.rejected_spans == 0
