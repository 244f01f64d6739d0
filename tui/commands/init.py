"""`trail init`: a new store, its key, and the pin."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.errors import MalformedError
from tui.exits import Exit
from tui.output import emit, emit_json, say
from tui.verb import json_option, store_of, verb

if TYPE_CHECKING:
    from ledger.continuation import Continued


@verb(
    "init",
    examples=[
        ("trail init", "a store in ./trail-store, with a name made for it"),
        ("trail init --store /srv/trail --origin example.com/agents/prod", "a store with the name that auditors will know it by"),
        ("trail init --store /srv/trail-2 --continues /srv/trail", "a new log that names the last checkpoint of the old one"),
    ],
    exits={Exit.FALSE: "a log of which something was signed lay there and is gone; or the old log's checkpoint is not signed by its key"},
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
@click.option(
    "--continues",
    metavar="OLD",
    type=click.Path(path_type=Path),
    help="Go on from another log: its store, or a file with a checkpoint of it. The first record names its last one.",
)
@click.option(
    "--old-key", metavar="VKEY", multiple=True, help="The old log's public key, also OLD@<=SIZE; repeat it.  [default: the pinned one]"
)
@json_option
@click.pass_context
def command(
    context: click.Context, origin: str | None, key: Path | None, continues: Path | None, old_key: tuple[str, ...], as_json: bool
) -> Exit:
    """Make an empty store, a signing key outside it, and pin the public key for this user.

    The key signs the state of the log; whoever has it could write another history, so it lies in your configuration directory and
    never in the store. Give the public key (vkey) to everyone who shall be able to verify. A log that cannot go on, because its key or its
    store is lost or its history was forked, is continued by a new one with another name (--continues).
    """
    store = store_of(context)
    if old_key and continues is None:
        raise click.UsageError("--old-key belongs to --continues", context)
    old = _last_checkpoint(continues, old_key)
    try:
        made = make_store(store, origin=origin, key=key, continues=old)
    except MalformedError as exc:
        raise click.UsageError(exc.message, context) from exc
    if as_json:
        emit_json(made)
        return Exit.OK
    for name, value in made.items():
        emit(f"{name:<7} {value}")
    if old is not None:
        say(f"Its first record names the last checkpoint of {old.checkpoint.origin}, over {old.checkpoint.size:,} records.")
    say("Next: trail serve, and point an exporter at it: OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318")
    return Exit.OK


def make_store(store: Path, *, origin: str | None = None, key: Path | None = None, continues: Continued | None = None) -> dict[str, str]:
    """Make a store; its origin, path, key's path and public key.

    Args:
        store: where.
        origin: the log's name; made up by default.
        key: where the key goes.
        continues: the last checkpoint of the log that it goes on from; then the first record is written too.

    Raises:
        LedgerError: as `ledger.writer.create`.
    """
    from ledger import durable
    from ledger.keys import Pins
    from ledger.writer import StoreWriter, create, require_not_gone

    require_not_gone(store, Pins.default(), continues)
    durable.make_dirs(store.parent)
    # Prompts and persons lie in it: who else may read them is for its owner to say (chmod).
    durable.make_dirs(store, mode=0o700)
    made = create(store, origin=origin or _name_for(store), key_path=key, continues=continues)
    if continues is not None:
        StoreWriter.open(store, command="trail init", key_path=made.path).close()
    return {"origin": made.signer.name, "store": str(store), "key": str(made.path), "vkey": made.signer.vkey}


def _last_checkpoint(old: Path | None, vkeys: tuple[str, ...]) -> Continued | None:
    from ledger.continuation import last_checkpoint

    return None if old is None else last_checkpoint(old, vkeys=" ".join(vkeys) or None)


def _name_for(store: Path) -> str:
    """A name nobody else has: two stores of one name would be two histories of one log."""
    host = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()) or "localhost"
    directory = re.sub(r"[^a-zA-Z0-9._-]", "-", store.resolve().name) or "store"
    return f"{host}/{directory}-{secrets.token_hex(4)}"
