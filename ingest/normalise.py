"""From decoded OTLP to records: values wrapped, contents split off, facts drawn; the hot path of ingest.

Interprets and never judges; loses nothing (`ingest.restore` is the inverse). Pure but for randomness (salts, nonces), which is
an argument. About 35 us a span: the loops are flat on purpose, and attribute look-ups are bound to locals.
Normative text: `ledger/FORMAT.md`, "Records" and "Values".
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ingest.batch import Batch, Origin
from ingest.facts import MAX_TIME, NO_RANK, FactMaker, Gathered, event_time
from ingest.oversized import shrink
from ingest.vocabularies import Rule, Vocabulary
from ingest.wrap import add_unknown, pair_rest, plain, wrap
from ledger.contents import ContentRow, keyed_digest, pseudonym
from ledger.record import MAX_RECORD_BYTES, RECORD_VERSION, SALT_BYTES

VALUE_LIMIT: Final = 1_024
"""Characters (or encoded bytes) above which any value is kept as a content."""
_EVENT_NAME: Final = re.compile(r"(?=.{1,128}\Z)[a-z0-9_]+(\.[a-z0-9_]+)+")
"""A dotted lower-case name. Any other text of a body may be a prompt, or a password."""
_TAG: Final = b"trail-content/1\0"
_STATUS_ERROR: Final = 2
_LARGE: Final = frozenset({"array_value", "kvlist_value", "bytes_value", "string_value"})
_MAX_PERSONS: Final = 20_000

_STANDING_FACTS: Final = frozenset(
    {"service", "environment", "workflow", "owner", "agent", "agent_version", "requester", "run_id", "capability", "prompt_version"}
)
"""What a resource or scope may say of each of its records. A standing `trail.policy.id` there is no decision on any of them."""
_IDENTITY: Final = ("service", "environment")
"""What a resource says of its records whatever they say themselves: a token is bound to the services of the resource."""


class Normaliser:
    """Makes records; one a process, not shared between threads."""

    def __init__(self, vocabulary: Vocabulary, *, secret: bytes, random: Callable[[int], bytes]) -> None:
        """Bind the vocabulary, the secret of the store's pseudonyms and the source of salts."""
        self._vocabulary = vocabulary
        self._rules = vocabulary.rules
        self._facts = FactMaker(vocabulary)
        self._secret = secret
        self._random = random
        self._salts = b""
        self._salt_at = 0
        self._exact = False
        self._persons: dict[str, tuple[bytes, str]] = {}
        self._labels: dict[int, str] = {}

    def spans(self, request: Any, origin: Origin, *, exact: bool, full: Callable[[Batch], None] | None = None) -> Batch:
        """Records of an ExportTraceServiceRequest, in the order received.

        Args:
            request: the decoded message.
            origin: receipt time and sender.
            exact: the request has unknown fields somewhere; they are kept.
            full: takes records in chunks, see `Batch`; what is left comes back.
        """
        self._exact = exact
        batch = Batch("span", origin, full=full)
        for resource_spans in request.resource_spans:
            resource = self._resource(resource_spans)
            for scope_spans in resource_spans.scope_spans:
                scope = self._scope(scope_spans, resource, request, resource_spans)
                for span in scope_spans.spans:
                    self._span(span, scope, batch)
        return batch

    def logs(self, request: Any, origin: Origin, *, exact: bool, full: Callable[[Batch], None] | None = None) -> Batch:
        """Records of an ExportLogsServiceRequest, in the order received."""
        self._exact = exact
        batch = Batch("log", origin, full=full)
        for resource_logs in request.resource_logs:
            resource = self._resource(resource_logs)
            for scope_logs in resource_logs.scope_logs:
                scope = self._scope(scope_logs, resource, request, resource_logs)
                for log in scope_logs.log_records:
                    self._log(log, scope, batch)
        return batch

    def _resource(self, holder: Any) -> _Shared:
        rows: list[ContentRow] = []
        gathered = Gathered()
        value: dict[str, Any] | None = None
        if holder.HasField("resource"):
            resource: Resource = holder.resource
            value = {"attributes": self._attributes(resource.attributes, rows, gathered, "resource:")} if resource.attributes else {}
            if resource.dropped_attributes_count:
                value["dropped_attributes_count"] = resource.dropped_attributes_count
            if resource.entity_refs:
                value["entity_refs"] = [base64.b64encode(ref.SerializeToString()).decode() for ref in resource.entity_refs]
            self._unknown(value, resource)
        facts, mask = _standing(*self._facts.facts(gathered))
        return _Shared(value, rows, facts, mask)

    def _scope(self, holder: Any, resource: _Shared, request: Message, resource_holder: Any) -> _Context:
        rows: list[ContentRow] = []
        gathered = Gathered()
        value = None
        if holder.HasField("scope"):
            scope: InstrumentationScope = holder.scope
            value = {"attributes": self._attributes(scope.attributes, rows, gathered, "scope:")} if scope.attributes else {}
            for name in ("name", "version", "dropped_attributes_count"):
                if field := getattr(scope, name):
                    value[name] = field
            self._unknown(value, scope)
        facts, mask = _standing(*self._facts.facts(gathered))
        top: dict[str, Any] = {}
        if resource.value is not None:
            top["resource"] = _fragment(resource.value)
        if value is not None:
            top["scope"] = _fragment(value)
        envelope = self._envelope(request, resource_holder, holder)
        if envelope:
            top["envelope"] = envelope
        identity: dict[str, Any] = {name: resource.facts[name] for name in _IDENTITY if name in resource.facts}
        return _Context(top, resource.value, value, resource.rows + rows, {**resource.facts, **facts}, identity, resource.mask | mask)

    def _envelope(self, request: Message, resource_holder: Any, scope_holder: Any) -> dict[str, str]:
        envelope: dict[str, str] = {}
        if resource_holder.schema_url:
            envelope["resource_schema_url"] = resource_holder.schema_url
        if scope_holder.schema_url:
            envelope["scope_schema_url"] = scope_holder.schema_url
        if self._exact:
            for name, message in (("request", request), ("resource", resource_holder), ("scope", scope_holder)):
                add_unknown(envelope, message, f"{name}_unknown")
        return envelope

    def _span(self, span: Span, context: _Context, batch: Batch) -> None:
        rows: list[ContentRow] = []
        gathered = Gathered()
        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        value: dict[str, Any] = {}
        if attributes := span.attributes:
            value["attributes"] = self._attributes(attributes, rows, gathered, "")
        if span.events:
            value["events"] = [self._event(event, f"events[{i}]:", rows) for i, event in enumerate(span.events)]
        if span.links:
            value["links"] = [self._link(link, f"links[{i}]:", rows) for i, link in enumerate(span.links)]
        name = span.name
        if name:
            value["name"] = name
        if trace_id:
            value["trace_id"] = trace_id.hex()
        if span_id:
            value["span_id"] = span_id.hex()
        if parent_id:
            value["parent_span_id"] = parent_id.hex()
        if start:
            value["start_time_unix_nano"] = str(start)
        if end:
            value["end_time_unix_nano"] = str(end)
        for key in ("kind", "flags", "trace_state", "dropped_attributes_count", "dropped_events_count", "dropped_links_count"):
            if field := getattr(span, key):
                value[key] = field
        code = 0
        if span.HasField("status"):
            code = span.status.code
            value["status"] = self._status(span.status, rows)
        self._unknown(value, span)

        facts, mask = self._facts.facts(gathered)
        facts = {**context.facts, **facts, **context.identity}
        if "outcome" not in facts and end:
            facts["outcome"] = "error" if code == _STATUS_ERROR else "ok"
        if "action_id" not in facts and span_id and (facts.get("event") in self._vocabulary.actions or "change_kind" in facts):
            facts["action_id"] = span_id.hex()
        self._identify(facts, name, trace_id, span_id, parent_id)
        _set_time(facts, "time", start)
        _set_time(facts, "end_time", end)
        self._finish(value, facts, mask | context.mask, rows, context, batch)

    def _log(self, log: LogRecord, context: _Context, batch: Batch) -> None:
        rows: list[ContentRow] = []
        gathered = Gathered()
        trace_id, span_id = log.trace_id, log.span_id
        value: dict[str, Any] = {}
        if attributes := log.attributes:
            value["attributes"] = self._attributes(attributes, rows, gathered, "")
        body_name = None
        if log.HasField("body"):
            body_name, value["body"] = self._body(log, rows)
        if trace_id:
            value["trace_id"] = trace_id.hex()
        if span_id:
            value["span_id"] = span_id.hex()
        for key in ("time_unix_nano", "observed_time_unix_nano"):
            if number := getattr(log, key):
                value[key] = str(number)
        for key in ("severity_number", "severity_text", "flags", "dropped_attributes_count", "event_name"):
            if field := getattr(log, key):
                value[key] = field
        self._unknown(value, log)

        facts, mask = self._facts.facts(gathered)
        facts = {**context.facts, **facts, **context.identity}
        # The protocol's own field first: an attribute may name the operation that the event is about.
        event = log.event_name or facts.get("event") or body_name
        if event:
            _set_text(facts, "event", event)
        self._identify(facts, event or "", trace_id, span_id, b"")
        _set_time(facts, "time", log.time_unix_nano or log.observed_time_unix_nano)
        self._finish(value, facts, mask | context.mask, rows, context, batch)

    def _body(self, log: LogRecord, rows: list[ContentRow]) -> tuple[str | None, Any]:
        """(an event name, if the body is one; the body wrapped or kept as a content): free text may be a prompt."""
        body = log.body
        which = body.WhichOneof("value")
        wrapped = wrap(body, exact=self._exact)
        if which == "string_value" and len(wrapped) == 1:  # nothing unknown in it
            text = body.string_value
            if _EVENT_NAME.fullmatch(text):
                return text, wrapped
            return None, self._keep(rows, "body", "s", text.encode()) if text else wrapped
        if which in _LARGE:
            return None, self._keep(rows, "body", "j", _dumps(wrapped))
        return None, wrapped

    def _event(self, event: Span.Event, prefix: str, rows: list[ContentRow]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if event.attributes:
            value["attributes"] = self._attributes(event.attributes, rows, Gathered(), prefix)
        if event.name:
            value["name"] = event.name
        if event.time_unix_nano:
            value["time_unix_nano"] = str(event.time_unix_nano)
        if event.dropped_attributes_count:
            value["dropped_attributes_count"] = event.dropped_attributes_count
        self._unknown(value, event)
        return value

    def _link(self, link: Span.Link, prefix: str, rows: list[ContentRow]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if link.attributes:
            value["attributes"] = self._attributes(link.attributes, rows, Gathered(), prefix)
        if link.trace_id:
            value["trace_id"] = link.trace_id.hex()
        if link.span_id:
            value["span_id"] = link.span_id.hex()
        for key in ("trace_state", "flags", "dropped_attributes_count"):
            if field := getattr(link, key):
                value[key] = field
        self._unknown(value, link)
        return value

    def _status(self, status: Any, rows: list[ContentRow]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        if status.code:
            value["code"] = status.code
        if status.message:
            long = len(status.message) > VALUE_LIMIT
            value["message"] = self._keep(rows, "status.message", "s", status.message.encode()) if long else status.message
        self._unknown(value, status)
        return value

    def _attributes(self, attributes: Iterable[KeyValue], rows: list[ContentRow], gathered: Gathered, prefix: str) -> list[Any]:
        """Attributes as pairs; contents go to `rows`, what the vocabulary knows to `gathered`."""
        pairs: list[Any] = []
        add = pairs.append
        look_up = self._rules.__getitem__
        exact = self._exact
        facts, ranks, mask = gathered.facts, gathered.ranks, gathered.mask
        for attribute in attributes:
            key = attribute.key
            any_value = attribute.value
            # A text that is not empty is the value, so the commonest case needs no question which member is set.
            text = any_value.string_value
            if text and not exact:
                rule = look_up(key)
                if rule is None:
                    pair = [key, {"s": text} if len(text) <= VALUE_LIMIT else self._keep(rows, prefix + key, "s", text.encode())]
                elif rule.plain and len(text) <= VALUE_LIMIT:
                    pair = [key, {"s": text}]
                    fact, rank, bit = rule.gives
                    if fact is not None and ranks.get(fact, NO_RANK) > rank:
                        facts[fact] = text
                        ranks[fact] = rank
                        mask |= bit
                else:
                    pair = [key, self._kept_text(rule, key, text, rows, gathered, prefix)]
            else:
                pair = [key, self._other_value(attribute, rows, gathered, prefix)]
            if attribute.key_strindex or exact:
                rest = pair_rest(attribute, exact=exact)
                if rest:
                    pair.append(rest)
            add(pair)
        gathered.mask = mask
        return pairs

    def _other_value(self, attribute: KeyValue, rows: list[ContentRow], gathered: Gathered, prefix: str) -> Any:
        """A value that is no text, or an empty one, or any value of a request with unknown fields."""
        key = attribute.key
        any_value = attribute.value
        which = any_value.WhichOneof("value")
        rule = self._rules[key]
        if which == "int_value" and rule is None and not self._exact:
            return {"i": str(any_value.int_value)}
        wrapped = wrap(any_value, exact=self._exact) if which or attribute.HasField("value") else None
        if wrapped and len(wrapped) == 1 and any_value.string_value:  # the unknown fields are elsewhere
            return self._kept_text(rule, key, any_value.string_value, rows, gathered, prefix)
        if rule is not None or which in _LARGE:
            return self._known_value(rule, key, wrapped, rows, gathered, prefix)
        return wrapped

    def _kept_text(self, rule: Rule | None, key: str, text: str, rows: list[ContentRow], gathered: Gathered, prefix: str) -> dict[str, Any]:
        """A text that is long, or that the vocabulary has more to say of: a content, a person, a fact of a closed set."""
        if rule is not None and rule.person:
            keyed, name = self._person(text)
            gathered.hit(rule, key, name)
            return self._keep(rows, prefix + key, "s", text.encode(), name=text, keyed=keyed)
        if rule is not None and rule.fact is not None:
            gathered.hit(rule, key, _described(text) if rule.content else text)
        if len(text) > VALUE_LIMIT or (rule is not None and rule.content):
            return self._keep(rows, prefix + key, "s", text.encode())
        return {"s": text}

    def _known_value(self, rule: Rule | None, key: str, wrapped: Any, rows: list[ContentRow], gathered: Gathered, prefix: str) -> Any:
        """A value of another type than text: facts from numbers and lists, contents by rule and by size.

        What carries unknown fields comes here too, as a text: the wrapper with them is then kept whole.
        """
        value = plain(wrapped)
        if rule is not None and rule.person and wrapped:
            if value is None:
                return self._keep(rows, prefix + key, "j", _dumps(wrapped))
            keyed, name = self._person(value if isinstance(value, str) else _dumps(value).decode())
            gathered.hit(rule, key, name)
            return self._keep(rows, prefix + key, "j", _dumps(wrapped), keyed=keyed)
        if rule is not None and rule.fact is not None:
            gathered.hit(rule, key, _described(value) if rule.content else value)
        if not wrapped:
            return wrapped
        encoded = _dumps(wrapped)
        if len(encoded) > VALUE_LIMIT or (rule is not None and rule.content):
            return self._keep(rows, prefix + key, "j", encoded)
        return wrapped

    def _person(self, text: str) -> tuple[bytes, str]:
        """(keyed digest, pseudonym) of a person, remembered: the same few thousand come again and again."""
        known = self._persons.get(text)
        if known is None:
            if len(self._persons) >= _MAX_PERSONS:
                self._persons.clear()
            keyed = keyed_digest(self._secret, "person", text.encode())
            known = self._persons[text] = (keyed, pseudonym(keyed))
        return known

    def _keep(
        self, rows: list[ContentRow], field: str, type: str, value: bytes, *, name: str | None = None, keyed: bytes | None = None
    ) -> dict[str, Any]:
        """Put a value beside the log; the mark that stands for it."""
        salt = self._salt()
        rows.append((field, type, salt, None if name is not None else value, name, keyed))
        digest = hashlib.sha256(_TAG + salt + value).hexdigest()
        return {"$content": {"bytes": len(value), "commitment": digest, "type": type}}

    def _salt(self) -> bytes:
        """16 random bytes, from a supply: the kernel is asked once for a thousand."""
        at = self._salt_at
        if at >= len(self._salts):
            self._salts, at = self._random(SALT_BYTES * 1024), 0
        self._salt_at = at + SALT_BYTES
        return self._salts[at : at + SALT_BYTES]

    def _unknown(self, value: dict[str, Any], message: Message) -> None:
        if self._exact:
            add_unknown(value, message)

    def _identify(self, facts: dict[str, Any], name: str, trace_id: bytes, span_id: bytes, parent_id: bytes) -> None:
        if name:
            _set_text(facts, "name", name)
        if trace_id:
            facts["trace_id"] = trace_id.hex()
        if span_id:
            facts["span_id"] = span_id.hex()
        if parent_id:
            facts["parent_span_id"] = parent_id.hex()

    def _finish(
        self,
        value: dict[str, Any],
        facts: dict[str, Any],
        mask: int,
        rows: list[ContentRow],
        context: _Context,
        batch: Batch,
    ) -> None:
        """Encode one record and add it to the batch."""
        kind = batch.kind
        origin = batch.origin
        members: dict[str, Any] = {
            "v": RECORD_VERSION,
            "kind": kind,
            "received": str(origin.received),
            "sender": origin.sender,
            "facts": facts,
            # Trace and span ids are no secret: every service that was called has seen them.
            "nonce": self._salt().hex(),
            kind: value,
            **context.top,
        }
        if origin.role is not None:
            members["role"] = origin.role
        vocabulary = self._labels.get(mask)
        if vocabulary is None:
            vocabulary = self._labels[mask] = self._vocabulary.label(mask) or ""
        if vocabulary:
            members["vocabulary"] = vocabulary
        data = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
        # Content rows follow the marks in document order: `log` sorts before `resource`, `span` behind `scope`.
        ordered = rows + context.rows if kind == "log" else context.rows + rows
        if len(data) > MAX_RECORD_BYTES:
            data, ordered = shrink(members, {"resource": context.resource, "scope": context.scope}, ordered, self._random)
        batch.add(data, facts, vocabulary or None, ordered)


@dataclass(slots=True)
class _Shared:
    """A resource, encoded once for all its records."""

    value: dict[str, Any] | None
    rows: list[ContentRow]
    facts: dict[str, Any]
    mask: int


@dataclass(slots=True)
class _Context:
    """Resource and scope of the records at hand."""

    top: dict[str, Any]
    """Members of every record."""
    resource: dict[str, Any] | None
    scope: dict[str, Any] | None
    rows: list[ContentRow]
    facts: dict[str, Any]
    identity: dict[str, Any]
    """Facts of the resource that no record of it can change."""
    mask: int


def _standing(facts: dict[str, Any], mask: int) -> tuple[dict[str, Any], int]:
    """The facts that hold for every record of a resource or scope, and the tables."""
    return {name: value for name, value in facts.items() if name in _STANDING_FACTS}, mask


def _described(value: Any) -> list[Any] | None:
    """Of a content the objects in it, which may have ids that are facts; its texts are none of a fact's business."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value) if value[:1] in ("[", "{") else None
        except orjson.JSONDecodeError:
            return None
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)] or None


def _set_time(facts: dict[str, Any], name: str, unix_nano: int) -> None:
    time = event_time(unix_nano)
    if time is not None and unix_nano != MAX_TIME:  # a DuckDB column reads that one as "infinity"
        facts[name] = time


def _set_text(facts: dict[str, Any], name: str, text: str) -> None:
    if len(text) > VALUE_LIMIT:
        text = text[:VALUE_LIMIT]
        facts["cut"] = [*facts.get("cut", ()), name]
    facts[name] = text


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _fragment(value: dict[str, Any]) -> orjson.Fragment:
    return orjson.Fragment(_dumps(value))
