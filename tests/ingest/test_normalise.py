"""What the vocabularies make of telemetry: facts, closed sets, ranks, contents, persons; and what a record must never say."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import resources
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ingest import vocabularies
from ingest.batch import Batch, Origin
from ingest.normalise import Normaliser
from ledger.contents import keyed_digest, pseudonym
from ledger.errors import MalformedError
from ledger.fsck_columns import ColumnChecker
from ledger.record import canonical, content_marks, parse_record
from ledger.segment import with_index

SECRET = bytes(32)
VOCABULARY = vocabularies.load()
TRACE, SPAN = bytes(range(1, 17)), bytes(range(1, 9))
Value = str | bool | int | float | bytes | list[Any] | dict[str, Any]


class Counting:
    def __init__(self) -> None:
        self._next = 0

    def __call__(self, count: int) -> bytes:
        blocks = range(self._next, self._next + -(-count // 16))
        self._next = blocks.stop
        return b"".join(block.to_bytes(16, "big") for block in blocks)[:count]


def any_value(value: Value) -> AnyValue:
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case str():
            made.string_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.SetInParent()
            made.array_value.values.extend(any_value(item) for item in value)
        case dict():
            made.kvlist_value.SetInParent()
            made.kvlist_value.values.extend(pairs(value))
    return made


def pairs(attributes: dict[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def normalise(request: Any, *, role: str | None = None) -> Batch:
    normaliser = Normaliser(VOCABULARY, secret=SECRET, random=Counting())
    walk = normaliser.spans if isinstance(request, ExportTraceServiceRequest) else normaliser.logs
    return walk(request, Origin(5, "loopback", role), exact=False)


def span_request(
    attributes: dict[str, Value] | None = None,
    *,
    resource: dict[str, Value] | None = None,
    scope: dict[str, Value] | None = None,
    **fields: Any,
) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(pairs(resource or {}))
    group.scope_spans.add().scope.attributes.extend(pairs(scope or {}))
    fields = {"trace_id": TRACE, "span_id": SPAN, "start_time_unix_nano": 10, "end_time_unix_nano": 20, **fields}
    group.scope_spans[0].spans.add(attributes=pairs(attributes or {}), **fields)
    return request


def log_request(attributes: dict[str, Value] | None = None, **fields: Any) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(attributes=pairs(attributes or {}), **fields)
    return request


def facts_of(request: Any) -> dict[str, Any]:
    """The facts of the one record, which are those in its bytes, and whose columns are their projection."""
    batch = normalise(request)
    members = parse_record(batch.records[0])
    assert members["facts"] == batch.facts[0]
    assert ColumnChecker().differences(pa.Table.from_batches([with_index(batch.project(), 0)])) == []
    facts: dict[str, Any] = members["facts"]
    return facts


def fact(name: str, attributes: dict[str, Value], **fields: Any) -> Any:
    return facts_of(span_request(attributes, **fields)).get(name)


# ---- closed sets, ranks, numbers

CLOSED = {
    "decision": ("trail.policy.decision", ["allow", "deny", "ask", "modify", "log_only"]),
    "approval": ("trail.approval.decision", ["approved", "denied", "modified", "expired", "not_required"]),
    "approval_source": ("trail.approval.source", ["human", "rule", "hook", "classifier", "sandbox", "unknown"]),
    "tier": ("trail.action.tier", ["read", "propose", "write", "execute", "destructive", "privileged"]),
    "change_kind": ("trail.change.kind", ["create", "update", "delete", "config", "deploy", "data"]),
}


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_set_takes_its_members_and_nothing_else(name: str) -> None:
    key, members = CLOSED[name]
    for member in members:
        assert fact(name, {key: member}) == member
        assert fact(name, {key: member.upper()}) == member
    for other in ("approve", f"{members[0]} ", "", True, 1, 1.5, [members[0]]):
        assert fact(name, {key: other}) is None
    record = normalise(span_request({key: "approve"})).records[0]
    assert b'"approve"' in record, "what is no fact stays as it was sent"


def test_the_attribute_that_says_most_exactly_wins_in_any_order() -> None:
    two: dict[str, Value] = {"session.id": "session", "gen_ai.conversation.id": "conversation"}
    assert fact("run_id", two) == fact("run_id", dict(reversed(two.items()))) == "conversation"
    ours: dict[str, Value] = {"audit.target.id": "theirs", "trail.resource": "ours"}
    assert fact("resource", ours) == fact("resource", dict(reversed(ours.items()))) == "ours"


def test_of_one_attribute_given_twice_the_first_counts() -> None:
    request = span_request()
    request.resource_spans[0].scope_spans[0].spans[0].attributes.extend(
        [*pairs({"gen_ai.tool.name": "a"}), *pairs({"gen_ai.tool.name": "b"})]
    )
    assert facts_of(request)["tool"] == "a"


def test_a_value_that_gives_no_fact_leaves_the_place_to_the_next() -> None:
    assert fact("sequence", {"trail.sequence": "many", "event.sequence": 7}) == 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, 7), ("7", 7), (7.0, 7), (-1, -1), (2**53 - 1, 2**53 - 1), (2**53, None), (-(2**63), None), ("x", None), ("", None), (True, None),
     (float("nan"), None), (float("inf"), None), ([7], None)],
)  # fmt: skip
def test_a_count_is_a_number_that_everyone_reads_alike(value: Value, expected: int | None) -> None:
    assert fact("input_tokens", {"gen_ai.usage.input_tokens": value}) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.5, 0.5), ("0.5", 0.5), (1, 1.0), (float("nan"), None), (float("-inf"), None)])
def test_a_score_is_a_finite_double(value: Value, expected: float | None) -> None:
    assert fact("score", {"gen_ai.evaluation.score.value": value}) == expected


@pytest.mark.parametrize("key", ["gen_ai.tool.name", "service.name", "gen_ai.conversation.id"])
def test_a_long_text_is_cut_in_the_fact_and_whole_in_a_content(key: str) -> None:
    text = "é" * 1_500
    batch = normalise(span_request({key: text}))
    (cut,) = batch.facts[0]["cut"]
    assert batch.facts[0][cut] == text[:1_024]
    assert batch.rows.value == [text.encode()]


def test_a_long_name_is_cut_in_the_fact() -> None:
    facts = facts_of(span_request(name="n" * 2_000))
    assert (facts["name"], facts["cut"]) == ("n" * 1_024, ["name"])
    facts = facts_of(log_request(event_name="n" * 2_000))
    assert (facts["event"], facts["cut"]) == ("n" * 1_024, ["event", "name"])


# ---- outcome, action, times, names


@pytest.mark.parametrize(
    ("attributes", "code", "end", "expected"),
    [
        ({}, 0, 20, "ok"), ({}, 1, 20, "ok"), ({}, 2, 20, "error"), ({}, 2, 0, None),
        ({"error.type": "timeout"}, 0, 20, "error"), ({"error.type": "policy_denied"}, 2, 20, "denied"),
        ({"error.type": "expired"}, 2, 20, "expired"), ({"audit.outcome": "SUCCESS"}, 2, 20, "ok"),
        ({"audit.outcome": "failure"}, 1, 20, "error"), ({"audit.outcome": "denied"}, 1, 20, "denied"),
        ({"audit.outcome": "unknown"}, 1, 20, "unknown"), ({"audit.outcome": "maybe"}, 2, 20, "error"),
        ({"error.type": "timeout", "audit.outcome": "success"}, 2, 20, "ok"),
    ],
)  # fmt: skip
def test_outcomes(attributes: dict[str, Value], code: int, end: int, expected: str | None) -> None:
    assert fact("outcome", attributes, status=Status(code=code), end_time_unix_nano=end) == expected  # type: ignore[arg-type]


def test_an_action_is_named_by_its_tool_call_or_by_its_span() -> None:
    assert fact("action_id", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": "call 1"}) == "call 1"
    assert fact("action_id", {"trail.action.id": "a", "gen_ai.tool.call.id": "call 1"}) == "a"
    assert fact("action_id", {"gen_ai.operation.name": "execute_tool"}) == SPAN.hex()
    assert fact("action_id", {"trail.change.kind": "update"}) == SPAN.hex()
    assert fact("action_id", {"gen_ai.operation.name": "chat"}) is None


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(0, None), (1, "1"), (2**63 - 2, str(2**63 - 2)), (2**63 - 1, None), (2**63, None), (16_725_225_600_000_000_000, None)],
)
def test_a_time_is_a_fact_when_a_column_can_hold_it_and_in_the_record_always(sent: int, expected: str | None) -> None:
    request = span_request(start_time_unix_nano=sent)
    assert facts_of(request).get("time") == expected
    assert parse_record(normalise(request).records[0])["span"].get("start_time_unix_nano") == (str(sent) if sent else None)


def test_the_time_of_a_log_is_its_own_or_when_it_was_observed() -> None:
    assert facts_of(log_request(time_unix_nano=1, observed_time_unix_nano=2))["time"] == "1"
    assert facts_of(log_request(observed_time_unix_nano=2))["time"] == "2"


@pytest.mark.parametrize(
    ("attributes", "fields", "expected"),
    [
        ({}, {"event_name": "trail.approval"}, "trail.approval"),
        ({"event.name": "tool_result"}, {}, "tool_result"),
        ({"gen_ai.operation.name": "execute_tool"}, {"event_name": "trail.approval"}, "trail.approval"),
        ({}, {"body": any_value("claude_code.tool_result")}, "claude_code.tool_result"),
        ({"event.name": "tool_result"}, {"body": any_value("claude_code.tool_result")}, "tool_result"),
        ({}, {"body": any_value("please delete the table")}, None),
        ({}, {}, None),
    ],
)
def test_the_event_of_a_log(attributes: dict[str, Value], fields: dict[str, Any], expected: str | None) -> None:
    facts = facts_of(log_request(attributes, **fields))
    assert (facts.get("event"), facts.get("name")) == (expected, expected)


# ---- resources


def test_a_resource_says_who_runs_and_not_what_was_decided() -> None:
    resource: dict[str, Value] = {
        "service.name": "shop", "deployment.environment.name": "prod", "gen_ai.agent.name": "coder", "trail.owner.id": "team",
        "trail.policy.id": "p", "trail.policy.decision": "allow", "trail.approval.approver.id": "ann", "trail.resource": "r",
        "trail.action.id": "a", "trail.change.kind": "delete",
    }  # fmt: skip
    facts = facts_of(span_request(resource=resource))
    assert {name: facts[name] for name in ("service", "environment", "agent", "owner")} == {
        "service": "shop", "environment": "prod", "agent": "coder", "owner": "team",
    }  # fmt: skip
    assert not facts.keys() & {"policy_id", "decision", "approver", "resource", "action_id", "change_kind"}


def test_what_is_nearer_wins() -> None:
    resource: dict[str, Value] = {"trail.workflow": "resource", "service.name": "shop"}
    assert fact("workflow", {"gen_ai.workflow.name": "span"}, resource=resource) == "span"
    assert fact("workflow", {}, resource=resource, scope={"gen_ai.workflow.name": "scope"}) == "scope"
    assert fact("workflow", {}, resource=resource) == "resource"


def test_the_vocabulary_names_the_tables_that_gave_facts() -> None:
    def label(attributes: dict[str, Value]) -> str | None:
        value: str | None = parse_record(normalise(span_request(attributes)).records[0]).get("vocabulary")
        return value

    assert label({}) is None
    assert label({"unknown": "x"}) is None
    assert label({"gen_ai.tool.name": "x"}) == "otel-genai/1"
    assert label({"gen_ai.tool.name": "x", "trail.resource": "r"}) == "trail/1 otel-genai/1"


def test_a_table_cannot_name_a_fact_that_does_not_exist() -> None:
    with pytest.raises(MalformedError):
        vocabularies.compile_tables(['name = "x"\nversion = 1\n[facts]\nbogus = ["a"]\n[keep]\ncontents = []\npersons = []\n'])


def test_the_role_stands_in_the_record_of_whoever_was_authenticated() -> None:
    assert "role" not in parse_record(normalise(span_request()).records[0])
    assert parse_record(normalise(span_request(), role="approver").records[0])["role"] == "approver"


# ---- contexts


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trail.context.ids", "doc 1", [(None, "doc 1")]),
        ("trail.context.ids", '["a","b"]', [(None, "a"), (None, "b")]),
        ("trail.context.ids", ["a", 2, True, ""], [(None, "a"), (None, "2")]),
        ("trail.context.ids", [{"source": "wiki", "id": "7"}], [("wiki", "7")]),
        ("trail.context.ids", "[not json", None),
        ("gen_ai.retrieval.documents", '[{"id":"1","content":"secret"},{"id":2,"source":"wiki"}]', [(None, "1"), ("wiki", "2")]),
        ("gen_ai.retrieval.documents", [{"id": "1", "content": "secret"}], [(None, "1")]),
        ("gen_ai.retrieval.documents", "the secret text of a document", None),
        ("gen_ai.retrieval.documents", ["the secret text", "of documents"], None),
        ("gen_ai.retrieval.documents", '["the secret text"]', None),
    ],
)
def test_contexts(key: str, value: Value, expected: list[tuple[str | None, str]] | None) -> None:
    found = fact("contexts", {key: value})
    assert (found and [(item["source"], item["id"]) for item in found]) == expected


def test_contexts_are_bounded() -> None:
    assert len(fact("contexts", {"trail.context.ids": [str(i) for i in range(1_000)]})) == 256


# ---- persons and contents

KEPT = [tomllib.loads(text)["keep"] for text in VOCABULARY.texts.values()]
PERSONS = sorted(key for kept in KEPT for key in kept["persons"])
CONTENTS = sorted(key for kept in KEPT for key in kept["contents"])


@pytest.mark.parametrize("key", ["user.email", "user.id", "enduser.id", "enduser.pseudo.id"])
@pytest.mark.parametrize("holder", ["attributes", "resource", "scope"])
def test_a_person_is_a_pseudonym_in_facts_and_a_name_beside_the_log(key: str, holder: str) -> None:
    person: dict[str, Value] = {key: "ann@example.com"}
    batch = normalise(span_request(**{holder: person}))
    keyed = keyed_digest(SECRET, "person", b"ann@example.com")
    assert batch.facts[0]["requester"] == pseudonym(keyed)
    assert (batch.rows.name, batch.rows.value, batch.rows.keyed) == (["ann@example.com"], [None], [keyed])


def test_a_person_has_one_pseudonym_whatever_the_attribute_and_its_type() -> None:
    assert fact("requester", {"user.id": "42"}) == fact("requester", {"enduser.id": "42"}) == fact("requester", {"user.id": 42})


def test_an_approver_is_evidence_and_stays() -> None:
    batch = normalise(span_request({"trail.approval.approver.id": "ann@example.com"}))
    assert (batch.facts[0]["approver"], batch.rows.index) == ("ann@example.com", [])


@pytest.mark.parametrize(
    "value",
    [
        "needle",
        918273645546372,
        918273645.546372,
        b"needle",
        ["needle", 918273645546372],
        {"needle": "needle", "id": {"needle": b"needle"}},
    ],
    ids=["text", "int", "double", "bytes", "array", "kvlist"],
)
@pytest.mark.parametrize("key", [*PERSONS, *CONTENTS])
def test_no_record_holds_a_content_or_a_person(key: str, value: Value) -> None:
    event, link = Span.Event(name="e", attributes=pairs({key: value})), Span.Link(attributes=pairs({key: value}))
    requests = [
        span_request({key: value}, resource={key: value}, scope={key: value}, events=[event], links=[link]),
        log_request({key: value}),
    ]
    for request in requests:
        (record,) = normalise(request).records
        for needle in (b"needle", b"918273645", b"bmVlZGxl"):
            assert needle not in record
        assert len(content_marks(record)) == (5 if isinstance(request, ExportTraceServiceRequest) else 1)


@pytest.mark.parametrize("body", ["please delete the table", ["please"], {"a": "please"}, b"please"])
def test_a_body_is_a_content_unless_it_is_the_name_of_an_event(body: Value) -> None:
    batch = normalise(log_request(body=any_value(body)))
    assert b"please" not in batch.records[0]
    assert batch.rows.field == ["body"]
    assert normalise(log_request(body=any_value("app.event"))).rows.field == []


@pytest.mark.parametrize(
    ("value", "kind"), [("v" * 1_025, "s"), (b"v" * 1_025, "j"), (["v" * 600, "v" * 600], "j"), ({"k": "v" * 1_025}, "j")]
)
def test_any_value_over_the_limit_is_a_content(value: Value, kind: str) -> None:
    batch = normalise(span_request({"some.key": value}))
    assert (batch.rows.field, batch.rows.type) == (["some.key"], [kind])
    assert normalise(span_request({"some.key": "v" * 1_024})).rows.field == []


# ---- records

texts = st.text(max_size=12)


@settings(max_examples=100)
@given(
    st.lists(st.dictionaries(st.one_of(texts, st.sampled_from(PERSONS + CONTENTS)), texts, max_size=5), min_size=2, max_size=4), st.data()
)
def test_records_differ_and_their_rows_follow_their_marks(attributes: list[dict[str, str]], data: st.DataObject) -> None:
    request = log_request()
    logs = request.resource_logs[0].scope_logs[0].log_records
    request.resource_logs[0].resource.attributes.extend(pairs(dict(data.draw(st.sampled_from(attributes)))))
    for each in attributes:
        logs.add(attributes=pairs(dict(each)), body=any_value(data.draw(texts)))
        logs.add(attributes=pairs(dict(each)))
        logs.add()
    batch = normalise(request)
    assert len(set(batch.records)) == len(batch.records), "a nonce makes equal records differ"
    for index, record in enumerate(batch.records):
        assert canonical(json.loads(record)) == record
        rows = [at for at, owner in enumerate(batch.rows.index) if owner == index]
        assert [batch.rows.ordinal[at] for at in rows] == list(range(len(content_marks(record))))


def test_every_record_has_a_nonce_of_its_own() -> None:
    request = span_request(trace_id=TRACE, span_id=SPAN)
    scope = request.resource_spans[0].scope_spans[0]
    scope.spans.extend([scope.spans[0]] * 2)
    records = [parse_record(record) for record in normalise(request).records]
    assert len({record["nonce"] for record in records}) == 3
    records += [parse_record(normalise(log_request(trace_id=TRACE, span_id=SPAN)).records[0])]
    assert all(re.fullmatch("[0-9a-f]{32}", record["nonce"]) for record in records)


def test_a_person_under_a_prefix_is_no_fact_and_not_in_the_record() -> None:
    batch = normalise(span_request(attributes={"enduser.name": "Ann Smith"}))
    assert b"Ann" not in batch.records[0]
    assert batch.rows.name == ["Ann Smith"]


def test_a_service_is_what_the_resource_says() -> None:
    batch = normalise(
        span_request(resource={"service.name": "mine"}, attributes={"service.name": "payments"}, scope={"service.name": "payments"})
    )
    assert batch.facts[0]["service"] == "mine"


def test_a_scope_states_no_decision() -> None:
    facts = normalise(span_request(scope={"trail.policy.decision": "allow", "trail.approval.decision": "approved"})).facts[0]
    assert "decision" not in facts
    assert "approval" not in facts


# ---- CONVENTIONS.md


def test_the_conventions_list_what_the_tables_say() -> None:
    text = resources.files("ingest").joinpath("CONVENTIONS.md").read_text("utf-8")
    said = {name: re.findall(r"`([^`]+)`", keys) for name, keys in re.findall(r"^\| `(\w+)` \| (`.*`) \|$", text, re.MULTILINE)}
    tables: dict[str, list[tuple[int, str]]] = {}
    for key, rule in VOCABULARY.rules.items():
        if rule is not None and rule.fact is not None:
            tables.setdefault(rule.fact, []).append((rule.rank, key))
    assert said == {name: [key for _rank, key in sorted(keys)] for name, keys in tables.items()}
    for title, keys in (("Contents", CONTENTS), ("Persons", PERSONS)):
        listed = re.search(rf"^\*\*{title}:\*\* (.*?)\. ?(?:The fact|$)", text, re.MULTILINE)
        assert listed is not None
        assert re.findall(r"`([^`]+)`", listed[1]) == keys
    sets = dict(re.findall(r"^\| `(\w+)` \| ([a-z_ ]+) \|$", text, re.MULTILINE))
    assert {name: sets[name].split() for name in CLOSED} == {name: members for name, (_key, members) in CLOSED.items()}
