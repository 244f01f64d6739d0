"""`trail demo`: all of it, in a few seconds: record, ask, verify, tamper, cheat with the key itself.

The server is the real one, in a process of its own; the telemetry is sent by the real exporters of the OpenTelemetry SDK.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import InvariantError, StorageError
from ledger.keys import LastSigned, Pins, config_dir, slug
from tui import running
from tui.exits import Exit
from tui.invoked import own_name
from tui.output import emit, say, step
from tui.verb import named_store, verb

if TYPE_CHECKING:
    from ledger.trust import Trust

_DEFAULT: Final = "trail-demo"
_MARKER: Final = ".trail-demo.json"
"""In a demo's store: only a directory with this file is ever replaced."""
_ORIGIN: Final = re.compile(r"trail-demo\.invalid/[0-9a-f]{16}")
_VISIBLE_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05
_STEPS: Final = 8
_WITNESS_NAME: Final = "witness.trail-demo.invalid"


@dataclass(frozen=True, slots=True)
class _Witness:
    url: str
    trust: Trust
    """What somebody believes who was given the log's key and the witness's."""


@dataclass(frozen=True, slots=True)
class _Demo:
    store: Path
    origin: str
    key: Path
    vkey: str


@verb(
    "demo",
    examples=[
        ("trail demo", "in ./trail-demo, which is left for you to look at"),
        ("trail demo --store /srv/demo --keep", "elsewhere, and keep the copy that was tampered with"),
    ],
    exits={Exit.OK: "everything was shown, the detected tampering included"},
)
@click.option("--keep", is_flag=True, help="Keep the copy that was tampered with, beside the store.")
@click.pass_context
def command(context: click.Context, keep: bool) -> Exit:
    """Show what trail is for: two agents work for a week, one of them raises a limit it should not have, and you ask who allowed it.

    Starts a witness and a server on free ports, sends it the week through OpenTelemetry's own exporters, prints the card for the file
    that was changed, verifies the store, changes one byte in a copy and shows that this is found. Then it plays the insider who has the
    signing key, deletes the end of the log and signs again, and asks the witness. Makes a store in ./trail-demo (or --store; TRAIL_STORE
    is left alone), with a key of its own, and replaces only what an earlier demo made.
    """
    from tui.demo_scenario import play, require_samples

    require_samples()
    store = Path(named_store(context) or _DEFAULT)
    began = time.monotonic()
    demo = _make(store)
    with _witness(store, demo) as witness:
        played, incident = _record(demo, play, witness)
        _verify(store, demo, expected="verified", witness=witness)
        _tamper(demo, keep=keep)
        _insider(demo, incident, witness)
    say(f"\nThat took {time.monotonic() - began:.1f} s. The store is in {store}.")
    _next(demo, played)
    return Exit.OK


@contextlib.contextmanager
def _witness(store: Path, demo: _Demo) -> Iterator[_Witness]:
    """A witness for the demo's log, running; and what somebody believes who knows its key."""
    from ledger import durable
    from ledger.layout import Layout
    from ledger.policy import Policy
    from ledger.trust import LogKeys, Trust
    from ledger.witness_files import WitnessFiles
    from tui.demo_server import running_witness

    with tempfile.TemporaryDirectory(prefix="trail-demo-witness-") as directory:
        files = WitnessFiles(Path(directory) / "witness")
        vkey = files.make(_WITNESS_NAME).vkey
        files.add_log(demo.vkey)
        with running_witness(files.directory) as url:
            policy = f"witness demo {vkey} {url}\nquorum demo\n"
            durable.write_once(Layout(store).policy, policy.encode())
            step(2, _STEPS, f"started a witness, which keeps nothing but what the log signs: {url}")
            try:
                yield _Witness(url, Trust(LogKeys.of(demo.vkey), Policy.parse(policy)))
            finally:
                # It ends with the demo, and a server started on this store later should not look for it.
                Layout(store).policy.unlink(missing_ok=True)


def _record(demo: _Demo, play: Any, witness: _Witness) -> tuple[Any, int]:
    """Send the week, and ask; what was sent, and the first record that tells of the incident."""
    from tui.demo_server import running_server

    with running_server(demo.store, origin=demo.origin, key=demo.key) as url:
        step(3, _STEPS, f"started the server: {url}")
        played = play(url)
        sent = f"{played.spans} spans, {played.logs} log records, {len(played.run_ids)} runs"
        step(4, _STEPS, f"sent a week of two agents through OpenTelemetry's exporters: {sent}")
        _wait_until_visible(demo, played.spans + played.logs)
        step(5, _STEPS, f"asking: trail ask {played.incident_resource}")
        incident = _ask(demo, played.incident_resource)
    step(6, _STEPS, f"the server has stopped and sealed everything; verifying: trail verify --trust FILE --witness {witness.url}")
    return played, incident


def _make(store: Path) -> _Demo:
    from ledger import durable
    from tui.commands.init import make_store

    if store.exists():
        _remove_earlier(store)
    elif (gone := Pins.default().origin_at(store)) is not None and _ORIGIN.fullmatch(gone):
        _forget(gone)  # somebody has removed an earlier demo's store, and means no harm
    origin = f"trail-demo.invalid/{secrets.token_hex(8)}"
    key = _key_path(origin)
    durable.make_dirs(store, mode=0o700)
    # First: what an interrupted demo leaves has to be known as a demo's.
    durable.write_once(store / _MARKER, json.dumps({"origin": origin}).encode() + b"\n")
    made = make_store(store, origin=origin, key=key)
    step(1, _STEPS, f"made a store in {store}, and its signing key outside it")
    return _Demo(store, origin, key, made["vkey"])


def _key_path(origin: str) -> Path:
    return config_dir() / "keys" / f"{slug(origin)}.key"


def _remove_earlier(store: Path) -> None:
    """Remove a demo's store, and its key and state, which are of no use without it.

    Raises:
        StorageError: it is not a demo's.
    """
    try:
        origin = str(json.loads((store / _MARKER).read_bytes())["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        origin = ""
    # The name too: a marker that somebody put beside a real store must not cost it its key.
    settings = store / "trail.toml"
    if not _ORIGIN.fullmatch(origin) or (settings.exists() and f'"{origin}"' not in settings.read_text("utf-8")):
        raise StorageError(
            f"{store} exists and is not an earlier demo's", path=store, hint="name another place with --store, or move it away"
        )
    holder = running.lock_holder(store)
    if holder is not None and holder.alive:
        raise StorageError(f"{holder.command} (process {holder.pid}) still writes to {store}", path=store, hint="stop it first")
    shutil.rmtree(store)
    _forget(origin)


def _forget(origin: str) -> None:
    key = _key_path(origin)
    for path in (key, key.with_name(key.name + ".secret"), LastSigned.default(origin).path, running.running_path(origin)):
        path.unlink(missing_ok=True)


def _wait_until_visible(demo: _Demo, sent: int) -> None:
    """Wait for the checkpoint that covers everything that was acknowledged."""
    from ledger.reader import StoreReader

    deadline = time.monotonic() + _VISIBLE_SECONDS
    reader = StoreReader.open(demo.store, vkeys=[demo.vkey])
    while reader.size < sent or reader.tail(include_unsigned=True).unsigned:
        if time.monotonic() > deadline:
            raise StorageError(f"of {sent} acknowledged records only {reader.size} became visible", hint="see trail doctor")
        time.sleep(_POLL_SECONDS)
        reader.refresh()


def _ask(demo: _Demo, resource: str) -> int:
    """Print the card; the first record that it rests on for who approved."""
    from query.answers import ask
    from query.question import Question
    from query.render import render_answer
    from tui.opening import open_store

    store = open_store(demo.store, vkey=demo.vkey)
    answer = ask(store.reader, Question(resource=resource, limit=1)).as_json()
    if not answer["cards"]:
        raise InvariantError(f"the demo's change of {resource} was not found")
    emit("\n" + render_answer(answer))
    first: int = min(answer["cards"][0]["who"]["records"])
    return first


def _verify(store: Path, demo: _Demo, *, expected: str, witness: _Witness | None = None, own: bool = True) -> None:
    """Verify and print; with a witness also that it is the history that the witness has seen, and with `own` that this machine signed."""
    from ledger.fsck import verify
    from ledger.trust import LogKeys, Trust
    from ledger.witness_client import newest
    from tui.verdicts import text_of

    shown = newest(witness.url, demo.origin) if witness is not None else None
    report = verify(
        store,
        trust=witness.trust if witness is not None else Trust(LogKeys.of(demo.vkey)),
        witnessed=[("the newest checkpoint of the witness", shown)] if shown is not None else [],
        last_signed=LastSigned.default(demo.origin) if own else None,
        processes=1,
    )
    emit("\n" + text_of(report.as_json(), [], {}) + "\n")
    if report.verdict != expected:
        raise InvariantError(f"the demo's store should be {expected}, and is {report.verdict}")


def _tamper(demo: _Demo, *, keep: bool) -> None:
    """Change one byte of a copy, in the middle of the largest Parquet file of records, and verify that."""
    from tui.demo_damage import change_one_byte

    kept = demo.store.with_name(demo.store.name + "-tampered") if keep else None
    with tempfile.TemporaryDirectory(prefix="trail-demo-") as temporary:
        copy = kept or Path(temporary) / "copy"
        if copy.exists():
            _remove_copy(copy)
        shutil.copytree(demo.store, copy)
        victim = max((copy / "records").glob("*.parquet"), key=lambda path: path.stat().st_size)
        place = change_one_byte(victim)
        step(7, _STEPS, f"copied the store, changed byte {place:,} of {victim.relative_to(copy)} in the copy; verifying the copy")
        _verify(copy, demo, expected="failed")
        if keep:
            say(f"The tampered copy is in {copy}: trail verify --store {copy} --key {demo.vkey}")


def _insider(demo: _Demo, incident: int, witness: _Witness) -> None:
    """In another copy: cut the log off before the incident with the log's own key, and ask first the key and then the witness."""
    from tui.demo_insider import cut_and_sign_again

    with tempfile.TemporaryDirectory(prefix="trail-demo-insider-") as temporary:
        copy = Path(temporary) / "copy"
        shutil.copytree(demo.store, copy)
        gone = cut_and_sign_again(copy, key=demo.key, keep=incident, state=LastSigned(Path(temporary) / "state"))
        step(8, _STEPS, f"the insider, who has the signing key: deleted the last {gone} records of another copy, and signed the rest again")
        emit("\nWith the public key alone that is a perfect store:")
        _verify(copy, demo, expected="verified", own=False)
        emit(f"Asked of the witness it is not, even with the insider's own start and seals: trail verify --witness {witness.url}")
        _verify(copy, demo, expected="failed", witness=witness, own=False)


def _remove_copy(copy: Path) -> None:
    if not (copy / _MARKER).is_file():
        raise StorageError(f"{copy} exists and is not an earlier demo's", path=copy, hint="move it away")
    shutil.rmtree(copy)


def _next(demo: _Demo, played: Any) -> None:
    trail = own_name()
    emit("Try next:")
    emit(f"  {trail} timeline --store {demo.store} --run {played.incident_run_id}")
    refunds = "SELECT time, agent, resource, approver, decision FROM actions WHERE tool = 'issue_refund' ORDER BY time"
    emit(f'  {trail} sql --store {demo.store} "{refunds}"')
    emit(f"  {trail} serve --store {demo.store}")
