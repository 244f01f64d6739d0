"""The card as text for a terminal.

Recorded text is somebody else's: escape sequences, bidirectional overrides and other control characters in it are made
visible and never reach the terminal, so that a tool's output can neither drive it nor forge a line of the card.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

WIDTH: Final = 100
MAX_DIFF_LINES: Final = 40
_QUESTIONS: Final = (
    ("what", "WHAT"),
    ("who", "WHO"),
    ("policy", "POLICY"),
    ("saw", "SAW"),
    ("undo", "UNDO"),
    ("intact", "INTACT"),
)
_MARKS: Final = {"answered": " ", "partly": "~", "unknown": "?"}
_FLAGS: Final = {
    "ran_against_policy": "RAN AGAINST POLICY",
    "approved_too_fast": "APPROVED FASTER THAN IT CAN BE READ",
    "dark": "DARK: nobody decided or approved it",
    "irreversible": "CANNOT BE UNDONE",
}
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are not shown as they are: controls, formats (bidirectional overrides, zero-width), line separators."""
_LABEL: Final = 10


def visible(text: object) -> str:
    r"""Text on one line, with everything that is not a plain character written as an escape.

    >>> print(visible("a\x1b[31mb\u202ec\nd"))
    a\x1b[31mb\u202ec\nd
    """
    return "".join(_escaped(character) for character in str(text))


def visible_lines(text: str) -> list[str]:
    """The same for text of several lines: only line feeds separate them, and tabs are eight columns."""
    return [visible(line.removesuffix("\r").expandtabs()) for line in text.split("\n")]


def render_answer(answer: Mapping[str, Any], *, width: int = WIDTH, plans: bool = True) -> str:
    """The cards of an answer (`Answer.as_json`), ready to print.

    Args:
        answer: what `ask` found.
        width: columns.
        plans: also print the first card's difference and the plan that undoes it.
    """
    lines = list(_head(answer))
    for place, card in enumerate(answer["cards"]):
        lines += ["", *_card(card, width)]
        if plans and place == 0:
            lines += _blocks(card)
    return "\n".join(lines) + "\n"


def _head(answer: Mapping[str, Any]) -> Iterator[str]:
    covered = answer["range"]
    yield f"records 0 to {covered['size']:,} (exclusive), root {covered['root'][:16]}"
    if answer["match"] in ("end", "part", "id"):
        meant = ", ".join(visible(name) for name in answer["resources"][:3])
        more = f" and {len(answer['resources']) - 3} more" if len(answer["resources"]) > 3 else ""
        how = {"end": "found as the end of", "part": "found as a part of", "id": "found as an identifier"}[answer["match"]]
        yield f"{how} {meant}{more}".rstrip()
    if not answer["cards"]:
        yield "no action was found" + _nearest(answer["near"])
    elif answer["matched"] > len(answer["cards"]):
        yield f"{len(answer['cards'])} of {answer['matched']:,} actions, those that most likely matter"
    if answer["cut"]:
        yield "older records matched too and were not looked at: narrow the question with --since and --until"


def _nearest(near: Mapping[str, str]) -> str:
    if not near:
        return ""
    return " here; nearest " + ", ".join(f"{side} {moment}" for side, moment in near.items())


def _card(card: Mapping[str, Any], width: int) -> Iterator[str]:
    action = card["action"]
    step = f" step {action['step']}" if action["step"] is not None else ""
    title = f"{action['time'] or action['received']}  run {visible(action['run_id'])}{step}  action {visible(action['action_id'])}"
    first, *rest = textwrap.wrap(f"-- {title} --", width, subsequent_indent="   ")
    yield first.ljust(width, "-")
    yield from rest
    for flag in card["flags"]:
        yield f"   ! {_FLAGS[flag]}"
    if action["conflict"]:
        yield "   ! RECORDS CONTRADICT EACH OTHER"
    for number, (name, label) in enumerate(_QUESTIONS, start=1):
        answer = card[name]
        yield from _wrapped(f"{_MARKS[answer['status']]}{number} {label}", _with_records(answer), width)
        if "why" in answer:
            yield from _wrapped("", f"{answer['status']}: {visible(answer['why'])}", width)


def _with_records(answer: Mapping[str, Any]) -> str:
    indexes = answer["records"]
    listed = ", ".join(f"#{index}" for index in indexes[:6]) + (", ..." if len(indexes) > 6 else "")
    return f"{visible(answer['text'])}   {listed}".rstrip()


def _wrapped(label: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=label.ljust(_LABEL),
        subsequent_indent=" " * _LABEL,
        break_long_words=True,
        drop_whitespace=True,
    ) or [label]


def _blocks(card: Mapping[str, Any]) -> Iterator[str]:
    """The difference and the plan, below the card."""
    for title, text in (("the change", card["what"].get("diff")), ("the way back", card["undo"].get("plan"))):
        if not text:
            continue
        lines = visible_lines(text.removesuffix("\n"))
        yield f"   {title}:"
        yield from (f"   | {line}" for line in lines[:MAX_DIFF_LINES])
        if len(lines) > MAX_DIFF_LINES:
            yield f"   | ... {len(lines) - MAX_DIFF_LINES} more lines (--json has them all)"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if named is not None:
        return named
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
