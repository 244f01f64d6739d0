"""The views: golden results over a small story, and the rules for what they infer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from build_segments import SECOND, START, Kept, Person, StoreBuilder
from refund_story import APPROVER, ARGUMENTS, DAY, DIFF, FILE, REQUESTER, SHOWN, TRACE, refund_story

from query.rows import as_rows
from query.statements import VIEWS
from query.store import Views, open_views

CONTRACT = """
records(index, kind, time, received, sender, vocabulary, service, environment, run_id, trace_id, span_id, parent_span_id, agent, agent_version, workflow, owner, requester, event, name, action_id, tool, resource, outcome, model, input_tokens, output_tokens, cost_usd_micros, record)
actions(action_id, run_id, step, time, received, agent, workflow, tool, resource, tier, outcome, change_kind, decision, policy_id, policy_version, rule, approval, approver, approval_source, approval_time, assurance, execution, arguments, reversal, conflict, records)
changes(index, time, run_id, action_id, agent, resource, change_kind, before, after, diff, approver, policy_id, reversal)
approvals(index, time, received, run_id, action_id, decision, source, approver, scope, reason, shown, assurance)
decisions(index, time, run_id, action_id, policy_id, policy_version, rule, decision, engine, input, assurance)
contexts(index, time, run_id, action_id, source, id, commitment)
runs(run_id, agent, workflow, owner, started, last_seen, actions, changes, denied, approvals, cost_usd_micros, outcome)
evaluations(index, time, run_id, name, score, label, workflow)
policies(index, time, policy_id, version, digest)
contents(commitment, index, field, bytes, state)
gaps(kind, run_id, sender, from, to, why)
seals(index, file, start, end, sha256, supersedes)
custody(index, time, who, what, why)
"""  # noqa: E501 - as the design has it
TYPES = {
    "index": "BIGINT", "time": "TIMESTAMP_NS", "received": "TIMESTAMP_NS", "approval_time": "TIMESTAMP_NS", "started": "TIMESTAMP_NS",
    "last_seen": "TIMESTAMP_NS", "record": "BLOB", "input_tokens": "BIGINT", "output_tokens": "BIGINT", "cost_usd_micros": "BIGINT",
    "step": "BIGINT", "conflict": "BOOLEAN", "records": "BIGINT[]", "score": "DOUBLE", "bytes": "BIGINT", "from": "BIGINT", "to": "BIGINT",
    "start": "BIGINT", "end": "BIGINT", "supersedes": "VARCHAR[]", "actions": "BIGINT", "changes": "BIGINT", "denied": "BIGINT",
    "approvals": "BIGINT",
}  # fmt: skip


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def select(views: Views, sql: str) -> list[dict[str, Any]]:
    return as_rows(views.connection.sql(sql).to_arrow_table())


def views_of(builder: StoreBuilder, path: Path, **how: Any) -> Views:
    return open_views(builder.build(path, **how))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Views:
    # Two segments and a journal's tail: every view must not care where a record lies.
    return views_of(refund_story(), tmp_path_factory.mktemp("story"), cuts=[3, 6])


@pytest.mark.parametrize("line", CONTRACT.split("\n")[1:-1], ids=lambda line: line.split("(")[0])
def test_columns_names_order_and_types_are_the_contract(line: str, story: Views) -> None:
    match = re.fullmatch(r"(\w+)\((.*)\)", line)
    assert match is not None
    described = story.connection.sql(f"DESCRIBE {match[1]}").fetchall()
    assert [row[0] for row in described] == match[2].split(", ")
    assert [row[1] for row in described] == [TYPES.get(row[0], "VARCHAR") for row in described]


def test_the_contract_is_all_views() -> None:
    assert tuple(line.split("(")[0] for line in CONTRACT.split("\n")[1:-1]) == VIEWS


def test_run_is_inherited_by_trace(story: Views) -> None:
    rows = select(story, "SELECT index, run_id FROM records ORDER BY index")
    assert [row["run_id"] for row in rows] == ["run-0", *["run-1"] * 7, None, None]


def test_requester_is_named_while_the_name_is_kept(story: Views) -> None:
    rows = select(story, "SELECT index, requester FROM records WHERE requester IS NOT NULL")
    assert rows == [{"index": 1, "requester": REQUESTER}]


def test_requester_is_a_pseudonym_where_contents_are_not_opened(tmp_path: Path) -> None:
    views = open_views(refund_story().build(tmp_path, cuts=[5]), contents=False)
    (row,) = select(views, "SELECT requester FROM records WHERE requester IS NOT NULL")
    assert re.fullmatch("p:[0-9a-f]{16}", row["requester"])
    assert select(views, "SELECT DISTINCT arguments FROM actions") == [{"arguments": None}]
    assert select(views, "SELECT DISTINCT state FROM contents") == [{"state": None}]


def test_actions_are_gathered_from_all_their_records(story: Views) -> None:
    rows = select(story, "SELECT * FROM actions ORDER BY run_id")
    assert rows[1] == {
        "action_id": "call_1",
        "run_id": "run-1",
        "step": 1,
        "time": at(6),
        "received": at(7),
        "agent": "refunds_agent",
        "workflow": "refunds",
        "tool": "edit_config",
        "resource": FILE,
        "tier": "write",
        "outcome": "ok",
        "change_kind": "config",
        "decision": "ask",
        "policy_id": "refund-limits",
        "policy_version": "2",
        "rule": "edit_config",
        "approval": "approved",
        "approver": APPROVER,
        "approval_source": "human",
        "approval_time": at(5),
        "assurance": "claimed",
        "execution": "reported",
        "arguments": ARGUMENTS,
        "reversal": None,
        "conflict": False,
        "records": [4, 5, 6],
    }
    assert (rows[0]["action_id"], rows[0]["outcome"], rows[0]["execution"]) == ("call_0", "unknown", None)


def test_other_views_tell_the_story(story: Views) -> None:
    (change,) = select(story, "SELECT * FROM changes")
    assert (change["index"], change["before"], change["after"], change["diff"]) == (6, "sha256:aa", "sha256:bb", DIFF)
    assert (change["approver"], change["policy_id"], change["resource"]) == (APPROVER, "refund-limits", FILE)
    (approval,) = select(story, "SELECT * FROM approvals")
    assert (approval["index"], approval["decision"], approval["source"]) == (5, "approved", "human")
    assert (approval["shown"], approval["reason"], approval["scope"]) == (SHOWN, "customer waits", "once")
    decisions = select(story, "SELECT index, run_id, decision, engine FROM decisions ORDER BY index")
    assert decisions == [
        {"index": 0, "run_id": "run-0", "decision": "allow", "engine": None},
        {"index": 4, "run_id": "run-1", "decision": "ask", "engine": "opa"},
    ]
    contexts = select(story, "SELECT source, id, commitment FROM contexts ORDER BY id")
    assert [(row["source"], row["id"]) for row in contexts] == [("kb", "kb-1"), ("tickets", "ticket-8841")]
    kept = {row["field"]: row for row in select(story, "SELECT * FROM contents")}
    assert contexts[0]["commitment"] == kept["gen_ai.retrieval.documents"]["commitment"]
    assert {row["state"] for row in kept.values()} == {"matching"}
    assert kept["trail.change.diff"]["bytes"] == len(DIFF)
    evaluations = select(story, "SELECT index, name, score, label FROM evaluations")
    assert evaluations == [{"index": 7, "name": "policy_followed", "score": 0.2, "label": "fail"}]
    policies = select(story, "SELECT index, policy_id, version, digest FROM policies")
    assert policies == [{"index": 8, "policy_id": "refund-limits", "version": "3", "digest": "sha256:03"}]
    (seal,) = select(story, "SELECT * FROM seals")
    assert (seal["start"], seal["end"], seal["supersedes"]) == (0, 4, ["records/0-2.0.parquet"])


def test_runs_sum_up(story: Views) -> None:
    rows = select(story, "SELECT * FROM runs ORDER BY run_id")
    assert rows[1] == {
        "run_id": "run-1",
        "agent": "refunds_agent",
        "workflow": "refunds",
        "owner": "dana@example.com",
        "started": at(0),
        "last_seen": at(9),
        "actions": 1,
        "changes": 1,
        "denied": 0,
        "approvals": 1,
        "cost_usd_micros": 1500,
        "outcome": "ok",
    }
    assert (rows[0]["run_id"], rows[0]["started"], rows[0]["outcome"]) == ("run-0", at(-DAY), "unknown")


def test_a_trace_without_a_run_is_its_own(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(trace_id=TRACE, span_id="01" * 8, action_id="a", tool="t", outcome="ok")
    views = views_of(builder, tmp_path)
    assert select(views, "SELECT run_id FROM actions") == [{"run_id": TRACE}]


def test_an_action_outside_any_run_is_a_row_without_a_step(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", action_id="a", approval="approved")
    builder.add("log", action_id="a", decision="allow")
    views = views_of(builder, tmp_path)
    assert select(views, "SELECT run_id, step, records FROM actions") == [{"run_id": None, "step": None, "records": [0, 1]}]


ASK = {"decision": "ask", "event": "trail.policy.decision"}
DENY = {"decision": "deny", "event": "trail.policy.decision"}
YES = {"approval": "approved", "event": "trail.approval"}
NO = {"approval": "denied", "event": "trail.approval"}
LATE = {"approval": "expired", "event": "trail.approval"}
RAN = {"kind": "span", "tool": "t", "outcome": "ok"}
FAILED = {"kind": "span", "tool": "t", "outcome": "error"}
SILENT = {"kind": "span", "tool": "t"}


@pytest.mark.parametrize(
    ("records", "outcome", "execution"),
    [
        pytest.param([RAN], "ok", "reported", id="ran"),
        pytest.param([FAILED], "error", "reported", id="failed"),
        pytest.param([SILENT], "unknown", "reported", id="the span of a tool that does not say"),
        pytest.param([SILENT, RAN], "ok", "reported", id="a saying record beats a silent one"),
        pytest.param([ASK], "pending", None, id="asked and not answered"),
        pytest.param([ASK, YES], "unknown", None, id="approved and nothing more is known"),
        pytest.param([ASK, YES, RAN], "ok", "reported", id="asked, approved, ran"),
        pytest.param([ASK, RAN], "ok", "reported", id="ran without an answer"),
        pytest.param([ASK, NO], "denied", None, id="refused by a person"),
        pytest.param([DENY], "denied", None, id="refused by policy"),
        pytest.param([DENY, RAN], "denied", "reported", id="a refused action never shows ok"),
        pytest.param([ASK, NO, RAN], "denied", "reported", id="nor after a refused approval"),
        pytest.param([ASK, LATE], "expired", None, id="expired"),
        pytest.param([ASK, LATE, RAN], "expired", "reported", id="ran after it expired"),
        pytest.param([{**RAN, "outcome": "denied"}], "denied", None, id="the span itself says denied"),
        pytest.param([{**RAN, "decision": "deny"}], "denied", None, id="a span that states the refusal did not run"),
        pytest.param([{"kind": "span", **YES, "outcome": "ok"}], "unknown", None, id="an approval's own span is no execution"),
        pytest.param([{"decision": "allow", "kind": "log"}], "unknown", None, id="allowed is not done"),
        pytest.param([{"outcome": "pending"}], "pending", None, id="said to be pending"),
    ],
)
def test_outcome(records: list[dict[str, Any]], outcome: str, execution: str | None, tmp_path: Path) -> None:
    builder = StoreBuilder()
    for place, facts in enumerate(records):
        builder.add(facts.get("kind", "log"), at=place, run_id="r", action_id="a", **{k: v for k, v in facts.items() if k != "kind"})
    (row,) = select(views_of(builder, tmp_path), "SELECT outcome, execution FROM actions")
    assert (row["outcome"], row["execution"]) == (outcome, execution)


def test_a_missing_decision_is_null_and_never_approved(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(run_id="r", action_id="a", tool="t", outcome="ok")
    (row,) = select(views_of(builder, tmp_path), "SELECT decision, approval, approver, assurance FROM actions")
    assert set(row.values()) == {None}


def test_assurance_is_observed_only_from_a_sender_that_does_nothing_else_in_the_run(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", run_id="r1", action_id="a", sender="slack", role="approver", **YES)
    builder.add("log", run_id="r2", action_id="a", sender="slack", role="approver", **YES)
    builder.add("span", run_id="r2", sender="slack", role="approver", event="chat")
    builder.add("log", run_id="r3", action_id="a", sender="agent", role="emitter", **YES)
    builder.add("log", run_id="r4", action_id="a", sender="loopback", **YES)
    builder.add("log", action_id="a", sender="slack", role="approver", **YES)
    builder.add("log", run_id="r5", action_id="a", sender="opa", role="policy", **ASK)
    builder.add("log", run_id="r5", action_id="a", sender="agent", **YES)
    views = views_of(builder, tmp_path)
    approvals = select(views, "SELECT index, assurance FROM approvals ORDER BY index")
    assert [row["assurance"] for row in approvals] == ["observed", "claimed", "claimed", "claimed", "claimed", "claimed"]
    assert select(views, "SELECT assurance FROM decisions") == [{"assurance": "observed"}]
    # An action is no better assured than the weaker of its two facts.
    assert select(views, "SELECT assurance FROM actions WHERE run_id = 'r5'") == [{"assurance": "claimed"}]


def test_of_contradicting_facts_the_assured_then_the_cautious_one_is_shown(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", run_id="r", action_id="a", sender="agent", approver="mallory", **YES)
    builder.add("log", run_id="r", action_id="a", sender="slack", role="approver", approver="alice", **NO)
    builder.add("log", run_id="r", action_id="b", sender="agent", approver="bob", **YES)
    builder.add("log", run_id="r", action_id="b", sender="agent", approver="eve", **NO)
    rows = select(views_of(builder, tmp_path), "SELECT approval, approver, outcome, conflict FROM actions ORDER BY action_id")
    assert rows[0] == {"approval": "denied", "approver": "alice", "outcome": "denied", "conflict": True}
    assert rows[1] == {"approval": "denied", "approver": "eve", "outcome": "denied", "conflict": True}


def test_a_question_and_its_answer_do_not_contradict(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", run_id="r", action_id="a", **ASK)
    builder.add("log", run_id="r", action_id="a", decision="allow", at=1)
    assert select(views_of(builder, tmp_path), "SELECT conflict FROM actions") == [{"conflict": False}]


def test_a_forged_copy_of_a_span_is_shown_as_a_conflict(tmp_path: Path) -> None:
    builder = StoreBuilder()
    span = {"run_id": "r", "trace_id": TRACE, "span_id": "01" * 8, "action_id": "a", "tool": "t", "outcome": "ok"}
    builder.add(**span, sender="mallory", resource="/harmless")
    builder.add(**span, sender="agent", resource="/etc/passwd")
    views = views_of(builder, tmp_path, cuts=[1])
    assert select(views, "SELECT conflict, records FROM actions") == [{"conflict": True, "records": [0, 1]}]
    (gap,) = select(views, 'SELECT kind, run_id, "from", "to" FROM gaps')
    assert gap == {"kind": "conflict", "run_id": "r", "from": 0, "to": 1}


def test_the_same_span_sent_again_is_no_conflict(tmp_path: Path) -> None:
    builder = StoreBuilder()
    for arrived in (1, 60):
        builder.add(run_id="r", trace_id=TRACE, span_id="01" * 8, action_id="a", tool="t", outcome="ok", received=arrived)
    assert select(views_of(builder, tmp_path), "SELECT conflict FROM actions") == [{"conflict": False}]


def test_execution_is_observed_only_from_somebody_else(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(run_id="r", action_id="a", tool="t", outcome="ok", sender="agent")
    builder.add(run_id="r", action_id="a", tool="t", outcome="error", sender="gateway", role="policy")
    (row,) = select(views_of(builder, tmp_path), "SELECT execution, outcome FROM actions")
    assert row == {"execution": "observed", "outcome": "error"}


def test_a_change_that_was_refused_is_no_change(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", run_id="r", action_id="a", change_kind="config", **ASK)
    builder.add("log", run_id="r", action_id="b", change_kind="config", **DENY)
    builder.add(run_id="r", action_id="c", change_kind="config", tool="t", outcome="ok")
    assert select(views_of(builder, tmp_path), "SELECT action_id FROM changes") == [{"action_id": "c"}]


def test_gaps_name_what_is_missing(tmp_path: Path) -> None:
    builder = StoreBuilder()
    for number in (4, 5, 8):
        builder.add("log", run_id="r", sender="agent", sequence=number)
    builder.add(run_id="r", trace_id=TRACE, span_id="01" * 8, parent_span_id="09" * 8)
    builder.add(run_id="r", body={"dropped_attributes_count": 3, "dropped_events_count": 2})
    builder.add(run_id="r", attributes={"text": '"dropped_attributes_count":7'})
    rows = select(views_of(builder, tmp_path), 'SELECT kind, run_id, "from", "to", why FROM gaps ORDER BY kind')
    assert [(row["kind"], row["from"], row["to"]) for row in rows] == [("dropped", 4, 4), ("orphan", 3, 3), ("sequence", 6, 7)]
    assert rows[0]["why"].startswith("5 ")
    assert rows[2]["why"].startswith("2 ")


def test_states_of_contents(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(
        attributes={
            "kept": Kept("value"),
            "erased": Kept(None, size=9),
            "secret": Kept("token", rule="no-secrets"),
            "lost": Kept("gone", lost=True),
            "user.email": Person("a@example.com"),
        }
    )
    builder.add(attributes={"forged": '{"$content":{"bytes":1,"commitment":"' + "0" * 64 + '","type":"s"}}'})
    rows = select(views_of(builder, tmp_path, cuts=[2]), "SELECT field, state, bytes FROM contents ORDER BY bytes, state")
    assert {(row["field"], row["state"], row["bytes"]) for row in rows} == {
        (None, "missing", 4),
        ("kept", "matching", 5),
        ("secret", "never_kept", 5),
        ("erased", "erased", 9),
        ("user.email", "matching", 13),
    }


def test_a_value_that_is_not_what_was_committed_to_is_missing(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(attributes={"kept": Kept("value")})
    builder.rows.value[0] = b"other"
    assert select(views_of(builder, tmp_path), "SELECT state FROM contents") == [{"state": "missing"}]


def test_a_time_of_nothing_is_null_and_comes_last(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(at=None, run_id="r", action_id="a", tool="t", outcome="ok", received=1)
    builder.add(at=5, run_id="r", action_id="b", tool="t", outcome="ok")
    rows = select(views_of(builder, tmp_path), "SELECT action_id, step, time FROM actions ORDER BY step")
    assert rows == [{"action_id": "b", "step": 1, "time": at(5)}, {"action_id": "a", "step": 2, "time": None}]


def test_nanoseconds_survive(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(at=None, time=str(START + 1))
    assert select(views_of(builder, tmp_path, cuts=[1]), "SELECT time FROM records") == [{"time": START + 1}]
