"""`trail init`: a new store, its key, and the pin."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path

import click

from ledger.errors import MalformedError
from tui.exits import Exit
from tui.output import emit, emit_json, say
from tui.verb import json_option, store_of, verb


@verb(
    "init",
    examples=[
        ("trail init", "a store in ./trail-store, with a name made for it"),
        ("trail init --store /srv/trail --origin example.com/agents/prod", "a store with the name that auditors will know it by"),
    ],
)
@click.option(
    "--origin", metavar="NAME", help="The log's name for ever, a URL without its scheme.  [default: made from this machine's name]"
)
@click.option(
    "--key",
    "key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where the signing key goes.  [default: TRAIL_KEY, else the configuration directory]",
)
@json_option
@click.pass_context
def command(context: click.Context, origin: str | None, key: Path | None, as_json: bool) -> Exit:
    """Make an empty store, a signing key outside it, and pin the public key for this user.

    The key signs the state of the log; whoever has it could write another history, so it lies in your configuration directory and
    never in the store. Give the public key (vkey) to everyone who shall be able to verify.
    """
    store = store_of(context)
    try:
        made = make_store(store, origin=origin, key=key)
    except MalformedError as exc:
        raise click.UsageError(exc.message, context) from exc
    if as_json:
        emit_json(made)
        return Exit.OK
    for name, value in made.items():
        emit(f"{name:<7} {value}")
    say("Next: trail serve, and point an exporter at it: OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318")
    return Exit.OK


def make_store(store: Path, *, origin: str | None = None, key: Path | None = None) -> dict[str, str]:
    """Make a store; its origin, path, key's path and public key.

    Raises:
        LedgerError: as `ledger.writer.create`.
    """
    from ledger import durable
    from ledger.writer import create

    durable.make_dirs(store.parent)
    # Prompts and persons lie in it: who else may read them is for its owner to say (chmod).
    durable.make_dirs(store, mode=0o700)
    made = create(store, origin=origin or _name_for(store), key_path=key)
    return {"origin": made.signer.name, "store": str(store), "key": str(made.path), "vkey": made.signer.vkey}


def _name_for(store: Path) -> str:
    """A name nobody else has: two stores of one name would be two histories of one log."""
    host = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()) or "localhost"
    directory = re.sub(r"[^a-zA-Z0-9._-]", "-", store.resolve().name) or "store"
    return f"{host}/{directory}-{secrets.token_hex(4)}"
