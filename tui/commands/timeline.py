"""`trail timeline`: what happened, in order."""

from __future__ import annotations

from typing import Any

import click

from tui.exits import Exit
from tui.opening import open_to_ask
from tui.output import emit_json, emit_table, say, seconds
from tui.verb import json_option, store_of, tail_option, verb, vkey_option
from tui.window import say_window, window_options


@verb(
    "timeline",
    examples=[
        ("trail timeline --run support-agent-7d1c02", "one run, step by step"),
        ("trail timeline --resource refunds.yaml --since yesterday", "everything that was said about a file"),
    ],
    exits={Exit.FALSE: "the evidence is false"},
)
@click.option("--run", metavar="RUN", help="Only this run.")
@click.option("--resource", metavar="TEXT", help="Only records of resources with this in their name.")
@click.option("--agent", metavar="NAME", help="Only this agent's.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, help="The most rows.")
@window_options
@tail_option
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    run: str | None,
    resource: str | None,
    agent: str | None,
    limit: int,
    since: int | None,
    until: int | None,
    tail: bool,
    vkey: str | None,
    as_json: bool,
) -> Exit:
    """List records in the order in which things happened, with the index under which each can be shown and proven.

    A time in parentheses is when the record was received: the record itself has none.
    """
    from query.answers import timeline

    store = open_to_ask(store_of(context), vkey=vkey)
    say_window(since, until)
    rows = timeline(store.reader, run=run, resource=resource, agent=agent, since=since, until=until, limit=limit, tail=tail)
    if as_json:
        emit_json(rows)
    elif rows:
        emit_table(
            ["INDEX", "TIME", "AGENT", "WHAT", "RESOURCE", "SAID", "OUTCOME", "KIND", "RUN"],
            [
                [
                    row["index"], _moment(row), row["agent"], _what(row), row["resource"], _said(row), row["outcome"], row["kind"],
                    row["run_id"],
                ]
                for row in rows
            ],
            right=frozenset({"INDEX"}),
        )  # fmt: skip
    if not rows:
        say("nothing answers to that")
    elif len(rows) == limit:
        say(f"the first {limit} are shown; go on with --since {rows[-1]['time'] or rows[-1]['received']}, or a higher --limit")
    return store.exit


def _moment(row: dict[str, Any]) -> str:
    return seconds(row["time"]) if row["time"] is not None else f"({seconds(row['received'])})"


def _what(row: dict[str, Any]) -> str:
    return str(row["tool"] or row["name"] or row["event"] or "")


def _said(row: dict[str, Any]) -> str:
    """What a policy or a person said."""
    if row["decision"] is not None:
        return f"{row['policy_id'] or 'a policy'}: {row['decision']}"
    if row["approval"] is not None:
        return f"{row['approver'] or 'somebody'}: {row['approval']}"
    return ""
