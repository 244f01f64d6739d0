"""Which action comes first, and when an approval was faster than anybody reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from build_segments import Kept, StoreBuilder
from card_of import cards, one

TRACE = "cd" * 16


def test_what_most_likely_matters_comes_first_and_the_newest_within(tmp_path: Path) -> None:
    builder = StoreBuilder()
    allowed = {"decision": "allow", "policy_id": "p", "policy_version": "1"}
    ran = {"run_id": "r", "agent": "a", "tool": "t", "resource": "x", "outcome": "ok", "change_kind": "data"}
    for place, name in enumerate(("plain-old", "plain-new")):
        builder.add(at=place, action_id=name, **ran, **allowed)
    builder.add(at=10, action_id="final", reversal="impossible", **ran, **allowed)
    builder.add(at=11, action_id="dark", **ran)
    for place, name in enumerate(("hasty-old", "hasty-new")):
        builder.add("log", at=20 + 10 * place, run_id="r", action_id=name, decision="ask", event="trail.policy.decision")
        builder.add("log", at=22 + 10 * place, run_id="r", action_id=name, approval="approved", approver="al", event="trail.approval")
        builder.add(at=23 + 10 * place, action_id=name, **ran)
    builder.add("log", at=50, run_id="r", action_id="slow", decision="ask", event="trail.policy.decision")
    builder.add("log", at=90, run_id="r", action_id="slow", approval="approved", approver="al", event="trail.approval")
    builder.add(at=91, action_id="slow", **ran)
    builder.add("log", at=5, run_id="r", action_id="against", decision="deny", event="trail.policy.decision")
    builder.add(at=6, action_id="against", **ran)
    builder.add("log", at=7, run_id="r", action_id="unasked", decision="ask", event="trail.policy.decision")
    builder.add(at=8, action_id="unasked", **ran)
    builder.add("log", at=200, run_id="r", action_id="refused", decision="deny", resource="x", event="trail.policy.decision")
    found = cards(builder.build(tmp_path, cuts=[7]), resource="x")
    assert [(card["action"]["action_id"], card["flags"]) for card in found] == [
        ("unasked", ["ran_against_policy"]),
        ("against", ["ran_against_policy"]),
        ("hasty-new", ["approved_too_fast"]),
        ("hasty-old", ["approved_too_fast"]),
        ("dark", ["dark"]),
        ("final", ["irreversible"]),
        ("refused", []),
        ("slow", []),
        ("plain-new", []),
        ("plain-old", []),
    ]


@pytest.mark.parametrize(
    ("seconds", "size", "said", "hasty"),
    [
        (2, 10, None, True),
        (4, 10, None, False),
        (4, 1000, None, True),
        (21, 1000, None, False),
        (4, 10, 1000, True),
        (600, 10**6, None, False),
    ],
)
def test_reading_takes_time(seconds: int, size: int, said: int | None, hasty: bool, tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", at=0, run_id="r", action_id="a", decision="ask", event="trail.policy.decision")
    builder.add("log", at=seconds, run_id="r", action_id="a", approval="approved", approver="al", shown_bytes=said, event="trail.approval")
    builder.add(
        at=seconds + 1, run_id="r", agent="g", action_id="a", tool="t", outcome="ok",
        attributes={"gen_ai.tool.call.arguments": Kept("x" * size)},
    )  # fmt: skip
    card = one(builder, tmp_path)
    assert card["who"]["too_fast"] is hasty
    assert card["flags"] == (["approved_too_fast"] if hasty else [])
