"""Just enough DER (X.690, section 10) to look where the library for time stamps does not.

Elements with a tag of one byte and a definite length in its shortest form; nothing is interpreted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.errors import MalformedError

BOOLEAN: Final = 0x01
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
CONTEXT_0: Final = 0xA0
"""Constructed, context-specific 0: `[0]`."""
CONTEXT_1: Final = 0xA1
_LONG_TAG: Final = 0x1F
_LONG_LENGTH: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag byte and what it holds."""

    tag: int
    body: bytes

    def encode(self) -> bytes:
        """The whole element; of one that was read, the bytes that were read."""
        length = len(self.body)
        if length < _LONG_LENGTH:
            return bytes([self.tag, length]) + self.body
        size = length.to_bytes((length.bit_length() + 7) // 8, "big")
        return bytes([self.tag, _LONG_LENGTH | len(size)]) + size + self.body

    def children(self) -> list[Element]:
        """The elements that a constructed one holds, in their order.

        Raises:
            MalformedError: what it holds is not elements.
        """
        found, place = [], 0
        while place < len(self.body):
            element, place = _read(self.body, place)
            found.append(element)
        return found

    def child(self, place: int, tag: int) -> Element:
        """The child at a place, counted as in a list, which must have this tag.

        Raises:
            MalformedError: there is none, or it is something else.
        """
        children = self.children()
        if not -len(children) <= place < len(children) or children[place].tag != tag:
            raise MalformedError(f"no element with tag {tag:#04x} at place {place} of one with tag {self.tag:#04x}")
        return children[place]


def in_set_order(element: Element, path: Sequence[int]) -> Element:
    """The element with the children of one inside it, which lies at this path of places, in the order of a SET OF (X.690 11.6)."""
    children = element.children()
    if path:
        children[path[0]] = in_set_order(children[path[0]], path[1:])
    else:
        children.sort(key=Element.encode)
    return Element(element.tag, b"".join(child.encode() for child in children))


def read(data: bytes) -> Element:
    """The one element that the bytes are.

    Raises:
        MalformedError: they are none, or more than one.
    """
    element, end = _read(data, 0)
    if end != len(data):
        raise MalformedError(f"{len(data) - end} bytes follow the element")
    return element


def _read(data: bytes, place: int) -> tuple[Element, int]:
    if place + 2 > len(data):
        raise MalformedError("an element is cut off")
    tag, length, start = data[place], data[place + 1], place + 2
    if tag & _LONG_TAG == _LONG_TAG:
        raise MalformedError("a tag of more than one byte")
    if length >= _LONG_LENGTH:
        count = length - _LONG_LENGTH
        length, start = int.from_bytes(data[start : start + count], "big"), start + count
        # An indefinite length has a count of 0; it, and a length that is longer than it need be, are BER and not DER.
        if not 0 < count <= _MAX_LENGTH_BYTES or length < _LONG_LENGTH or length >> (8 * (count - 1)) == 0:
            raise MalformedError("a length that is not DER")
    if start + length > len(data):
        raise MalformedError("an element is cut off")
    return Element(tag, data[start : start + length]), start + length
