"""The card: the six answers, their order, and what each says when it does not know."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from build_segments import BuiltStore, StoreBuilder
from card_of import at
from refund_story import APPROVER, ARGUMENTS, DAY, DIFF, FILE, REQUESTER, SHOWN, refund_story

from ledger.errors import CorruptSegment
from query.answers import ACTION_COLUMNS, SIX, Answer, ask, runs, show, timeline
from query.errors import QueryError
from query.question import Question
from query.rows import iso
from query.store import open_views

TRACE = "cd" * 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BuiltStore:
    return refund_story().build(tmp_path_factory.mktemp("story"), cuts=[3, 6])


@pytest.fixture(scope="module")
def answer(store: BuiltStore) -> Answer:
    return ask(store, Question(resource="refunds.yaml", since=at(-60), until=at(60)))


@pytest.fixture(scope="module")
def card(answer: Answer) -> dict[str, Any]:
    (found,) = answer.cards
    return found


def test_every_answer_is_given_with_the_records_it_rests_on(card: dict[str, Any]) -> None:
    assert {name: (card[name]["status"], card[name]["records"]) for name in SIX} == {
        "what": ("answered", [6]),
        "who": ("answered", [4, 5]),
        "policy": ("answered", [0, 4]),
        "saw": ("answered", [2, 3]),
        "undo": ("answered", [6]),
        "intact": ("answered", [0, 2, 3, 4, 5, 6]),
    }
    assert not [name for name in SIX if "why" in card[name]]


def test_it_is_what_the_command_prints(answer: Answer) -> None:
    printed = json.loads(json.dumps(answer.as_json()))
    assert set(printed) >= {"cards", "range"}
    assert set(printed["range"]) == {"size", "root"}
    assert list(printed["cards"][0]["action"]) == list(ACTION_COLUMNS)
    assert (printed["match"], printed["resources"], printed["matched"]) == ("end", [FILE], 1)


def test_action_is_the_row_of_the_view(card: dict[str, Any], store: BuiltStore) -> None:
    with open_views(store) as views:
        row = views.connection.sql("SELECT * FROM actions WHERE action_id = 'call_1'").fetchall()[0]
    for name, value in zip(ACTION_COLUMNS, row, strict=True):
        if name not in ("time", "received", "approval_time"):
            assert card["action"][name] == value
    assert card["action"]["time"] == "2025-11-20T10:03:26.000000000Z"


def test_what(card: dict[str, Any]) -> None:
    what = card["what"]
    assert (what["resource"], what["tool"], what["change_kind"], what["diff"]) == (FILE, "edit_config", "config", DIFF)
    assert '+1 -1, "max_amount_usd: 25" became "max_amount_usd: 250"' in what["text"]


def test_who(card: dict[str, Any]) -> None:
    who = card["who"]
    assert (who["approver"], who["decision"], who["source"], who["assurance"]) == (APPROVER, "approved", "human", "claimed")
    assert (who["time"], who["asked"], who["seconds"]) == (iso(at(5)), iso(at(3)), 2.0)
    assert (who["requester"], who["shown"], who["shown_is_ran"], who["too_fast"]) == (REQUESTER, SHOWN, True, True)
    for phrase in ("2 s after being shown 139 bytes", "FASTER THAN IT CAN BE READ", "1 s before it ran", "not the requester"):
        assert phrase in who["text"]
    # The agent reported what ran; nobody else watched.
    assert "shown = reported" in who["text"]
    assert card["flags"] == ["approved_too_fast"]


def test_policy(card: dict[str, Any]) -> None:
    policy = card["policy"]
    assert (policy["id"], policy["version"], policy["rule"], policy["decision"]) == ("refund-limits", "2", "edit_config", "ask")
    assert policy["newer"] == {"version": "3", "first_seen": iso(at(-DAY)), "record": 0, "seconds": DAY + 3.0}
    assert "AN OLDER VERSION: version 3 had been seen 1 d" in policy["text"]


def test_saw(card: dict[str, Any]) -> None:
    saw = card["saw"]
    assert [(context["source"], context["id"], context["record"]) for context in saw["contexts"]] == [
        ("tickets", "ticket-8841", 2),
        ("kb", "kb-1", 2),
    ]
    assert saw["provenance"] == {
        "kind": "textual",
        "source": "tickets",
        "id": "ticket-8841",
        "record": 2,
        "words": ["250"],
        "quote": "Please raise the refund limit to 250 dollars at once.",
    }
    assert [(message["field"], message["count"]) for message in saw["messages"]] == [
        ("gen_ai.input.messages", 1),
        ("gen_ai.system_instructions", 1),
    ]


def test_undo(card: dict[str, Any]) -> None:
    undo = card["undo"]
    assert undo["kind"] == "exact"
    assert undo["plan"] == DIFF.replace("-  max_amount_usd: 25\n+  max_amount_usd: 250", "-  max_amount_usd: 250\n+  max_amount_usd: 25")
    assert "sha256:bb" in undo["text"]


def test_intact(card: dict[str, Any], store: BuiltStore) -> None:
    intact = card["intact"]
    assert (intact["verdict"], intact["key"]) == ("verified", "pinned")
    assert [(proof["index"], proof["proven"]) for proof in intact["proofs"]] == [(i, True) for i in (0, 2, 3, 4, 5, 6)]
    leaf = hashlib.sha256(b"\0" + store.record(6)).hexdigest()
    assert next(proof["leaf"] for proof in intact["proofs"] if proof["index"] == 6) == leaf


# ---- what is asked


@pytest.mark.parametrize(
    ("asked", "match", "found"),
    [
        ({"resource": FILE}, "whole", ["call_1"]),
        ({"resource": "config/refunds.yaml"}, "end", ["call_1"]),
        ({"resource": "/refunds.yaml"}, "end", ["call_1"]),
        ({"resource": "refunds"}, "part", ["call_1"]),
        ({"resource": "unds.yaml"}, "part", ["call_1"]),
        ({"resource": "nothing"}, "none", []),
        ({"resource": "call_1"}, "id", ["call_1"]),
        ({"resource": "approval-7"}, "id", ["call_1"]),
        ({"resource": "ticket-8841"}, "id", ["call_1"]),
        ({"run": "run-1"}, "none", ["call_1"]),
        ({"run": "run-1", "resource": "refunds.yaml"}, "end", ["call_1"]),
        ({"run": "run-0", "resource": "refunds.yaml"}, "end", []),
        ({"run": "nope"}, "none", []),
        ({"record": 5}, "none", ["call_1"]),
        ({"record": 2}, "none", []),
        ({"record": 999}, "none", []),
        ({"agent": "refunds_agent"}, "none", ["call_1"]),
        ({"approver": APPROVER}, "none", ["call_1"]),
        ({"approver": "somebody"}, "none", []),
        ({"policy": "refund-limits"}, "none", ["call_1", "call_0"]),
        ({"sender": "loopback"}, "none", ["call_1", "call_0"]),
        ({"since": at(6), "until": at(7)}, "none", ["call_1"]),
        # The approval lies in the window, the action does not.
        ({"since": at(5), "until": at(6)}, "none", []),
        ({"approver": APPROVER, "since": at(6)}, "none", ["call_1"]),
        ({}, "none", ["call_1", "call_0"]),
        ({"limit": 1}, "none", ["call_1"]),
    ],
)
def test_questions(store: BuiltStore, asked: dict[str, Any], match: str, found: list[str]) -> None:
    answer = ask(store, Question(**asked))
    assert (answer.match, [card["action"]["action_id"] for card in answer.cards]) == (match, found)


def test_a_whole_resource_is_preferred_to_an_end_and_an_end_to_a_part(tmp_path: Path) -> None:
    builder = StoreBuilder()
    for place, name in enumerate(("a/b.yaml", "x/a/b.yaml", "xa/b.yaml.bak")):
        builder.add(run_id="r", action_id=f"c{place}", tool="t", resource=name, outcome="ok", at=place)
    store = builder.build(tmp_path)
    assert ask(store, Question(resource="a/b.yaml")).resources == ["a/b.yaml"]
    assert ask(store, Question(resource="b.yaml")).resources == ["a/b.yaml", "x/a/b.yaml"]
    assert ask(store, Question(resource="b.y")).match == "part"


def test_an_empty_window_names_the_nearest_times(store: BuiltStore) -> None:
    answer = ask(store, Question(resource="refunds.yaml", since=at(100), until=at(200)))
    assert (answer.cards, answer.near) == ([], {"before": iso(at(6))})
    answer = ask(store, Question(resource="refunds.yaml", until=at(0)))
    assert answer.near == {"after": iso(at(6))}


@pytest.mark.parametrize(
    "wrong",
    [
        {"resource": ""},
        {"run": " "},
        {"agent": ""},
        {"approver": ""},
        {"policy": ""},
        {"sender": ""},
        {"record": -1},
        {"since": at(1), "until": at(1)},
        {"since": 2**70},
        {"limit": 0},
        {"limit": 10**6},
    ],
)
def test_what_cannot_have_been_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        Question(**wrong)


def test_an_empty_store_answers(tmp_path: Path) -> None:
    answer = ask(StoreBuilder().build(tmp_path), Question(resource="x"))
    assert (answer.cards, answer.size) == ([], 0)
    assert runs(StoreBuilder().build(tmp_path)) == []


def test_a_damaged_file_is_an_error_and_no_answer(tmp_path: Path) -> None:
    store = refund_story().build(tmp_path, cuts=[10])
    path = store.segments[0].records
    data = bytearray(path.read_bytes())
    data[-4:] = b"ABCD"
    path.write_bytes(data)
    with pytest.raises(CorruptSegment):
        ask(store, Question(resource="refunds.yaml"))


# ---- runs, timeline, one record


def test_runs(store: BuiltStore) -> None:
    assert [row["run_id"] for row in runs(store)] == ["run-1", "run-0"]
    assert [row["run_id"] for row in runs(store, agent="refunds_agent")] == ["run-1"]
    assert [row["run_id"] for row in runs(store, until=at(-1))] == ["run-0"]
    assert [row["run_id"] for row in runs(store, since=at(-1), limit=1)] == ["run-1"]
    assert runs(store)[0]["started"] == iso(at(0))
    assert [row["run_id"] for row in runs(store, active_at=at(-DAY + 60))] == ["run-0"]
    assert runs(store, active_at=at(60)) == []
    with pytest.raises(QueryError):
        runs(store, agent="")


def test_timeline_pages_through_everything_in_the_order_of_events(store: BuiltStore) -> None:
    rows = timeline(store)
    assert [row["index"] for row in rows] == [8, 0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert (rows[2]["time"], rows[2]["received"]) == (iso(at(0)), iso(at(1)))
    first = timeline(store, run="run-1", limit=3)
    rest = timeline(store, run="run-1", after=(at(2), first[-1]["index"]))
    assert [row["index"] for row in first + rest] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["index"] for row in timeline(store, resource="refunds")] == [6]
    assert [row["index"] for row in timeline(store, since=at(3), until=at(6))] == [4, 5]


def test_show_fills_contents_in(store: BuiltStore) -> None:
    shown = show(store, 6)
    assert shown["record"]["facts"]["tool"] == "edit_config"
    assert [(value["field"], value["state"], value["text"]) for value in shown["contents"]] == [
        ("gen_ai.tool.call.arguments", "matching", ARGUMENTS),
        ("trail.change.diff", "matching", DIFF),
    ]
    with pytest.raises(QueryError, match="there is no record 10"):
        show(store, 10)
