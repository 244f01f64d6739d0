"""Ingest: spans acknowledged and queryable a second, and what must stay flat: acknowledgement latency and memory.

The floor is what one core of this machine does at best with the same bodies: parse them, and touch every attribute in Python.
"""

from __future__ import annotations

import time

import pytest
from bench import Server, disk_bytes, post, report
from bench_load import SPANS_A_REQUEST
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.benchmark


def floor_spans_s(bodies: list[bytes]) -> float:
    """Parse and touch every attribute in Python, one thread."""
    start = time.perf_counter()
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    for pair in span.attributes:
                        _ = pair.key, getattr(pair.value, pair.value.WhichOneof("value"))
    return len(bodies) * SPANS_A_REQUEST / (time.perf_counter() - start)


def test_ingest(server: Server, bodies: list[bytes]) -> None:
    floor = floor_spans_s(bodies[:40])
    cpu, disk = server.cpu_seconds(), disk_bytes(server.store)
    start = time.perf_counter()
    posted = post(server.port, bodies)
    spent = server.cpu_seconds() - cpu
    while not list((server.store / "journal").glob("*")) or _queryable(server) < posted.spans:
        time.sleep(0.1)
    queryable = time.perf_counter() - start
    while disk_bytes(server.store / "journal") > 1 << 20:  # sealed by age at the latest
        time.sleep(0.5)
    stored = disk_bytes(server.store) - disk
    report(
        "ingest",
        spans=posted.spans,
        body_bytes_a_span=round(sum(map(len, bodies)) / posted.spans),
        acknowledged_spans_s=round(posted.spans / posted.seconds),
        queryable_spans_s=round(posted.spans / queryable),
        ack_p50_ms=round(posted.percentile(0.5)),
        ack_p99_ms=round(posted.percentile(0.99)),
        cpu_s_per_100k=round(spent / posted.spans * 1e5, 2),
        peak_mib=server.peak_bytes() >> 20,
        disk_bytes_a_span=round(stored / posted.spans),
        floor_one_core_spans_s=round(floor),
        ratio_to_floor=round(posted.spans / queryable / floor, 2),
    )


def _queryable(server: Server) -> int:
    """Spans under the published checkpoint, counted by the command."""
    answer = server.trail("sql", "SELECT count(*) AS n FROM records WHERE kind = 'span'", "--json")
    import json

    return int(json.loads(answer.stdout)[0]["n"]) if answer.returncode == 0 else 0
