"""Values out of records: what an attribute holds, kept beside the log or standing in the record.

A value that is kept beside the log is believed only if it hashes to the commitment in the record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from ledger.record import commitment

State = Literal["inline", "matching", "too_large", "never_kept", "erased", "missing"]
"""`inline`: it stands in the record. `too_large`: kept, and longer than a card reads. The others: DESIGN's states."""

MAX_VALUE_BYTES: Final = 1 << 20
"""The longest content a card reads."""
_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One attribute's value in one record, and what became of it."""

    index: int
    field: str
    """The attribute's key, or `body`."""
    state: State
    text: str | None
    """The value as text (JSON for what is no string); None unless `inline` or `matching`."""
    size_bytes: int
    rule: str | None = None
    """Why it was never kept."""
    name: bool = False
    """It names a person."""

    @property
    def known(self) -> bool:
        """Whether the text can be read."""
        return self.text is not None

    @property
    def why(self) -> str:
        """Why the text cannot be read, in a few words; empty where it can."""
        match self.state:
            case "inline" | "matching":
                return ""
            case "too_large":
                return f"it is kept, but has {self.size_bytes} bytes"
            case "never_kept":
                return f"it was never kept (rule {self.rule})"
            case "erased":
                return "it was erased"
            case "missing":
                return "the store no longer has what the record commits to"


def values_of(index: int, record: Mapping[str, Any], rows: Mapping[int, _Row], fields: Collection[str] | None = None) -> list[Value]:
    """The attributes of one record, in document order.

    Args:
        index: the record's index.
        record: its parsed bytes.
        rows: its contents rows by ordinal (`content_rows`).
        fields: the fields whose rows were asked for, None for all; a content of another field is left out.
    """
    return [
        _kept(index, field, wrapped["$content"], rows.get(ordinal)) if ordinal is not None else _inline(index, field, wrapped)
        for field, wrapped, ordinal in _attributes(record)
        if ordinal is None or fields is None or field in fields or ordinal in rows
    ]


def plain(wrapped: Any) -> Any:
    """A record's typed value as an ordinary one: text for bytes and for what JSON cannot say, a list for repeated keys."""
    if not isinstance(wrapped, dict) or not wrapped:
        return None
    (kind, value), *_ = wrapped.items()
    match kind:
        case "a":
            return [plain(item) for item in value]
        case "m":
            keys = [key for key, _ in value]
            if len(set(keys)) < len(keys):
                return [[key, plain(item)] for key, item in value]
            return {key: plain(item) for key, item in value}
        case "i":
            return int(value)
        case _:
            return value


def as_text(value: Any) -> str:
    """A plain value as the text that is shown and searched."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def parsed(text: str) -> Any:
    """The JSON in a text, or the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _inline(index: int, field: str, wrapped: Any) -> Value:
    text = as_text(plain(wrapped))
    return Value(index=index, field=field, state="inline", text=text, size_bytes=len(text.encode()))


def _kept(index: int, field: str, mark: Mapping[str, Any], row: _Row | None) -> Value:
    def value(state: State, text: str | None = None, *, name: bool = False) -> Value:
        return Value(
            index=index,
            field=field,
            state=state,
            text=text,
            size_bytes=mark["bytes"],
            rule=mark.get("rule"),
            name=name,
        )

    if "rule" in mark:
        return value("never_kept")
    if row is None:
        return value("missing")
    data = row["name"].encode() if row["name"] is not None else row["value"]
    if data is None:
        return value("too_large" if row["bytes"] is not None else "erased")
    if commitment(row["salt"], data).hex() != mark["commitment"]:
        return value("missing")
    named = row["name"] is not None
    match mark["type"]:
        case "s":
            return value("matching", data.decode("utf-8", "replace"), name=named)
        case "j":
            return value("matching", as_text(plain(orjson.loads(data))), name=named)
        case _:
            return value("matching", data.hex(), name=named)


def _attributes(record: Mapping[str, Any]) -> Iterator[tuple[str, Any, int | None]]:
    """(key, typed value, ordinal of its content mark or None) in document order, which parsing keeps.

    A mark that is not itself an attribute's value (inside a list or a map) counts, and is given under the key of the
    attribute it lies in.
    """
    ordinal = 0

    def walk(node: Any, field: str) -> Iterator[tuple[str, Any, int | None]]:
        nonlocal ordinal
        if isinstance(node, dict):
            if "$content" in node:
                yield field, node, ordinal
                ordinal += 1
                return
            for key in node:
                if key == "attributes" and isinstance(node[key], list):
                    for name, wrapped in node[key]:
                        yield from walk(wrapped, name)
                        if isinstance(wrapped, dict) and "$content" not in wrapped:
                            yield name, wrapped, None
                else:
                    yield from walk(node[key], key if key == "body" else field)
        elif isinstance(node, list):
            for item in node:
                yield from walk(item, field)

    yield from walk(record, "")
