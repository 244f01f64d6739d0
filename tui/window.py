"""`--since` and `--until`: the window of a question, said back in UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from tui.output import say, seconds
from tui.times import FORMS, parse_time
from tui.verb import Checked

Function = TypeVar("Function", bound=Callable[..., Any])


def window_options(function: Function) -> Function:
    """Add `--since` and `--until`, as Unix nanoseconds."""
    until = click.option(
        "--until",
        metavar="T",
        type=Checked("time", lambda text: parse_time(text, now=time.time_ns(), end=True)),
        help="Before T, in the same forms.",
    )
    since = click.option(
        "--since", metavar="T", type=Checked("time", lambda text: parse_time(text, now=time.time_ns())), help=f"From T on: {FORMS} (UTC)."
    )
    return since(until(function))


def say_window(since: int | None, until: int | None) -> None:
    """Say which window was meant, where one was given."""
    if since is not None or until is not None:
        begin = _short(since) if since is not None else "the beginning"
        say(f"from {begin} to {_short(until) if until is not None else 'now'} (UTC)")


def _short(moment: int) -> str:
    from query.rows import iso

    return seconds(iso(moment))
