"""The scalar values of proto3 JSON as OTLP writes them, checked and converted: one function for each type.

Each takes a value as Python's JSON parser gives it and returns what the field of a message takes; no error
repeats the value. Members and messages are the business of `otlp_json`.
"""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

ID_BYTES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
"""The fields of type bytes that are hexadecimal in OTLP/JSON, wherever they occur, and their lengths."""

EXACT_FLOAT_MAX = 2**53
"""Up to here a number written with a fraction or an exponent is still the integer that was meant."""

DECIMAL = re.compile(r"-?[0-9]{1,20}")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
NAMED_DOUBLES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

TYPE_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


class Unfit(Exception):
    """A value that its field cannot hold; the message completes the sentence "<field> …"."""


class UnknownName(Exception):
    """An enum value by a name that we do not know."""


def converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Choose the conversion for a scalar field; it raises `Unfit` or, for an enum, `UnknownName`."""
    kind = FieldDescriptor
    match field.type:
        case kind.TYPE_STRING:
            return _string
        case kind.TYPE_BYTES if field.name in ID_BYTES:
            return _identifier(ID_BYTES[field.name])
        case kind.TYPE_BYTES:
            return _bytes
        case kind.TYPE_BOOL:
            return _boolean
        case kind.TYPE_DOUBLE | kind.TYPE_FLOAT:
            return _double
        case kind.TYPE_ENUM if field.enum_type is not None:
            return _enum(field.enum_type)
        case kind.TYPE_MESSAGE:
            return _never
        case kind.TYPE_INT64 | kind.TYPE_SINT64 | kind.TYPE_SFIXED64:
            return _integer(-(2**63), 2**63 - 1)
        case kind.TYPE_UINT64 | kind.TYPE_FIXED64:
            return _integer(0, 2**64 - 1)
        case kind.TYPE_UINT32 | kind.TYPE_FIXED32:
            return _integer(0, 2**32 - 1)
        case _:
            return _integer(-(2**31), 2**31 - 1)


def _never(value: Any) -> NoReturn:
    raise Unfit(f"must be an object, not {type_name(value)}")


def _string(value: Any) -> str:
    if type(value) is not str:
        raise Unfit(f"must be a string, not {type_name(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise Unfit("contains half of a surrogate pair, which UTF-8 cannot hold") from exc
    return value


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Unfit(f"must be true or false, not {type_name(value)}")
    return value


def _identifier(size: int) -> Callable[[Any], bytes]:
    def convert(value: Any) -> bytes:
        if type(value) is not str:
            raise Unfit(f"must be {2 * size} hexadecimal digits, not {type_name(value)}")
        if not value:
            return b""  # the OTLP way to say "none", for the parent of a root span
        if len(value) != 2 * size:
            raise Unfit(f"must be {2 * size} hexadecimal digits, not {len(value)} characters")
        try:
            identifier = bytes.fromhex(value)
        except ValueError as exc:
            raise Unfit(f"must be {2 * size} hexadecimal digits; it has other characters") from exc
        if len(identifier) != size:  # fromhex skips white space
            raise Unfit(f"must be {2 * size} hexadecimal digits; it has white space")
        return identifier

    return convert


def _bytes(value: Any) -> bytes:
    if type(value) is not str:
        raise Unfit(f"must be base64 text, not {type_name(value)}")
    standard = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return binascii.a2b_base64(standard + "=" * (-len(standard) % 4), strict_mode=True)
    except ValueError as exc:
        raise Unfit("must be base64 text; it is not valid base64") from exc


def _integer(lowest: int, highest: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        match value:
            case str() if DECIMAL.fullmatch(value):
                value = int(value)
            case float() if value.is_integer() and abs(value) <= EXACT_FLOAT_MAX:
                value = int(value)
        if type(value) is not int:
            raise Unfit("must be an integer, as a number or as decimal text")
        if not lowest <= value <= highest:
            raise Unfit(f"must be an integer from {lowest} to {highest}")
        return value

    return convert


def _double(value: Any) -> float:
    if type(value) is str:
        if value in NAMED_DOUBLES:
            return NAMED_DOUBLES[value]
        if NUMBER.fullmatch(value):
            value = float(value)
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise Unfit(f'must be a number, "NaN", "Infinity" or "-Infinity", not {type_name(value)}')
    if math.isinf(number):
        raise Unfit("must be a number that a double can hold")
    return number


def _enum(enum: EnumDescriptor) -> Callable[[Any], int]:
    numbers = {name: value.number for name, value in enum.values_by_name.items()}
    integer = _integer(-(2**31), 2**31 - 1)

    def convert(value: Any) -> int:
        if type(value) is str and not DECIMAL.fullmatch(value):
            if value not in numbers:
                raise UnknownName
            value = numbers[value]
        return integer(value)

    return convert


def type_name(value: Any) -> str:
    """Say what kind of JSON value it is, for a message."""
    return "null" if value is None else TYPE_NAMES[type(value)]
