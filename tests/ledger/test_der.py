"""DER, as little of it as is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import der
from ledger.errors import MalformedError

ELEMENTS = st.recursive(
    st.builds(der.Element, st.sampled_from([0x01, 0x02, 0x04, 0x06, 0x18]), st.binary(max_size=300)),
    lambda inner: st.builds(
        lambda tag, children: der.Element(tag, b"".join(child.encode() for child in children)),
        st.sampled_from([0x30, 0x31, 0xA0]),
        st.lists(inner, max_size=5),
    ),
    max_leaves=20,
)


@given(ELEMENTS)
def test_what_is_written_is_read(element: der.Element) -> None:
    assert der.read(element.encode()) == element
    if element.tag in (0x30, 0x31, 0xA0):
        assert b"".join(child.encode() for child in element.children()) == element.body


@given(st.binary(max_size=40))
def test_what_is_read_is_written_the_same(data: bytes) -> None:
    try:
        element = der.read(data)
    except MalformedError:
        return
    assert element.encode() == data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "cut off"),
        ("30", "cut off"),
        ("3001", "cut off"),
        ("308200", "not DER"),
        ("30820100", "cut off"),
        ("3080", "not DER"),
        ("30800000", "not DER"),
        ("30810100", "not DER"),
        ("308200010000", "not DER"),
        ("3085000000000100", "not DER"),
        ("1f0100", "more than one byte"),
        ("300000", "bytes follow"),
    ],
)
def test_what_is_not_der(data: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        der.read(bytes.fromhex(data))


@pytest.mark.parametrize(("place", "tag"), [(2, 0x02), (-3, 0x02), (0, 0x04)])
def test_a_child_that_is_not_there(place: int, tag: int) -> None:
    with pytest.raises(MalformedError):
        der.read(bytes.fromhex("3006020101040141")).child(place, tag)


def test_a_set_is_sorted_where_it_lies() -> None:
    inner = "3109020103020101020102"
    whole = der.read(bytes.fromhex(f"300d{'0500'}{inner}"))
    assert der.in_set_order(whole, (1,)).encode().hex() == "300d0500" + "3109020101020102020103"
