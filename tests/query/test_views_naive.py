"""The views against a second opinion: the same rules in plain Python, over records at random."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from build_segments import StoreBuilder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from query.rows import as_rows
from query.store import open_views

FACTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["span", "span", "log"]),
        "at": st.one_of(st.none(), st.integers(0, 5)),
        "sender": st.sampled_from(["agent", "slack"]),
        "role": st.sampled_from([None, "approver"]),
        "run_id": st.sampled_from([None, None, "r1", "r2"]),
        "trace_id": st.sampled_from([None, "t1", "t2"]),
        "action_id": st.sampled_from([None, "a", "b"]),
        "tool": st.sampled_from([None, "t"]),
        "outcome": st.sampled_from([None, "ok", "error", "denied", "expired"]),
        "decision": st.sampled_from([None, None, "allow", "deny", "ask"]),
        "approval": st.sampled_from([None, None, "approved", "denied"]),
    }
)
Record = dict[str, Any]


def inherit(records: list[Record]) -> list[str | None]:
    """The run of each record: its own, else the first that its trace names, else the trace."""
    named: dict[str, str] = {}
    for record in records:
        if record["trace_id"] and record["run_id"]:
            named.setdefault(record["trace_id"], record["run_id"])
    return [record["run_id"] or named.get(record["trace_id"]) or record["trace_id"] for record in records]


def assured(records: list[Record], runs: list[str | None]) -> list[str]:
    """The assurance of what each record states."""
    apart: dict[tuple[str | None, str], bool] = defaultdict(lambda: True)
    for record, run in zip(records, runs, strict=True):
        states = record["role"] == "approver" and (record["approval"] or record["decision"])
        apart[run, record["sender"]] = bool(apart[run, record["sender"]] and states)
    return [
        "observed" if run is not None and apart[run, record["sender"]] else "claimed" for record, run in zip(records, runs, strict=True)
    ]


def did_run(record: Record) -> bool:
    if record["decision"] == "deny" or record["approval"] == "denied" or record["outcome"] in ("denied", "expired"):
        return False
    if (record["approval"] or record["decision"]) and not record["tool"]:
        return False
    return record["outcome"] in ("ok", "error") or (record["kind"] == "span" and record["tool"] is not None and not record["outcome"])


def merge(records: list[Record]) -> dict[tuple[str | None, str], Record]:
    """One entry for each action."""
    runs = inherit(records)
    assurance = assured(records, runs)
    held: dict[tuple[str | None, str], list[int]] = defaultdict(list)
    for index, (record, run) in enumerate(zip(records, runs, strict=True)):
        if record["action_id"]:
            held[run, record["action_id"]].append(index)
    actions = {key: _one([(i, records[i], assurance[i]) for i in indexes]) for key, indexes in held.items()}
    by_run: dict[str | None, list[tuple[Any, ...]]] = defaultdict(list)
    for (run, name), action in actions.items():
        by_run[run].append((action["time"] is None, action["time"] or 0, action["records"][0], name))
    for run, order in by_run.items():
        for step, (*_, name) in enumerate(sorted(order), start=1):
            actions[run, name]["step"] = step if run is not None else None
    return actions


def _one(rows: list[tuple[int, Record, str]]) -> Record:
    def best(fact: str, caution: list[str]) -> str | None:
        stated = [(assurance != "observed", caution.index(record[fact]), record[fact]) for _, record, assurance in rows if record[fact]]
        return min(stated)[2] if stated else None

    decision = best("decision", ["deny", "ask", "allow"])
    approval = best("approval", ["denied", "approved"])
    told = {record["outcome"] for _, record, _ in rows}
    ran = [
        (
            record["role"] != "approver",
            record["outcome"] is None,
            -(record["at"] if record["at"] is not None else -(10**6)),
            index,
            record,
        )
        for index, record, _ in rows
        if did_run(record)
    ]
    chosen = min(ran, key=lambda row: row[:4]) if ran else None
    if "denied" in told or decision == "deny" or approval == "denied":
        outcome = "denied"
    elif "expired" in told:
        outcome = "expired"
    elif chosen is not None:
        outcome = chosen[4]["outcome"] or "unknown"
    else:
        outcome = "pending" if decision == "ask" and approval is None else "unknown"
    first = min((r["at"] if r["at"] is not None else r["received"], i, r) for i, r, _ in rows)[2]
    return {
        "decision": decision,
        "approval": approval,
        "outcome": outcome,
        "execution": None if chosen is None else "reported" if chosen[0] else "observed",
        "time": first["at"] if chosen is None or chosen[4]["at"] is None else chosen[4]["at"],
        "records": [index for index, _, _ in rows],
        "conflict": len({r["decision"] for _, r, _ in rows} - {None, "ask"}) > 1 or len({r["approval"] for _, r, _ in rows} - {None}) > 1,
    }


NOTHING: Record = dict.fromkeys(("at", "role", "run_id", "trace_id", "action_id", "tool", "outcome", "decision", "approval"))
NOT_APART: list[Record] = [
    NOTHING | {"kind": "span", "sender": "agent", "role": "approver", "trace_id": "t1"},
    NOTHING | {"kind": "span", "sender": "agent", "role": "approver", "trace_id": "t1", "action_id": "a", "decision": "allow"},
    NOTHING | {"kind": "span", "sender": "slack", "trace_id": "t1", "action_id": "a", "decision": "deny"},
]
"""An approver's token that also sent a span which says nothing: whoever has it acts in the run."""


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(FACTS, min_size=1, max_size=12), cut=st.integers(0, 12))
@example(drawn=NOT_APART, cut=0)
def test_actions_agree_with_plain_python(drawn: list[Record], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    builder = StoreBuilder()
    records = [{**record, "received": 100 + place} for place, record in enumerate(drawn)]
    for record in records:
        builder.add(record["kind"], **{key: value for key, value in record.items() if key != "kind"})
    cuts = [cut] if 0 < cut <= len(records) else []
    store = builder.build(Path(tmp_path_factory.mktemp("naive")), cuts=cuts)
    with open_views(store, contents=False) as views:
        rows = as_rows(views.connection.sql("SELECT * EXCLUDE (record) FROM records ORDER BY index").to_arrow_table())
        assert [row["run_id"] for row in rows] == inherit(records)
        found = as_rows(views.connection.sql("SELECT *, epoch_ns(time) // 1000000000 AS second FROM actions").to_arrow_table())
        expected = merge(records)
        assert {(row["run_id"], row["action_id"]) for row in found} == set(expected)
        start = 1_763_633_000
        for row in found:
            want = expected[row["run_id"], row["action_id"]]
            second = None if row["second"] is None else row["second"] - start
            assert {**{key: row[key] for key in want if key != "time"}, "time": second} == want
