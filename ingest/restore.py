"""From records back to OTLP: the inverse of `ingest.normalise`, for exports, for replays, and as the proof that nothing was lost.

A record and its contents rows give an export request with one resource, one scope and one span or log record: what the sender would
have sent, had it sent that one alone. Pure. Facts are not looked at: they are our reading, and were never sent.
Normative text: `ledger/FORMAT.md`, "Spans and logs" and "Values".
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest.wrap import unwrap, unwrap_pairs
from ledger.contents import ContentRow
from ledger.errors import LedgerError, MalformedError, RecordAltered
from ledger.record import SUBTREE, commitment, parse_record

_IDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_TIMES: Final = frozenset({"start_time_unix_nano", "end_time_unix_nano", "time_unix_nano", "observed_time_unix_nano"})


class ContentNotThere(LedgerError):
    """A content that the record commits to is withheld, erased or missing: what was sent cannot be made again."""


def restore(record: bytes, rows: Sequence[ContentRow | None]) -> ExportTraceServiceRequest | ExportLogsServiceRequest:
    """The request that would have made this record alone.

    Args:
        record: the bytes of a `span` or `log` record.
        rows: its contents rows by ordinal; None, or a row without a value, where a content is not at hand.

    Raises:
        ContentNotThere: one of its contents is not at hand; `expected` is the commitment.
        RecordAltered: a content is not what the record commits to.
        MalformedError: another kind of record, or not one that `ingest.normalise` makes.
    """
    members = parse_record(record)
    if members["kind"] not in ("span", "log"):
        raise MalformedError(f"a {members['kind']} record was not made from OTLP")
    try:
        members.pop("facts", None)
        members = _with_contents(members, rows)
        return _trace(members) if members["kind"] == "span" else _log(members)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise MalformedError(f"this is not a record of the form that was made from OTLP: {exc}") from exc


def _with_contents(members: dict[str, Any], rows: Sequence[ContentRow | None]) -> dict[str, Any]:
    """The record with every content mark replaced by what it stands for: marks in document order, then those inside moved subtrees."""
    holder = {"record": members}
    ordinal = 0
    waiting: deque[tuple[Any, Any]] = deque([(holder, "record")])
    while waiting:
        subtree = waiting.popleft()
        for parent, key in _marks(*subtree):
            mark = parent[key]
            value = _content(mark["$content"], rows[ordinal] if ordinal < len(rows) else None, ordinal)
            ordinal += 1
            rest = {name: member for name, member in mark.items() if name != "$content"}
            if mark["$content"]["type"] == "s":
                parent[key] = {"s": value.decode(), **rest}
            else:
                parent[key] = orjson.loads(value)
                if mark["$content"]["type"] == SUBTREE:
                    waiting.append((parent, key))
    return holder["record"]


def _marks(parent: Any, key: Any) -> list[tuple[Any, Any]]:
    """Where the content marks below `parent[key]` stand, in document order."""
    found: list[tuple[Any, Any]] = []
    stack = [(parent, key)]
    while stack:
        above, at = stack.pop()
        node = above[at]
        if isinstance(node, dict):
            if "$content" in node:
                found.append((above, at))
            else:
                stack += [(node, name) for name in reversed(node)]
        elif isinstance(node, list):
            stack += [(node, position) for position in reversed(range(len(node)))]
    return found


def _content(mark: Mapping[str, Any], row: ContentRow | None, ordinal: int) -> bytes:
    salt, value = b"", None
    if row is not None:
        _field, _type, salt, value, name, _keyed = row
        value = name.encode() if name is not None else value
    if value is None:
        raise ContentNotThere(f"content {ordinal} of the record is not at hand", expected=mark["commitment"])
    if len(value) != mark["bytes"] or commitment(salt, value).hex() != mark["commitment"]:
        raise RecordAltered(f"content {ordinal} is not what the record commits to", expected=mark["commitment"])
    return value


def _trace(members: dict[str, Any]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    scope_spans = resource_spans.scope_spans.add()
    _surround(members, request, resource_spans, scope_spans)
    span, given = scope_spans.spans.add(), members["span"]
    _fill(span, given, but=("attributes", "events", "links", "status"))
    unwrap_pairs(given.get("attributes", ()), span.attributes)
    for name, target in (("events", span.events), ("links", span.links)):
        for item in given.get(name, ()):
            made = target.add()
            _fill(made, item, but=("attributes",))
            unwrap_pairs(item.get("attributes", ()), made.attributes)
    if "status" in given:
        span.status.SetInParent()
        status = dict(given["status"])
        message = status.pop("message", "")
        span.status.message = message["s"] if isinstance(message, dict) else message
        _fill(span.status, status)
    return request


def _log(members: dict[str, Any]) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    resource_logs = request.resource_logs.add()
    scope_logs = resource_logs.scope_logs.add()
    _surround(members, request, resource_logs, scope_logs)
    log, given = scope_logs.log_records.add(), members["log"]
    _fill(log, given, but=("attributes", "body"))
    unwrap_pairs(given.get("attributes", ()), log.attributes)
    if "body" in given:
        log.body.SetInParent()
        unwrap(given["body"], log.body)
    return request


def _surround(members: dict[str, Any], request: Any, resource_holder: Any, scope_holder: Any) -> None:
    """Resource, scope and envelope."""
    if (resource := members.get("resource")) is not None:
        resource_holder.resource.SetInParent()
        _fill(resource_holder.resource, resource, but=("attributes", "entity_refs"))
        unwrap_pairs(resource.get("attributes", ()), resource_holder.resource.attributes)
        for reference in resource.get("entity_refs", ()):
            resource_holder.resource.entity_refs.add().MergeFromString(base64.b64decode(reference))
    if (scope := members.get("scope")) is not None:
        scope_holder.scope.SetInParent()
        _fill(scope_holder.scope, scope, but=("attributes",))
        unwrap_pairs(scope.get("attributes", ()), scope_holder.scope.attributes)
    for name, value in members.get("envelope", {}).items():
        match name:
            case "resource_schema_url":
                resource_holder.schema_url = value
            case "scope_schema_url":
                scope_holder.schema_url = value
            case "request_unknown":
                request.MergeFromString(base64.b64decode(value))
            case "resource_unknown":
                resource_holder.MergeFromString(base64.b64decode(value))
            case "scope_unknown":
                scope_holder.MergeFromString(base64.b64decode(value))
            case _:
                raise MalformedError(f"{name!r} is not a member of an envelope")


def _fill(message: Any, given: Mapping[str, Any], *, but: Sequence[str] = ()) -> None:
    """Set the scalar fields of a message, and its unknown ones."""
    for name, value in given.items():
        if name in but:
            continue
        if name == "$unknown":
            message.MergeFromString(base64.b64decode(value))
        elif name in _IDS:
            setattr(message, name, bytes.fromhex(value))
        elif name in _TIMES:
            setattr(message, name, int(value))
        else:
            setattr(message, name, value)
