"""The questions a person asks of a store: the card, runs, the timeline, one record (`ANSWERS.md`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ledger.record import parse_record
from query.card_intact import Prover, intact
from query.card_policy import policy
from query.card_saw import saw
from query.card_undo import undo
from query.card_what import what
from query.card_who import who
from query.errors import QueryError
from query.evidence import Evidence, gather_evidence
from query.find import find
from query.part import Part
from query.question import MAX_TIME, MIN_TIME, Match, Question
from query.ranking import ranked
from query.rows import NANOSECONDS, with_iso_times
from query.source import Source
from query.store import Views, open_contents, open_views
from query.values import Value, values_of

SIX: Final = ("what", "who", "policy", "saw", "undo", "intact")
ACTIVE_SECONDS: Final = 600
"""A run without an outcome counts as active this long after its last record."""
ACTION_COLUMNS: Final = (
    "action_id", "run_id", "step", "time", "received", "agent", "workflow", "tool", "resource", "tier", "outcome", "change_kind",
    "decision", "policy_id", "policy_version", "rule", "approval", "approver", "approval_source", "approval_time", "assurance",
    "execution", "arguments", "reversal", "conflict", "records",
)  # fmt: skip
"""The columns of `actions`, which are the members of a card's `action`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a question, as it is printed: times are ISO 8601 text."""

    cards: list[dict[str, Any]]
    size: int
    root: str
    """The checkpoint the answer covers, hex."""
    match: Match
    """How the resource was found; `none` also where none was asked for."""
    resources: list[str] = field(default_factory=list)
    """The whole resources that were meant."""
    matched: int = 0
    """How many actions answer to the question; there may be fewer cards."""
    cut: bool = False
    """Older records matched too and were not looked at: narrow the question."""
    near: dict[str, str] = field(default_factory=dict)
    """With no card: when the resource was last spoken of `before` the window and first `after` it."""

    def as_json(self) -> dict[str, Any]:
        """The members of `trail ask --json`."""
        return {
            "cards": self.cards,
            "range": {"size": self.size, "root": self.root},
            "match": self.match,
            "resources": self.resources,
            "matched": self.matched,
            "cut": self.cut,
            "near": self.near,
        }


def ask(reader: Source, question: Question, *, tail: bool = False) -> Answer:
    """Answer a question with cards, the one that most likely matters first.

    Args:
        reader: the store.
        question: what is asked.
        tail: also take records that are acknowledged and not yet under the checkpoint.

    Raises:
        CorruptSegment: a file is not what was sealed; nothing is answered from the others.
        QueryError: the question cannot be answered as it stands.
    """
    with open_views(reader, tail=tail, contents=False, defined=False) as store:
        found = find(store, question)
        with found.views:
            order = ranked(store, found.actions)[: question.limit]
            evidence = gather_evidence(reader, store, found, [action for action, _ in order], tail=tail)
            prover = Prover(reader)
            cards = [_card(prover, store, proof, flagged) for proof, (_, flagged) in zip(evidence, order, strict=True)]
        return Answer(
            cards=cards,
            size=reader.size,
            root=reader.root,
            match=found.match,
            resources=found.resources,
            matched=len(found.actions),
            cut=found.cut,
            near={} if cards else _near(store, question),
        )


def runs(
    reader: Source,
    *,
    active_at: int | None = None,
    since: int | None = None,
    until: int | None = None,
    agent: str | None = None,
    limit: int = 100,
    tail: bool = False,
) -> list[dict[str, Any]]:
    """Rows of the view `runs`, the latest first, times as text.

    Args:
        reader: the store.
        active_at: only runs still going at this time (Unix ns): without an outcome, seen `ACTIVE_SECONDS` before.
        since: only runs seen from here on (Unix ns).
        until: only runs started before here (Unix ns).
        agent: only this agent's.
        limit: the most rows.
        tail: also count records not yet under the checkpoint.
    """
    _require_texts(agent=agent)
    with open_views(reader, tail=tail, contents=False) as store:
        rows = store.rows(
            "run_list",
            since=since,
            until=until,
            agent=agent,
            active_since=None if active_at is None else active_at - ACTIVE_SECONDS * NANOSECONDS,
            most=limit,
        )
    return [with_iso_times(row) for row in rows]


def timeline(
    reader: Source,
    *,
    run: str | None = None,
    resource: str | None = None,
    agent: str | None = None,
    since: int | None = None,
    until: int | None = None,
    after: tuple[int, int] | None = None,
    limit: int = 200,
    tail: bool = False,
) -> list[dict[str, Any]]:
    """Events in the order in which they happened, with both times and the index of each.

    Args:
        reader: the store.
        run: only this run.
        resource: only records of resources with this part in their name.
        agent: only this agent's.
        since: from here on (Unix ns).
        until: before here (Unix ns).
        after: the (time, index) of the last row of the page before; its time is when it happened, else was received.
        limit: the most rows.
        tail: also show records not yet under the checkpoint.
    """
    _require_texts(run=run, resource=resource, agent=agent)
    after_time, after_index = after if after is not None else (None, None)
    with open_views(reader, tail=tail, contents=False) as store:
        rows = store.rows(
            "timeline",
            run=run,
            resource=resource,
            agent=agent,
            since=since,
            until=until,
            after_time=after_time,
            after_index=after_index,
            most=limit,
        )
    return [with_iso_times(row) for row in rows]


def show(reader: Source, index: int, *, tail: bool = False) -> dict[str, Any]:
    """One record in full: what was committed, and the contents beside it with the state of each.

    Returns:
        `index`, `record` (the parsed bytes), `contents` (a list of field, state, bytes, text, why).

    Raises:
        QueryError: there is no such record.
    """
    record = parse_record(_record(reader, index, tail=tail))
    segments = [segment for segment in reader.segments if segment.start <= index < segment.end]
    with open_contents(reader, segments, tail=tail) as contents:
        rows = contents.rows("contents_of", record=index)
    values = values_of(index, record, {row["ordinal"]: row for row in rows})
    kept = [value for value in values if value.state != "inline"]
    return {"index": index, "record": record, "contents": [_described(value) for value in kept]}


def _record(reader: Source, index: int, *, tail: bool) -> bytes:
    if 0 <= index < reader.size:
        return reader.record(index)
    held = reader.tail(include_unsigned=tail)
    covered = reader.size + (held.unsigned if tail else 0)
    if not 0 <= index < covered:
        raise QueryError(f"there is no record {index}: the store has {covered}, counted from 0", index=index)
    data: bytes = held.records.column("record")[index - covered + held.records.num_rows].as_py()
    return data


def _described(value: Value) -> dict[str, Any]:
    return {
        "field": value.field,
        "state": value.state,
        "bytes": value.size_bytes,
        "text": value.text,
        "why": value.why,
    }


def _card(prover: Prover, store: Views, evidence: Evidence, flagged: Sequence[str]) -> dict[str, Any]:
    """One card; its proofs cover every record that one of the other five answers rests on."""
    answers: dict[str, Part] = {
        "what": what(evidence),
        "who": who(evidence),
        "policy": policy(evidence),
        "saw": saw(evidence),
        "undo": undo(evidence),
    }
    cited = {index for answer in answers.values() for index in answer["records"]} | set(evidence.action["records"])
    data = dict(evidence.records)
    if missing := sorted(cited - set(data)):
        data |= {row["index"]: row["record"] for row in store.rows("record_bytes", indexes=missing)}
    rows = {row["index"]: row for row in (*evidence.own, *evidence.before)}
    answers["intact"] = intact(prover, {index: data[index] for index in cited}, rows)
    action = {name: evidence.action[name] for name in ACTION_COLUMNS}
    arguments = answers["what"]["arguments"]
    action["arguments"] = arguments
    card = {"action": with_iso_times(action), "flags": list(flagged)}
    return card | {name: _printed(answers[name]) for name in SIX}


def _printed(answer: Part) -> dict[str, Any]:
    """An answer with its times as text, one level down as well."""
    printed = with_iso_times(answer)
    for key, value in printed.items():
        if isinstance(value, dict):
            printed[key] = with_iso_times(value)
        elif isinstance(value, list):
            printed[key] = [with_iso_times(item) if isinstance(item, dict) else item for item in value]
    return printed


def _near(store: Views, question: Question) -> dict[str, str]:
    if question.resource is None or (question.since is None and question.until is None):
        return {}
    rows = store.rows(
        "nearest",
        resource=question.resource,
        since=MIN_TIME if question.since is None else question.since,
        until=MAX_TIME if question.until is None else question.until,
    )
    return {key: value for key, value in with_iso_times(rows[0]).items() if value is not None}


def _require_texts(**texts: str | None) -> None:
    for name, value in texts.items():
        if value is not None and not value.strip():
            raise QueryError(f"{name} is empty", hint=f"leave {name} out to ask for any")
