"""Reversing unified diffs: applied after the diff itself, the reverse gives back the original."""

from __future__ import annotations

import difflib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.diffs import Size, new_words, reverse, size, words

LINE = st.text(alphabet="a-+@ \\\f\u2028", max_size=4).map(lambda text: text + "\n")
TEXT = st.lists(LINE, max_size=12)


def diff(before: list[str], after: list[str]) -> str:
    return "".join(difflib.unified_diff(before, after, "a/x", "b/x", n=1))


def apply(patch: str, before: list[str]) -> list[str]:
    """A strict `patch`: every line of context and every removed line has to be there."""
    after: list[str] = []
    place = 0
    lines = re.findall(r"[^\n]*\n", patch)
    assert lines[:2] == ["--- a/x\n", "+++ b/x\n"]
    for line in lines[2:]:
        hunk = re.match(r"@@ -(\d+)(?:,(\d+))? \+", line)
        if hunk is not None:
            start = int(hunk[1]) - (0 if hunk[2] == "0" else 1)
            after += before[place:start]
            place = start
        elif line.startswith("+"):
            after.append(line[1:])
        else:
            assert before[place] == line[1:]
            after += [before[place]] if line.startswith(" ") else []
            place += 1
    return after + before[place:]


@given(before=TEXT, after=TEXT)
def test_the_reverse_takes_it_back(before: list[str], after: list[str]) -> None:
    patch = diff(before, after)
    if not patch:
        return
    assert apply(patch, before) == after
    back = reverse(patch)
    assert back is not None
    assert apply(back, after) == before
    assert reverse(back) == patch


def test_lines_that_look_like_headers_are_changes_like_others() -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ def f():\n--- old\n+++ new\n same\n"
    assert reverse(patch) == "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ def f():\n-++ new\n+-- old\n same\n"
    assert size(patch) == Size(1, 1)


def test_a_hunk_that_ends_like_a_header_is_none() -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a/y\n+++ b/y\n@@ -5 +5 @@\n-1\n+2\n"
    assert reverse(patch) == "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-++ b/y\n+-- a/y\n@@ -5 +5 @@\n-2\n+1\n"


def test_files_and_foreign_lines_are_kept() -> None:
    patch = (
        "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n"
        "diff --git a/y b/y\n--- a/y\n+++ b/y\n@@ -3,0 +4 @@\n+new\n\\ No newline at end of file\n"
    )
    assert reverse(patch) == (
        "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-2\n+1\n"
        "diff --git a/y b/y\n--- a/y\n+++ b/y\n@@ -4 +3,0 @@\n-new\n\\ No newline at end of file\n"
    )


@pytest.mark.parametrize("ends", [("old\n\\ No newline at end of file\n", "new\n"), ("old\n", "new\n\\ No newline at end of file\n")])
def test_a_missing_last_newline_stays_with_its_line(ends: tuple[str, str]) -> None:
    old, new = ends
    assert reverse(f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-{old}+{new}") == f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-{new}+{old}"


@pytest.mark.parametrize(
    "text", ["", "no diff", "--- a\n+++ b\n", "-old\n+new\n", "@@ nonsense @@\n-1\n", "@@ -1,3 +1 @@\n-1\n", "@@ -1 +1 @@\n-1\n-2\n+1\n"]
)
def test_what_is_no_diff_has_no_reverse(text: str) -> None:
    assert reverse(text) is None


def test_words_that_a_change_brings_in() -> None:
    patch = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-limit: 25 # for all\n+limit: 250 # for everybody\n"
    assert new_words(patch) == ["250", "everybody"]
    assert new_words("--- a/x\n+++ b/x\n@@ -1 +0,0 @@\n-removed_line\n") == ["removed_line"]
    assert words("a bc def 7 42 x.y/z") == ["42", "x.y/z"]
