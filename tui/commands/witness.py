"""`trail witness`: cosign the checkpoints of others, and never two histories."""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import LedgerError, MalformedError
from ledger.keys import state_dir
from tui.exits import Exit
from tui.output import emit, emit_json, emit_table, say, shout, warn
from tui.verb import Checked, VerbGroup, json_option

if TYPE_CHECKING:
    from ingest.server import Address
    from ledger.policy import PolicyLog
    from ledger.witness_files import OriginFiles, WitnessFiles

VARIABLE: Final = "TRAIL_WITNESS"


def _address(text: str) -> Address:
    from ingest.server import Address

    return Address.parse(text)


def _log_key(text: str) -> str:
    from ledger.note import SignatureType, Verifier

    verifier = Verifier.parse(text)
    if verifier.type is not SignatureType.ED25519:
        raise MalformedError("this is a witness's key, not a log's", hint="the log's key is what trail info prints")
    return verifier.vkey


@click.group(
    "witness",
    cls=VerbGroup,
    examples=[
        ("trail witness init --dir /srv/witness --name example.org/witness", "once; prints the key to give to the log's operator"),
        ("trail witness add-log VKEY --dir /srv/witness", "for each log that it shall cosign for"),
        ("trail witness serve --dir /srv/witness --http 0.0.0.0:4320", "logs submit their checkpoints there"),
    ],
)
def command() -> None:
    """Be a witness: cosign the checkpoints of other people's logs, and never two histories of one log.

    A witness remembers the last checkpoint of each log and cosigns the next one only with a proof that it extends it (the protocol is
    c2sp.org/tlog-witness). So whoever finds its cosignature on a checkpoint knows that this witness has cosigned no other history. Run
    it on another machine than the log, and best under another roof. Its directory is its memory: one that was lost, or restored from a
    backup, must not cosign again. Make a new witness then.
    """


def _directory_option(function: Any) -> Any:
    return click.option(
        "--dir",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help=f"The witness's directory.  [default: {VARIABLE}, else the user's state directory]",
    )(function)


@command.command(
    "init",
    examples=[
        ("trail witness init --name example.org/witness", "the name is for ever: a URL without its scheme that is yours"),
        ("trail witness init --dir /srv/witness --name example.org/witness", "the key and the state both lie there"),
    ],
)
@_directory_option
@click.option("--name", metavar="NAME", required=True, help="The witness's name, in its key and on every cosignature.")
@json_option
@click.pass_context
def init(context: click.Context, directory: Path | None, name: str, as_json: bool) -> Exit:
    """Make a witness and its key, and print the key and the line for the policy of whoever shall believe it."""
    from ledger.witness_files import policy_line

    files = _files(directory)
    try:
        verifier = files.make(name)
    except MalformedError as exc:
        raise click.UsageError(f"{name!r} cannot name a witness: {exc.message}", context) from exc
    line = policy_line(verifier)
    if as_json:
        emit_json({"name": name, "dir": str(files.directory), "vkey": verifier.vkey, "policy": line})
        return Exit.OK
    emit(verifier.vkey)
    emit(line)
    say(f"made the witness {name} in {files.directory}; its key lies there too, and neither may be copied or restored from a backup")
    say("The second line goes into the tlog-policy of whoever shall believe it; the log's own wants its URL at the end of that line.")
    say("Next: trail witness add-log VKEY, with what trail info prints beside the log, then trail witness serve")
    return Exit.OK


@command.command(
    "add-log",
    examples=[
        ("trail witness add-log example.com/agents+0b5ad3a7+AU...", "from now on, also in a running witness; twice is no harm"),
        ("trail witness add-log NEWVKEY --dir /srv/witness", "the new key of a log that changed it; the old one stays until it is removed"),
    ],
)
@click.argument("vkey", metavar="VKEY", type=Checked("vkey", _log_key))
@_directory_option
@click.pass_context
def add_log(context: click.Context, vkey: str, directory: Path | None) -> Exit:
    """Cosign for a log, known by its public key. Get the key from its operator, not from the log."""
    files = _files(directory)
    files.load_vkey()
    try:
        before = {log.verifier.vkey for log in files.load_logs()}
        keys = files.add_log(vkey)
    except MalformedError as exc:
        raise click.UsageError(exc.message, context) from exc
    origin = vkey.partition("+")[0]
    say(f"{'known already' if vkey in before else 'added'}: {origin}, in {files.logs}")
    if len(keys) > 1:
        say(f"This log has {len(keys)} keys now, and a checkpoint signed by any of them is taken.")
        say(f"When the log signs with its new key, remove the lines of the old ones from {files.logs}; the state of the log stays.")
    return Exit.OK


@command.command(
    "serve",
    examples=[
        ("trail witness serve", "on this machine only, to try it"),
        ("trail witness serve --http 0.0.0.0:4320", "for logs on other machines; it needs no tokens"),
    ],
    exits={Exit.OK: "stopped by a signal", Exit.STORAGE: "its directory, key or address cannot be used, or another one runs there"},
)
@_directory_option
@click.option(
    "--http",
    "address",
    metavar="HOST:PORT",
    type=Checked("address", _address),
    default="127.0.0.1:4320",
    show_default=True,
    help="Where to listen; port 0 takes a free one.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def serve(directory: Path | None, address: Address, verbose: bool) -> Exit:
    """Take checkpoints by HTTP and cosign them; SIGTERM and Ctrl-C stop it.

    It speaks plain HTTP. Everything it takes is signed and everything it gives is public, so nobody between can forge anything; who wants
    that nobody listens puts a proxy with TLS before it.
    """
    from ingest import server
    from ingest.witness import create_witness_app
    from ledger.witness import WitnessStore

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    files = _files(directory)
    # A witness has no tokens by design: a request is believed for the log's signature on it. So it may listen for other machines.
    sockets = server.listen(address, tokens_in_use=True)
    try:
        witness = WitnessStore.open(files.directory, clock=lambda: int(time.time()))
    except LedgerError:
        for opened in sockets:
            opened.close()
        raise

    async def started() -> None:
        say(f"listening  http://{server.addresses_of(sockets)[0]} (c2sp.org/tlog-witness)")
        say(f"witness    {witness.cosigner.name}, in {files.directory}")
        say(f"vkey       {witness.cosigner.vkey}")
        if not files.load_logs():
            warn("it knows no log yet: trail witness add-log VKEY")

    async def stopped() -> None:
        witness.close()
        say("stopped")

    server.serve(create_witness_app(witness), sockets, on_start=[started], on_stop=[stopped])
    return Exit.OK


@command.command(
    "show",
    examples=[
        ("trail witness show", "each log, how far it was cosigned, and when"),
        ("trail witness show --json", "for a program; exit code 1 when a log was caught with two histories"),
    ],
    exits={Exit.FALSE: "a log has signed two histories; the proof is kept", Exit.STORAGE: "a state is damaged or gone, or I/O failed"},
)
@_directory_option
@json_option
def show(directory: Path | None, as_json: bool) -> Exit:
    """Show the logs of this witness, the newest checkpoint of each, and the forks it was offered. Also while it serves."""
    files = _files(directory)
    verifier = files.load_vkey()
    rows = _rows(files)
    if as_json:
        emit_json({"name": verifier.name, "vkey": verifier.vkey, "dir": str(files.directory), "logs": rows})
    elif rows:
        table = [[row["origin"], row["size"], row["cosigned"], len(row["forks"]), len(row["unproven"]), _remark(row)] for row in rows]
        emit_table(["LOG", "SIZE", "COSIGNED", "FORKS", "UNPROVEN", "REMARK"], table, right=frozenset({"SIZE", "FORKS", "UNPROVEN"}))
    else:
        say(f"the witness {verifier.name} knows no log yet: trail witness add-log VKEY")
    for row in rows:
        for path in row["forks"]:
            shout("FORK", f"{row['origin']} has signed two histories; the proof is {path}")
        for path in row["unproven"]:
            warn(f"{row['origin']}: came without proof that it extends what was cosigned, which anybody can send: {path}")
        if row["error"]:
            shout("NO STATE", row["error"])
    if any(row["forks"] for row in rows):
        return Exit.FALSE
    return Exit.STORAGE if any(row["error"] for row in rows) else Exit.OK


def _files(directory: Path | None) -> WitnessFiles:
    from ledger.witness_files import WitnessFiles

    chosen = os.environ.get(VARIABLE)
    return WitnessFiles(directory or (Path(chosen) if chosen else state_dir() / "witness"))


def _rows(files: WitnessFiles) -> list[dict[str, Any]]:
    """One for each log, those first that it cosigns for now, then those that it has cosigned for."""
    from ledger.witness_protocol import origin_path

    known: dict[str, list[PolicyLog]] = {}
    for log in files.load_logs():
        known.setdefault(log.verifier.name, []).append(log)
    rows = [_row(files, origin, [log.verifier.vkey for log in logs], files.of(origin_path(origin))) for origin, logs in known.items()]
    listed = {origin_path(origin) for origin in known}
    return rows + [_row(files, None, [], state) for state in files.states() if state.directory.name not in listed]


def _row(files: WitnessFiles, origin: str | None, vkeys: list[str], state: OriginFiles) -> dict[str, Any]:
    kept, error = None, None
    try:
        kept = state.read(files.load_vkey())
    except LedgerError as exc:
        error = f"{exc.message} ({exc.hint})"
    moment = None if kept is None else datetime.fromtimestamp(kept.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "origin": origin or (kept.checkpoint.origin if kept is not None else state.directory.name),
        "vkeys": vkeys,
        "size": None if kept is None else kept.checkpoint.size,
        "root": None if kept is None else kept.checkpoint.root.hex(),
        "cosigned": moment,
        "forks": [str(path) for path in state.evidence("fork")],
        "unproven": [str(path) for path in state.evidence("unproven")],
        "error": error,
    }


def _remark(row: dict[str, Any]) -> str:
    if row["error"]:
        return "state damaged or gone"
    if not row["vkeys"]:
        return "no longer cosigned for"
    return "" if row["size"] is not None else "nothing cosigned yet"
