"""Values out of records: what an attribute holds, kept beside the log or standing in the record.

A value that is kept beside the log is believed only if it hashes to the commitment in the record.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import orjson

from ledger.record import commitment

State = Literal["inline", "matching", "too_large", "never_kept", "erased", "missing"]
"""`inline`: it stands in the record. `too_large`: kept, and longer than a card reads. The others: DESIGN's states."""

MAX_VALUE_BYTES: Final = 1 << 20
"""The longest content a card reads."""
_Row = Mapping[str, Any]
_GROUPS: Final = ("resource", "scope")
_LISTS: Final = ("events", "links")
_MEMBERS: Final = {"body": "body", "message": "status.message", "unknown": "unknown"}
"""Members that may be contents and are no attributes: what they are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One attribute's value in one record, and what became of it."""

    index: int
    field: str
    """The attribute's key; `body`, `status.message`; of our own kinds the member; `subtree:` and the member that was moved."""
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
        _inline(index, place) if place.ordinal is None else _kept(index, place, rows.get(place.ordinal))
        for place in _places(record, rows)
        if place.ordinal is None or fields is None or place.field in fields or place.ordinal in rows
    ]


def plain(wrapped: Any) -> Any:
    """A record's typed value as an ordinary one: text for bytes and for what JSON cannot say, a list for repeated keys."""
    if not isinstance(wrapped, dict) or not wrapped:
        return None
    kind = next((kind for kind in wrapped if not kind.startswith("$")), "")  # beside it may stand unknown fields
    value: Any = wrapped.get(kind)
    match kind:
        case "a":
            return [plain(item) for item in value]
        case "m":
            keys = [key for key, *_ in value]
            if len(set(keys)) < len(keys):
                return [[key, plain(item)] for key, item, *_ in value]
            return {key: plain(item) for key, item, *_ in value}
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


class _Place(NamedTuple):
    """Where a value stands."""

    field: str
    node: Any
    """The typed value, or the content mark in its place."""
    ordinal: int | None
    """The mark's number; None for a value that stands in the record."""
    typed: bool = True
    """Whether JSON that was kept is a typed value, and not a moved subtree."""


def _inline(index: int, place: _Place) -> Value:
    text = as_text(plain(place.node))
    return Value(index=index, field=place.field, state="inline", text=text, size_bytes=len(text.encode()))


def _kept(index: int, place: _Place, row: _Row | None) -> Value:
    mark = place.node["$content"]

    def value(state: State, text: str | None = None, *, name: bool = False) -> Value:
        return Value(
            index=index,
            field=place.field,
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
        case "j" | "t":
            loaded = orjson.loads(data)
            return value("matching", as_text(plain(loaded) if place.typed else loaded), name=named)
        case _:
            return value("matching", data.hex(), name=named)


def _places(record: Mapping[str, Any], rows: Mapping[int, _Row]) -> Iterator[_Place]:
    """The values of a record in document order, which parsing keeps.

    A mark that is not itself an attribute's value (inside a list or a map) counts, and is given under the key of the
    attribute it lies in. What a record that was too large moved out of itself follows it (`ledger/FORMAT.md`, "Ordinals"),
    as far as it can be read.
    """
    numbers = itertools.count()
    subtrees = _subtrees(record)
    moved: list[tuple[str, int, Any]] = []

    def walk(node: Any, field: str, prefix: str = "", *, typed: bool = False) -> Iterator[_Place]:
        if isinstance(node, dict):
            if "$content" in node:
                ordinal = next(numbers)
                if (member := subtrees.get(id(node))) is not None:
                    moved.append((member, ordinal, node["$content"]))
                    field = f"subtree:{member}"
                yield _Place(field, node, ordinal, typed)
                return
            for key in node:
                if key == "attributes" and isinstance(node[key], list):
                    # Named as ingest names the rows: what a resource, scope, event or link holds is not the item's own.
                    for name, wrapped, *_rest in node[key]:
                        yield from walk(wrapped, prefix + name, prefix, typed=True)
                        if isinstance(wrapped, dict) and "$content" not in wrapped:
                            yield _Place(prefix + name, wrapped, None)
                elif key in _LISTS and isinstance(node[key], list):
                    for number, item in enumerate(node[key]):
                        yield from walk(item, _MEMBERS.get(key, field), f"{key}[{number}]:", typed=typed)
                else:
                    below = f"{key}:" if key in _GROUPS else prefix
                    yield from walk(node[key], _MEMBERS.get(key, field), below, typed=typed or key == "body")
        elif isinstance(node, list):
            for item in node:
                yield from walk(item, field, prefix, typed=typed)

    yield from walk(record, "")
    for member, ordinal, mark in moved:
        row = rows.get(ordinal) or {}
        data = row.get("value")
        if data is None or commitment(row["salt"], data).hex() != mark["commitment"]:
            return  # what follows cannot be numbered then
        yield from walk({member: orjson.loads(data)}, "")


def _subtrees(record: Mapping[str, Any]) -> dict[int, str]:
    """The marks that stand for a whole member of a span or log, by identity: the member's name. A log's body is a value."""
    kind = record.get("kind")
    if kind not in ("span", "log"):
        return {}
    members = [item for item in record[kind].items() if item[0] != "body"]
    members += [(name, record[name]) for name in ("resource", "scope", "envelope") if name in record]
    return {id(node): name for name, node in members if isinstance(node, dict) and "$content" in node and node["$content"]["type"] == "t"}
