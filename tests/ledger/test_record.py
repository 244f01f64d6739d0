"""The canonical bytes of records and the content marks in them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import InvariantError, MalformedError, UnsupportedFormat
from ledger.record import (
    MAX_RECORD_BYTES,
    OwnRecord,
    canonical,
    commitment,
    content_mark,
    content_marks,
    parse_record,
)

SALT = bytes(range(16))
NAMES = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(min_value=-(2**63), max_value=2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def own(**values: Any) -> OwnRecord:
    defaults: dict[str, Any] = {
        "kind": "note",
        "received": 5,
        "sender": "trail",
        "role": None,
        "body": {},
        "facts": {},
        "nonce": b"\0" * 16,
    }
    return OwnRecord(**(defaults | values))


def test_canonical_bytes_are_sorted_tight_utf8() -> None:
    assert canonical({"b": 1, "a": {"d": "ü", "c": [1.5, None]}}) == '{"a":{"c":[1.5,null],"d":"ü"},"b":1}'.encode()


@given(value=st.dictionaries(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5), JSON, max_size=5))
def test_canonical_bytes_are_a_fixed_point(value: dict[str, Any]) -> None:
    data = canonical(value)
    assert json.loads(data) == value
    assert canonical(json.loads(data)) == data


def test_records_are_read_back() -> None:
    record = {"v": 1, "kind": "span", "facts": {}}
    assert parse_record(canonical(record)) == record


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{}", b'{"kind":"a"', b'{"v":1}', b'{"v":1,"kind":2}', b"\xff", b"[" * 5000])
def test_what_is_no_record_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_record(data)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_newer_record_is_unsupported(version: Any) -> None:
    with pytest.raises(UnsupportedFormat) as caught:
        parse_record(json.dumps({"v": version, "kind": "a"}).encode())
    assert caught.value.hint


# ---- commitments


def test_the_commitment_is_that_of_the_format() -> None:
    assert commitment(SALT, b"value") == hashlib.sha256(b"trail-content/1\0" + SALT + b"value").digest()
    assert content_mark(salt=SALT, value=b"value", type="s") == {
        "$content": {"bytes": 5, "commitment": commitment(SALT, b"value").hex(), "type": "s"}
    }
    assert content_mark(salt=SALT, value=b"", type="x", rule="why")["$content"]["rule"] == "why"


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_salt_has_one_length(size: int) -> None:
    with pytest.raises(MalformedError, match="salt has 16 bytes"):
        commitment(b"\0" * size, b"value")


@given(value=st.binary(max_size=50), other=st.binary(max_size=50))
def test_commitments_bind_values_and_salts(value: bytes, other: bytes) -> None:
    assert (commitment(SALT, value) == commitment(SALT, other)) == (value == other)
    assert commitment(SALT, value) != commitment(b"\0" * 16, value)


# ---- marks

MARKS = st.builds(
    lambda value, kind, rule: content_mark(salt=SALT, value=value, type=kind, rule=rule),
    st.binary(max_size=20), st.sampled_from(["s", "x", "j"]), st.none() | st.sampled_from(["too large", "request body", ""]),
)  # fmt: skip


@given(marks=st.lists(MARKS, max_size=6))
def test_marks_are_found_in_document_order(marks: list[dict[str, Any]]) -> None:
    record = canonical({"v": 1, "kind": "span", "span": {"attributes": [[f"k{i}", mark] for i, mark in enumerate(marks)]}})
    found = content_marks(record)
    assert [(m.commitment, m.size_bytes, m.type, m.rule) for m in found] == [
        (mark["$content"]["commitment"], mark["$content"]["bytes"], mark["$content"]["type"], mark["$content"].get("rule"))
        for mark in marks
    ]


def test_an_emitters_text_that_looks_like_a_mark_is_none() -> None:
    mark = canonical(content_mark(salt=SALT, value=b"v", type="s")).decode()
    forged = [mark, mark.replace('"', '\\"'), "\\" + mark, f'"{mark}"', mark + "\n"]
    record = canonical(
        {
            "v": 1,
            "kind": "span",
            "span": {"attributes": [["$content", {"s": text}] for text in forged] + [["m", {"m": [["$content", {"s": mark}]]}]]},
        }
    )
    assert content_marks(record) == []


@given(text=st.text(alphabet=st.sampled_from(list('\\"$content:{}bytes,0123456789abcdef')), max_size=200))
def test_no_text_is_taken_for_a_mark(text: str) -> None:
    assert (
        content_marks(
            canonical({"v": 1, "kind": "log", "facts": {"name": text}, "log": {"body": {"s": text}, "attributes": [[text, {"s": text}]]}})
        )
        == []
    )


# ---- our own records


def test_our_own_records_have_what_every_record_has() -> None:
    value = parse_record(own(kind="heartbeat", role="admin", facts={"name": "x"}, nonce=b"\1" * 16).encode())
    assert value == {
        "v": 1, "kind": "heartbeat", "received": "5", "sender": "trail", "role": "admin", "nonce": "01" * 16,
        "facts": {"time": "5", "event": "heartbeat", "name": "x"}, "heartbeat": {},
    }  # fmt: skip
    assert "role" not in parse_record(own().encode())


def test_a_nonce_has_one_length() -> None:
    for size in (0, 15, 17):
        with pytest.raises(InvariantError, match="nonce"):
            own(nonce=b"\0" * size).encode()


def test_a_record_has_a_largest_size() -> None:
    room = MAX_RECORD_BYTES - len(own(body={"text": ""}).encode())
    assert len(own(body={"text": "x" * room}).encode()) == MAX_RECORD_BYTES
    with pytest.raises(InvariantError, match="is over 65535"):
        own(body={"text": "x" * (room + 1)}).encode()
