"""Records over the limit: their largest subtrees become contents, and facts that are too large are shortened.

Normative text: `ledger/FORMAT.md`, "Oversized records". Seldom run, so nothing here is tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ledger.contents import ContentRow
from ledger.record import MAX_RECORD_BYTES, SALT_BYTES, SUBTREE, canonical, commitment, content_mark, content_marks

_MAX_TRIMMED_FACTS: Final = 16_384
"""Bytes that the facts of an oversized record may keep; the rest of it can move into contents, facts cannot."""
_TRIMMED_CHARS: Final = 40


def shrink(
    members: Mapping[str, Any], shared: Mapping[str, dict[str, Any] | None], rows: list[ContentRow], random: Callable[[int], bytes]
) -> tuple[bytes, list[ContentRow]]:
    """Move the largest subtrees of a record into contents until it fits.

    A moved subtree is the JSON it had, content marks included; the rows of those marks follow the rows of the marks that still stand
    in the record, because whoever reads the record reads the moved subtree after it. Its facts are shortened in place.

    Args:
        members: the record as it was encoded.
        shared: members that were encoded before and for several records, as they were.
        rows: its contents in the order of their marks.
        random: the source of salts.

    Returns:
        The canonical bytes, and the rows in their new order.
    """
    now = {**members, **{name: value for name, value in shared.items() if value is not None}}
    if len(canonical(now["facts"])) > _MAX_TRIMMED_FACTS:
        _trim(now["facts"])
    moved: list[ContentRow] = []
    kind = now["kind"]
    now[kind] = dict(now[kind])
    data = canonical(now)
    while len(data) > MAX_RECORD_BYTES:
        target, key = _largest(now, kind)
        encoded = canonical(target[key])
        salt = random(SALT_BYTES)
        moved.append((f"subtree:{key}", SUBTREE, salt, encoded, None, None))
        target[key] = content_mark(salt=salt, value=encoded, type=SUBTREE)
        data = canonical(now)
    return data, _reorder(data, moved, rows)


def _largest(members: dict[str, Any], kind: str) -> tuple[dict[str, Any], str]:
    """The largest subtree that may be moved: a member of the span or log, the resource, the scope or the envelope."""
    sizes = [(len(canonical(value)), members[kind], key) for key, value in members[kind].items()]
    sizes += [(len(canonical(members[key])), members, key) for key in ("resource", "scope", "envelope") if key in members]
    _size, target, key = max(sizes, key=lambda item: item[0])
    return target, key


def _reorder(data: bytes, moved: list[ContentRow], rows: list[ContentRow]) -> list[ContentRow]:
    """Rows in the order of the marks in `data`: first those that still stand there, then the marks inside moved subtrees."""
    by_commitment = {}
    for row in [*rows, *moved]:
        value = row[3] if row[3] is not None else (row[4] or "").encode()
        by_commitment[commitment(row[2], value).hex()] = row
    ordered = [by_commitment.pop(mark.commitment) for mark in content_marks(data)]
    return ordered + list(by_commitment.values())


def _trim(facts: dict[str, Any]) -> None:
    """Shorten facts in place, noting in `cut` which: contexts first, then texts. The whole values are in the record or its contents."""
    cut = list(facts.get("cut", ()))
    contexts = facts.get("contexts")
    if contexts:
        kept, room = 0, _MAX_TRIMMED_FACTS // 2
        while kept < len(contexts) and room >= 0:
            room -= len(canonical(contexts[kept]))
            kept += 1
        if room < 0:
            facts["contexts"] = contexts[: kept - 1]
            cut.append("contexts")
    if len(canonical(facts)) > _MAX_TRIMMED_FACTS:
        long = [name for name, value in facts.items() if type(value) is str and len(value) > _TRIMMED_CHARS]
        facts.update({name: facts[name][:_TRIMMED_CHARS] for name in long})
        cut += long
    if cut:
        facts["cut"] = sorted(set(cut))
    if not facts.get("contexts", True):
        del facts["contexts"]
