"""`trail show`: one record in full."""

from __future__ import annotations

import json
from typing import Any

import click

from tui.exits import Exit
from tui.opening import open_to_ask
from tui.output import coloured, emit, emit_bytes, emit_json, one_line, safe, size_text
from tui.verb import json_option, store_of, tail_option, verb, vkey_option

_RESERVED = ("v", "kind", "received", "sender", "role", "vocabulary", "nonce", "facts")


@verb(
    "show",
    examples=[
        ("trail show 189", "what was received, what it was taken to mean, and the contents beside it"),
        ("trail show 189 --raw | sha256sum", "exactly the bytes that the log commits to"),
    ],
    exits={Exit.FALSE: "the evidence is false", Exit.USAGE: "there is no such record"},
)
@click.argument("index", metavar="N", type=click.IntRange(0))
@click.option("--raw", is_flag=True, help="Write the record's bytes, and nothing else.")
@tail_option
@vkey_option
@json_option
@click.pass_context
def command(context: click.Context, index: int, raw: bool, tail: bool, vkey: str | None, as_json: bool) -> Exit:
    """Show record N, proven to be in the log: the facts, what was received, and each content with its state.

    Prompts, answers, arguments, diffs and persons are contents: they lie beside the log, which only commits to them, so that they can
    be erased. Their states: matching, withheld, never kept, erased, missing.
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other")
    from query.answers import show

    store = open_to_ask(store_of(context), vkey=vkey)
    shown = show(store.reader, index, tail=tail)
    if raw:
        emit_bytes(store.reader.record(index))  # committed bytes only: an unsigned record has none yet
    elif as_json:
        emit_json(shown)
    else:
        emit(_text_of(shown))
    return store.exit


def _text_of(shown: dict[str, Any]) -> str:
    record = shown["record"]
    head = [f"kind      {record['kind']}", f"received  {record['received']} (Unix ns)", f"sender    {_sender(record)}"]
    head += [f"read by   {one_line(record['vocabulary'])}"] if record.get("vocabulary") else []
    lines = [coloured(f"record {shown['index']}", "bold"), *head, "", coloured("facts", "bold")]
    lines += [f"  {name:<18} {one_line(value)}" for name, value in record.get("facts", {}).items()]
    lines += ["", coloured("received" if record["kind"] in ("span", "log") else "stated", "bold")]
    received = {name: value for name, value in record.items() if name not in _RESERVED}
    lines += [f"  {line}" for line in safe(json.dumps(received, ensure_ascii=False, indent=2)).split("\n")]
    if shown["contents"]:
        lines += ["", coloured("contents", "bold")]
    for content in shown["contents"]:
        why = f": {one_line(content['why'])}" if content["why"] else ""
        lines.append(f"  {one_line(content['field'])} ({content['state']}, {size_text(content['bytes'])}){why}")
        if content["text"] is not None:
            lines += [f"    | {line}" for line in safe(content["text"]).split("\n")]
    return "\n".join(lines)


def _sender(record: dict[str, Any]) -> str:
    return one_line(record["sender"]) + (f" (role {one_line(record['role'])})" if record.get("role") else ", not authenticated")
