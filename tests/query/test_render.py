"""The card as text: complete, wrapped, and unable to drive the terminal it is printed on."""

from __future__ import annotations

import copy
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from build_segments import BuiltStore, Kept, StoreBuilder
from hypothesis import given
from hypothesis import strategies as st
from refund_story import refund_story

from query.answers import ask
from query.question import Question
from query.render import render_answer, visible, visible_lines

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mok\x1b[0m\r\n-- forged line\u202egnp.exe\u2066\u200b\x00\x9b31m\ud7ff\ue000"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BuiltStore:
    return refund_story().build(tmp_path_factory.mktemp("story"))


def is_plain(text: str) -> bool:
    return all(character == "\n" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for character in text)


def test_the_story(store: BuiltStore) -> None:
    text = render_answer(ask(store, Question(resource="refunds.yaml")).as_json())
    for piece in ("1 WHAT", "2 WHO", "3 POLICY", "4 SAW", "5 UNDO", "6 INTACT", "! APPROVED FASTER", "#4, #5", "| +  max_amount_usd: 25\n"):
        assert piece in text
    assert max(map(len, text.splitlines())) <= 100
    narrow = render_answer(ask(store, Question(resource="refunds.yaml")).as_json(), width=60, plans=False)
    assert max(map(len, narrow.splitlines()[2:])) <= 60


def test_what_is_not_known_is_printed_with_its_why(tmp_path: Path) -> None:
    builder = StoreBuilder()
    builder.add(run_id="r", action_id="a", tool="t", outcome="ok")
    text = render_answer(ask(builder.build(tmp_path), Question(run="r")).as_json())
    assert "?2 WHO" in text
    assert "unknown: emit a trail.approval event" in " ".join(text.split())
    assert "~1 WHAT" in text


def test_no_card(store: BuiltStore) -> None:
    assert "no action was found\n" in render_answer(ask(store, Question(resource="nothing")).as_json())
    later = ask(store, Question(resource="refunds.yaml", since=2**62)).as_json()
    assert "nearest before 2025-11-20T10:03:26" in render_answer(later)


def test_recorded_text_cannot_drive_the_terminal(tmp_path: Path) -> None:
    builder = StoreBuilder()
    diff = f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-{HOSTILE}\n+{HOSTILE}\n"
    builder.add(
        run_id=HOSTILE, action_id=HOSTILE, agent=HOSTILE, tool=HOSTILE, resource=HOSTILE, outcome="ok", change_kind="data",
        decision="allow", policy_id=HOSTILE, policy_version=HOSTILE, rule=HOSTILE, approval="approved", approver=HOSTILE,
        reversal_ref=HOSTILE, contexts=[{"source": HOSTILE, "id": HOSTILE}], attributes={"trail.change.diff": Kept(diff)},
    )  # fmt: skip
    answer = ask(builder.build(tmp_path), Question(resource="forged"))
    text = render_answer(answer.as_json())
    assert is_plain(text)
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
    assert not any(line.startswith("-- forged") for line in text.splitlines())
    # As data it stays what it was.
    assert answer.cards[0]["action"]["tool"] == HOSTILE


@given(st.text())
def test_visible_text_is_one_plain_line(text: str) -> None:
    shown = visible(text)
    assert is_plain(shown)
    assert "\n" not in shown
    assert all(is_plain(line) and "\n" not in line for line in visible_lines(text))


def test_plain_text_is_left_alone() -> None:
    for text in ("plain", "Größe 25 €", "日本語", "a‖b", "✓ done"):
        assert visible(text) == text
    assert visible("tab\there") == "tab\\there"
    assert visible_lines("a\tb\r\nc") == ["a       b", "c"]


@pytest.mark.parametrize("drop", ["near", "resources"])
def test_it_renders_what_as_json_gives(store: BuiltStore, drop: str) -> None:
    answer: dict[str, Any] = copy.deepcopy(ask(store, Question(run="run-1")).as_json())
    assert drop in answer
    assert render_answer(answer).count("-- 2025") == 1
