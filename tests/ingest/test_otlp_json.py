"""OTLP/JSON, trap by trap: ids, values, enums, strictness, depth, and what no message has."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from otlp_bodies import attribute, parse_json, traces, value_of

from ingest.otlp import Encoding, Signal, Undecodable, count, parse
from ingest.otlp_json import MESSAGE_DEPTH_MAX

# ------------------------------------------------------------------------------------------ ids in JSON

TRACE_ID = "5b8efff798038103d269b633813fc60c"


@pytest.mark.parametrize("written", [TRACE_ID, TRACE_ID.upper()])
def test_ids_are_hexadecimal_in_either_case(written: str) -> None:
    message = parse_json(traces({"traceId": written, "spanId": "EEE19b7ec3c1b174", "links": [{"traceId": written}]})).message
    span = message.resource_spans[0].scope_spans[0].spans[0]
    assert span.trace_id == span.links[0].trace_id == bytes.fromhex(TRACE_ID)
    assert span.span_id.hex() == "eee19b7ec3c1b174"


def test_an_empty_id_is_none_at_all() -> None:
    span = parse_json(traces({"parentSpanId": "", "spanId": None})).message.resource_spans[0].scope_spans[0].spans[0]
    assert span.parent_span_id == span.span_id == b""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("traceId", TRACE_ID[:-1], id="odd"),
        pytest.param("traceId", TRACE_ID[:-2], id="short"),
        pytest.param("traceId", TRACE_ID + "00", id="long"),
        pytest.param("traceId", "g" * 32, id="not hexadecimal"),
        pytest.param("traceId", "W47/95gDgQPSabYzgT/GDA==", id="base64"),
        pytest.param("traceId", " ".join(["0123456"] * 4) + " ", id="white space"),
        pytest.param("traceId", "\u0661" * 32, id="digits of another script"),
        pytest.param("traceId", 5, id="number"),
        pytest.param("spanId", TRACE_ID, id="a trace id"),
        pytest.param("parent_span_id", "12", id="the other spelling"),
    ],
)
def test_a_wrong_id_names_its_field(key: str, value: Any) -> None:
    with pytest.raises(Undecodable) as refused:
        parse_json(traces({}, {key: value}))
    assert refused.value.field == f"resourceSpans[0].scopeSpans[0].spans[1].{key}"
    assert refused.value.why.startswith(refused.value.field + " must be ")
    assert "hexadecimal" in refused.value.why


def test_ids_of_logs_links_and_exemplars_are_ids_too() -> None:
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": TRACE_ID[:-1]}]}]}]}
    exemplar = {"gauge": {"dataPoints": [{"exemplars": [{"spanId": "xyz"}]}]}}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [exemplar]}]}]}
    for signal, body in ((Signal.LOGS, logs), (Signal.METRICS, metrics)):
        with pytest.raises(Undecodable, match=r"(logRecords|exemplars)\[0\]\.\w+ must be"):
            parse_json(body, signal)


def test_ids_of_any_length_are_decodable_in_protobuf() -> None:
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(trace_id=b"12345", span_id=b"")
    assert parse(Signal.TRACES, message.SerializeToString(), Encoding.PROTOBUF).message == message


# ------------------------------------------------------------------------------------------- values in JSON


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"stringValue": ""}, ("string_value", "")),
        ({"intValue": "-9223372036854775808"}, ("int_value", -(2**63))),
        ({"intValue": 5}, ("int_value", 5)),
        ({"intValue": 5.0}, ("int_value", 5)),
        ({"int_value": "7"}, ("int_value", 7)),
        ({"boolValue": False}, ("bool_value", False)),
        ({"doubleValue": 3}, ("double_value", 3.0)),
        ({"doubleValue": "2.5e3"}, ("double_value", 2500.0)),
        ({"doubleValue": "-Infinity"}, ("double_value", -math.inf)),
        ({"bytesValue": "AP8="}, ("bytes_value", b"\x00\xff")),
        ({"bytesValue": "_-8"}, ("bytes_value", b"\xff\xef")),
        ({"stringValue": "x", "intValue": None}, ("string_value", "x")),
        ({"stringValue": "\U0001f600"}, ("string_value", "\U0001f600")),
    ],
)
def test_a_value_is_read_as_its_type(value: Any, expected: tuple[str, Any]) -> None:
    read = attribute(value_of(value)).value
    assert (read.WhichOneof("value"), getattr(read, expected[0])) == expected


def test_a_quoted_nan_is_a_number_that_is_not_one() -> None:
    assert math.isnan(attribute(value_of({"doubleValue": "NaN"})).value.double_value)


def test_an_empty_value_is_kept_apart_from_none() -> None:
    empty, null = attribute(value_of({})), attribute(value_of(None))
    assert empty.HasField("value")
    assert empty.value.WhichOneof("value") is None
    assert not null.HasField("value")


def test_enums_are_numbers_and_tolerated_as_names() -> None:
    kinds = [3, "3", "SPAN_KIND_CLIENT", 3.0]
    spans = parse_json(traces(*({"kind": kind} for kind in kinds))).message.resource_spans[0].scope_spans[0].spans
    assert [span.kind for span in spans] == [3, 3, 3, 3]
    assert parse_json(traces({"kind": 77})).message.resource_spans[0].scope_spans[0].spans[0].kind == 77


def test_a_dollar_content_attribute_is_an_attribute_like_any_other() -> None:
    forged = {"kvlistValue": {"values": [{"key": "$content", "value": {"stringValue": "00"}}]}}
    assert attribute(value_of(forged)).value.kvlist_value.values[0].key == "$content"


@pytest.mark.parametrize("time", ["0", "16725225600000000000", "18446744073709551615"])
def test_times_of_0_and_of_the_year_2500_are_decodable(time: str) -> None:
    span = parse_json(traces({"startTimeUnixNano": time})).message.resource_spans[0].scope_spans[0].spans[0]
    assert str(span.start_time_unix_nano) == time


ATTRIBUTE = "resourceSpans[0].scopeSpans[0].spans[0].attributes[0].value."


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"stringValue": 5}, "stringValue"),
        ({"stringValue": "\ud800"}, "stringValue"),
        ({"boolValue": "true"}, "boolValue"),
        ({"boolValue": 1}, "boolValue"),
        ({"intValue": 2**63}, "intValue"),
        ({"intValue": "1_0"}, "intValue"),
        ({"intValue": "+1"}, "intValue"),
        ({"intValue": " 1"}, "intValue"),
        ({"intValue": "\u0661"}, "intValue"),
        ({"intValue": "1" * 40}, "intValue"),
        ({"intValue": 1.5}, "intValue"),
        ({"intValue": 1e18}, "intValue"),
        ({"intValue": True}, "intValue"),
        ({"doubleValue": "nan"}, "doubleValue"),
        ({"doubleValue": "1e999"}, "doubleValue"),
        ({"doubleValue": 10**400}, "doubleValue"),
        ({"doubleValue": True}, "doubleValue"),
        ({"bytesValue": "A"}, "bytesValue"),
        ({"bytesValue": "AP8 "}, "bytesValue"),
        ({"bytesValue": "\u00e4"}, "bytesValue"),
        ({"bytesValue": [0, 255]}, "bytesValue"),
        ({"stringValue": "a", "intValue": 1}, "intValue"),
        ({"stringValue": "a", "string_value": "a"}, "string_value"),
        ({"arrayValue": []}, "arrayValue"),
        ({"arrayValue": {"values": {}}}, "arrayValue.values"),
        ({"arrayValue": {"values": [{}, None]}}, "arrayValue.values[1]"),
    ],
)
def test_a_value_its_field_cannot_hold_is_refused_by_its_path_and_never_quoted(value: Any, field: str) -> None:
    with pytest.raises(Undecodable) as refused:
        parse_json(value_of(value))
    assert refused.value.field == ATTRIBUTE + field
    assert refused.value.why.startswith(ATTRIBUTE + field + " ")


def test_no_complaint_repeats_what_it_complains_about() -> None:
    secret = "sk-live-0123456789"
    for body in (
        traces({"traceId": secret}),
        value_of({"intValue": secret}),
        traces({"name": [secret]}),
        value_of({"bytesValue": secret + "!"}),
        traces({"status": secret}),
        {"resourceSpans": secret},
        f'{{"{secret}": 1, "{secret}": 2}}'.encode(),
        f'{{"{secret}": {secret}}}'.encode(),
    ):
        with pytest.raises(Undecodable) as refused:
            parse_json(body)
        assert secret not in str(refused.value)


# -------------------------------------------------------------------------------------------- JSON itself


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"[]", "must be an object"),
        (b"null", "must be an object, not null"),
        (b'{"resourceSpans":[]', "line 1, column"),
        (b'{"resourceSpans":[]}{}', "extra data"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a":"b"}'.encode("utf-16"), "not UTF-8"),
        (b'{"resourceSpans":"\xff"}', "not UTF-8"),
        (b'{"resourceSpans":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"resourceSpans":[],"resourceSpans":[]}', "twice"),
        (b'{"newer":{"a":1,"a":2}}', "twice"),
        (b'{"newer":"a\nb"}', "control character"),
        (b'{"newer":1' + b"0" * 5000 + b"}", "thousand digits"),
        (b'{"newer":1e999}', "beyond a double"),
        (b'{"newer":"\\ud800"}', "surrogate"),
        (b'{"newer":NaN}', '"NaN"'),
        (json.dumps(value_of({"doubleValue": math.nan})).encode(), '"NaN"'),
        (json.dumps(value_of({"doubleValue": -math.inf})).encode(), '"-Infinity"'),
    ],
)
def test_what_is_not_strict_json_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(Undecodable, match=why):
        parse(Signal.TRACES, body, Encoding.JSON)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'{"resourceSpans":[', b"]}")])
@pytest.mark.parametrize("levels", [10_000, 200_000])
def test_deep_nesting_is_refused_and_no_crash(opening: bytes, closing: bytes, levels: int) -> None:
    for body in (opening * levels, opening * levels + b"1" + closing * levels):
        with pytest.raises(Undecodable):
            parse(Signal.TRACES, body, Encoding.JSON)
        with pytest.raises(Undecodable):
            parse(Signal.TRACES, b'{"newer":' + body + b"}", Encoding.JSON)


def test_both_encodings_nest_equally_deep() -> None:
    # request, resource spans, scope spans, span, attribute, value: five below the request; an array adds two.
    fits = (MESSAGE_DEPTH_MAX - 5) // 2
    for arrays in (fits, fits + 1):
        value: Any = {"stringValue": "inside"}
        message = ExportTraceServiceRequest()
        inner = message.resource_spans.add().scope_spans.add().spans.add().attributes.add(key="a").value
        for _ in range(arrays):
            value = {"arrayValue": {"values": [value]}}
            inner = inner.array_value.values.add()
        inner.string_value = "inside"
        if arrays == fits:
            assert parse_json(value_of(value)).message == message
            assert parse(Signal.TRACES, message.SerializeToString(), Encoding.PROTOBUF).message == message
        else:
            with pytest.raises(Undecodable, match="more than 100"):
                parse_json(value_of(value))
            with pytest.raises(Undecodable, match="more than 100"):
                parse(Signal.TRACES, message.SerializeToString(), Encoding.PROTOBUF)


# ----------------------------------------------------------------------------------------------- unknown


def test_unknown_json_members_come_back_by_their_path() -> None:
    body = traces(
        {"name": "a", "a/b~c": [1, {"x": None}], "kind": "SPAN_KIND_NEWER"},
        {"spanTier": 18446744073709551616},
    )
    body["newer"] = "\u00e4"
    parsed = parse_json(body)
    assert parsed.unknown_json is not None
    assert json.loads(parsed.unknown_json) == {
        "/resourceSpans/0/scopeSpans/0/spans/0/a~1b~0c": [1, {"x": None}],
        "/resourceSpans/0/scopeSpans/0/spans/0/kind": "SPAN_KIND_NEWER",
        "/resourceSpans/0/scopeSpans/0/spans/1/spanTier": 18446744073709551616,
        "/newer": "\u00e4",
    }
    assert b" " not in parsed.unknown_json
    assert parsed.message.resource_spans[0].scope_spans[0].spans[0].name == "a"
    assert count(parsed.message) == 2
