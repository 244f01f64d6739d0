"""Spans and log records out of this process, through the OTLP exporters of the OpenTelemetry SDK.

An ordinary program hands its spans to the SDK's batch processors, which send in the background and only log a
failure. A demonstration has to know what arrived, so here the spans wait in a `_Outbox` until `Emitter.send`
gives them to the same exporters and raises when the answer is not a success.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from opentelemetry._logs import Logger
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import (
    LoggerProvider,
    LogRecordLimits,
    LogRecordProcessor,
    ReadableLogRecord,
    ReadWriteLogRecord,
)
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer

SCOPE: Final = "samples.scenario"
SCOPE_VERSION: Final = "1"
TIMEOUT_SECONDS: Final = 10.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
# The digests in the scenario are those of whole values: a limit from the environment must not cut them short.
_SPAN_LIMITS: Final = SpanLimits(max_attribute_length=SpanLimits.UNSET, max_span_attribute_length=SpanLimits.UNSET)
_LOG_LIMITS: Final = LogRecordLimits(max_attribute_length=LogRecordLimits.UNSET, max_log_record_attribute_length=LogRecordLimits.UNSET)


class NotDeliveredError(RuntimeError):
    """The endpoint did not take everything it was sent: `endpoint` is which, `answer` what it said."""

    def __init__(self, what: str, *, endpoint: str, answer: str) -> None:
        """`what` was being sent to `endpoint`, which gave `answer`."""
        super().__init__(f"{what} were not delivered to {endpoint}: {answer}")
        self.endpoint = endpoint
        self.answer = answer


@dataclass(frozen=True)
class Instruments:
    """What one service writes its telemetry with."""

    tracer: Tracer
    logger: Logger


class Emitter:
    """One OTLP endpoint and the services that report to it."""

    def __init__(self, endpoint: str, *, headers: Mapping[str, str] | None, ids: random.Random) -> None:
        """`endpoint` is the base URL (no `/v1/...`), `headers` go with every request, `ids` makes the ids."""
        base = endpoint.rstrip("/")
        self._session = _Session(direct=urlsplit(base).hostname in _LOOPBACK)
        self._spans_url, self._logs_url = f"{base}/v1/traces", f"{base}/v1/logs"
        given = dict(headers or {})
        self._span_exporter = OTLPSpanExporter(self._spans_url, headers=given, timeout=TIMEOUT_SECONDS, session=self._session)
        self._log_exporter = OTLPLogExporter(self._logs_url, headers=given, timeout=TIMEOUT_SECONDS, session=self._session)
        self._ids = _SeededIds(ids)
        self._services: dict[str, Instruments] = {}
        self._outbox = _Outbox()
        self._log_outbox = _LogOutbox()
        self.spans = 0
        self.logs = 0

    def service(self, resource: Mapping[str, Any]) -> Instruments:
        """The instruments of the service whose resource attributes these are (`service.name` is its key)."""
        name = str(resource["service.name"])
        if name not in self._services:
            described = Resource.create(dict(resource))
            tracers = TracerProvider(
                resource=described,
                sampler=ALWAYS_ON,
                id_generator=self._ids,
                span_limits=_SPAN_LIMITS,
                shutdown_on_exit=False,
            )
            tracers.add_span_processor(self._outbox)
            loggers = LoggerProvider(resource=described, log_record_limits=_LOG_LIMITS, shutdown_on_exit=False)
            loggers.add_log_record_processor(self._log_outbox)
            self._services[name] = Instruments(
                tracer=tracers.get_tracer(SCOPE, SCOPE_VERSION),
                logger=loggers.get_logger(SCOPE, SCOPE_VERSION),
            )
        return self._services[name]

    def send(self) -> None:
        """Send what waits, log records first, and count it.

        Raises:
            NotDeliveredError: the endpoint refused, did not answer in time, or rejected a part.
        """
        logs, self._log_outbox.waiting = self._log_outbox.waiting, []
        spans, self._outbox.waiting = self._outbox.waiting, []
        if logs:
            self._session.forget()
            delivered = self._log_exporter.export(logs) is LogRecordExportResult.SUCCESS
            rejected = self._session.rejected(ExportLogsServiceResponse, "rejected_log_records")
            self._check(f"{len(logs)} log records", self._logs_url, delivered=delivered, rejected=rejected)
            self.logs += len(logs)
        if spans:
            self._session.forget()
            delivered = self._span_exporter.export(spans) is SpanExportResult.SUCCESS
            rejected = self._session.rejected(ExportTraceServiceResponse, "rejected_spans")
            self._check(f"{len(spans)} spans", self._spans_url, delivered=delivered, rejected=rejected)
            self.spans += len(spans)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _check(self, what: str, url: str, *, delivered: bool, rejected: int) -> None:
        if not delivered:
            raise NotDeliveredError(what, endpoint=url, answer=self._session.answer())
        if rejected:
            raise NotDeliveredError(what, endpoint=url, answer=f"partial success, {rejected} rejected")


class _Session(requests.Session):
    """The connection the exporters use. It remembers the last answer, which they do not hand out.

    Python's exporters take any 2xx as a success and do not look for `partial_success` in it.
    """

    def __init__(self, *, direct: bool) -> None:
        super().__init__()
        if direct:
            self.trust_env = False  # A proxy for the outside world cannot reach our own loopback.
        self._last: requests.Response | None = None
        self.hooks["response"].append(self._remember)

    def forget(self) -> None:
        self._last = None

    def answer(self) -> str:
        if self._last is None:
            return "no answer (is the server running?)"
        return f"{self._last.status_code} {self._last.reason}"

    def rejected(self, message: type[Any], count: str) -> int:
        if self._last is None or not self._last.ok:
            return 0
        if self._last.headers.get("Content-Type", "").partition(";")[0].strip() != "application/x-protobuf":
            return 0
        return int(getattr(message.FromString(self._last.content).partial_success, count))

    def _remember(self, response: requests.Response, *_args: Any, **_kwargs: Any) -> None:
        self._last = response


class _SeededIds(IdGenerator):
    """Trace and span ids from a seeded generator, so that a story can be told twice the same."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def generate_span_id(self) -> int:
        return self._source.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return self._source.getrandbits(128) or 1


class _Outbox(SpanProcessor):
    """Ended spans, in the order they ended, until they are sent."""

    def __init__(self) -> None:
        self.waiting: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.waiting.append(span)


class _LogOutbox(LogRecordProcessor):
    """Emitted log records until they are sent."""

    def __init__(self) -> None:
        self.waiting: list[ReadableLogRecord] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        record = copy.copy(log_record.log_record)
        record.context = Context()  # As the SDK's batch processor does: the ids were already taken from it.
        self.waiting.append(
            ReadableLogRecord(
                log_record=record,
                resource=log_record.resource or Resource.get_empty(),
                instrumentation_scope=log_record.instrumentation_scope,
                limits=log_record.limits,
            )
        )

    def shutdown(self) -> None:
        """Nothing to release."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is sent behind the caller's back."""
        return True
