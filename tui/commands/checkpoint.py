"""`trail checkpoint`: the signed state of the log, to be kept where the log's keeper cannot reach it."""

from __future__ import annotations

from pathlib import Path

import click

from ledger.errors import MalformedError
from tui.exits import Exit
from tui.opening import open_to_prove
from tui.output import emit_bytes, emit_json, say
from tui.verb import json_option, store_of, verb, vkey_option


@verb(
    "checkpoint",
    examples=[
        ("trail checkpoint -o kept.checkpoint", "keep this on another machine, then: trail verify --against kept.checkpoint"),
        ("trail checkpoint --json", "origin, size and root, for a program"),
    ],
    exits={
        Exit.FALSE: "the store is not what was signed",
        Exit.UNVERIFIABLE: "no pinned key, or the log is empty: there is no checkpoint yet",
    },
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it.  [default: stdout]"
)
@vkey_option
@json_option
@click.pass_context
def command(context: click.Context, output: Path | None, vkey: str | None, as_json: bool) -> Exit:
    """Write the latest checkpoint: the log's name, how many records it has, their root hash, and the signature.

    Everything before it can be proven against it. Kept elsewhere, it shows whether the log was later cut, restored from a backup or
    rewritten, even by somebody who has the key.
    """
    store = open_to_prove(store_of(context), vkey=vkey)
    reader = store.reader
    if reader.key_status != "pinned":
        # Kept elsewhere it would be what later states are compared with, and nobody has checked who signed it.
        return Exit.UNVERIFIABLE
    if not reader.note:
        raise MalformedError(
            "the log is empty: there is no checkpoint yet",
            path=reader.layout.root,
            hint="one is signed within a second of the first record",
        )
    if output is not None:
        from ledger import durable

        durable.replace(output, reader.note)
        say(f"wrote {output}: {reader.size:,} records of {reader.origin}")
    if as_json:
        emit_json(
            {"origin": reader.origin, "size": reader.size, "root": reader.root, "key": reader.key_status, "note": reader.note.decode()}
        )
    elif output is None:
        emit_bytes(reader.note)
    return store.exit
