"""Asking built stores for cards, in the few forms that the tests of the card share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from build_segments import SECOND, START, BuiltStore, StoreBuilder

from query.answers import ask
from query.question import Question


def at(seconds: float) -> int:
    """Unix nanoseconds, so many seconds after the built stores' clock began."""
    return START + round(seconds * SECOND)


def cards(store: BuiltStore, **asked: Any) -> list[dict[str, Any]]:
    """The cards that answer a question."""
    return ask(store, Question(**asked)).cards


def one(builder: StoreBuilder, path: Path, **asked: Any) -> dict[str, Any]:
    """The only card of the run `r`, or of another question."""
    (card,) = cards(builder.build(path, cuts=[len(builder.records)]), **(asked or {"run": "r"}))
    return card


def bare(path: Path, kind: str = "span", **facts: Any) -> dict[str, Any]:
    """The card of an action of which one record speaks."""
    builder = StoreBuilder()
    builder.add(kind, run_id="r", action_id="a", **{"at": 1, **facts})
    return one(builder, path)
