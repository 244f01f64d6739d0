"""`trail status`: how a store is right now, with or without a server."""

from __future__ import annotations

import contextlib
import shutil
import stat
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ledger.layout import Layout
from tui import running
from tui.anchored import anchored, rows
from tui.exits import Exit
from tui.opening import OpenStore, open_store
from tui.output import coloured, emit, emit_json, safe, shout, size_text
from tui.verb import json_option, store_of, verb, vkey_option


@verb(
    "status",
    examples=[
        ("trail status", "is it recording, is everything signed and sealed, is it still what was signed?"),
        ("trail status --json", "for a monitor; exit code 1 says that the store has less than was signed"),
    ],
    exits={Exit.FALSE: "the store is not what was signed", Exit.UNVERIFIABLE: "what this machine last signed cannot be read"},
)
@vkey_option
@json_option
@click.pass_context
def command(context: click.Context, vkey: str | None, as_json: bool) -> Exit:
    """Say how the store is: its size, how much was signed and when, what is not sealed yet, who writes to it, and the space left.

    Works without a server and opens nothing for writing. It compares the store with what this machine last signed, so that a restored
    backup is noticed; everything else is for trail verify.
    """
    path = store_of(context)
    store = open_store(path, vkey=vkey)
    found = describe(path, store)
    if as_json:
        emit_json(found)
    else:
        emit(_text_of(found))
    if store.signed.is_false:
        shout("THE STORE IS NOT WHAT WAS SIGNED", f"{store.signed.why}. Run trail verify.")
    return store.exit


def describe(path: Path, store: OpenStore) -> dict[str, Any]:
    """Everything `status` says."""
    reader, signed = store.reader, store.signed
    layout = Layout(path)
    tail = reader.tail(include_unsigned=True)
    holder = running.lock_holder(path)
    server = running.find_server(reader.origin, path)
    return {
        "store": str(path),
        "origin": reader.origin,
        "size": reader.size,
        "root": reader.root,
        "key": reader.key_status,
        "checkpoint_written": _written(layout.checkpoint),
        "acknowledged_not_signed": tail.unsigned,
        "anchored": anchored(layout, origin=reader.origin, size=reader.size),
        "signed": {"state": signed.state, "size": signed.size, "why": signed.why},
        "segments": len(reader.segments),
        "sealed": reader.sealed_end,
        "not_sealed": {"records": tail.records.num_rows, "bytes": _bytes_in(layout.journal)},
        "bytes": {
            "records": _bytes_in(layout.part("records")),
            "contents": _bytes_in(layout.part("contents")),
            "tiles": _bytes_in(layout.root / "tile"),
        },
        "quarantined": _count_in(layout.quarantine),
        "disk_free_bytes": shutil.disk_usage(path).free,
        "writer": asdict(holder) if holder is not None else None,
        "server": asdict(server) if server is not None else None,
    }


def _written(path: Path) -> dict[str, Any] | None:
    """When the checkpoint file was written: a checkpoint carries no time of its own."""
    try:
        moment = path.stat().st_mtime
    except OSError:
        return None
    return {
        "time": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds_ago": round(max(0.0, time.time() - moment), 1),
    }


def _bytes_in(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # the writer replaces files while we look
            found = path.stat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def _count_in(directory: Path) -> int | None:
    try:
        return sum(1 for path in directory.iterdir() if not path.name.startswith("."))
    except OSError:  # it is its owner's only
        return None


def _text_of(found: dict[str, Any]) -> str:
    written, not_sealed, signed = found["checkpoint_written"], found["not_sealed"], found["signed"]
    age = f", signed {written['seconds_ago']:,.0f} s ago" if written is not None else ", nothing signed yet"
    unsigned = f"; {found['acknowledged_not_signed']:,} acknowledged and not signed yet" if found["acknowledged_not_signed"] else ""
    used = sum(found["bytes"].values()) + not_sealed["bytes"]
    lines = [
        ("store", f"{safe(found['store'])} ({size_text(used)})"),
        ("log", safe(found["origin"])),
        ("records", f"{found['size']:,}{age}{unsigned}"),
        ("root", found["root"]),
        ("key", found["key"]),
        ("last signed", _signed(signed)),
        *rows(found["anchored"]),
        ("sealed", f"{found['sealed']:,} records in {found['segments']} segments"),
        ("not sealed", f"{not_sealed['records']:,} records, {size_text(not_sealed['bytes'])} of journal"),
        ("quarantine", "not readable by this account" if found["quarantined"] is None else f"{found['quarantined']} bodies"),
        ("disk free", size_text(found["disk_free_bytes"])),
        ("writer", safe(_writer(found["writer"]))),
        ("server", safe(_server(found["server"]))),
    ]
    return "\n".join(f"{name:<12} {value}" for name, value in lines)


def _signed(signed: dict[str, Any]) -> str:
    match signed["state"]:
        case "kept":
            return f"{signed['size']:,} records on this machine, all of them here"
        case "rollback" | "fork":
            return coloured(f"CONTRADICTS THE STORE: {signed['why']}", "red")
        case _:
            return f"not compared: {signed['why']}"


def _writer(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "none"
    gone = {True: "", False: ", which is gone: the next start recovers", None: " (cannot tell from here whether it still runs)"}[
        holder["alive"]
    ]
    return f"{holder['command']}, process {holder['pid']} on {holder['host']}{gone}"


def _server(server: dict[str, Any] | None) -> str:
    return "none" if server is None else f"{server['http']}{', tokens required' if server['tokens'] else ''}"
