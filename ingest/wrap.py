"""Typed wrappers: OTLP values as JSON that loses nothing and cannot be taken for ours.

`{"s": text} {"b": true} {"i": "-5"} {"d": 0.5} {"x": base64} {"a": [..]} {"m": [[key, value], ..]} {}`; a missing value is null.
Integers are decimal strings (readers of JSON disagree beyond 2^53), non-finite doubles are words, maps are lists of pairs, so that
order, repeated keys and a key called `$content` survive. `unwrap` is the inverse, a property test holds the two together.
Normative text: `ledger/FORMAT.md`, "Values".
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from ledger.errors import MalformedError

CANONICAL_NAN: Final = 0x7FF8000000000000


def wrap(value: AnyValue, *, exact: bool) -> dict[str, Any]:
    """Wrap one value.

    Args:
        value: as received.
        exact: also look for unknown fields (the caller knows that the request has some).
    """
    which = value.WhichOneof("value")
    wrapped: dict[str, Any]
    match which:
        case None:
            wrapped = {}
        case "string_value":
            wrapped = {"s": value.string_value}
        case "bool_value":
            wrapped = {"b": value.bool_value}
        case "int_value":
            wrapped = {"i": str(value.int_value)}
        case "double_value":
            wrapped = {"d": double(value.double_value)}
        case "bytes_value":
            wrapped = {"x": base64.b64encode(value.bytes_value).decode()}
        case "array_value":
            wrapped = {"a": [wrap(item, exact=exact) for item in value.array_value.values]}
            if exact:
                add_unknown(wrapped, value.array_value, "$unknown_list")
        case "kvlist_value":
            wrapped = {"m": [wrap_pair(pair, exact=exact) for pair in value.kvlist_value.values]}
            if exact:
                add_unknown(wrapped, value.kvlist_value, "$unknown_list")
        case "string_value_strindex":
            wrapped = {"r": value.string_value_strindex}
        case _:
            raise MalformedError(f"a value of an unknown type: {which}")
    if exact:
        add_unknown(wrapped, value)
    return wrapped


def wrap_pair(pair: KeyValue, *, exact: bool) -> list[Any]:
    """`[key, value]`, with a third member for what is rare: a string table index, unknown fields."""
    wrapped: list[Any] = [pair.key, wrap(pair.value, exact=exact) if pair.HasField("value") else None]
    rest = pair_rest(pair, exact=exact)
    return [*wrapped, rest] if rest else wrapped


def pair_rest(pair: KeyValue, *, exact: bool) -> dict[str, Any]:
    """The third member of a pair, mostly empty."""
    rest: dict[str, Any] = {}
    if pair.key_strindex:
        rest["key_strindex"] = pair.key_strindex
    if exact:
        add_unknown(rest, pair)
    return rest


def double(value: float) -> float | str:
    """A finite double as a number, another as a word; a NaN with a payload keeps its bits."""
    if math.isfinite(value):
        return value
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return "NaN" if bits == CANONICAL_NAN else f"NaN:{bits:016x}"


def add_unknown(target: dict[str, Any], message: Message, name: str = "$unknown") -> None:
    """Keep a message's own unknown fields, as bytes, under `name`."""
    data = unknown_fields(message)
    if data:
        target[name] = base64.b64encode(data).decode()


def unknown_fields(message: Message) -> bytes:
    """The unknown fields of this message itself, not of its children, in wire form."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field, _value in copy.ListFields():
        copy.ClearField(field.name)
    return copy.SerializeToString()


def plain(wrapped: Any) -> Any:
    """A wrapped value as an ordinary Python one, for facts; losses are fine here."""
    if not wrapped:
        return None
    kind, inner = next(iter(wrapped.items()))
    match kind:
        case "i":
            return int(inner)
        case "a":
            return [plain(item) for item in inner]
        case "m":
            return {pair[0]: plain(pair[1]) for pair in inner}
        case "s" | "b" | "d":
            return inner
        case _:
            return None


def unwrap(wrapped: dict[str, Any], value: AnyValue) -> None:
    """Fill `value` from its wrapper; the inverse of `wrap`.

    Raises:
        MalformedError: not a wrapper.
    """
    for kind, inner in wrapped.items():
        match kind:
            case "s":
                value.string_value = inner
            case "b":
                value.bool_value = inner
            case "i":
                value.int_value = int(inner)
            case "d":
                value.double_value = undouble(inner)
            case "x":
                value.bytes_value = base64.b64decode(inner)
            case "a":
                value.array_value.SetInParent()
                for item in inner:
                    unwrap(item, value.array_value.values.add())
            case "m":
                value.kvlist_value.SetInParent()
                unwrap_pairs(inner, value.kvlist_value.values)
            case "r":
                value.string_value_strindex = inner
            case "$unknown":
                value.MergeFromString(base64.b64decode(inner))
            case "$unknown_list":
                (value.array_value if "a" in wrapped else value.kvlist_value).MergeFromString(base64.b64decode(inner))
            case _:
                raise MalformedError(f"{kind!r} is not a value wrapper")


def unwrap_pairs(pairs: Iterable[list[Any]], target: Any) -> None:
    """Add pairs to a repeated KeyValue field; the inverse of `wrap_pair`."""
    for key, wrapped, *rest in pairs:
        pair = target.add(key=key)
        if wrapped is not None:
            pair.value.SetInParent()
            unwrap(wrapped, pair.value)
        for extra in rest:
            pair.key_strindex = extra.get("key_strindex", 0)
            if "$unknown" in extra:
                pair.MergeFromString(base64.b64decode(extra["$unknown"]))


def undouble(value: float | str) -> float:
    """The inverse of `double`."""
    if not isinstance(value, str):
        return float(value)
    if value.startswith("NaN:"):
        return float(struct.unpack("<d", struct.pack("<Q", int(value[4:], 16)))[0])
    return float(value)
