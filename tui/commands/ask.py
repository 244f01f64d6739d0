"""`trail ask`: the card."""

from __future__ import annotations

import shutil
import sys

import click

from tui.exits import Exit
from tui.opening import open_to_ask
from tui.output import emit, emit_json, say
from tui.verb import json_option, store_of, tail_option, verb, vkey_option
from tui.window import say_window, window_options

_NARROWEST, _WIDEST = 60, 120


@verb(
    "ask",
    examples=[
        ("trail ask config/refunds.yaml --since 1h", "who changed that file in the last hour, and was it allowed?"),
        ("trail ask --approver rafael@example.com --json", "everything one person approved, for a program"),
    ],
    exits={Exit.OK: "answered, also when nothing was found", Exit.FALSE: "the evidence is false: nothing is answered from it"},
)
@click.argument("resource", required=False)
@click.option("--run", metavar="RUN", help="Only this run.")
@click.option("--record", metavar="N", type=int, help="The actions that record N speaks of.")
@click.option("--agent", metavar="NAME", help="Only this agent.")
@click.option("--approver", metavar="NAME", help="Only what this person, rule or hook answered.")
@click.option("--policy", metavar="ID", help="Only what this policy decided.")
@click.option("--sender", metavar="NAME", help="Only what this sender reported.")
@click.option("--limit", type=int, default=20, show_default=True, help="The most cards.")
@window_options
@tail_option
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    resource: str | None,
    run: str | None,
    record: int | None,
    agent: str | None,
    approver: str | None,
    policy: str | None,
    sender: str | None,
    limit: int,
    since: int | None,
    until: int | None,
    tail: bool,
    vkey: str | None,
    as_json: bool,
) -> Exit:
    """Answer six questions about what agents did: what changed, who approved it, which policy allowed it, what the agent saw, how to
    undo it, and whether the evidence is intact.

    RESOURCE is a file, table, address or anything else that was acted on: the whole name, its end, or a part of it; also the id of an
    action, approval, decision, ticket or trace. The first card is the one that most likely matters: executed against policy, approved
    faster than it can be read, unaccounted for, irreversible; then the newest.
    """  # noqa: D205 - the first line is a paragraph of the help
    from query.answers import ask
    from query.question import Question
    from query.render import render_answer

    question = Question(
        resource=resource,
        run=run,
        record=record,
        agent=agent,
        approver=approver,
        policy=policy,
        sender=sender,
        since=since,
        until=until,
        limit=limit,
    )
    store = open_to_ask(store_of(context), vkey=vkey)
    say_window(since, until)
    answer = ask(store.reader, question, tail=tail).as_json()
    answer["cards"] = [store.judged(card) for card in answer["cards"]]
    if as_json:
        emit_json(answer)
    elif answer["cards"]:
        width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
        emit(render_answer(answer, width=max(_NARROWEST, min(width, _WIDEST))).rstrip("\n"))
    if not answer["cards"]:
        say(_nothing(answer["near"]))
    return store.exit


def _nothing(near: dict[str, str]) -> str:
    nearest = ", ".join(f"{side} at {moment}" for side, moment in near.items())
    return f"no action answers to that{f'; the nearest are {nearest}' if nearest else ''}; trail timeline shows what there is"
