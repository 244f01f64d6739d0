"""Vocabularies: what emitters call things, as tables of data, and their compiled form.

A table says which attributes carry which fact, the most specific first, and which attributes hold contents or persons.
Its text is a `config` record of the log, so that a fact can be judged by the table that made it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from ledger import columns
from ledger.errors import MalformedError

MAX_KEYS: Final = 10_000
BUILT_IN: Final = ("trail", "otel_genai")
"""Table files in order of precedence: our own names say most exactly what was meant."""

CONVERTED: Final = frozenset({"outcome"})
"""Text facts that are not the attribute's own text (`ingest.facts`)."""

_SETS: Final[dict[str, frozenset[str]]] = {
    "decision": frozenset({"allow", "deny", "ask", "modify", "log_only"}),
    "approval": frozenset({"approved", "denied", "modified", "expired", "not_required"}),
    "approval_source": frozenset({"human", "rule", "hook", "classifier", "sandbox", "unknown"}),
    "tier": frozenset({"read", "propose", "write", "execute", "destructive", "privileged"}),
    "change_kind": frozenset({"create", "update", "delete", "config", "deploy", "data"}),
}
"""Closed sets: a value outside them is no fact (it stays in the record as it was sent)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one attribute key means."""

    fact: str | None
    rank: int
    """Of several attributes for one fact the lowest rank wins."""
    vocabulary: int
    """Bit of the table that has the rule."""
    content: bool
    person: bool
    allowed: frozenset[str] | None
    plain: bool
    """A text under this rule is the fact as it stands: no content, no person, no closed set, no number."""
    gives: tuple[str | None, int, int]
    """(fact, rank, vocabulary) once more, for the hot path: one look-up instead of three."""


class Rules(dict[str, Rule | None]):
    """Rules by attribute key. A key that no table names is looked for among the prefixes once, and then remembered."""

    def __init__(self, prefixes: dict[str, Rule]) -> None:
        """Start with the rules of keys that begin like this."""
        super().__init__()
        self._prefixes = prefixes

    def __missing__(self, key: str) -> Rule | None:
        """The rule of the first prefix that fits, or None."""
        rule = next((rule for prefix, rule in self._prefixes.items() if key.startswith(prefix)), None)
        if len(self) < MAX_KEYS:  # emitters choose the keys
            self[key] = rule
        return rule


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All tables, compiled to one look-up by attribute key."""

    rules: Rules
    labels: tuple[str, ...]
    """`name/version` of each table, in order of precedence; bit i of a mask is labels[i]."""
    actions: frozenset[str]
    denied: frozenset[str]
    expired: frozenset[str]
    texts: dict[str, str]
    """The tables' own text by label, for the `config` record."""

    def label(self, mask: int) -> str | None:
        """The `vocabulary` of a record for which these tables had rules."""
        return " ".join(name for bit, name in enumerate(self.labels) if mask & (1 << bit)) or None


def load(names: Sequence[str] = BUILT_IN) -> Vocabulary:
    """Read and compile the built-in tables.

    Raises:
        MalformedError: a table names a fact that does not exist.
    """
    texts = [resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8") for name in names]
    return compile_tables(texts)


def compile_tables(texts: Sequence[str]) -> Vocabulary:
    """Compile tables given as TOML text, in order of precedence."""
    prefixes: dict[str, Rule] = {}
    rules = Rules(prefixes)
    labels: list[str] = []
    actions: set[str] = set()
    denied: set[str] = set()
    expired: set[str] = set()
    for bit, text in enumerate(texts):
        table = tomllib.loads(text)
        labels.append(f"{table['name']}/{table['version']}")
        contents = frozenset(table["keep"]["contents"])
        persons = frozenset(key for key in table["keep"]["persons"] if not key.endswith(".*"))
        whole = tuple(key[:-1] for key in table["keep"]["persons"] if key.endswith(".*"))
        for prefix in whole:
            prefixes.setdefault(prefix, Rule(None, 0, 1 << bit, False, True, None, False, (None, 0, 1 << bit)))
        facts = {}
        for fact, keys in table["facts"].items():
            if fact not in columns.FACTS:
                raise MalformedError(f"vocabulary {table['name']} names the fact {fact!r}, which does not exist")
            facts.update({key: (fact, bit * 100 + rank) for rank, key in enumerate(keys)})
        for key in [*facts, *sorted((contents | persons) - facts.keys())]:
            target, rank = facts.get(key, (None, 0))
            allowed = _SETS.get(target or "")
            is_text = target is None or (columns.FACTS[target] == columns.TEXT and target not in CONVERTED)
            person = key in persons or key.startswith(whole)
            plain = is_text and allowed is None and key not in contents and not person
            rules.setdefault(key, Rule(target, rank, 1 << bit, key in contents, person, allowed, plain, (target, rank, 1 << bit)))
        actions.update(table.get("actions", {}).get("operations", []))
        denied.update(table.get("denied", {}).get("error_types", []))
        expired.update(table.get("denied", {}).get("expired", []))
    return Vocabulary(
        rules, tuple(labels), frozenset(actions), frozenset(denied), frozenset(expired), dict(zip(labels, texts, strict=True))
    )
