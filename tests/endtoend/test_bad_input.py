"""Bad input, sent to the real server over a socket: the status, the message, what is left of it, and that nothing else is.

One server takes all of it. Whether the store holds exactly what was acknowledged, and nothing of what was refused, is asked by
`trail sql` after each group of tests and at the end, when the server is stopped and everything is verified: the tests run in the order
in which they stand here.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from google.protobuf import json_format
from google.rpc.code_pb2 import Code
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from raw_otlp import JSON, PROTOBUF, Answer, Recorder, field_of, post, span, span_bytes, text, traces
from trail_process import Server, run_trail

MIB = 1 << 20
MARK = '{"$content":{"bytes":3,"commitment":"' + "ab" * 32 + '","type":"s"}}'
DIFF = "--- a/config/many.yaml\n+++ b/config/many.yaml\n@@ -1 +1 @@\n-limit: 25\n+limit: 250\n"


def protobuf(body: dict[str, Any]) -> bytes:
    """The same request in the other encoding (without ids: the library reads hex as base64)."""
    for resource in body["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for one in scope["spans"]:
                one.pop("traceId"), one.pop("spanId")
    return json_format.ParseDict(body, ExportTraceServiceRequest()).SerializeToString()


def nested_json(depth: int) -> bytes:
    head = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"nested","attributes":[{"key":"a","value":'
    return head + b'{"arrayValue":{"values":[' * depth + b"{}" + b"]}}" * depth + b"}]}]}]}]}"


def nested_protobuf(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = field_of(5, field_of(1, value))
    return span_bytes(field_of(5, b"nested"), field_of(9, field_of(1, b"a") + field_of(2, value)))


def refused(answer: Answer, status: int, code: int, why: str, *, kind: str = JSON) -> None:
    """The answer is this refusal, in the request's encoding, and says why."""
    assert (answer.status, answer.kind) == (status, kind)
    assert answer.failure.code == code
    assert why in answer.failure.message
    assert "Trail-Receipt" not in answer.headers


# ------------------------------------------------------------------------------------------------------ undecodable

WHOLE = protobuf(traces(span("whole", text("gen_ai.tool.name", "edit"))))
UNDECODABLE: dict[str, tuple[str, bytes, str, str]] = {
    "truncated protobuf": (PROTOBUF, WHOLE[:-3], "truncated", ""),
    "JSON called protobuf": (PROTOBUF, b'{"resourceSpans":[]}', "begins like JSON", ""),
    "gzip without its header": (PROTOBUF, gzip.compress(WHOLE), "Content-Encoding missing", ""),
    "protobuf too deep": (PROTOBUF, nested_protobuf(60), "nested more than 100 deep", ""),
    "protobuf far too deep": (PROTOBUF, nested_protobuf(20_000), "nested more than 100 deep", ""),
    "protobuf not UTF-8": (PROTOBUF, span_bytes(field_of(5, b"\xff\xfe")), "not UTF-8", ""),
    "truncated JSON": (JSON, json.dumps(traces(span("x"))).encode()[:-4], "not JSON", ""),
    "id of an odd length": (JSON, json.dumps(traces(span("x", spanId="abc"))).encode(), "16 hexadecimal", "spans[0].spanId"),
    "id of a wrong length": (JSON, json.dumps(traces(span("x", traceId="ab" * 8))).encode(), "32 hexadecimal", "spans[0].traceId"),
    "id in base64": (JSON, json.dumps(traces(span("x", spanId="7uFMdzDyqfg="))).encode(), "16 hexadecimal", "spans[0].spanId"),
    "JSON too deep": (JSON, nested_json(60), "nests more than 100", ""),
    "JSON far too deep": (JSON, b"[" * 1_000_000, "nested too deeply", ""),
    "JSON not UTF-8": (JSON, json.dumps(traces(span("~"))).encode().replace(b"~", b"\xc3\x28"), "not UTF-8", ""),
    "JSON with half a surrogate pair": (JSON, json.dumps(traces(span("\ud800"))).encode(), "surrogate", "spans[0].name"),
    "NaN without quotes": (JSON, json.dumps(traces(span("x", {"key": "a", "value": {"doubleValue": math.nan}}))).encode(), "in quotes", ""),
    "a member given twice": (JSON, b'{"resourceSpans":[],"resourceSpans":[]}', "twice", ""),
}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_what_cannot_be_decoded_is_400_and_in_quarantine(recorder: Recorder, name: str) -> None:
    kind, body, why, place = UNDECODABLE[name]
    answer = recorder.refuse("/v1/traces", body, kind, why)
    refused(answer, 400, Code.INVALID_ARGUMENT, why, kind=kind)
    (detail,) = json_format.MessageToDict(answer.failure)["details"]
    assert detail["@type"].endswith("google.rpc.BadRequest")
    assert detail["fieldViolations"][0].get("field", "").endswith(place)


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress)])
def test_what_does_not_decompress_lies_in_quarantine_as_it_came(
    recorder: Recorder, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    answer = recorder.refuse("/v1/traces", compress(WHOLE)[:-5], PROTOBUF, "compressed", Content_Encoding=coding)
    refused(answer, 400, Code.INVALID_ARGUMENT, "compressed", kind=PROTOBUF)


def test_each_body_in_quarantine_has_its_record_and_nothing_else_is_left_of_it(recorder: Recorder) -> None:
    rows = recorder.sql("SELECT name, sender, decode(record) AS record FROM records WHERE kind = 'quarantine'")
    said = {row["name"]: json.loads(row["record"])["quarantine"] for row in rows}
    assert {row["sender"] for row in rows} == {"loopback"}
    assert set(said) == set(recorder.lying)
    for name, (kind, length, why) in recorder.lying.items():
        own = said[name]
        assert (own["id"], own["content_type"], own["bytes"], own["bytes_kept"]) == (name, kind, length, length)
        assert why in own["why"]
    recorder.require_exact()


# ---------------------------------------------------------------------------------------------------- refused unread


def test_bombs_are_413(recorder: Recorder) -> None:
    nothing = bytes(200 * MIB)
    for coding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress)):
        bomb = compress(nothing)
        assert len(bomb) < MIB
        answer = recorder.post("/v1/traces", bomb, PROTOBUF, Content_Encoding=coding)
        refused(answer, 413, Code.RESOURCE_EXHAUSTED, f"larger than {64 * MIB} bytes", kind=PROTOBUF)


def test_an_attribute_of_100_mb_is_413_and_one_of_10_mb_a_content(recorder: Recorder) -> None:
    for kind in (JSON, PROTOBUF):
        body = span_bytes(field_of(5, b"big"), field_of(9, field_of(1, b"a") + field_of(2, field_of(1, b"x" * 100_000_000))))
        refused(recorder.post("/v1/traces", body, kind), 413, Code.RESOURCE_EXHAUSTED, "larger than", kind=kind)

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 1_000_000

    refused(recorder.post("/v1/traces", chunks(), JSON), 413, Code.RESOURCE_EXHAUSTED, "larger than")

    answer = recorder.send(traces(span("ten megabytes", text("note", "y" * 10_000_000))), "ten megabytes")
    (row,) = recorder.contents(answer.receipt)
    assert (row["field"], row["bytes"], row["state"]) == ("note", 10_000_000, "matching")
    recorder.require_exact()


def test_paths_methods_and_types_that_are_none(recorder: Recorder) -> None:
    body = traces(span("never"))
    for path in ("/v1/trace", "/v1/traces/", "/", "/v1/traces%2f", "/v1development/profiles"):
        refused(recorder.post(path, body), 404, Code.UNIMPLEMENTED, "/v1/traces, /v1/logs, /v1/metrics")
    refused(recorder.post("/nowhere", WHOLE, PROTOBUF), 404, Code.UNIMPLEMENTED, "no such path", kind=PROTOBUF)
    refused(recorder.post("/v1/traces", None, method="GET"), 405, Code.UNIMPLEMENTED, "another method")
    for kind in ("text/plain", "application/octet-stream", "application/x-protobuf2", None):
        refused(recorder.post("/v1/traces", WHOLE, kind), 415, Code.INVALID_ARGUMENT, "must be application/x-protobuf or application/json")
    for coding in ("br", "gzip, gzip", "snappy"):
        answer = recorder.post("/v1/traces", WHOLE, PROTOBUF, Content_Encoding=coding)
        refused(answer, 415, Code.INVALID_ARGUMENT, "gzip, deflate, zstd", kind=PROTOBUF)


def test_a_body_sent_by_half_leaves_nothing(recorder: Recorder) -> None:
    body = json.dumps(traces(span("half"))).encode()
    head = ("POST /v1/traces HTTP/1.1", "Host: trail", f"Content-Type: {JSON}")
    recorder.cut((*head, f"Content-Length: {len(body)}"), body[: len(body) // 2])
    recorder.cut((*head, "Transfer-Encoding: chunked"), b"%x\r\n%s\r\n" % (len(body), body))
    recorder.send(traces(span("after the halves")), "after the halves")
    recorder.require_exact()


# ---------------------------------------------------------------------------------------------------- odd, and kept


def test_ten_thousand_attributes_are_all_kept_and_hide_nothing(recorder: Recorder) -> None:
    many = [text(f"key.{n}", f"value {n}") for n in range(10_000)]
    said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "edit_file", "trail.resource": "config/many.yaml"}
    change = [text(key, value) for key, value in said.items()]
    change += [text("trail.change.kind", "config"), text("trail.change.diff", DIFF), text("user.email", "ann@x.example")]
    index = recorder.send(traces(span("many attributes", *many, *change)), "many attributes").receipt[0]

    contents = {content["field"]: content for content in recorder.run("show", index, "--json", "--tail").json["contents"]}
    assert {field: content["state"] for field, content in contents.items()} == {
        "subtree:attributes": "matching",
        "trail.change.diff": "matching",
        "user.email": "matching",
    }
    attributes = json.loads(contents["subtree:attributes"]["text"])
    assert attributes[:10_000] == [[f"key.{n}", {"s": f"value {n}"}] for n in range(10_000)]
    assert [key for key, _ in attributes[10_000:]] == [*said, "trail.change.kind", "trail.change.diff", "user.email"]
    rows = recorder.contents([index])
    assert {row["field"]: row["state"] for row in rows} == dict.fromkeys(contents, "matching")
    (card,) = recorder.run("ask", "config/many.yaml", "--json", "--tail").json["cards"]
    assert card["what"]["diff"] == DIFF
    assert card["intact"]["verdict"] == "verified"


def test_unknown_fields_are_kept_and_everything_that_reads_goes_on(recorder: Recorder) -> None:
    strange = field_of(2000, b"from tomorrow")
    pair = field_of(1, b"key") + field_of(2, field_of(1, b"value") + strange) + strange
    inside = field_of(1, field_of(1, b"in a list") + field_of(2, field_of(1, b"value")) + strange)
    call = [("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "edit"), ("trail.resource", "config/unknown.yaml")]
    pairs = [field_of(9, field_of(1, key.encode()) + field_of(2, field_of(1, value.encode())) + strange) for key, value in call]
    many = field_of(9, field_of(1, b"gen_ai.tool.call.arguments") + field_of(2, field_of(6, inside)))
    ids = field_of(1, bytes(range(16))), field_of(2, bytes(range(8)))
    body = span_bytes(*ids, field_of(5, b"unknown fields"), field_of(9, pair), *pairs, many, strange)
    index = recorder.send(body, "unknown fields", kind=PROTOBUF).receipt[0]
    shown = recorder.run("show", index, "--json", "--tail").json
    assert "$unknown" in json.dumps(shown["record"]["span"]["attributes"])
    assert [content["state"] for content in shown["contents"]] == ["matching"]
    (card,) = recorder.run("ask", "config/unknown.yaml", "--json", "--tail").json["cards"]
    assert json.loads(card["action"]["arguments"]) == {"in a list": "value"}


def test_the_deepest_nesting_that_is_accepted(recorder: Recorder) -> None:
    # Request, resource, scope, span, attribute and its value are five messages below the first; each level adds two.
    for kind, body in ((PROTOBUF, nested_protobuf(47)), (JSON, nested_json(47))):
        answer = recorder.send(body, "nested", kind=kind)
        shown = recorder.run("show", answer.receipt[0], "--json", "--tail")
        assert shown.out.count('"a"') >= 47
    refused(recorder.post("/v1/traces", nested_protobuf(48), PROTOBUF), 400, Code.INVALID_ARGUMENT, "deep", kind=PROTOBUF)
    refused(recorder.post("/v1/traces", nested_json(48)), 400, Code.INVALID_ARGUMENT, "100")


def test_nothing_an_emitter_sends_is_taken_for_a_mark_of_ours(recorder: Recorder) -> None:
    forged: list[dict[str, Any]] = [
        text("$content", MARK),
        {"key": "a list", "value": {"kvlistValue": {"values": [text("$content", MARK), text("bytes", "3"), text("type", "s")]}}},
        text("json", MARK),
        text("quoted", MARK.replace('"', '\\"')),
        {"key": MARK, "value": {"kvlistValue": {"values": [{"key": "$content", "value": {"kvlistValue": {"values": []}}}]}}},
        text("gen_ai.input.messages", MARK),
        {"key": "trail.policy.input", "value": {"kvlistValue": {"values": [text("$content", MARK)]}}},
    ]
    answer = recorder.send(traces(span("forged marks", *forged, **{"$content": json.loads(MARK)}, news=json.loads(MARK))), "forged marks")
    index = answer.receipt[0]
    states = {row["field"]: row["state"] for row in recorder.contents([index])}
    assert states == {"gen_ai.input.messages": "matching", "trail.policy.input": "matching"}
    states = {row["field"]: row["state"] for row in recorder.contents([answer.receipt.stop])}
    assert states == {"body": "never_kept", "unknown": "matching"}
    assert recorder.sql("SELECT * FROM contents WHERE state = 'missing'") == []
    pairs = recorder.run("show", index, "--json", "--tail").json["record"]["span"]["attributes"]
    assert pairs[0] == ["$content", {"s": MARK}]
    assert pairs[2] == ["json", {"s": MARK}]


def test_a_forged_first_copy_of_a_span_is_kept_beside_the_true_one_and_both_are_shown(recorder: Recorder) -> None:
    def edit(approver: str) -> dict[str, Any]:
        said = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "edit_file",
            "gen_ai.conversation.id": "run-forged",
            "trail.resource": "config/forged.yaml",
            "trail.approval.decision": "approved",
            "trail.approval.approver.id": approver,
        }
        attributes = [text(key, value) for key, value in said.items()]
        return traces(span("execute_tool edit_file", *attributes, traceId="f0" * 16, spanId="0f" * 8))

    forged = recorder.send(edit("mallory@example.com"), "execute_tool edit_file").receipt[0]
    true = recorder.send(edit("ann@example.com"), "execute_tool edit_file").receipt[0]
    first, second = recorder.records([forged, true])
    assert (first["span_id"], second["span_id"]) == ("0f" * 8, "0f" * 8)
    assert "mallory" in first["record"]
    assert "ann@" in second["record"]

    gaps = [gap for gap in recorder.sql("SELECT * FROM gaps WHERE kind = 'conflict'") if gap["from"] == forged]
    assert {(gap["from"], gap["to"]) for gap in gaps} == {(forged, true)}
    assert any("2 different copies of the span" in gap["why"] for gap in gaps)
    (card,) = recorder.run("ask", "config/forged.yaml", "--json", "--tail").json["cards"]
    assert (card["action"]["conflict"], card["action"]["records"]) == (True, [forged, true])
    for name in ("what", "who"):
        assert "RECORDS CONTRADICT EACH OTHER" in card[name]["text"]


def test_nan_and_infinity_are_kept_to_the_bit(recorder: Recorder) -> None:
    doubles = [{"key": name, "value": {"doubleValue": name}} for name in ("NaN", "Infinity", "-Infinity")]
    nans = (0x7FF8000000000000, 0xFFF8DEADBEEF0001)
    strange = b"".join(field_of(9, field_of(1, b"nan") + field_of(2, b"\x21" + struct.pack("<Q", bits))) for bits in nans)
    quoted = recorder.send(traces(span("NaN", *doubles)), "NaN").receipt[0]
    packed = recorder.send(span_bytes(field_of(5, b"NaN"), strange), "NaN", kind=PROTOBUF).receipt[0]
    first, second = (json.loads(row["record"])["span"]["attributes"] for row in recorder.records([quoted, packed]))
    assert first == [["NaN", {"d": "NaN"}], ["Infinity", {"d": "Infinity"}], ["-Infinity", {"d": "-Infinity"}]]
    assert second == [["nan", {"d": "NaN"}], ["nan", {"d": "NaN:fff8deadbeef0001"}]]


def test_times_that_no_clock_shows(recorder: Recorder) -> None:
    of_2500 = 16_725_225_600 * 10**9
    last = 2**64 - 1
    spans = [
        span("year 0", startTimeUnixNano="0", endTimeUnixNano="0"),
        span("year 2500", startTimeUnixNano=str(of_2500), endTimeUnixNano=str(of_2500 + 1)),
        span("last", startTimeUnixNano=str(last), endTimeUnixNano="1"),
    ]
    answer = recorder.send(traces(*spans), "year 0", "year 2500", "last")
    rows = recorder.records(answer.receipt)
    assert [row["time"] for row in rows] == [None, None, None]
    starts = [json.loads(row["record"])["span"].get("start_time_unix_nano") for row in rows]
    assert starts == [None, str(of_2500), str(last)]
    logs = [{"timeUnixNano": str(moment), "eventName": "odd time"} for moment in (0, of_2500)]
    recorder.send({"resourceLogs": [{"scopeLogs": [{"logRecords": logs}]}]}, "odd time", "odd time", path="/v1/logs")
    ran = recorder.run("timeline")
    assert ran.code == 0, ran.err


def test_a_duplicate_gets_the_old_receipt(recorder: Recorder) -> None:
    body = json.dumps(traces(span("once"))).encode()
    first = recorder.send(body, "once")
    for headers, again in (({}, body), ({"Content_Encoding": "gzip"}, gzip.compress(body))):
        second = recorder.send(again, "once", **headers)
        assert second.headers["Trail-Duplicate"] == "1"
        assert (second.receipt, second.headers["Trail-Batch"]) == (first.receipt, first.headers["Trail-Batch"])
    # Another signal, and other bytes with the same ids, are no duplicates.
    recorder.send(body, path="/v1/logs")
    recorder.send(body + b" ", "once")


def test_an_empty_request_and_unknown_members(recorder: Recorder) -> None:
    recorder.send(b"", kind=PROTOBUF)
    recorder.send({})
    refused(recorder.post("/v1/traces", b"", JSON), 400, Code.INVALID_ARGUMENT, "empty")
    answer = recorder.send({**traces(span("from tomorrow", newMember=[1, {"a": None}])), "newer": 1e5}, "from tomorrow")
    shown = recorder.run("show", answer.receipt.stop, "--json", "--tail").json
    (unknown,) = [content for content in shown["contents"] if content["field"] == "unknown"]
    assert json.loads(unknown["text"]) == {"/newer": 1e5, "/resourceSpans/0/scopeSpans/0/spans/0/newMember": [1, {"a": None}]}


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_metrics_are_accepted_counted_and_said_not_to_be_kept(recorder: Recorder, kind: str) -> None:
    request = ExportMetricsServiceRequest()
    points = request.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens").sum.data_points
    for _ in range(3):
        points.add(as_int=1)
    body = request.SerializeToString() if kind == PROTOBUF else json_format.MessageToJson(request).encode()
    answer = recorder.send(body, kind=kind, path="/v1/metrics")
    read = ExportMetricsServiceResponse()
    if kind == PROTOBUF:
        read.ParseFromString(answer.body)
    else:
        json_format.Parse(answer.body, read)
    partial = read.partial_success
    assert partial.rejected_data_points == 3
    assert "not kept" in partial.error_message
    (row,) = recorder.records([answer.receipt.stop])
    batch = json.loads(row["record"])["batch"]
    assert (batch["signal"], batch["kept"], batch["not_kept"]) == ("metrics", 0, 3)


# ------------------------------------------------------------------------------------------------------------ tokens


def test_tokens_that_do_not_count(tmp_path: Path, serving: Callable[..., Server]) -> None:
    store = tmp_path / "store"
    assert run_trail("init", "--store", store).code == 0

    def token(name: str, *args: str) -> str:
        ran = run_trail("token", "add", name, *args, "--store", store)
        assert ran.code == 0, ran.err
        return ran.out.strip()

    emitter = token("shop", "--role", "emitter", "--service", "shop")
    reader = token("audit", "--role", "reader")
    server = serving(store)
    body = traces(span("from the shop"), service="shop")

    def send(content: Any, secret: str | None, kind: str = JSON) -> Answer:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        return post(server.url, "/v1/traces", content, kind, **headers)

    for kind in (JSON, PROTOBUF):
        absent = send(WHOLE if kind == PROTOBUF else body, None, kind)
        refused(absent, 401, Code.UNAUTHENTICATED, "token", kind=kind)
        assert absent.headers["WWW-Authenticate"] == "Bearer"
    refused(send(body, "trail_" + "x" * 43), 401, Code.UNAUTHENTICATED, "token")
    refused(send(body, reader), 403, Code.PERMISSION_DENIED, "audit")
    refused(send(traces(span("other"), service="bank"), emitter), 403, Code.PERMISSION_DENIED, "bank")
    # One group of several speaks for another service: nothing of the request is kept.
    mixed = {"resourceSpans": body["resourceSpans"] + traces(span("other"), service="bank")["resourceSpans"]}
    refused(send(mixed, emitter), 403, Code.PERMISSION_DENIED, "bank")
    assert send(body, emitter).status == 200
    refused(send(b"{", emitter), 400, Code.INVALID_ARGUMENT, "not JSON")
    assert server.stop() == 0, server.said

    ran = run_trail("sql", "SELECT kind, sender, name, decode(record) AS record FROM records", "--json", "--store", store)
    kept = [(row["kind"], row["sender"]) for row in ran.json if row["kind"] in ("span", "batch", "quarantine")]
    assert sorted(kept) == [("batch", "shop"), ("quarantine", "shop"), ("span", "shop")]
    refusals = [(row["name"], row["sender"], json.loads(row["record"])["refusal"]["count"]) for row in ran.json if row["kind"] == "refusal"]
    counted = Counter[tuple[str, str]]()
    for status, sender, count in refusals:
        counted[status, sender] += count
    assert counted == {("401", "unauthenticated"): 3, ("403", "audit"): 1, ("403", "shop"): 2}
    everything = "".join(row["record"] for row in ran.json)
    assert not [secret for secret in (emitter, reader) if secret in everything]
    assert run_trail("verify", "--store", store).code == 0


# -------------------------------------------------------------------------------------------------------- after it all


def test_after_all_of_it_everything_is_there_once_and_verified(recorder: Recorder) -> None:
    assert recorder.post("/readyz", None, method="GET").body == b"ok\n"
    assert recorder.server.stop() == 0, recorder.server.said
    assert "Traceback" not in recorder.server.said
    recorder.require_exact()
    rows = recorder.sql("SELECT index, kind, name, decode(record) AS record FROM records ORDER BY index")
    assert {row["index"]: row["name"] for row in rows if row["kind"] in ("span", "log")} == recorder.acknowledged
    assert {row["name"] for row in rows if row["kind"] == "quarantine"} == {path.name for path in (recorder.store / "quarantine").iterdir()}
    refusals = [json.loads(row["record"])["refusal"] for row in rows if row["kind"] == "refusal"]
    counts = Counter[int]()
    for refusal in refusals:
        counts[refusal["status"]] += refusal["count"]
    assert counts == recorder.refused

    ran = recorder.run("verify", "--json")
    assert ran.code == 0, ran.out
    report = ran.json
    assert (report["verdict"], report["key"], report["integrity"]["failures"]) == ("verified", "pinned", [])
    assert report["integrity"]["contents"]["missing"] == 0
