"""`trail key`: the log's keys: make, rotate, pin, list them, and say what a stolen one exposes."""

from __future__ import annotations

import stat
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import LedgerError, StorageError
from ledger.keys import Pins, default_key_path
from ledger.layout import Layout
from tui.exits import Exit
from tui.kept import read_kept
from tui.opening import open_store, origin_of, trust_of
from tui.output import emit, emit_json, emit_table, one_line, say, shout, warn
from tui.times import parse_time
from tui.verb import Checked, VerbGroup, json_option, read_vkey, store_of, vkey_option

if TYPE_CHECKING:
    from ledger.compromise import Exposure
    from ledger.trust import LogKeys

_MAX_NAMED: Final = 1000
"""Of the covers in a record; there is one for each witness quorum, authority and kept file."""


def _moment(text: str) -> int:
    return parse_time(text, now=time.time_ns())


@click.group(
    "key",
    cls=VerbGroup,
    examples=[
        ("trail key list", "which keys the log has had, and where they lie"),
        ("trail key rotate", "a new key from now on; verifiers follow through their witnesses"),
        ("trail key pin VKEY --store /srv/trail/store", "believe this key, and that its log lies there"),
        ("trail key compromised --since 2026-11-01", "which records only the stolen key speaks for"),
    ],
)
def command() -> None:
    """Look after the log's signing key.

    Whoever has the key can sign another history, so it lies outside the store, and may have a passphrase: the server then reads it from
    the file that TRAIL_PASSPHRASE_FILE names, or asks on the terminal. The passphrase of a key is changed with ssh-keygen -p -f FILE.
    A key in hardware or in a cloud is a file that names a program: see ledger/FORMAT.md, "Signing keys".
    """


def _key_option(function: Any) -> Any:
    return click.option(
        "--key",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The signing key.  [default: TRAIL_KEY, else where trail init put it]",
    )(function)


@command.command(
    "new",
    examples=[
        ("trail key new next.key --origin example.com/agents/prod", "a key for this log, to rotate to later"),
        ("trail key new next.key --origin example.com/agents/prod --passphrase", "of no use to whoever finds the file"),
    ],
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--origin", metavar="NAME", required=True, help="The log that it shall sign for.")
@click.option("--passphrase", "protected", is_flag=True, help="Encrypt it: asks, or reads the file that TRAIL_PASSPHRASE_FILE names.")
@click.pass_context
def new(context: click.Context, file: Path, origin: str, protected: bool) -> Exit:
    """Make a key in a file and print its public key. Nothing signs with it before `trail key rotate --to FILE`."""
    from ledger import durable
    from ledger.errors import MalformedError
    from ledger.passphrase import read_passphrase
    from ledger.signers import new_signer

    if file.exists():
        raise StorageError(f"there is already a file at {file}", path=file, hint="keys are never replaced: name another place")
    passphrase = read_passphrase(file, new=True) if protected else None
    try:
        signer, data = new_signer(origin, passphrase)
    except MalformedError as exc:
        raise click.UsageError(f"--origin: {exc.message}", context) from exc
    durable.make_dirs(file.parent, mode=0o700)
    durable.write_once(file, data, mode=0o600)
    emit(signer.vkey)
    say(f"wrote {file}; rotate to it with: trail key rotate --to {file}")
    return Exit.OK


@command.command(
    "rotate",
    examples=[
        ("trail key rotate", "to a key that is made now"),
        ("trail key rotate --to token.toml", "to a key that is made already, here one in hardware"),
    ],
    exits={Exit.FALSE: "the store is not what was signed"},
)
@click.option(
    "--to", "source", metavar="FILE", type=click.Path(path_type=Path), help="The new key; it is copied.  [default: one that is made now]"
)
@click.option("--passphrase/--no-passphrase", "protected", default=None, help="Encrypt a key that is made.  [default: if the old one is]")
@_key_option
@json_option
@click.pass_context
def rotate(context: click.Context, source: Path | None, protected: bool | None, key: Path | None, as_json: bool) -> Exit:
    """Give up the log's key for a new one. The server must be stopped; if this is interrupted, run it again.

    The log gets a record that both keys have signed, and a checkpoint over it that both have signed, which your witnesses are asked to
    cosign. Whoever verifies with witnesses of their own then follows by themselves; tell the others both lines that are printed.
    """
    from ledger import rotating
    from tui.witnessing import Witnessing

    if source is not None and protected is not None:
        raise click.UsageError("--to and --passphrase: a key that is there already stays as it is", context)
    path = store_of(context)
    origin_of(path)
    witnessing = Witnessing(Layout(path))
    done = rotating.rotate(
        path,
        key_path=key,
        new=rotating.NewKey(source=source, protected=protected),
        before_signing=witnessing.compare,
        on_open=witnessing.attach,
    )
    if as_json:
        emit_json({"old": done.old, "new": done.new, "until": done.size, "retired": str(done.retired), "resumed": done.resumed})
    else:
        emit(f"old  {done.old}@<={done.size}")
        emit(f"new  {done.new}")
    if done.resumed:
        say("This was begun earlier and is finished now.")
    say(f"The old key is kept in {done.retired}. Whoever verifies without witnesses needs both lines: --key OLD --key NEW.")
    if source is not None:
        say(f"{source} was copied: remove it.")
    say("Tell your witnesses the new key: they know the log by its keys.")
    return Exit.OK


@command.command(
    "pin",
    examples=[
        ("trail key pin VKEY --store /srv/trail/store", "the key that you were given, for the log that lies there"),
        ("trail key pin 'OLD@<=240' NEW --replace", "after a rotation: both lines that it printed"),
        ("trail key pin --store /srv/big/store", "the store was moved: the same keys, and the new path"),
    ],
    exits={
        Exit.FALSE: "the store is another log's, or something else is pinned",
        Exit.UNVERIFIABLE: "the pins on this machine are damaged",
    },
)
@click.argument("specs", metavar="[VKEY|VKEY@<=SIZE]...", nargs=-1, type=Checked("vkey", read_vkey))
@click.option("--replace", is_flag=True, help="In the place of what is pinned for that log and that path.")
@json_option
@click.pass_context
def pin(context: click.Context, specs: tuple[str, ...], replace: bool, as_json: bool) -> Exit:
    """Believe these keys of a log from now on, without naming them each time, and remember at which path its store lies.

    The keys come from whoever runs the log, never from the store. With the path pinned, a store that is emptied or replaced is noticed.
    Without a key those that are pinned for that log stay.
    """
    from ledger.errors import MalformedError
    from ledger.trust import LogKeys
    from tui import pinning

    path = store_of(context)
    if specs:
        try:
            LogKeys.of(*specs)
        except MalformedError as exc:
            raise click.UsageError(exc.message, context) from exc
    done = pinning.pin(path, specs, replace=replace, pins=Pins.default())
    if as_json:
        before = {"keys": list(done.keys_before), "origin": done.origin_before}
        emit_json({"origin": done.origin, "keys": list(done.keys), "store": str(path.resolve()), "before": before})
        return Exit.OK
    for spec in done.keys:
        emit(f"key    {spec}")
    emit(f"store  {one_line(str(path.resolve()))}")
    say(f"Pinned before for {done.origin}: {', '.join(done.keys_before) or 'no key'}.")
    say(f"Pinned before at this path: {done.origin_before or 'no log'}.")
    return Exit.OK


@command.command(
    "list",
    examples=[("trail key list", "state, public key, until which size, file"), ("trail key list --json", "for a program")],
)
@_key_option
@json_option
@click.pass_context
def list_(context: click.Context, key: Path | None, as_json: bool) -> Exit:
    """List the keys that this log has had: present, retired and pinned ones, and the files that are here. Needs no passphrase."""
    store = store_of(context)
    origin = origin_of(store)
    path = key or default_key_path(origin)
    rows = _rows(Layout(store), origin, path)
    if as_json:
        emit_json(rows)
    else:
        cells = [[row["state"], row["until"], row["form"], row["mode"], row["pinned"] or "", row["vkey"], row["file"]] for row in rows]
        emit_table(["STATE", "UNTIL", "FORM", "MODE", "PINNED", "VKEY", "FILE"], cells, right=frozenset({"UNTIL"}))
    from ledger.key_intent import Intent

    if Intent.path(path).exists():
        warn("a rotation was begun and is not finished, and nothing is signed before it is: trail key rotate")
    return Exit.OK


def _rows(layout: Layout, origin: str, path: Path) -> list[dict[str, Any]]:
    """A row for each key, in the order of the log; what the store says of retired ones is not verified here."""
    from ledger.rotating import retired_keys
    from ledger.rotation import Rotation, RotationLine, read_lines
    from ledger.signers import form_of, read_key_file, vkey_in
    from ledger.trust import LogKeys

    rows: dict[str, dict[str, Any]] = {}

    def row(vkey: str) -> dict[str, Any]:
        empty = {"vkey": vkey, "key_id": vkey.split("+")[1], "state": "known", "until": None, "pinned": None}
        return rows.setdefault(vkey, empty | {"file": None, "form": None, "mode": None})

    for data in read_lines(layout):
        try:
            line = RotationLine.parse(data)
            rotation = Rotation.parse(line.record)
        except LedgerError as exc:
            warn(f"a line of {layout.key_rotations} is no rotation: {exc.message}")
            continue
        row(rotation.old.vkey).update(state="retired", until=line.index + 1)
        row(rotation.new.vkey)
    for spec in LogKeys.of(*pinned.split()).keys if (pinned := Pins.default().key(origin)) else ():
        row(spec.verifier.vkey)["pinned"] = "yes" if spec.until is None else f"to {spec.until}"
    files = [*retired_keys(path).values(), path.with_name(path.name + ".next"), path]
    for file in (file for file in files if file.exists()):
        try:
            vkey, form = vkey_in(file, origin=origin), form_of(read_key_file(file), file)
        except LedgerError as exc:
            warn(exc.message)
            continue
        found = row(vkey)
        found.update(file=str(file), form=form, mode=f"{stat.S_IMODE(file.stat().st_mode):04o}")
        if file == path:
            found["state"] = "current" if found["state"] != "retired" else "RETIRED"
        elif file.suffix == ".next" and found["state"] == "known":
            found["state"] = "next"
    return list(rows.values())


@command.command(
    "compromised",
    examples=[
        ("trail key compromised --since 2026-11-01 --trust auditors.toml", "what was cosigned or time-stamped before is safe"),
        ("trail key compromised --against kept.checkpoint --record", "and what somebody kept; say so in the log"),
    ],
    exits={
        Exit.OK: "everything is covered by something older than the theft",
        Exit.FALSE: "something contradicts the store",
        Exit.UNVERIFIABLE: "for some records only that key speaks",
    },
)
@click.argument("which", metavar="[KEYID|VKEY]", required=False)
@click.option(
    "--since",
    metavar="T",
    type=Checked("time", _moment),
    help="When the key may have been stolen (UTC). Without it nothing that is dated counts, only --against.",
)
@click.option(
    "--trust", "trust_file", metavar="FILE", type=click.Path(path_type=Path), help="Your witnesses and authorities of time (TOML)."
)
@click.option(
    "--against",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A checkpoint that you have kept since before; repeat it.",
)
@click.option(
    "--record", "recording", is_flag=True, help="Append a record of it, signed with the present key (the server must be stopped)."
)
@click.option("--signing-key", "key", metavar="FILE", type=click.Path(path_type=Path), help="The present key's file, for --record.")
@vkey_option
@json_option
@click.pass_context
def compromised(
    context: click.Context,
    which: str | None,
    since: int | None,
    trust_file: Path | None,
    against: tuple[Path, ...],
    recording: bool,
    key: Path | None,
    vkey: str | None,
    as_json: bool,
) -> Exit:
    """Say what a stolen key exposes: which records are covered by something that its thief cannot have made.

    That is: checkpoints that a quorum of your witnesses has cosigned, or an authority has time-stamped, before the theft, and those that
    somebody kept since before it. For all later records the key alone speaks, and that is nobody's word any more.
    """
    from ledger.compromise import advice, exposure
    from ledger.tree import tile_nodes

    if since is None and not against:
        # "Now" would count everything that the thief has had cosigned.
        raise click.UsageError("--since T, or --against FILE: when was the key stolen, or what is older than that for sure?", context)
    if since is None and recording:
        raise click.UsageError("--record: say since when, with --since T", context)
    path = store_of(context)
    trust = trust_of(origin_of(path), trust_file)
    reader = open_store(path, vkey=vkey, trust_file=trust_file).reader
    if reader.keys is None:
        raise StorageError(f"no key is pinned for {reader.origin}", path=path, hint="name its keys: --key VKEY")
    stolen = _chosen(context, which, reader.keys)
    kept = [(str(file), read_kept(file)) for file in against]
    nodes = tile_nodes(reader.layout.root, reader.size)
    found = exposure(reader.layout, reader.keys, reader.tree_head, nodes, trust, kept, since=since or 0)
    steps = advice(reader.origin, stolen, found, is_current=stolen == reader.vkey)
    if recording and since is not None:
        _record(path, key, stolen, since, found)
    if as_json:
        emit_json(_as_json(reader.origin, stolen, since, found, steps))
    else:
        _print(stolen, since, found, steps)
    if found.contradictions:
        return Exit.FALSE
    return Exit.OK if found.covered >= found.size else Exit.UNVERIFIABLE


def _chosen(context: click.Context, which: str | None, keys: LogKeys) -> str:
    """The key that is meant, of those that are believed or were."""
    vkeys = [key.verifier.vkey for key in keys.keys]
    if which is None:
        return vkeys[-1]
    meant = [vkey for vkey in vkeys if which in (vkey, vkey.split("+")[1])]
    if len(meant) != 1:
        raise click.UsageError(f"{which!r} is none of the log's keys: see trail key list", context)
    return meant[0]


def _record(path: Path, key: Path | None, stolen: str, since: int, found: Exposure) -> None:
    from ledger.rotation import KIND
    from tui.witnessing import open_witnessed

    writer = open_witnessed(path, command="trail key compromised", key_path=key)
    try:
        body = {"event": "compromised", "key": stolen, "since": str(since), "covered": found.covered}
        receipt = writer.append(KIND, body, facts={"name": "compromised"})
    finally:
        writer.close()
    say(f"recorded in record {receipt.index}")


def _as_json(origin: str, stolen: str, since: int | None, found: Exposure, steps: Sequence[str]) -> dict[str, Any]:
    return {
        "origin": origin,
        "key": stolen,
        "since": _iso(since) if since is not None else None,
        "size": found.size,
        "covered": found.covered,
        "exposed": found.size - found.covered,
        "covers": [
            {"size": cover.size, "by": cover.by, "where": cover.where, "time": cover.time.isoformat() if cover.time else None}
            for cover in found.covers[:_MAX_NAMED]
        ],
        "contradictions": found.contradictions[:_MAX_NAMED],
        "not_counted": found.ignored,
        "next": list(steps),
    }


def _print(stolen: str, since: int | None, found: Exposure, steps: Sequence[str]) -> None:
    emit(f"key       {stolen}, perhaps stolen since {_iso(since) if since is not None else 'a time that was not given'}")
    emit(f"covered   records 0 to {found.covered} (exclusive) of {found.size}: no thief can have made another history of them")
    for cover in sorted(found.covers, key=lambda cover: -cover.size):
        when = f", {cover.time:%Y-%m-%d %H:%M:%S}" if cover.time is not None else ""
        emit(f"            {cover.size:,} records: {one_line(cover.by)}{when} ({one_line(cover.where)})")
    emit(
        f"exposed   {found.size - found.covered} records: only that key speaks for them" if found.covered < found.size else "exposed   none"
    )
    for why in found.ignored:
        emit(f"            not counted: {one_line(why)}")
    for why in found.contradictions:
        shout("CONTRADICTED", why)
    emit("next")
    for number, step in enumerate(steps, 1):
        emit(f"  {number}. {one_line(step)}")


def _iso(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
