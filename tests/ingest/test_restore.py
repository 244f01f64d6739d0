"""OTLP to records to OTLP loses nothing: property tests over arbitrary messages, and the cases that hypothesis would take long to find."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, EntityRef, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ingest import vocabularies
from ingest.batch import Batch, Origin
from ingest.normalise import Normaliser
from ingest.restore import ContentNotThere, restore
from ingest.wrap import wrap
from ledger.contents import ContentRow
from ledger.errors import MalformedError, RecordAltered
from ledger.record import MAX_RECORD_BYTES, OwnRecord, canonical, commitment, content_marks, parse_record

SECRET = bytes(range(32))
ORIGIN = Origin(1_780_000_000_000_000_000, "loopback", None)
VOCABULARY = vocabularies.load()
ACCEPTED_KEYS = sorted(VOCABULARY.rules)

# Field 1000 in each of the wire types: varint, fixed64, length-delimited, group, fixed32; and two of them at once.
UNKNOWN = [
    b"\xc0\x3e\x05",
    b"\xc1\x3e" + bytes(range(8)),
    b"\xc2\x3e\x03abc",
    b"\xc3\x3e\x08\x01\xc4\x3e",
    b"\xc5\x3e\x01\x02\x03\x04",
    b"\xc0\x3e\x05\xc2\x3e\x00",
]


class Counting:
    """Bytes for salts and nonces that repeat from run to run and never within one."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, count: int) -> bytes:
        blocks = range(self._next, self._next + -(-count // 16))
        self._next = blocks.stop
        return b"".join(block.to_bytes(16, "big") for block in blocks)[:count]


def normalise(request: Any, *, exact: bool = True) -> Batch:
    normaliser = Normaliser(VOCABULARY, secret=SECRET, random=Counting())
    walk = normaliser.spans if isinstance(request, ExportTraceServiceRequest) else normaliser.logs
    return walk(request, ORIGIN, exact=exact)


def rows_of(batch: Batch, index: int) -> list[ContentRow | None]:
    rows, found = batch.rows, []
    for at, record in enumerate(rows.index):
        if record == index:
            assert rows.ordinal[at] == len(found), "ordinals count from 0 without a gap"
            found.append((rows.field[at], rows.type[at], rows.salt[at], rows.value[at], rows.name[at], rows.keyed[at]))
    return [*found]


def alone(request: Any) -> Iterator[Any]:
    """The request cut into requests of one item each, with everything that stood around it."""
    groups, items, kinds = ("resource_spans", "spans", "scope_spans")
    if isinstance(request, ExportLogsServiceRequest):
        groups, items, kinds = ("resource_logs", "log_records", "scope_logs")
    for group in getattr(request, groups):
        for scope in getattr(group, kinds):
            for item in getattr(scope, items):
                one = type(request)()
                one.CopyFrom(request)
                one.ClearField(groups)
                new_group = getattr(one, groups).add()
                new_group.CopyFrom(group)
                new_group.ClearField(kinds)
                new_scope = getattr(new_group, kinds).add()
                new_scope.CopyFrom(scope)
                new_scope.ClearField(items)
                getattr(new_scope, items).add().CopyFrom(item)
                yield one


def assert_lossless(request: Any, *, exact: bool = True) -> Batch:
    batch = normalise(request, exact=exact)
    expected = list(alone(request))
    assert len(batch.records) == len(expected)
    for index, (record, one) in enumerate(zip(batch.records, expected, strict=True)):
        assert len(record) <= MAX_RECORD_BYTES
        members = parse_record(record)
        assert canonical(members) == record, "canonical bytes encode to themselves"
        rows = rows_of(batch, index)
        assert_rows_follow_marks(record, rows)
        # Bytes, because messages with a NaN in them are never equal.
        assert restore(record, rows).SerializeToString(deterministic=True) == one.SerializeToString(deterministic=True)
    batch.project().validate(full=True)
    return batch


def assert_rows_follow_marks(record: bytes, rows: list[ContentRow | None]) -> None:
    """The n-th mark of the record is row n; the rows behind those belong to marks inside moved subtrees, in the same order."""
    marks = content_marks(record)
    subtrees = [row[3] for row in rows if row is not None and row[1] == "t"]
    for subtree in subtrees:
        marks += content_marks(subtree or b"")
    assert len(marks) == len(rows)
    for mark, row in zip(marks, rows, strict=True):
        assert row is not None
        value = row[4].encode() if row[4] is not None else row[3]
        assert value is not None
        assert (mark.commitment, mark.size_bytes, mark.type) == (commitment(row[2], value).hex(), len(value), row[1])


# ---- arbitrary messages

texts = st.one_of(st.text(max_size=20), st.sampled_from(["", "$content", '{"$content":{"bytes":1}}', "\0", "x" * 1_100, "ok", "deny"]))
keys = st.one_of(st.text(max_size=8), st.sampled_from(["$content", "$unknown", "subtree:x", *ACCEPTED_KEYS]))
nan_payloads = st.integers(1, 2**52 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", 0x7FF0 << 48 | bits))[0])
doubles = st.one_of(st.floats(), nan_payloads, st.sampled_from([-0.0, 0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308]))
unsigned = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**32 - 1]))
times = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63 - 2, 2**63 - 1, 2**63, 16_725_225_600_000_000_000, 2**64 - 1]))
ids = st.one_of(st.binary(max_size=20), st.sampled_from([b"", bytes(8), bytes(16), bytes(range(8)), bytes(range(16))]))
unknown = st.one_of(st.just(b""), st.just(b""), st.sampled_from(UNKNOWN))


@st.composite
def with_unknown(draw: st.DrawFn, messages: st.SearchStrategy[Any]) -> Any:
    message = draw(messages)
    message.MergeFromString(draw(unknown))
    return message


def any_values() -> st.SearchStrategy[AnyValue]:
    scalars = st.one_of(
        st.builds(AnyValue),
        st.builds(AnyValue, string_value=texts),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1]))),
        st.builds(AnyValue, double_value=doubles),
        st.builds(AnyValue, bytes_value=st.binary(max_size=20)),
        st.builds(AnyValue, string_value_strindex=st.integers(-(2**31), 2**31 - 1)),
    )
    return st.recursive(with_unknown(scalars), lambda inner: with_unknown(st.one_of(arrays(inner), kvlists(inner))), max_leaves=5)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[AnyValue]) -> AnyValue:
    value = AnyValue()
    value.array_value.SetInParent()
    value.array_value.values.extend(draw(st.lists(inner, max_size=3)))
    value.array_value.MergeFromString(draw(unknown))
    return value


@st.composite
def kvlists(draw: st.DrawFn, inner: st.SearchStrategy[AnyValue]) -> AnyValue:
    value = AnyValue()
    value.kvlist_value.SetInParent()
    value.kvlist_value.values.extend(draw(st.lists(pairs_of(inner), max_size=3)))
    value.kvlist_value.MergeFromString(draw(unknown))
    return value


@st.composite
def pairs_of(draw: st.DrawFn, inner: st.SearchStrategy[AnyValue]) -> KeyValue:
    pair = KeyValue(key=draw(keys), key_strindex=draw(st.sampled_from([0, 0, 0, 1, -1, 2**31 - 1])))
    if draw(st.integers(0, 9)):
        pair.value.CopyFrom(draw(inner))
    pair.MergeFromString(draw(unknown))
    return pair


attributes = st.lists(pairs_of(any_values()), max_size=4)
statuses = with_unknown(st.builds(Status, code=st.integers(-1, 5), message=texts))
scopes = with_unknown(st.builds(InstrumentationScope, name=texts, version=texts, attributes=attributes, dropped_attributes_count=unsigned))
entity_refs = with_unknown(st.builds(EntityRef, schema_url=texts, type=texts, id_keys=st.lists(texts, max_size=2)))
resources = with_unknown(
    st.builds(Resource, attributes=attributes, dropped_attributes_count=unsigned, entity_refs=st.lists(entity_refs, max_size=2))
)
events = with_unknown(st.builds(Span.Event, time_unix_nano=times, name=texts, attributes=attributes, dropped_attributes_count=unsigned))
links = with_unknown(
    st.builds(
        Span.Link, trace_id=ids, span_id=ids, trace_state=texts, attributes=attributes, dropped_attributes_count=unsigned, flags=unsigned
    )
)
spans = with_unknown(
    st.builds(
        Span,
        trace_id=ids,
        span_id=ids,
        trace_state=texts,
        parent_span_id=ids,
        flags=unsigned,
        name=texts,
        kind=st.integers(-1, 6),
        start_time_unix_nano=times,
        end_time_unix_nano=times,
        attributes=attributes,
        dropped_attributes_count=unsigned,
        events=st.lists(events, max_size=2),
        dropped_events_count=unsigned,
        links=st.lists(links, max_size=2),
        dropped_links_count=unsigned,
        status=st.one_of(st.none(), statuses),
    )
)
logs = with_unknown(
    st.builds(
        LogRecord,
        time_unix_nano=times,
        observed_time_unix_nano=times,
        severity_number=st.integers(-1, 25),
        severity_text=texts,
        body=st.one_of(st.none(), any_values()),
        attributes=attributes,
        dropped_attributes_count=unsigned,
        flags=unsigned,
        trace_id=ids,
        span_id=ids,
        event_name=texts,
    )
)


@st.composite
def trace_requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(1, 2))):
        group = request.resource_spans.add(resource=draw(st.one_of(st.none(), resources)), schema_url=draw(texts))
        for _ in range(draw(st.integers(1, 2))):
            scope = group.scope_spans.add(scope=draw(st.one_of(st.none(), scopes)), schema_url=draw(texts))
            scope.spans.extend(draw(st.lists(spans, min_size=1, max_size=2)))
            scope.MergeFromString(draw(unknown))
        group.MergeFromString(draw(unknown))
    request.MergeFromString(draw(unknown))
    return request


@st.composite
def logs_requests(draw: st.DrawFn) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for _ in range(draw(st.integers(1, 2))):
        group = request.resource_logs.add(resource=draw(st.one_of(st.none(), resources)), schema_url=draw(texts))
        for _ in range(draw(st.integers(1, 2))):
            scope = group.scope_logs.add(scope=draw(st.one_of(st.none(), scopes)), schema_url=draw(texts))
            scope.log_records.extend(draw(st.lists(logs, min_size=1, max_size=2)))
            scope.MergeFromString(draw(unknown))
        group.MergeFromString(draw(unknown))
    request.MergeFromString(draw(unknown))
    return request


arbitrary = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@arbitrary
@given(trace_requests())
def test_any_traces_come_back_as_they_were_sent(request: ExportTraceServiceRequest) -> None:
    assert_lossless(request)


@arbitrary
@given(logs_requests())
def test_any_logs_come_back_as_they_were_sent(request: ExportLogsServiceRequest) -> None:
    assert_lossless(request)


@arbitrary
@given(st.one_of(trace_requests(), logs_requests()))
def test_the_fast_path_loses_nothing_of_a_request_without_unknown_fields(request: Any) -> None:
    request.DiscardUnknownFields()
    assert_lossless(request, exact=False)


@arbitrary
@given(st.one_of(trace_requests(), logs_requests()))
def test_the_fast_and_the_exact_path_make_the_same_records(request: Any) -> None:
    request.DiscardUnknownFields()
    fast, exact = normalise(request, exact=False), normalise(request, exact=True)
    assert fast.records == exact.records
    assert fast.facts == exact.facts
    assert fast.rows == exact.rows


# ---- the cases named one by one


def one_span(**fields: Any) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(**fields)
    return request


def one_log(**fields: Any) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(**fields)
    return request


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def double_of(bits: int) -> float:
    number: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return number


VALUES = {
    "no value": None,
    "empty value": AnyValue(),
    "empty text": AnyValue(string_value=""),
    "false": AnyValue(bool_value=False),
    "zero": AnyValue(int_value=0),
    "least int64": AnyValue(int_value=-(2**63)),
    "greatest int64": AnyValue(int_value=2**63 - 1),
    "0.0": AnyValue(double_value=0.0),
    "-0.0": AnyValue(double_value=-0.0),
    "infinity": AnyValue(double_value=math.inf),
    "-infinity": AnyValue(double_value=-math.inf),
    "NaN": AnyValue(double_value=math.nan),
    "negative NaN": AnyValue(double_value=double_of(0xFFF8000000000000)),
    "NaN with a payload": AnyValue(double_value=double_of(0x7FF8000000000ABC)),
    "signalling NaN": AnyValue(double_value=double_of(0x7FF0000000000001)),
    "subnormal": AnyValue(double_value=5e-324),
    "integral double": AnyValue(double_value=5.0),
    "no bytes": AnyValue(bytes_value=b""),
    "bytes": AnyValue(bytes_value=bytes(range(256))),
    "many bytes": AnyValue(bytes_value=bytes(5_000)),
    "string table index 0": AnyValue(string_value_strindex=0),
    "text of one mark": AnyValue(string_value='"$content":{"bytes":1,"commitment":"' + "0" * 64 + '","type":"s"}'),
    "long text": AnyValue(string_value="é" * 2_000),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("key", ["plain", "gen_ai.input.messages", "user.email", "trail.policy.decision", "$content"])
@pytest.mark.parametrize("extra", [b"", UNKNOWN[2]], ids=["known", "unknown"])
def test_a_value_of_each_type_under_a_key_of_each_rule(key: str, name: str, extra: bytes) -> None:
    pair = KeyValue(key=key)
    if (value := VALUES[name]) is not None:
        pair.value.CopyFrom(value)
        pair.value.MergeFromString(extra)
    assert_lossless(one_span(attributes=[pair, pair]))
    assert_lossless(one_log(attributes=[pair], body=value))
    if value is not None:
        array, kvlist = AnyValue(), AnyValue()
        array.array_value.values.extend([pair.value, AnyValue()])
        kvlist.kvlist_value.values.extend([pair, pair])
        assert_lossless(one_log(attributes=[KeyValue(key=key, value=array), KeyValue(key=key, value=kvlist)], body=kvlist))
        assert_lossless(one_log(body=pair.value))
    if not extra:
        request = one_span(attributes=[pair])
        fast, exact = assert_lossless(request, exact=False), normalise(request)
        assert (fast.records, fast.facts, fast.rows) == (exact.records, exact.facts, exact.rows)


@pytest.mark.parametrize("extra", UNKNOWN)
def test_unknown_fields_of_every_message(extra: bytes) -> None:
    request = one_span(
        attributes=[text("a", "b"), text("gen_ai.completion", "secret"), text("user.id", "ann")],
        events=[Span.Event(name="e", attributes=[text("exception.message", "boom")])],
        links=[Span.Link(attributes=[text("k", "v")])],
        status=Status(message="m" * 2_000),
    )
    group = request.resource_spans[0]
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    group.resource.entity_refs.add(type="service")
    scope = group.scope_spans[0]
    scope.scope.attributes.add(key="k")
    span = scope.spans[0]
    holders = [request, group, group.resource, group.resource.attributes[0], group.resource.attributes[0].value]
    holders += [group.resource.entity_refs[0], scope, scope.scope, scope.scope.attributes[0], span, span.status]
    holders += [*span.attributes, *(pair.value for pair in span.attributes), *span.events, *span.links]
    holders += [span.events[0].attributes[0], span.events[0].attributes[0].value, span.links[0].attributes[0].value]
    for holder in holders:
        holder.MergeFromString(extra)
    assert_lossless(request)


def test_messages_that_are_empty_or_not_there() -> None:
    for resource, scope, status in [(None, None, None), (Resource(), InstrumentationScope(), Status())]:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add(resource=resource)
        group.scope_spans.add(scope=scope).spans.add(status=status)
        assert_lossless(request)
        assert_lossless(request, exact=False)
    assert_lossless(one_log())
    assert normalise(ExportTraceServiceRequest()).records == []


@pytest.mark.parametrize("depth", [1, 10, 30])
def test_values_nested_as_deep_as_protobuf_reads_them(depth: int) -> None:
    value = AnyValue(string_value="x")
    for _ in range(depth):
        outer = AnyValue()
        outer.kvlist_value.values.add(key="$content").value.CopyFrom(value)
        value = outer
    assert_lossless(one_span(attributes=[KeyValue(key="k", value=value)]))


def test_ten_thousand_attributes() -> None:
    batch = assert_lossless(one_span(attributes=[text(f"key {i}", f"value {i}") for i in range(10_000)]), exact=False)
    assert [mark.type for mark in content_marks(batch.records[0])] == ["t"]


def test_an_oversized_record_moves_its_largest_subtrees_and_keeps_the_order_of_its_contents() -> None:
    large = [text(f"key {i}", "v" * 900) for i in range(80)]
    contents = [text("gen_ai.completion", "secret"), text("user.email", "ann@example.com")]
    request = one_span(
        name="n",
        attributes=[*contents, *large],
        events=[Span.Event(attributes=[*large, *contents])],
        status=Status(message="s" * 2_000),
    )
    group = request.resource_spans[0]
    group.resource.attributes.extend([*contents, *large])
    group.scope_spans[0].scope.attributes.extend([*large, *contents])
    batch = assert_lossless(request, exact=False)
    fields = [row[0] for row in rows_of(batch, 0) if row is not None]
    moved = ["subtree:resource", "subtree:scope", "subtree:attributes", "subtree:events"]
    assert sorted(fields[:5]) == sorted([*moved, "status.message"])
    assert fields[5:7] == ["resource:gen_ai.completion", "resource:user.email"]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(one_span(name="n" * 70_000), id="name"),
        pytest.param(one_span(trace_id=b"\x01" * 70_000), id="trace id"),
        pytest.param(one_span(trace_state="t" * 70_000), id="trace state"),
        pytest.param(one_span(links=[Span.Link(trace_state="t" * 70_000)]), id="link"),
        pytest.param(one_log(event_name="\x01" * 70_000), id="event name"),
        pytest.param(one_log(severity_text="s" * 70_000, body=AnyValue(string_value="b" * 70_000)), id="severity and body"),
        pytest.param(one_span(attributes=[text("k" * 70_000, "v")]), id="key"),
        pytest.param(one_span(attributes=[text(key, "\x01" * 1_024) for key in ACCEPTED_KEYS]), id="all facts at their limit"),
        pytest.param(
            one_span(attributes=[text("trail.context.ids", "[" + ",".join(f'"{i:0300}"' for i in range(256)) + "]")]), id="context ids"
        ),
        pytest.param(
            one_span(attributes=[text("gen_ai.retrieval.documents", '[{"id":"1","source":"' + "s" * 70_000 + '"}]')]), id="a source"
        ),
    ],
)
def test_no_record_is_larger_than_an_entry_may_be(request_: Any) -> None:
    assert_lossless(request_, exact=False)
    assert_lossless(request_)


def test_schema_urls_that_do_not_fit() -> None:
    request = one_span(name="x")
    request.resource_spans[0].schema_url = "https://example.com/" + "a" * 70_000
    request.resource_spans[0].scope_spans[0].schema_url = "https://example.com/b"
    assert_lossless(request, exact=False)


# ---- what is refused


def test_a_content_that_is_not_at_hand_is_named() -> None:
    batch = normalise(one_span(attributes=[text("gen_ai.completion", "secret")]))
    with pytest.raises(ContentNotThere) as caught:
        restore(batch.records[0], [])
    assert caught.value.expected == content_marks(batch.records[0])[0].commitment
    field, kind, salt, _value, name, keyed = rows_of(batch, 0)[0] or ("", "", b"", None, None, None)
    with pytest.raises(ContentNotThere):
        restore(batch.records[0], [(field, kind, salt, None, name, keyed)])


def test_a_content_that_was_changed_is_refused() -> None:
    batch = normalise(one_span(attributes=[text("gen_ai.completion", "secret")]))
    field, kind, salt, _value, name, keyed = rows_of(batch, 0)[0] or ("", "", b"", None, None, None)
    for value in (b"Secret", b"secrets"):
        with pytest.raises(RecordAltered):
            restore(batch.records[0], [(field, kind, salt, value, name, keyed)])


def test_a_record_of_another_kind_is_refused() -> None:
    own = OwnRecord(kind="heartbeat", received=1, sender="trail", role=None, body={}, facts={}, nonce=bytes(16))
    with pytest.raises(MalformedError):
        restore(own.encode(), [])
    with pytest.raises(MalformedError):
        restore(canonical({"v": 1, "kind": "span", "facts": {}}), [])
    with pytest.raises(MalformedError):
        restore(canonical({"v": 1, "kind": "span", "facts": {}, "span": {"attributes": [["k", {"q": 1}]]}}), [])


def test_wrapping_is_the_inverse_of_unwrapping_for_what_hypothesis_finds() -> None:
    assert wrap(AnyValue(double_value=math.nan), exact=False) == {"d": "NaN"}
    assert wrap(AnyValue(double_value=double_of(0x7FF8000000000ABC)), exact=False) == {"d": "NaN:7ff8000000000abc"}
    assert wrap(AnyValue(int_value=-5), exact=False) == {"i": "-5"}
