"""Finding the actions a question asks for without building the views over the whole store.

From the records that carry the one thing asked for (read with the time window pushed down to row groups) to the runs
and traces they belong to, to all records of those; the views then stand over these records only. An action's records
may lie outside the window (an approval days before): the window is applied to the finished action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from query.question import MAX_TIME, MIN_TIME, Match, Question
from query.rows import NANOSECONDS
from query.store import Views, views_over

MAX_SEEDS: Final = 20_000
"""The most records a search begins with, the newest; an answer that was cut says so."""
_AROUND: Final = {"resource": 3_600, "approver": 86_400, "policy": 86_400}
"""How many seconds from an action's own time the record may lie that carries its resource, approver or policy."""
_CARD_VIEWS: Final = (
    "view_facts", "view_texts", "view_stated", "view_twins", "view_spoken", "view_gathered", "view_judged",
)  # fmt: skip
_Row = dict[str, Any]


@dataclass(slots=True)
class Found:
    """The actions that a question asks for, and the views over all records of their runs."""

    views: Views
    actions: list[_Row]
    """Rows of `candidates`, oldest first."""
    match: Match
    resources: list[str]
    """The whole resources that the question's text stands for."""
    cut: bool
    """More records matched than a search begins with: older ones were not looked at."""


@dataclass(slots=True)
class _Seeds:
    runs: set[str]
    traces: set[str]
    loose: set[str]
    """Actions that were spoken of outside any run and trace."""
    only: set[int] | None = None
    """Only actions one of these records speaks of."""
    after: dict[str, int] | None = None
    """Only actions of these runs that stand at or after this record."""
    match: Match = "none"
    resources: tuple[str, ...] = ()
    cut: bool = False


def find(store: Views, question: Question) -> Found:
    """Find the actions; `store` needs only its internal views over the files."""
    seeds = _seeds(store, question)
    runs, indexes = _complete(store, seeds)
    records = store.table("gather", indexes=sorted(indexes))
    views = views_over(_with_copies(store, records), like=store, definitions=_CARD_VIEWS)
    by_resource = seeds.match in ("whole", "end", "part")
    actions = views.rows(
        "candidates",
        since=question.since,
        until=question.until,
        record=question.record,
        runs=sorted(runs),
        resources=list(seeds.resources) if by_resource else None,
        agent=question.agent,
        approver=question.approver,
        policy=question.policy,
        sender=question.sender,
    )
    if seeds.only is not None:
        actions = [action for action in actions if seeds.only.intersection(action["records"])]
    if seeds.after is not None:
        after = seeds.after
        actions = [action for action in actions if action["records"][-1] >= after.get(action["run_id"], MAX_TIME)]
    return Found(views, actions, seeds.match, list(seeds.resources), seeds.cut)


def _seeds(store: Views, question: Question) -> _Seeds:
    """Where to begin: with the part of the question that the fewest records can answer to."""
    if question.record is None and question.run is not None:
        seeds = _Seeds({question.run}, {question.run}, set())
        return _resource_within(store, question, seeds) if question.resource is not None else seeds
    rows = _search(store, question)
    if not rows and question.resource is not None and question.record is None:
        return _by_id(store, question.resource)
    seeds = _of(rows[:MAX_SEEDS])
    seeds.cut = len(rows) > MAX_SEEDS
    if question.resource is not None and question.record is None:
        _name_resources(seeds, rows)
    return seeds


def _search(store: Views, question: Question) -> list[_Row]:
    wanted: dict[str, Any] = dict.fromkeys(("record", "resource", "approver", "policy", "agent", "sender"))
    near = 0
    for name in wanted:
        if (value := getattr(question, name)) is not None:
            wanted[name] = value
            near = _AROUND.get(name, 0) * NANOSECONDS
            break
    windowed = question.record is None
    since = question.since if windowed and question.since is not None else MIN_TIME
    until = question.until if windowed and question.until is not None else MAX_TIME
    return store.rows(
        "seeds",
        **wanted,
        since=max(MIN_TIME, since - near),
        until=min(MAX_TIME, until + near),
        first_since=since,
        first_until=until,
        most=MAX_SEEDS + 1,
    )


def _resource_within(store: Views, question: Question, seeds: _Seeds) -> _Seeds:
    """A resource inside one run: the resource only narrows, so it is looked up over all time."""
    rows = _search(store, Question(resource=question.resource))
    if rows:
        _name_resources(seeds, rows)
    else:
        seeds.only = set()
    return seeds


def _name_resources(seeds: _Seeds, rows: Sequence[_Row]) -> None:
    kinds: tuple[Match, Match, Match] = ("whole", "end", "part")
    if rows:
        seeds.match = kinds[rows[0]["class"]]
        seeds.resources = tuple(sorted({row["resource"] for row in rows}))


def _by_id(store: Views, name: str) -> _Seeds:
    rows = store.rows("ids", id=name, most=MAX_SEEDS + 1)
    seeds = _of(rows[:MAX_SEEDS])
    seeds.cut = len(rows) > MAX_SEEDS
    direct = {row["index"] for row in rows if row["action_id"] is not None and not row["context"]}
    if direct:
        seeds.only = direct
    elif rows:
        inherited = _inherited(store.rows("of_traces", traces=sorted(seeds.traces)) if seeds.traces else [])
        seeds.after = {}
        for row in reversed(rows):
            run: str | None = row["run_id"] or inherited.get(row["trace_id"], row["trace_id"])
            if run is not None:
                seeds.after[run] = row["index"]
    else:
        seeds.only = set()
    seeds.match = "id" if rows else "none"
    return seeds


def _of(rows: Iterable[_Row]) -> _Seeds:
    rows = list(rows)
    return _Seeds(
        {row["run_id"] for row in rows if row["run_id"] is not None},
        {row["trace_id"] for row in rows if row["trace_id"] is not None},
        {row["action_id"] for row in rows if row["run_id"] is None and row["trace_id"] is None and row["action_id"] is not None},
    )


def _inherited(rows: Iterable[_Row]) -> dict[str, str]:
    """The run of each trace: the one its earliest record names. `rows` are in the order of their indexes."""
    runs: dict[str, str] = {}
    for row in rows:
        if row["run_id"] is not None and row["trace_id"] is not None:
            runs.setdefault(row["trace_id"], row["run_id"])
    return runs


def _complete(store: Views, seeds: _Seeds) -> tuple[set[str], set[int]]:
    """The runs of the seeds, those named after their trace included, and every record of these runs and their traces."""
    traced = store.rows("of_traces", traces=sorted(seeds.traces)) if seeds.traces else []
    inherited = _inherited(traced)
    runs = seeds.runs | set(inherited.values()) | (seeds.traces - set(inherited))
    named = store.rows("of_runs", runs=sorted(runs)) if runs else []
    further = {row["trace_id"] for row in named if row["trace_id"] is not None} - seeds.traces
    indexes = {row["index"] for row in (*traced, *named)}
    if further:
        indexes |= {row["index"] for row in store.rows("of_traces", traces=sorted(further))}
    if seeds.loose:
        indexes |= {row["index"] for row in store.rows("of_actions", actions=sorted(seeds.loose))}
    return runs, indexes


def _with_copies(store: Views, records: pa.Table) -> pa.Table:
    """Put the bytes of spans that were received more than once into the gathered records: only they are compared."""
    spans = records.select(["index", "kind", "trace_id", "span_id"]).filter(pc.field("kind") == "span")
    counted = spans.group_by(["trace_id", "span_id"]).aggregate([("index", "count"), ("index", "list")])
    copies = [index for row in counted.filter(pc.field("index_count") > 1).to_pylist() for index in row["index_list"]]
    if not copies:
        return records
    held = {row["index"]: row["record"] for row in store.rows("record_bytes", indexes=copies)}
    column = pa.array([held.get(index, b"") for index in records.column("index").to_pylist()], pa.binary())
    return records.set_column(records.schema.get_field_index("record"), "record", column)
