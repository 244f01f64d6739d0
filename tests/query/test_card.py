"""The six answers one by one: what each says when it knows a part, when it knows nothing, and when it must warn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from build_segments import Kept, Person, StoreBuilder
from card_of import at, bare, cards, one
from refund_story import ARGUMENTS, DIFF, SHOWN, refund_story

from query.answers import SIX, ask, show
from query.errors import QueryError
from query.question import Question
from query.rows import iso

TRACE = "cd" * 16


def test_nothing_but_a_tool(tmp_path: Path) -> None:
    card = bare(tmp_path, tool="t", outcome="ok")
    assert {name: card[name]["status"] for name in SIX} == {
        "what": "partly",
        "who": "unknown",
        "policy": "unknown",
        "saw": "unknown",
        "undo": "unknown",
        "intact": "answered",
    }
    for name, emit in (
        ("what", "trail.change.kind"),
        ("who", "trail.approval.approver.id"),
        ("policy", "trail.policy.decision"),
        ("saw", "gen_ai.retrieval.documents"),
        ("undo", "trail.reversal.kind"),
    ):
        assert emit in card[name]["why"]
    assert "not the same as none being needed" in card["who"]["text"]
    assert card["undo"]["kind"] == "unknown"


def test_what_unknown_and_partly(tmp_path: Path) -> None:
    card = bare(tmp_path / "1", outcome="ok")
    assert card["what"]["status"] == "unknown"
    card = bare(tmp_path / "2", tool="t", outcome="ok", tier="read")
    assert (card["what"]["status"], card["undo"]["status"]) == ("answered", "answered")
    card = bare(tmp_path / "3", tool="t", outcome="ok", change_kind="data")
    assert (card["what"]["status"], card["what"]["diff"]) == ("partly", None)
    card = bare(tmp_path / "4", "log", decision="deny", tool="t", resource="x")
    assert (card["what"]["status"], card["what"]["text"]) == ("answered", "t on x did not run (denied): nothing changed")
    assert (card["undo"]["kind"], card["undo"]["plan"]) == ("exact", None)


@pytest.mark.parametrize(
    ("kept", "why"),
    [
        (Kept(None, size=7), "erased"),
        (Kept("secret", rule="no-secrets"), "never kept (rule no-secrets)"),
        (Kept("gone", lost=True), "no longer has"),
        (Kept("x" * ((1 << 20) + 1)), "1048577 bytes"),
    ],
)
def test_a_difference_that_cannot_be_read_says_why(kept: Kept, why: str, tmp_path: Path) -> None:
    card = bare(tmp_path, tool="t", outcome="ok", change_kind="data", attributes={"trail.change.diff": kept})
    assert card["what"]["status"] == "partly"
    assert why in card["what"]["why"]
    assert card["undo"]["status"] == "unknown"
    assert why in card["undo"]["why"]


def test_a_content_that_does_not_match_is_not_shown(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(run_id="r", action_id="a", tool="t", outcome="ok", change_kind="data", attributes={"trail.change.diff": Kept(DIFF)})
    builder.rows.value[0] = DIFF.replace("250", "999").encode()
    card = one(builder, tmp_path)
    assert (card["what"]["status"], card["what"]["diff"]) == ("partly", None)


def test_who_is_partly_known(tmp_path: Path) -> None:
    card = bare(tmp_path / "1", tool="t", outcome="ok", approval="approved")
    assert card["who"]["status"] == "partly"
    for name in ("trail.approval.approver.id", "trail.approval.source", "trail.approval.subject.digest", "event of its own"):
        assert name in card["who"]["why"]
    assert card["who"]["time"] is None
    card = bare(tmp_path / "2", "log", decision="ask", event="trail.policy.decision")
    assert (card["who"]["status"], card["action"]["outcome"]) == ("partly", "pending")
    assert "nobody has answered yet" in card["who"]["text"]
    card = bare(tmp_path / "3", tool="t", outcome="ok", decision="ask")
    assert card["who"]["status"] == "unknown"
    assert "ran all the same" in card["who"]["text"]
    card = bare(tmp_path / "4", tool="t", outcome="ok", approval="not_required")
    assert card["who"]["status"] == "answered"


def approved(path: Path, *, arguments: str = ARGUMENTS, approver: str = "al", requester: str | None = None, **ran: Any) -> dict[str, Any]:
    builder = StoreBuilder()
    person = {"user.email": Person(requester)} if requester is not None else {}
    builder.add(at=0, run_id="r", agent="g", event="invoke_agent", attributes=person)
    builder.add("log", at=1, run_id="r", action_id="a", decision="ask", event="trail.policy.decision")
    builder.add(
        "log", at=60, run_id="r", action_id="a", approval="approved", approver=approver, approval_source="human", shown=SHOWN,
        event="trail.approval",
    )  # fmt: skip
    attributes = {"gen_ai.tool.call.arguments": Kept(arguments)} if arguments else {}
    builder.add(**{"at": 61, "run_id": "r", "action_id": "a", "tool": "t", "outcome": "ok", "attributes": attributes, **ran})
    who: dict[str, Any] = one(builder, path)["who"]
    return who


def test_shown_against_ran(tmp_path: Path) -> None:
    assert approved(tmp_path / "1")["shown_is_ran"] is True
    reordered = json.dumps(dict(reversed(json.loads(ARGUMENTS).items())))
    who = approved(tmp_path / "2", arguments=reordered)
    assert (who["shown_is_ran"], "SHOWN IS NOT WHAT RAN" in who["text"]) == (False, True)
    who = approved(tmp_path / "3", arguments="")
    assert (who["shown_is_ran"], "cannot be compared" in who["text"]) == (None, True)
    who = approved(tmp_path / "4", shown="sha256:" + "0" * 64)
    assert (who["shown_is_ran"], "records name different digests" in who["text"]) == (False, True)
    who = approved(tmp_path / "5", sender="gateway", role="policy")
    assert "shown = ran" in who["text"]
    who = approved(tmp_path / "6", at=30)
    assert "AFTER IT RAN, by 30 s" in who["text"]


def test_nobody_approves_their_own_request_unseen(tmp_path: Path) -> None:
    assert "WHO IS ALSO THE REQUESTER" in approved(tmp_path / "1", approver="Al@Example.com", requester="al@example.com")["text"]
    assert "not the requester" in approved(tmp_path / "2", approver="al@example.com", requester="bo@example.com")["text"]


def test_policy_is_partly_known(tmp_path: Path) -> None:
    card = bare(tmp_path / "1", tool="t", outcome="ok", policy_id="p")
    assert (card["policy"]["status"], card["policy"]["decision"]) == ("partly", None)
    card = bare(tmp_path / "2", tool="t", outcome="ok", decision="allow")
    assert card["policy"]["status"] == "partly"
    assert "trail.policy.id and trail.policy.version" in card["policy"]["why"]
    card = bare(tmp_path / "3", tool="t", outcome="ok", decision="allow", policy_id="p", policy_version="1")
    assert (card["policy"]["status"], card["policy"]["newer"]) == ("answered", None)


@pytest.mark.parametrize(
    ("own", "other", "seen_at", "newer"),
    [
        ("2", "3", -10, "3"),
        ("3", "2", -10, None),
        ("2", "3", 10, None),
        ("v9", "v10", -10, "v10"),
        ("1.10.0", "1.9.9", -10, None),
        ("2025-01-02", "2025-01-03", -10, "2025-01-03"),
        # Names that are not numbers: the one that was seen later is the newer one.
        ("alpha", "beta", -5, "beta"),
        ("alpha", "beta", -20, None),
    ],
)
def test_an_older_policy_version_in_force(own: str, other: str, seen_at: int, newer: str | None, tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add("log", at=-15, run_id="q", action_id="x", decision="allow", policy_id="p", policy_version=own)
    builder.add("log", at=seen_at, run_id="q", action_id="y", decision="allow", policy_id="p", policy_version=other)
    builder.add("log", at=seen_at, run_id="q", action_id="z", decision="allow", policy_id="elsewhere", policy_version="99")
    builder.add(at=0, run_id="r", action_id="a", tool="t", outcome="ok", decision="allow", policy_id="p", policy_version=own)
    found = one(builder, tmp_path)["policy"]["newer"]
    assert (found["version"] if found is not None else None) == newer


def test_saw_only_what_came_before(tmp_path: Path) -> None:
    builder = StoreBuilder()
    spans = {"trace_id": TRACE, "run_id": "r", "agent": "g"}
    builder.add(at=1, contexts=[{"source": "kb", "id": "early"}], **spans)
    builder.add(at=5, action_id="a", tool="t", outcome="ok", **spans)
    builder.add(at=9, contexts=[{"source": "kb", "id": "late"}], **spans)
    builder.add(at=1, contexts=[{"source": "kb", "id": "elsewhere"}], run_id="other", trace_id="ee" * 16)
    card = one(builder, tmp_path)
    assert [context["id"] for context in card["saw"]["contexts"]] == ["early"]
    assert card["saw"]["status"] == "partly"


def test_words_are_found_in_tool_results_and_nowhere_they_are_not(tmp_path: Path) -> None:
    builder = StoreBuilder()
    result = {"gen_ai.tool.call.result": Kept(json.dumps({"body": "please add grumpfelt here"}))}
    builder.add(at=1, run_id="r", agent="g", action_id="read", tool="fetch", tier="read", outcome="ok", attributes=result)
    diff = "--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+grumpfelt: yes\n"
    builder.add(at=2, run_id="r", action_id="a", tool="t", outcome="ok", change_kind="data", attributes={"trail.change.diff": Kept(diff)})
    (card,) = cards(builder.build(tmp_path), record=1)
    provenance = card["saw"]["provenance"]
    assert (provenance["source"], provenance["id"], provenance["record"]) == ("tool result", "fetch", 0)
    assert (provenance["words"], provenance["quote"]) == (["grumpfelt"], "please add grumpfelt here")


@pytest.mark.parametrize(
    ("facts", "kind", "status"),
    [
        ({"reversal": "impossible"}, "impossible", "answered"),
        ({"reversal": "compensating", "reversal_ref": "refund:cancel/17"}, "compensating", "answered"),
        ({"reversal": "compensating"}, "compensating", "partly"),
        ({"reversal": "exact", "reversal_ref": "snapshot 9"}, "exact", "answered"),
        ({"before_digest": "sha256:aa"}, "unknown", "partly"),
        ({}, "unknown", "unknown"),
        ({"attributes": {"trail.change.diff": Kept("no diff at all")}}, "unknown", "unknown"),
        ({"attributes": {"trail.change.diff": Kept(DIFF)}}, "exact", "answered"),
        ({"attributes": {"trail.change.diff": Kept(DIFF)}, "reversal": "impossible"}, "impossible", "answered"),
    ],
)
def test_ways_back(facts: dict[str, Any], kind: str, status: str, tmp_path: Path) -> None:
    card = bare(tmp_path, tool="t", outcome="ok", change_kind="data", **facts)
    assert (card["undo"]["kind"], card["undo"]["status"]) == (kind, status)
    assert ("why" in card["undo"]) is (status != "answered")


def test_later_changes_of_the_same_resource_are_named(tmp_path: Path) -> None:
    builder = StoreBuilder()
    change = {"tool": "t", "resource": "x", "change_kind": "data", "attributes": {"trail.change.diff": Kept(DIFF)}}
    builder.add(at=1, run_id="r", action_id="a", outcome="ok", **change)
    builder.add(at=2, run_id="s", action_id="b", outcome="ok", **change)
    builder.add(at=3, run_id="s", action_id="c", outcome="denied", **change)
    card = one(builder, tmp_path)
    assert card["undo"]["later_changes"] == [{"record": 1, "time": iso(at(2))}]
    assert "1 LATER CHANGE of the same resource, from record 1" in card["undo"]["text"]


def test_a_conflict_is_said(tmp_path: Path) -> None:
    builder = StoreBuilder()
    for who, sender in (("alice", "a"), ("mallory", "b")):
        builder.add(
            run_id="r", trace_id=TRACE, span_id="01" * 8, action_id="a", tool="t", outcome="ok", sender=sender, approval="approved",
            approver=who, decision="allow", policy_id="p", policy_version="1",
        )  # fmt: skip
    card = one(builder, tmp_path)
    assert card["action"]["conflict"] is True
    for name in ("what", "who", "policy"):
        assert "RECORDS CONTRADICT EACH OTHER" in card[name]["text"]


def test_unpinned_is_unverifiable_and_never_good(tmp_path: Path) -> None:
    store = refund_story().build(tmp_path)
    store.key_status = "unpinned"
    (card,) = cards(store, resource="refunds.yaml")
    assert (card["intact"]["verdict"], card["intact"]["status"]) == ("unverifiable", "partly")
    assert "--key" in card["intact"]["why"]


def test_a_record_that_is_not_in_the_tree_fails(tmp_path: Path) -> None:
    store = refund_story().build(tmp_path)
    store.root = "00" * 32
    (card,) = cards(store, resource="refunds.yaml")
    assert card["intact"]["verdict"] == "failed"
    assert card["intact"]["text"].startswith("NO: record 0")


def test_a_column_that_does_not_say_what_the_record_says_fails(tmp_path: Path) -> None:
    builder = refund_story()
    builder.facts[5] = {**builder.facts[5], "approver": "somebody else"}
    (card,) = cards(builder.build(tmp_path, cuts=[10]), resource="refunds.yaml")
    assert card["intact"]["verdict"] == "failed"
    assert "record 5: the column approver" in card["intact"]["text"]


def test_unsigned_records_are_seen_only_when_asked_for_and_marked(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(run_id="r", action_id="a", tool="t", outcome="ok", resource="x")
    builder.add(run_id="r", action_id="b", tool="t", outcome="ok", resource="x", at=1)
    store = builder.build(tmp_path, unsigned=1)
    assert [card["action"]["action_id"] for card in cards(store, resource="x")] == ["a"]
    newest, _ = ask(store, Question(resource="x"), tail=True).cards
    assert (newest["action"]["action_id"], newest["intact"]["verdict"]) == ("b", "unverifiable")
    assert "not yet under a checkpoint" in newest["intact"]["why"]
    with pytest.raises(QueryError):
        show(store, 1)
    assert show(store, 1, tail=True)["record"]["facts"]["action_id"] == "b"
