"""`trail serve`: the server that receives OpenTelemetry and writes the store."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ledger.errors import StoreMissing
from tui.exits import Exit
from tui.opening import origin_of
from tui.output import say
from tui.verb import Checked, store_of, verb

if TYPE_CHECKING:
    from ingest.server import Address


def _address(text: str) -> Address:
    from ingest.server import Address

    return Address.parse(text)


@verb(
    "serve",
    examples=[
        ("trail serve", "on this machine only, for exporters that use the default port"),
        ("trail serve --store /srv/trail --http 0.0.0.0:4318", "for other machines too, which needs tokens: see trail token"),
    ],
    exits={
        Exit.OK: "stopped by a signal, everything drained and sealed",
        Exit.FALSE: "the store is not what was signed: it is not written on",
        Exit.UNVERIFIABLE: "the witness policy cannot be read, or the store has a newer format",
    },
)
@click.option(
    "--http",
    "address",
    metavar="HOST:PORT",
    type=Checked("address", _address),
    default="127.0.0.1:4318",
    show_default=True,
    help="Where to listen, for OTLP/HTTP and /log; port 0 takes a free one.",
)
@click.option(
    "--key", metavar="FILE", type=click.Path(path_type=Path), help="The signing key.  [default: TRAIL_KEY, else where trail init put it]"
)
@click.option("--tokens", metavar="FILE", type=click.Path(path_type=Path), help="The token file.  [default: where trail token puts it]")
@click.option(
    "--witness",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also be the witness in DIR, at /witness: see trail witness. For other logs; two stores can witness each other.",
)
@click.option("--init", "make", is_flag=True, help="Make the store first if there is none.")
@click.option("--processes", type=click.IntRange(1, 256), help="How many decoders.  [default: one a core]")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.pass_context
def command(
    context: click.Context,
    address: Address,
    key: Path | None,
    tokens: Path | None,
    witness: Path | None,
    make: bool,
    processes: int | None,
    verbose: bool,
) -> Exit:
    """Receive OpenTelemetry (OTLP over HTTP: traces and logs, protobuf or JSON) and keep it.

    An exporter gets its 200 only after its request is on disk. Without tokens the server listens on this machine only and says of every
    record that it came from "loopback". SIGTERM and Ctrl-C finish the requests in progress, seal what was received, and stop.

    At /log/checkpoint and /log/tile it publishes the log's hashes for tools of others (c2sp.org/tlog-tiles); whole records, at
    /log/tile/entries, only with a token of role auditor.

    Checkpoints are submitted to the witnesses of the policy, which is the file tlog-policy in the store as it is when the server starts. If
    one of them knows more of this log than the store has, or another history, the server does not start, or stops signing.
    """
    from tui.serving import serve_store

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    store = store_of(context)
    _make_if_wanted(store, key, make=make)
    return serve_store(store, address, key_path=key, tokens_path=tokens, witness_path=witness, processes=processes)


def _make_if_wanted(store: Path, key: Path | None, *, make: bool) -> None:
    from tui.commands.init import make_store

    try:
        origin_of(store)
    except StoreMissing as exc:
        if not make:
            raise StoreMissing(exc.message, path=exc.path, hint="make it with trail init, or let this do it: trail serve --init") from exc
        made = make_store(store, key=key)
        say(f"made the store {store}, log {made['origin']}")
