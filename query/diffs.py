"""Unified diffs: how large they are, which words they bring in, and how to take them back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HUNK: Final = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)", re.DOTALL)
_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")
"""Only a line feed ends a line; `str.splitlines` would also cut at form feeds and Unicode separators."""
_WORD: Final = re.compile(r"\w[\w.\-/@]*\w|\w")
_SHORTEST_WORD: Final = 4
_NO_NEWLINE: Final = "\\"
r"""Begins `\ No newline at end of file`."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many lines a diff adds and removes."""

    added: int
    removed: int

    def __str__(self) -> str:
        return f"+{self.added} -{self.removed}"


@dataclass(frozen=True, slots=True)
class _Line:
    r"""One line of a diff: `kind` is `@`, `-`, `+`, ` ` or `\` inside a hunk, and empty outside."""

    kind: str
    text: str
    """With its mark and its end."""


def _lines(diff: str) -> Iterator[_Line]:
    """The lines of a diff, told apart by the counts in its hunks' headers: inside a hunk `--- x` is a removed line.

    Raises:
        ValueError: a hunk holds other lines than its header counts, or ends too early.
    """
    old = new = 0
    inside = False
    for text in _LINE.findall(diff):
        if old or new:
            mark = text[0] if text[0] in "-+\\" else " "
            old -= mark in "- "
            new -= mark in "+ "
            if old < 0 or new < 0 or (mark == " " and text.strip("\r\n") and text[0] != " "):
                raise ValueError(text)
            yield _Line(mark, text)
        elif inside and text.startswith(_NO_NEWLINE):
            yield _Line(_NO_NEWLINE, text)
        elif (hunk := _HUNK.match(text)) is not None:
            old, new = int(hunk[2] or 1), int(hunk[4] or 1)
            inside = True
            yield _Line("@", text)
        else:
            inside = False
            yield _Line("", text)
    if old or new:
        raise ValueError(diff[-40:])


def changed_lines(diff: str) -> tuple[list[str], list[str]]:
    """(added, removed) lines without their marks and ends, by their marks alone where hunks do not count right."""
    try:
        lines = list(_lines(diff))
    except ValueError:
        lines = [_Line(text[0], text) for text in _LINE.findall(diff) if not text.startswith(("+++ ", "--- "))]
    added, removed = ([line.text[1:].rstrip("\r\n") for line in lines if line.kind == mark] for mark in "+-")
    return added, removed


def size(diff: str) -> Size:
    r"""How much a diff changes.

    >>> str(size("--- a\n+++ b\n@@ -1 +1,2 @@\n-x\n+y\n+z\n"))
    '+2 -1'
    """
    added, removed = changed_lines(diff)
    return Size(len(added), len(removed))


def reverse(diff: str) -> str | None:
    """The diff that takes this one back; None if this is no unified diff.

    Lines keep their ends. What is added comes after what is removed, as `diff -u` writes it.
    """
    try:
        lines = list(_lines(diff))
    except ValueError:
        return None
    if not any(line.kind == "@" for line in lines):
        return None
    out: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    latest = out
    for line in _with_names(lines):
        if line.kind not in ("-", "+", _NO_NEWLINE):
            out += removed + added
            removed, added = [], []
        if line.kind == _NO_NEWLINE:
            # It belongs to the line before it, wherever that one went.
            latest.append(line.text)
            continue
        latest = {"-": added, "+": removed}.get(line.kind, out)
        latest.append(_reversed(line))
    return "".join(out + removed + added)


def new_words(diff: str) -> list[str]:
    """The words that stand in added lines and in no removed one, in order; the removed ones where nothing was added."""
    added, removed = changed_lines(diff)
    before = {word for line in removed for word in words(line)}
    fresh = dict.fromkeys(word for line in added for word in words(line) if word not in before)
    return list(fresh or dict.fromkeys(word for line in removed for word in words(line)))


def words(text: str) -> list[str]:
    """The words of a text worth looking for: four characters or more, and every number of two digits or more.

    >>> words("the limit: 250, a-b/c")
    ['limit', '250', 'a-b/c']
    """
    return [word for word in _WORD.findall(text) if len(word) >= _SHORTEST_WORD or (len(word) > 1 and word.isdecimal())]


def _reversed(line: _Line) -> str:
    match line.kind:
        case "-":
            return "+" + line.text[1:]
        case "+":
            return "-" + line.text[1:]
        case "@":
            return re.sub(r"@@ -(\S+) \+(\S+) @@", r"@@ -\2 +\1 @@", line.text, count=1)
        case _:
            return line.text


def _with_names(lines: list[_Line]) -> Iterator[_Line]:
    """The lines, with the two names in each file's header exchanged."""
    old_name = ""
    for line, following in zip(lines, [*lines[1:], _Line("", "")], strict=True):
        if not line.kind and line.text.startswith("--- ") and not following.kind and following.text.startswith("+++ "):
            old_name = line.text[4:]
            yield _Line("", f"--- {_swap(following.text[4:])}")
        elif not line.kind and old_name and line.text.startswith("+++ "):
            yield _Line("", f"+++ {_swap(old_name)}")
            old_name = ""
        else:
            yield line


def _swap(name: str) -> str:
    """`a/x` and `b/x` keep their roles: the file to patch is still called `a/`."""
    for old, new in (("a/", "b/"), ("b/", "a/")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
