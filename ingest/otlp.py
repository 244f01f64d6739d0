"""OTLP export requests and responses, in both encodings. Pure: bytes in, messages out.

opentelemetry-proto, "OTLP/HTTP Request" and "Response". What a protobuf body holds beyond our copy of the
schema stays in the message as unknown fields; what a JSON body holds beyond it is handed back beside the
message. Says nothing about what a span means, and keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import orjson
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ingest import otlp_json
from ingest.otlp_json import Undecodable as Undecodable

MESSAGE_CHARACTERS_MAX = 1_000
"""Of an error message in a response, which OTLP wants limited."""


class Signal(StrEnum):
    """What a request carries; the value is the last part of its path."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


class Encoding(StrEnum):
    """How a request is written down."""

    PROTOBUF = "protobuf"
    JSON = "json"

    @property
    def media_type(self) -> str:
        """The Content-Type of requests and responses in this encoding."""
        return "application/x-protobuf" if self is Encoding.PROTOBUF else "application/json"


Message = ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest

_REQUESTS: dict[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
_JSON_FIELDS = {signal: otlp_json.fields_of(request.DESCRIPTOR) for signal, request in _REQUESTS.items()}
_REJECTED = {
    Signal.TRACES: "rejectedSpans",
    Signal.LOGS: "rejectedLogRecords",
    Signal.METRICS: "rejectedDataPoints",
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A decoded request, and what of it the message could not hold."""

    message: Message
    unknown_json: bytes | None = None
    """Compact JSON, one object: JSON pointer (RFC 6901) into the body -> the unknown member there. Integers
    may be longer than 64 bits. None for protobuf, whose unknown fields stay in the message."""


@dataclass(frozen=True, slots=True)
class Partial:
    """The partial success of a request: how many items are not kept, and why, in English."""

    rejected: int
    """With 0 the message is only a warning."""
    message: str


def parse(signal: Signal, body: bytes, encoding: Encoding) -> Parsed:
    """Decode the body of an export request.

    Ids of a wrong length are accepted in protobuf, where they are decodable, and refused in JSON, where they
    are not hex.

    Raises:
        Undecodable: it is not such a message: malformed, nested too deeply, text that is not UTF-8.
    """
    match encoding:
        case Encoding.JSON:
            arguments, unknown = otlp_json.read(body, _JSON_FIELDS[signal])
            return Parsed(_REQUESTS[signal](**arguments), unknown)
        case Encoding.PROTOBUF:
            return Parsed(_parse_protobuf(_REQUESTS[signal], body))
        case _:
            assert_never(encoding)


def _parse_protobuf(request: type[Message], body: bytes) -> Message:
    try:
        message: Message = request.FromString(body)
    except DecodeError as exc:
        reason = str(exc)
        if "UTF-8" in reason:
            why = "a string field is not UTF-8"
        elif "MaxDepth" in reason:
            why = f"messages are nested more than {otlp_json.MESSAGE_DEPTH_MAX} deep"
        else:
            why = "it is truncated or not protobuf at all"
        raise Undecodable(f"The body is not an {request.DESCRIPTOR.name}: {why}.{_look(body)}") from exc
    return message


def _look(body: bytes) -> str:
    """A hint for the two mistakes that emitters really make."""
    if body[:1] in (b"{", b"["):
        return " It begins like JSON: is the Content-Type right?"
    if body[:2] == b"\x1f\x8b":
        return " It begins like gzip: is the Content-Encoding missing?"
    return ""


def count(message: Message) -> int:
    """Count the items: spans, log records, or metric data points."""
    match message:
        case ExportTraceServiceRequest():
            return sum(len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans)
        case ExportLogsServiceRequest():
            return sum(len(scope.log_records) for resource in message.resource_logs for scope in resource.scope_logs)
        case ExportMetricsServiceRequest():
            return sum(
                len(getattr(metric, data).data_points)
                for resource in message.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if (data := metric.WhichOneof("data"))
            )
        case _:
            assert_never(message)


def response(signal: Signal, encoding: Encoding, partial: Partial | None = None) -> bytes:
    """Encode an export response.

    Full success is 0 bytes in protobuf and `{}` in JSON: `partial_success` must not be set then.
    """
    if encoding is Encoding.JSON:
        return orjson.dumps({} if partial is None else {"partialSuccess": _partial_json(signal, partial)})
    if partial is None:
        return b""
    text = partial.message[:MESSAGE_CHARACTERS_MAX]
    message: ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse
    match signal:
        case Signal.TRACES:
            spans = ExportTracePartialSuccess(rejected_spans=partial.rejected, error_message=text)
            message = ExportTraceServiceResponse(partial_success=spans)
        case Signal.LOGS:
            logs = ExportLogsPartialSuccess(rejected_log_records=partial.rejected, error_message=text)
            message = ExportLogsServiceResponse(partial_success=logs)
        case Signal.METRICS:
            points = ExportMetricsPartialSuccess(rejected_data_points=partial.rejected, error_message=text)
            message = ExportMetricsServiceResponse(partial_success=points)
        case _:
            assert_never(signal)
    encoded: bytes = message.SerializeToString()
    return encoded


def _partial_json(signal: Signal, partial: Partial) -> dict[str, str]:
    """Write a partial success: in proto3 JSON a count of 0 is left out, and 64-bit integers are text."""
    counted = {_REJECTED[signal]: str(partial.rejected)} if partial.rejected else {}
    return counted | {"errorMessage": partial.message[:MESSAGE_CHARACTERS_MAX]}
