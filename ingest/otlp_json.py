"""OTLP/JSON to protobuf messages, field by field along the message descriptors.

OTLP's JSON is proto3 JSON with its own rules (opentelemetry-proto, "JSON Protobuf Encoding"): ids are
hexadecimal, enums are integers, unknown members are ignored. `google.protobuf.json_format` is not used,
because it reads a hexadecimal id as base64 without an error, drops unknown members without naming them, and
cannot say which field is wrong. It is the second opinion in the tests instead.

Lenient where no reading but one is possible: both spellings of a name (`traceId`, `trace_id`), enums by name,
64-bit integers as numbers or text, base64 in either alphabet. Strict elsewhere: a member given twice, a
number that its type cannot hold, NaN without quotes, a lone surrogate. No error message repeats a value:
errors are kept as records, and a value may be content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from google.protobuf.descriptor import Descriptor

from ingest.json_scalars import Unfit, UnknownName, converter, type_name
from ledger.errors import MalformedError

MESSAGE_DEPTH_MAX = 100
"""Messages below the outermost one: the protobuf runtime's limit, so what is read here survives protobuf."""
UNKNOWN_DEPTH_MAX = 100
"""Arrays and objects inside each other in a member that no message has."""

Path = tuple[Any, Any] | None
"""Where we are in the body: (the path outside of here, a member's name or a position); None at the top."""


class Undecodable(MalformedError):
    """A body is not the OTLP message it is said to be: HTTP 400, after which the sender does not retry.

    `why` is one English sentence without any value out of the body; `field` is the path of the field at fault
    (`resourceSpans[0].scopeSpans[0].spans[2].traceId`), empty where the whole body is.
    """

    def __init__(self, why: str, *, field: str = "") -> None:
        """Keep the sentence and the path."""
        super().__init__(why)
        self.why = why
        self.field = field


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    repeated: bool
    fields: Mapping[str, _Field] | None
    """The members of a message field; None for a scalar. The mapping is shared, so AnyValue can contain
    itself."""
    choices: frozenset[str]
    """The fields of the same oneof, this one included; empty outside of one."""
    convert: Callable[[Any], Any]


Fields = Mapping[str, _Field]


def fields_of(descriptor: Descriptor, _known: dict[str, dict[str, _Field]] | None = None) -> Fields:
    """Compile a message type: its fields by both spellings of their names."""
    known = {} if _known is None else _known
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    fields = known[descriptor.full_name] = {}
    for field in descriptor.fields:
        oneof = field.containing_oneof
        siblings = frozenset(other.name for other in oneof.fields) if oneof else frozenset[str]()
        compiled = _Field(
            name=field.name,
            repeated=field.is_repeated,
            fields=fields_of(field.message_type, known) if field.message_type else None,
            choices=siblings if len(siblings) > 1 else frozenset(),
            convert=converter(field),
        )
        fields[field.json_name] = fields[field.name] = compiled
    return fields


def read(text: bytes, fields: Fields) -> tuple[dict[str, Any], bytes | None]:
    """Read a body into the keyword arguments of its message, and the unknown members.

    Returns:
        The arguments, ready for the message's constructor, which cannot fail on them; and compact JSON of one
        object with the unknown members by their path as a JSON pointer (RFC 6901), or None when there are
        none.

    Raises:
        Undecodable: the body is not JSON, or not this message.
    """
    reader = _Reader()
    arguments = reader.members(_load(text), fields, None, 0)
    return arguments, reader.unknown_json()


class _Reader:
    """One walk over one body; collects the unknown members on its way."""

    def __init__(self) -> None:
        self._unknown: dict[str, Any] = {}

    def members(self, value: Any, fields: Fields, at: Path, depth: int) -> dict[str, Any]:
        """Read one message."""
        if type(value) is not dict:
            _refuse(at, f"must be an object, not {type_name(value)}")
        if depth > MESSAGE_DEPTH_MAX:
            raise Undecodable(f"The body nests more than {MESSAGE_DEPTH_MAX} messages inside each other.")
        arguments: dict[str, Any] = {}
        for key, member in value.items():
            field = fields.get(key)
            if field is None:
                self._keep_unknown((at, key), member)
            elif member is not None:  # null is the proto3 JSON way to say "not set"
                if field.name in arguments:
                    _refuse((at, key), "is given twice, in both spellings of its name")
                if field.choices and not field.choices.isdisjoint(arguments):
                    _refuse((at, key), "is one alternative too many: only one of its group may be set")
                self._member(arguments, field, member, (at, key), depth)
        return arguments

    def _member(self, arguments: dict[str, Any], field: _Field, value: Any, at: Path, depth: int) -> None:
        try:
            if field.repeated:
                if type(value) is not list:
                    raise Unfit(f"must be an array, not {type_name(value)}")
                items = [
                    self.members(item, field.fields, (at, position), depth + 1) if field.fields is not None else field.convert(item)
                    for position, item in enumerate(value)
                ]
                arguments[field.name] = items
            elif field.fields is not None:
                arguments[field.name] = self.members(value, field.fields, at, depth + 1)
            else:
                arguments[field.name] = field.convert(value)
        except Unfit as exc:
            _refuse(at, str(exc))
        except UnknownName:  # newer than our copy of the schema: kept as what it is, a member we cannot read
            self._keep_unknown(at, value)

    def _keep_unknown(self, at: Path, value: Any) -> None:
        if _is_deeper(value, UNKNOWN_DEPTH_MAX):
            raise Undecodable(f"A member no OTLP message has is nested deeper than {UNKNOWN_DEPTH_MAX} levels.")
        self._unknown[_pointer(at)] = value

    def unknown_json(self) -> bytes | None:
        """Write what was collected."""
        if not self._unknown:
            return None
        try:
            text = json.dumps(self._unknown, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode()
        except UnicodeEncodeError as exc:
            raise Undecodable("A member no OTLP message has contains half of a surrogate pair.") from exc
        except ValueError as exc:  # from allow_nan: 1e999 was read as infinity
            raise Undecodable("A member no OTLP message has contains a number beyond a double.") from exc


def _load(text: bytes) -> Any:
    """Parse JSON as RFC 8259 has it, where Python's parser is more lenient than that."""
    if not text:
        raise Undecodable("The body is empty; an empty OTLP/JSON request is {}.")
    try:
        # Decoded here, because json.loads would guess UTF-16 and let encoded surrogates pass.
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Undecodable(f"The body is not UTF-8 (byte {exc.start}).") from exc
    try:
        return json.loads(decoded, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as exc:
        raise Undecodable("The body is nested too deeply to be an OTLP request.") from exc
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}"
        raise Undecodable(f"The body is not JSON: {exc.msg[:1].lower()}{exc.msg[1:]} ({where}).") from exc
    except ValueError as exc:  # more digits in one integer than Python converts
        raise Undecodable("The body contains a number of several thousand digits.") from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Undecodable("The body gives a member of an object twice; which one counts is anyone's guess.")
    return members


def _no_constant(name: str) -> NoReturn:
    raise Undecodable(f'The body contains a bare {name}; OTLP/JSON writes it in quotes, "{name}".')


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in items)


def _refuse(at: Path, complaint: str) -> NoReturn:
    field = _dotted(at)
    raise Undecodable(f"{field or 'The body'} {complaint}.", field=field)


def _steps(at: Path) -> list[Any]:
    steps = []
    while at is not None:
        at, step = at
        steps.append(step)
    return steps[::-1]


def _dotted(at: Path) -> str:
    """The form google.rpc.BadRequest asks for: `resourceSpans[0].scopeSpans[1].scope.name`."""
    return "".join(f"[{step}]" if type(step) is int else f".{step}" for step in _steps(at)).removeprefix(".")


def _pointer(at: Path) -> str:
    """A JSON pointer (RFC 6901), which stays unambiguous whatever an unknown member is called."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in _steps(at))
