"""What the cards are made of, read once for all of them: the runs' records, the bytes and contents that are needed."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.contents import pseudonym
from ledger.record import parse_record
from query.find import Found
from query.source import Source
from query.store import Views, open_contents
from query.values import MAX_VALUE_BYTES, Value, values_of

ARGUMENTS: Final = "gen_ai.tool.call.arguments"
RESULT: Final = "gen_ai.tool.call.result"
DIFF: Final = "trail.change.diff"
REASON: Final = "trail.approval.reason"
DOCUMENTS: Final = "gen_ai.retrieval.documents"
MEMORIES: Final = "gen_ai.memory.records"
INPUT: Final = "gen_ai.input.messages"
INSTRUCTIONS: Final = "gen_ai.system_instructions"
FIELDS: Final = (ARGUMENTS, RESULT, DIFF, REASON, DOCUMENTS, MEMORIES, INPUT, INSTRUCTIONS)
"""The contents that a card reads."""

MAX_BEFORE: Final = 300
"""How many records of the run before the action are looked at for what the agent saw, the nearest."""
MAX_LATER: Final = 1_000
_Row = dict[str, Any]


@dataclass(slots=True)
class Evidence:
    """Everything the six answers for one action may use; nothing here is fetched later."""

    action: _Row
    """A row of `candidates`."""
    own: list[_Row]
    """The records that speak of the action, by index."""
    before: list[_Row]
    """The run's records up to the action, in the order in which they happened, at most `MAX_BEFORE`."""
    unseen: int
    """How many earlier ones there are besides."""
    records: dict[int, bytes]
    """The bytes of the records that were read."""
    values: dict[int, list[Value]]
    """The attributes of those records."""
    requester: str | None
    """Who the run acts for, by name while kept, else the pseudonym."""
    requester_index: int | None
    later: list[_Row] = field(default_factory=list)
    """Changes made to the same resource afterwards."""
    versions: list[_Row] = field(default_factory=list)
    """The versions of its policy the store has seen."""

    def value(self, key: str) -> Value | None:
        """The action's own attribute: from the record that ran, else from the earliest that has it readable."""
        found = [value for row in self.own for value in self.values.get(row["index"], ()) if value.field == key]
        ran = self.action["ran_index"]
        return min(found, key=lambda value: (not value.known, value.index != ran, value.index), default=None)

    def own_facts(self, index: int | None) -> _Row:
        """The facts of one of the action's records; empty where it has none."""
        return next((row for row in self.own if row["index"] == index), {})


def gather_evidence(reader: Source, store: Views, found: Found, actions: Sequence[_Row], *, tail: bool) -> list[Evidence]:
    """Read what the cards of some actions need.

    Args:
        reader: whose contents are opened, for the segments that hold the records concerned.
        store: the views the actions were found in.
        found: the runs' records.
        actions: rows of `candidates`, the cards' order.
        tail: whether the store's views cover unsigned records.
    """
    runs = _by_run(found, actions)
    cards = [_lay_out(action, runs[action["run_id"]]) for action in actions]
    concerned = sorted({row["index"] for card in cards for row in (*card.own, *card.before)} | _requesters(cards))
    rows = _content_rows(reader, concerned, tail=tail)
    wanted = {row["index"] for card in cards for row in card.own} | set(rows)
    wanted |= {row["index"] for card in cards for row in card.before if row["contexts"]}
    raw = {row["index"]: row["record"] for row in store.rows("record_bytes", indexes=sorted(wanted))}
    values = {index: values_of(index, parse_record(data), rows.get(index, {}), FIELDS) for index, data in raw.items()}
    names = {
        pseudonym(row["keyed"]): row["name"]
        for by_ordinal in rows.values()
        for row in by_ordinal.values()
        if row["name"] is not None and row["keyed"] is not None
    }
    later = _later_changes(store, cards)
    versions = _policy_versions(store, cards)
    for card in cards:
        mine = [row["index"] for row in (*card.own, *card.before) if row["index"] in raw]
        card.records = {index: raw[index] for index in mine}
        card.values = {index: values[index] for index in mine}
        card.requester = names.get(card.requester or "", card.requester)
        card.later = [row for row in later[card.action["resource"]] if _is_later(card.action, row)]
        card.versions = versions[card.action["policy_id"]]
    return cards


def _by_run(found: Found, actions: Sequence[_Row]) -> dict[str | None, list[_Row]]:
    runs: dict[str | None, list[_Row]] = defaultdict(list)
    named = sorted({action["run_id"] for action in actions if action["run_id"] is not None})
    loose = sorted({action["action_id"] for action in actions if action["run_id"] is None})
    for row in found.views.rows("run_rows", runs=named, actions=loose):
        runs[row["run_id"]].append(row)
    return runs


def _lay_out(action: _Row, run: list[_Row]) -> Evidence:
    """The action's own records, and what happened in its run up to it."""
    spoken = set(action["records"])
    own = sorted((row for row in run if row["index"] in spoken), key=lambda row: row["index"])
    moment = action["time"] if action["time"] is not None else action["received"]
    end = bisect.bisect_right(run, moment, key=when) if action["run_id"] is not None else 0
    before = [row for row in run[:end] if row["index"] not in spoken]
    requester = next((row for row in (*own, *run) if row["requester"] is not None), None)
    return Evidence(
        action=action,
        own=own,
        before=before[-MAX_BEFORE:],
        unseen=max(0, len(before) - MAX_BEFORE),
        records={},
        values={},
        requester=requester["requester"] if requester is not None else None,
        requester_index=requester["index"] if requester is not None else None,
    )


def when(row: _Row) -> int:
    """When a record's event happened, else when it was received, Unix ns."""
    moment: int = row["time"] if row["time"] is not None else row["received"]
    return moment


def _requesters(cards: Iterable[Evidence]) -> set[int]:
    return {card.requester_index for card in cards if card.requester_index is not None}


def _content_rows(reader: Source, indexes: Sequence[int], *, tail: bool) -> dict[int, dict[int, _Row]]:
    """Contents rows by record and ordinal, out of only those segments that hold the records."""
    rows: dict[int, dict[int, _Row]] = defaultdict(dict)
    if not indexes:
        return rows
    places = [segment for segment in reader.segments if _holds(segment, indexes)]
    with open_contents(reader, places, tail=tail) as contents:
        for row in contents.rows("content_rows", indexes=list(indexes), fields=list(FIELDS), most=MAX_VALUE_BYTES):
            rows[row["index"]][row["ordinal"]] = row
    return rows


def _holds(segment: Any, indexes: Sequence[int]) -> bool:
    place = bisect.bisect_left(indexes, segment.start)
    return place < len(indexes) and indexes[place] < segment.end


def _later_changes(store: Views, cards: Sequence[Evidence]) -> dict[str | None, list[_Row]]:
    later: dict[str | None, list[_Row]] = defaultdict(list)
    changed = [card.action for card in cards if card.action["resource"] is not None and card.action["time"] is not None]
    if changed:
        rows = store.rows(
            "later_changes",
            resources=sorted({action["resource"] for action in changed}),
            since=min(action["time"] for action in changed),
            most=MAX_LATER,
        )
        for row in rows:
            later[row["resource"]].append(row)
    return later


def _is_later(action: _Row, row: _Row) -> bool:
    return action["time"] is not None and row["time"] > action["time"] and row["index"] not in action["records"]


def _policy_versions(store: Views, cards: Sequence[Evidence]) -> dict[str | None, list[_Row]]:
    versions: dict[str | None, list[_Row]] = defaultdict(list)
    policies = sorted({card.action["policy_id"] for card in cards if card.action["policy_id"] is not None})
    if policies:
        for row in store.rows("policy_versions", policies=policies):
            versions[row["policy_id"]].append(row)
    return versions
