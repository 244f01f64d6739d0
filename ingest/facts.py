"""Facts: what the vocabularies make of attributes, one flat mapping a record.

Interprets, never judges: a value outside a closed set is no fact, and it stays in the record as it was sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

import orjson

from ingest.vocabularies import Rule, Vocabulary
from ledger import columns

MAX_FACT_CHARS: Final = 1_024
"""A longer text is cut in the fact (its name goes to `cut`) and whole in the record or a content."""
MAX_CONTEXTS: Final = 256
MAX_TIME: Final = 2**63 - 1
_NUMBERS: Final = {name: kind for name, kind in columns.FACTS.items() if kind in (columns.COUNT, columns.REAL)}
_OUTCOMES: Final = {"success": "ok", "failure": "error"} | {
    name: name for name in ("ok", "error", "denied", "expired", "pending", "unknown")
}
_DECIMAL: Final = re.compile(r"-?[0-9]{1,16}(\.[0-9]{1,20})?", re.ASCII)

NO_RANK: Final = 1 << 30


class Gathered:
    """What the attributes of one record brought: facts that stand as they are, and hits that need converting."""

    __slots__ = ("facts", "hits", "mask", "ranks")

    def __init__(self) -> None:
        """Nothing yet."""
        self.facts: dict[str, Any] = {}
        self.ranks: dict[str, int] = {}
        """Of several attributes for one fact the lowest rank wins."""
        self.mask = 0
        """Bits of the tables that gave facts."""
        self.hits: list[tuple[Rule, str, Any]] = []

    def hit(self, rule: Rule, key: str, value: Any) -> None:
        """Note a value that a rule is about."""
        if rule.fact is not None and value is not None:
            self.hits.append((rule, key, value))


class FactMaker:
    """Turns hits into facts."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Bind the tables."""
        self._vocabulary = vocabulary
        self._special: dict[str, Callable[[str, Any], Any]] = {"outcome": self._outcome, "contexts": _contexts}

    def facts(self, gathered: Gathered) -> tuple[dict[str, Any], int]:
        """Facts by name, and the mask of the tables that gave them."""
        facts, ranks = gathered.facts, gathered.ranks
        for rule, key, value in gathered.hits:
            fact = rule.fact
            if fact is None or ranks.get(fact, NO_RANK) <= rule.rank:
                continue
            converted = self._convert(fact, rule, key, value)
            if converted is None:
                continue
            ranks[fact] = rule.rank
            gathered.mask |= rule.vocabulary
            if type(converted) is str and len(converted) > MAX_FACT_CHARS:
                facts.setdefault("cut", []).append(fact)
                converted = converted[:MAX_FACT_CHARS]
            facts[fact] = converted
        return facts, gathered.mask

    def _convert(self, fact: str, rule: Rule, key: str, value: Any) -> Any:
        special = self._special.get(fact)
        if special is not None:
            return special(key, value)
        if fact in _NUMBERS:
            return _number(value, whole=_NUMBERS[fact] == columns.COUNT)
        if type(value) is bool or not isinstance(value, str | int) or value == "":
            return None
        text = str(value)
        if rule.allowed is None:
            return text
        lowered = text.lower()
        return lowered if lowered in rule.allowed else None

    def _outcome(self, key: str, value: Any) -> str | None:
        if not isinstance(value, str):
            return None
        if key != "error.type":
            return _OUTCOMES.get(value.lower())
        if value in self._vocabulary.denied:
            return "denied"
        return "expired" if value in self._vocabulary.expired else "error"


def event_time(unix_nano: int) -> str | None:
    """A time as facts hold it; None for 0 and for what 64-bit timestamps cannot hold (the raw number is in the record)."""
    return str(unix_nano) if 0 < unix_nano <= MAX_TIME else None


def _number(value: Any, *, whole: bool) -> int | float | None:
    """A number, also from the text that some emitters send; None when it is not one or too large to be read alike everywhere."""
    if type(value) is bool:
        return None
    try:
        # Python's int() and float() take `1_000` and full-width digits; nobody else does.
        number = float(value) if not isinstance(value, str) or _DECIMAL.fullmatch(value) else math.nan
    except (TypeError, ValueError):
        return None
    if not abs(number) <= columns.MAX_SAFE_INTEGER or (whole and number != int(number)):
        return None
    return int(value if isinstance(value, int) else number) if whole else number


def _contexts(key: str, value: Any) -> list[dict[str, str | None]] | None:
    """Ids of what the agent was given: documents as JSON or as values, a list of ids, or one id."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    found = []
    for item in value if isinstance(value, list) else [value]:
        source = None
        identity = item
        if isinstance(item, dict):
            source, identity = item.get("source"), item.get("id")
        if isinstance(identity, str | int) and identity != "" and type(identity) is not bool:
            found.append({"source": source if isinstance(source, str) else None, "id": str(identity)[:MAX_FACT_CHARS]})
    return found[:MAX_CONTEXTS] or None
