"""`trail doctor`: what is wrong with the set-up, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import click

from tui.exits import Exit
from tui.output import coloured, emit, emit_json, safe, say
from tui.verb import json_option, store_of, verb

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


@verb(
    "doctor",
    examples=[
        ("trail doctor", "before relying on a store, and when something is odd"),
        ("trail doctor --store /srv/trail --json", "for a monitor"),
    ],
    exits={Exit.FALSE: "the evidence is false, or not what was signed", Exit.STORAGE: "something fails"},
)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> Exit:
    """Check what a store needs to be relied on: key, pin, permissions, last-signed state, fsync, disk, clock, server and versions.

    Each line says ok, warn or fail, and what to do. It writes one small file to the store and to the state directory, and removes it.
    Whether the evidence is true is for trail verify.
    """
    from tui.checks import examine

    found = []
    for finding in examine(store_of(context)):
        found.append(finding)
        if not as_json:
            emit(f"{coloured(f'{finding.state:<4}', _COLOURS[finding.state])}  {finding.check:<12} {safe(finding.found)}")
            if finding.do and finding.state != "ok":
                emit(f"{'':<19}{safe(finding.do)}")
    if as_json:
        emit_json([asdict(finding) for finding in found])
    failed = [finding for finding in found if finding.state == "fail"]
    if any(finding.false for finding in failed):
        return Exit.FALSE
    if failed:
        say(f"{len(failed)} of {len(found)} checks fail")
        return Exit.STORAGE
    return Exit.OK
