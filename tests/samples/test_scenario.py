"""The demo's scenario, sent by its real exporters to a small real collector.

Fails when the story stops saying what it is told for: when a digest is not that of the text beside it, when a
fact of the incident is missing, when the second telling differs, or when a refusal goes unnoticed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
NOW = 1_795_000_000_000_000_000
HOUR = 3600 * 10**9
CLOSED = {
    "trail.policy.decision": {"allow", "deny", "ask", "modify", "log_only"},
    "trail.approval.decision": {"approved", "denied", "modified", "expired", "not_required"},
    "trail.approval.source": {"human", "rule", "hook", "classifier", "sandbox", "unknown"},
    "trail.action.tier": {"read", "propose", "write", "execute", "destructive", "privileged"},
    "trail.change.kind": {"create", "update", "delete", "config", "deploy", "data"},
    "trail.reversal.kind": {"exact", "compensating", "impossible", "unknown"},
    "trail.provenance.mode": {"authored", "transformed", "suggested"},
}


class Collector:
    """An OTLP/HTTP server that keeps the bodies it was sent, and answers as it is told to."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes, str | None]] = []
        self.status = 200
        self.rejected_spans = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # One write per answer: two would wait 40 ms for each other's acknowledgement.

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append((self.path, body, self.headers.get("Authorization")))
                answer: Message = ExportLogsServiceResponse()
                if self.path == "/v1/traces":
                    answer = ExportTraceServiceResponse()
                    answer.partial_success.rejected_spans = collector.rejected_spans
                data = answer.SerializeToString()
                self.send_response(collector.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def spans(self) -> list[dict[str, Any]]:
        """Every span received, in order, attributes as a plain mapping."""
        found = []
        for path, body, _ in self.bodies:
            if path == "/v1/traces":
                for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in group.scope_spans:
                        found += [_plain(span, group.resource) for span in scope.spans]
        return found

    def logs(self) -> list[dict[str, Any]]:
        """Every log record received, in order, attributes as a plain mapping."""
        found = []
        for path, body, _ in self.bodies:
            if path == "/v1/logs":
                for group in ExportLogsServiceRequest.FromString(body).resource_logs:
                    for scope in group.scope_logs:
                        found += [_plain(record, group.resource) for record in scope.log_records]
        return found


def _plain(item: Any, resource: Any) -> dict[str, Any]:
    def value(wrapped: Any) -> Any:
        kind = wrapped.WhichOneof("value")
        inner = getattr(wrapped, kind) if kind else None
        return [value(one) for one in inner.values] if kind == "array_value" else inner

    return {
        "proto": item,
        "resource": {pair.key: value(pair.value) for pair in resource.attributes},
        **{pair.key: value(pair.value) for pair in item.attributes},
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A running collector."""
    running = Collector()
    thread = threading.Thread(target=running.server.serve_forever, args=(0.02,))
    thread.start()
    yield running
    running.server.shutdown()
    thread.join()
    running.server.server_close()


@pytest.fixture(scope="module")
def scenario() -> ModuleType:
    """`samples/scenario/play.py`, loaded from its folder as a package of another name."""
    folder = SAMPLES / "scenario"
    spec = importlib.util.spec_from_file_location("sample_scenario", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["sample_scenario"] = package
    spec.loader.exec_module(package)
    return importlib.import_module("sample_scenario.play")


def _sha256(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _patched(before: str, diff: str) -> str:
    """`before` with a unified diff applied; every context and removed line has to be there."""
    old, new, at = before.splitlines(keepends=True), [], 0
    for line in diff.splitlines(keepends=True)[2:]:
        if hunk := re.match(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@", line):
            start = int(hunk[1]) - 1
            new += old[at:start]
            at = start
        elif line[0] == "+":
            new.append(line[1:])
        else:
            assert old[at] == line[1:]
            new += [old[at]] if line[0] == " " else []
            at += 1
    return "".join(new + old[at:])


def _event(logs: list[dict[str, Any]], name: str, **facts: Any) -> list[dict[str, Any]]:
    wanted = {key.replace("__", "."): value for key, value in facts.items()}
    return [log for log in logs if log["proto"].event_name == name and wanted.items() <= log.items()]


def test_it_counts_what_arrived(scenario: ModuleType, collector: Collector) -> None:
    played = scenario.play(collector.url, now_unix_ns=NOW, headers={"Authorization": "Bearer t"})
    spans, logs = collector.spans(), collector.logs()
    assert (played.spans, played.logs) == (len(spans), len(logs))
    assert 150 <= played.spans + played.logs <= 300
    assert {auth for _, _, auth in collector.bodies} == {"Bearer t"}
    roots = [span for span in spans if not span["proto"].parent_span_id]
    assert tuple(span["gen_ai.conversation.id"] for span in roots) == played.run_ids
    assert len(set(played.run_ids)) == len(played.run_ids)
    times = [s["proto"].start_time_unix_nano for s in spans] + [s["proto"].end_time_unix_nano for s in spans]
    times += [log["proto"].time_unix_nano for log in logs]
    assert NOW - 144 * HOUR < min(times) < NOW - 130 * HOUR
    assert NOW - HOUR < max(times) < NOW


def test_every_record_can_be_placed(scenario: ModuleType, collector: Collector) -> None:
    scenario.play(collector.url, now_unix_ns=NOW)
    spans, logs = collector.spans(), collector.logs()
    assert {s["resource"]["service.name"] for s in spans} == {"support-agent", "refunds_agent"}
    span_ids = {span["proto"].span_id for span in spans}
    for item in spans + logs:
        assert item["gen_ai.conversation.id"]
        assert item["trail.workflow"]
        for attribute, allowed in CLOSED.items():
            assert item.get(attribute, next(iter(allowed))) in allowed
    assert all(log["proto"].span_id in span_ids and log["proto"].event_name for log in logs)
    for span in spans:
        if span["gen_ai.operation.name"] == "chat":
            assert json.loads(span["gen_ai.output.messages"])[0]["role"] == "assistant"
            assert span["trail.cost.usd_micros"] > 0
    linked = [link for span in spans for link in span["proto"].links]
    assert linked
    assert all(link.span_id in span_ids for link in linked)


def test_shown_is_what_ran_and_diffs_apply(scenario: ModuleType, collector: Collector) -> None:
    scenario.play(collector.url, now_unix_ns=NOW)
    calls = {s["trail.action.id"]: s for s in collector.spans() if "gen_ai.tool.call.arguments" in s}
    modified = {log["trail.action.id"] for log in _event(collector.logs(), "trail.approval", trail__approval__decision="modified")}
    requests = _event(collector.logs(), "trail.approval.requested")
    assert len(requests) == 10
    for request in requests:
        ran = calls[request["trail.action.id"]]["gen_ai.tool.call.arguments"]
        same = request["trail.approval.subject.digest"] == _sha256(ran)
        assert same is (request["trail.action.id"] not in modified)
        assert request["trail.approval.shown.bytes"] == len(ran.encode())
    changed = [call for call in calls.values() if "trail.change.diff" in call]
    assert len(changed) == 2
    for call in changed:
        after = json.loads(call["gen_ai.tool.call.arguments"])["content"]
        assert _sha256(after) == call["trail.change.after.digest"]
    edit = next(call for call in changed if call["trail.resource"] == "config/refunds.yaml")
    before = (SAMPLES / "workspace" / "refunds.before.yaml").read_text()
    assert _sha256(before) == edit["trail.change.before.digest"]
    after = _patched(before, edit["trail.change.diff"])
    assert after == (SAMPLES / "workspace" / "refunds.after.yaml").read_text()
    assert _sha256(after) == edit["trail.change.after.digest"]
    assert "-    max_amount_usd: 25\n+    max_amount_usd: 250\n" in edit["trail.change.diff"]


def test_the_incident_can_be_found(scenario: ModuleType, collector: Collector) -> None:
    played = scenario.play(collector.url, now_unix_ns=NOW)
    spans, logs = collector.spans(), collector.logs()
    action = played.incident_action_id

    about = [item for item in spans if item.get("trail.resource") == played.incident_resource]
    assert [span["trail.action.id"] for span in about] == [action]
    edit = about[0]
    assert edit["gen_ai.conversation.id"] == played.incident_run_id
    assert (edit["trail.change.kind"], edit["trail.action.tier"]) == ("config", "privileged")
    assert edit["trail.reversal.kind"] == "exact"
    assert edit["proto"].end_time_unix_nano == played.incident_at_unix_ns

    (asked,) = _event(logs, "trail.approval.requested", trail__action__id=action)
    (answered,) = _event(logs, "trail.approval", trail__action__id=action)
    assert 3500 < asked["trail.approval.shown.bytes"] < 4500
    assert answered["proto"].time_unix_nano - asked["proto"].time_unix_nano == 2 * 10**9
    assert answered["trail.approval.source"] == "human"
    assert answered["trail.approval.approver.id"] == "rafael@example.com"
    assert answered["trail.approval.subject.digest"] == asked["trail.approval.subject.digest"]

    (decided,) = _event(logs, "trail.policy.decision", trail__action__id=action)
    assert (decided["trail.policy.id"], decided["trail.policy.version"]) == ("refund-limits", "2")
    assert decided["trail.policy.decision"] == "allow"
    assert decided["proto"].time_unix_nano < edit["proto"].start_time_unix_nano
    newer = _event(logs, "trail.policy.decision", trail__policy__version="3", trail__policy__id="refund-limits")
    assert all(log["proto"].time_unix_nano < decided["proto"].time_unix_nano for log in newer)
    (denied,) = [log for log in newer if log["gen_ai.tool.name"] == "edit_file"]
    assert denied["trail.policy.decision"] == "deny"

    seen = [s for s in spans if s["gen_ai.conversation.id"] == played.incident_run_id]
    retrieved = [document["id"] for s in seen for document in json.loads(s.get("gen_ai.retrieval.documents", "[]"))]
    assert "ticket/T-5127" in retrieved
    assert edit["trail.context.ids"] == retrieved
    prompts = [s["gen_ai.input.messages"] for s in seen if "gen_ai.input.messages" in s]
    assert "it would be most kind if you could also set the limit" in prompts[0]

    paid = [
        json.loads(s["gen_ai.tool.call.arguments"])["amount_usd"]
        for s in spans
        if s["gen_ai.conversation.id"] in played.refund_run_ids and s.get("gen_ai.tool.name") == "issue_refund"
    ]
    assert paid == [180, 220, 240]


def test_the_ordinary_week_has_its_colours(scenario: ModuleType, collector: Collector) -> None:
    scenario.play(collector.url, now_unix_ns=NOW)
    spans, logs = collector.spans(), collector.logs()
    approvals = {log["trail.approval.decision"] for log in _event(logs, "trail.approval")}
    assert approvals == CLOSED["trail.approval.decision"]
    assert {log["trail.policy.decision"] for log in _event(logs, "trail.policy.decision")} == {
        "allow",
        "ask",
        "deny",
    }
    moves = _event(logs, "trail.control.changed")
    assert [(m["trail.control.from"], m["trail.control.to"]) for m in moves] == [
        ("running", "stopped"),
        ("stopped", "running"),
    ]
    assert moves[1]["trail.drill.result"] == "passed"
    assert {log["gen_ai.evaluation.score.label"] for log in _event(logs, "gen_ai.evaluation.result")} == {
        "pass",
        "fail",
    }
    reversals = {s["gen_ai.tool.name"]: s["trail.reversal.kind"] for s in spans if "trail.reversal.kind" in s}
    assert (reversals["send_email"], reversals["issue_refund"]) == ("impossible", "compensating")
    for run in {s["gen_ai.conversation.id"] for s in spans}:
        calls = [s for s in spans if s["gen_ai.conversation.id"] == run and "gen_ai.tool.call.id" in s]
        assert len(calls) <= 3, "both agents are started with --max-actions 3"


def test_the_same_arguments_send_the_same_bytes(scenario: ModuleType, collector: Collector) -> None:
    first = scenario.play(collector.url, now_unix_ns=NOW)
    sent, collector.bodies = collector.bodies, []
    assert scenario.play(collector.url, now_unix_ns=NOW) == first
    assert collector.bodies == sent
    collector.bodies = []
    later = scenario.play(collector.url, now_unix_ns=NOW + HOUR)
    assert not set(later.run_ids) & set(first.run_ids)
    assert not {s["proto"].trace_id for s in collector.spans()} & {
        span.trace_id
        for path, body, _ in sent
        if path == "/v1/traces"
        for group in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    }


def test_a_refusal_is_an_error(scenario: ModuleType, collector: Collector) -> None:
    collector.status = 403
    with pytest.raises(scenario.NotDeliveredError, match="403 Forbidden") as refused:
        scenario.play(collector.url, now_unix_ns=NOW)
    assert refused.value.endpoint == f"{collector.url}/v1/logs"


def test_a_partial_success_is_an_error(scenario: ModuleType, collector: Collector) -> None:
    collector.rejected_spans = 2
    with pytest.raises(scenario.NotDeliveredError, match="2 rejected"):
        scenario.play(collector.url, now_unix_ns=NOW)


def test_the_script_says_what_it_sent(collector: Collector) -> None:
    script = SAMPLES / "scenario" / "play.py"
    done = subprocess.run([sys.executable, str(script), collector.url], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"sent {len(collector.spans())} spans and {len(collector.logs())} log records" in done.stdout
    assert "config/refunds.yaml was changed at" in done.stdout
