"""`trail import`: every form a file may have, and what is wrong with one named by file and line."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from trail_process import Ran, Server, run_trail

from tui.exits import Exit
from tui.telemetry_files import bodies

Call = Callable[..., Ran]


@pytest.fixture
def store(trail: Call, tmp_path: Path) -> Path:
    assert trail("init", "--store", tmp_path / "store").code == Exit.OK
    return tmp_path / "store"


def log(text: str) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "12", "body": {"stringValue": text}}]}]}]}


def spans() -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name, span.start_time_unix_nano = os.urandom(16), os.urandom(8), "x", 1
    return request.SerializeToString()


def logs(text: str = "hello") -> bytes:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.time_unix_nano = 5
    record.body.string_value = text
    return request.SerializeToString()


def metrics() -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
    metric.name = "n"
    metric.gauge.data_points.add().as_int = 5
    return request.SerializeToString()


def kinds(store: Path) -> dict[str, int]:
    query = "SELECT kind, count(*) AS n FROM records WHERE kind IN ('span', 'log', 'quarantine') GROUP BY kind"
    return {row["kind"]: row["n"] for row in run_trail("sql", query, "--store", store, "--json").json}


FORMS = {
    "t.pb": (spans(), "span", 1),
    "l.pb": (logs(), "log", 1),
    "t.pb.gz": (gzip.compress(spans()), "span", 1),
    "l.pb.zst": (zstandard.compress(logs("zst")), "log", 1),
    "one.json": (json.dumps(log("one")).encode(), "log", 1),
    "pretty.json": (json.dumps(log("pretty"), indent=2).encode(), "log", 1),
    "lines.json": (b"\n".join(json.dumps(log(name)).encode() for name in "abc"), "log", 3),
    "lines.jsonl": (b"\n\n".join(json.dumps(log(name)).encode() for name in "def") + b"\n", "log", 3),
    "lines.jsonl.gz": (gzip.compress(b"\n".join(json.dumps(log(name)).encode() for name in "gh")), "log", 2),
    "lines.ndjson.zst": (zstandard.compress(json.dumps(log("i")).encode()), "log", 1),
}


def test_every_form(trail: Call, store: Path, tmp_path: Path) -> None:
    expected: dict[str, int] = {}
    for name, (data, kind, count) in FORMS.items():
        (tmp_path / name).write_bytes(data)
        expected[kind] = expected.get(kind, 0) + count
    files = [tmp_path / name for name in FORMS]
    ran = trail("import", *files, "--store", store, "--json")
    assert ran.code == Exit.OK, ran.err
    assert (ran.json["kept"], ran.json["bad"]) == (sum(expected.values()), [])
    assert kinds(store) == expected
    again = trail("import", *files, "--store", store, "--json")
    assert (again.json["kept"], again.json["duplicates"]) == (0, ran.json["requests"])
    assert trail("verify", "--store", store).code == Exit.OK
    (row,) = run_trail("sql", "SELECT DISTINCT sender FROM records WHERE kind IN ('span', 'log')", "--store", store, "--json").json
    assert row == {"sender": "import"}


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_so_many_requests(tmp_path: Path, name: str) -> None:
    data, _kind, count = FORMS[name]
    (tmp_path / name).write_bytes(data)
    found = list(bodies(tmp_path / name, limit=10_000))
    assert [body.why for body in found] == [""] * count
    assert all(body.is_json == ("pb" not in name) for body in found)


def test_metrics_are_counted_and_not_kept(trail: Call, store: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pb").write_bytes(metrics())
    ran = trail("import", tmp_path / "m.pb", "--store", store, "--json")
    assert (ran.code, ran.json["kept"], ran.json["not_kept"]) == (Exit.OK, 0, 1)


def test_what_is_bad_is_named_and_the_rest_is_kept(trail: Call, store: Path, tmp_path: Path) -> None:
    lines = [json.dumps(log("a")), "{broken", json.dumps(log("b")), '{"resourceLogs": 7}', '{"other": 1}', json.dumps(log("c"))]
    (tmp_path / "x.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(json.dumps(log("d")).encode())[:-6])
    (tmp_path / "junk.pb").write_bytes(b"\xff\xff\xff")
    ran = trail("import", *(tmp_path / name for name in ("x.jsonl", "cut.json.gz", "junk.pb")), "--store", store, "--json")
    assert ran.code == Exit.UNVERIFIABLE
    assert ran.json["kept"] == 3
    places = [bad["place"] for bad in ran.json["bad"]]
    assert places == [
        f"{tmp_path}/x.jsonl:2",
        f"{tmp_path}/x.jsonl:4",
        f"{tmp_path}/x.jsonl:5",
        f"{tmp_path}/cut.json.gz",
        f"{tmp_path}/junk.pb",
    ]
    assert all(place in ran.err for place in places)
    assert "Traceback" not in ran.err
    assert kinds(store) == {"log": 3, "quarantine": 4}
    assert len(list((store / "quarantine").iterdir())) == 4
    assert trail("verify", "--store", store).code == Exit.OK


def test_it_goes_through_a_running_server(trail: Call, store: Path, tmp_path: Path, serving: Callable[..., Server]) -> None:
    secret = trail("token", "add", "loader", "--role", "emitter", "--store", store).out
    server = serving(store)
    (tmp_path / "t.pb").write_bytes(spans())
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(log("a")), "{broken"]), "utf-8")
    files = (tmp_path / "t.pb", tmp_path / "x.jsonl")
    refused = trail("import", *files, "--store", store, "--json")
    assert (refused.code, refused.out) == (Exit.STORAGE, "")
    assert "--token-file" in refused.err
    (tmp_path / "token").write_text(secret, "utf-8")
    ran = trail("import", *files, "--token-file", tmp_path / "token", "--store", store, "--json")
    assert ran.code == Exit.UNVERIFIABLE
    assert (ran.json["kept"], [bad["place"] for bad in ran.json["bad"]]) == (2, [f"{tmp_path}/x.jsonl:2"])
    assert server.url in ran.err
    assert server.stop() == Exit.OK
    assert kinds(store) == {"span": 1, "log": 1, "quarantine": 1}
    (row,) = run_trail("sql", "SELECT DISTINCT sender FROM records WHERE kind IN ('span', 'log')", "--store", store, "--json").json
    assert row == {"sender": "loader"}


def test_a_wrong_name_imports_nothing(trail: Call, store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(log("a")), "utf-8")
    (tmp_path / "notes.txt").write_text("x", "utf-8")
    missing = trail("import", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--store", store)
    assert (missing.code, missing.out) == (Exit.STORAGE, "")
    assert "b.jsonl" in missing.err
    unknown = trail("import", tmp_path / "a.jsonl", tmp_path / "notes.txt", "--store", store)
    assert (unknown.code, unknown.out) == (Exit.USAGE, "")
    assert trail("status", "--store", store, "--json").json["size"] == 0


def test_the_signal_can_be_said(trail: Call, store: Path, tmp_path: Path) -> None:
    (tmp_path / "l.pb").write_bytes(logs())
    assert trail("import", tmp_path / "l.pb", "--signal", "logs", "--store", store).code == Exit.OK
    assert kinds(store) == {"log": 1}


def test_a_line_may_not_be_longer_than_a_request(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a":1}\n' + b'{"b":"' + b"x" * 500 + b'"}\n' + b'{"c":1}\n')
    found = list(bodies(path, limit=100))
    assert [(body.place, body.data, bool(body.why)) for body in found] == [
        (f"{path}:1", b'{"a":1}', False),
        (f"{path}:2", b"", True),
        (f"{path}:3", b'{"c":1}', False),
    ]
    (tmp_path / "x.pb.gz").write_bytes(gzip.compress(b"\0" * 10_000_000))
    (bomb,) = bodies(tmp_path / "x.pb.gz", limit=100)
    assert (bomb.data, "100 bytes" in bomb.why) == (b"", True)


def test_lines_of_which_the_first_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a":\n{"b":1}\n{"c":1}\n')
    assert [(body.place, body.data) for body in bodies(path, limit=100)] == [
        (f"{path}:1", b'{"a":'),
        (f"{path}:2", b'{"b":1}'),
        (f"{path}:3", b'{"c":1}'),
    ]
