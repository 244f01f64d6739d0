"""`trail runs`: what agents ran."""

from __future__ import annotations

import time
from typing import Final

import click

from tui.exits import Exit
from tui.opening import open_to_ask
from tui.output import emit_json, emit_table, say, seconds
from tui.verb import json_option, store_of, tail_option, verb, vkey_option
from tui.window import say_window, window_options

_NUMBERS: Final = frozenset({"ACTIONS", "CHANGES", "DENIED", "APPROVALS", "COST USD"})


@verb(
    "runs",
    examples=[
        ("trail runs --since 1d", "what ran in the last day, the latest first"),
        ("trail runs --active --agent support-agent --json", "what that agent is doing now"),
    ],
    exits={Exit.FALSE: "the evidence is false"},
)
@click.option("--active", is_flag=True, help="Only runs that are still going: no outcome yet, and seen in the last ten minutes.")
@click.option("--agent", metavar="NAME", help="Only this agent's.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The most rows.")
@window_options
@tail_option
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    active: bool,
    agent: str | None,
    limit: int,
    since: int | None,
    until: int | None,
    tail: bool,
    vkey: str | None,
    as_json: bool,
) -> Exit:
    """List runs, the latest first: which agent, for whom, how long, how many actions, changes, denials and approvals, and the cost.

    A run is one execution of one agent: its session where it has one, else its trace.
    """
    from query.answers import runs

    store = open_to_ask(store_of(context), vkey=vkey)
    say_window(since, until)
    rows = runs(store.reader, active_at=time.time_ns() if active else None, since=since, until=until, agent=agent, limit=limit, tail=tail)
    if as_json:
        emit_json(rows)
    elif rows:
        emit_table(
            ["STARTED", "RUN", "AGENT", "OUTCOME", "ACTIONS", "CHANGES", "DENIED", "APPROVALS", "COST USD", "OWNER", "LAST SEEN"],
            [
                [
                    seconds(row["started"]), row["run_id"], row["agent"], row["outcome"], row["actions"], row["changes"], row["denied"],
                    row["approvals"], _dollars(row["cost_usd_micros"]), row["owner"], seconds(row["last_seen"]),
                ]
                for row in rows
            ],
            right=_NUMBERS,
        )  # fmt: skip
    if not rows:
        say("no run answers to that")
    elif len(rows) == limit:
        say(f"the latest {limit} are shown; --limit shows more")
    return store.exit


def _dollars(micros: int | None) -> str:
    return "" if micros is None else f"{micros / 1_000_000:.4f}"
