"""`trail verify`: integrity, completeness and anchoring, three verdicts and one exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import MalformedError
from tui.exits import Exit
from tui.interrupts import interruptibly
from tui.output import Progress, coloured, emit, emit_json, safe
from tui.verb import json_option, store_of, verb, vkey_option

if TYPE_CHECKING:
    from ledger.fsck import Report
    from ledger.note import Verifier

_REQUIREMENTS: Final = ("anchored", "complete")
_SHOWN: Final = 20
"""Failures listed for a person; `--json` has them all."""
_COLOURS: Final = {"verified": "green", "failed": "red", "unverifiable": "yellow"}


def _requirements(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...]:
    wanted = tuple(value.split(",")) if value is not None else ()
    for name in wanted:
        if name not in _REQUIREMENTS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(_REQUIREMENTS)}")
    return wanted


@verb(
    "verify",
    examples=[
        ("trail verify", "check everything, with the key that is pinned here"),
        ("trail verify --against kept.checkpoint --json", "and that it extends a checkpoint kept elsewhere; for a pipeline"),
    ],
    exits={
        Exit.OK: "verified",
        Exit.FALSE: "the evidence is false, or something required is not so",
        Exit.UNVERIFIABLE: "unverifiable: no pinned key, unreadable, a newer format, or nothing was compared",
    },
)
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A checkpoint kept elsewhere that the store must extend.",
)
@click.option("--require", metavar="WHAT", callback=_requirements, help="Also fail unless anchored, complete, or both: anchored,complete.")
@click.option("--processes", type=click.IntRange(1, 256), help="How many workers.  [default: one a core]")
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context, against: tuple[Path, ...], require: tuple[str, ...], processes: int | None, vkey: str | None, as_json: bool
) -> Exit:
    """Derive everything the store says again from its records: the signature, every record, hash, seal, column and content.

    Integrity, completeness and anchoring are three verdicts. Without a pinned public key nothing is ever verified: a key found in the
    store would say whatever the store says. What was restored from a backup, or cut, is found by comparing with what this machine last
    signed and with --against.
    """
    from ledger.fsck import verify
    from ledger.keys import LastSigned
    from ledger.layout import Layout
    from ledger.settings import Settings

    store = store_of(context)
    settings, _text = Settings.load(Layout(store))
    kept = [_kept(path) for path in against]
    last_signed = LastSigned.default(settings.origin)
    verifier, report = _pinned(settings.origin, store, vkey)
    if report is None:
        with Progress("verifying", unit="records") as progress:
            report = interruptibly(
                lambda: verify(store, verifier=verifier, against=kept, last_signed=last_signed, processes=processes, progress=progress)
            )
    value = report.as_json()
    unmet = _unmet(value, require)
    if as_json:
        emit_json(value)
    else:
        emit(text_of(value, report.not_judged, unmet))
    return _exit(value, unmet)


def _pinned(origin: str, store: Path, vkey: str | None) -> tuple[Verifier | None, Report | None]:
    """The key to believe; or a finished report, if the store is another one than was pinned here."""
    from ledger.errors import VerificationError
    from ledger.fsck import Report
    from ledger.fsck_files import Failure
    from ledger.reader import pinned_verifier

    try:
        return pinned_verifier(origin, store, vkeys=[vkey] if vkey is not None else None), None
    except VerificationError as exc:
        report = Report(origin, key="wrong")
        report.rollback.append(Failure("store", None, None, exc.message))
        return None, report


def _unmet(value: dict[str, Any], require: tuple[str, ...]) -> dict[str, Exit]:
    """Which requirements do not hold, and what that means."""
    unmet = {}
    if "anchored" in require and value["anchoring"]["verdict"] != "anchored":
        unmet[f"anchored: it is {value['anchoring']['verdict']}"] = Exit.FALSE
    complete = value["completeness"]["verdict"]
    if "complete" in require and complete != "no_gap_found":
        unmet[f"complete: {complete}"] = Exit.FALSE if complete == "gap" else Exit.UNVERIFIABLE
    return unmet


def _exit(value: dict[str, Any], unmet: dict[str, Exit]) -> Exit:
    if value["verdict"] == "failed" or Exit.FALSE in unmet.values():
        return Exit.FALSE
    if value["verdict"] != "verified" or unmet:
        return Exit.UNVERIFIABLE
    return Exit.OK


def text_of(value: dict[str, Any], not_judged: list[str], unmet: dict[str, Exit]) -> str:
    """The report for a person.

    Args:
        value: `Report.as_json`.
        not_judged: what lies in the store and is no part of it.
        unmet: what was required and is not so.
    """
    integrity, completeness, anchoring = value["integrity"], value["completeness"], value["anchoring"]
    contents = integrity["contents"]
    lines = [
        f"{_loud(value['verdict'])}  {safe(value['origin'])}  {value['size']:,} records  root {value['root'] or '(none)'}",
        "",
        f"integrity     {integrity['verdict']}: {integrity['records']:,} records, {integrity['segments']} segments; contents "
        + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in contents.items()),
        f"completeness  {completeness['verdict'].replace('_', ' ')}{_counters(completeness)}",
        f"anchoring     {coloured(anchoring['verdict'].upper(), 'bold')}{_anchored(anchoring)}",
        f"key           {value['key']}",
    ]
    failures = [*integrity["failures"], *completeness["failures"]]
    more = len(failures) - _SHOWN + integrity["failures_not_listed"]
    lines += ["", *(f"  FALSE  {_failure(failure)}" for failure in failures[:_SHOWN])] if failures else []
    lines += [f"  and {more:,} more (--json lists up to a thousand)"] if more > 0 else []
    lines += [f"  NOT CHECKED  {safe(text)}" for text in integrity["not_checked"][:_SHOWN]]
    lines += [f"  NOT JUDGED  {safe(text)}" for text in not_judged[:_SHOWN]]
    lines += [f"  REQUIRED  {text}" for text in unmet]
    if value["key"] == "unpinned":
        lines.append("  No key is pinned for this log: name the one you were given with --key VKEY or TRAIL_VKEY.")
    return "\n".join(lines)


def _loud(verdict: str) -> str:
    return coloured(verdict.upper(), "bold", _COLOURS[verdict])


def _failure(failure: dict[str, Any]) -> str:
    where = [str(failure["file"])] if failure["file"] is not None else []
    where += [f"record {failure['index']}"] if failure["index"] is not None else []
    return safe(f"{failure['what']}: {', '.join(where)}{': ' if where else ''}{failure['why']}")


def _counters(completeness: dict[str, Any]) -> str:
    if completeness["verdict"] == "not_checkable":
        return ": no sender counts its records, so nothing missing could be noticed"
    without = completeness["without_counters"]
    count = len(without) if isinstance(without, list) else without
    return f" among records with counters; {count} without" if count else ""


def _anchored(anchoring: dict[str, Any]) -> str:
    if anchoring["verdict"] != "unanchored":
        return ""
    return ": nobody outside has confirmed this state; whoever holds the key could rewrite it all. Keep a `trail checkpoint` elsewhere."


def _kept(path: Path) -> bytes:
    """A checkpoint that somebody kept; one that cannot be read leaves the question open, it does not answer it."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise MalformedError(f"the checkpoint {path} cannot be read: {exc.strerror}", path=path, hint="name the file you kept") from exc
