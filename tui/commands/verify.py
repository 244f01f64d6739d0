"""`trail verify`: integrity, completeness and anchoring, three verdicts and one exit code."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import MalformedError
from tui.exits import Exit
from tui.interrupts import interruptibly
from tui.kept import read_kept
from tui.opening import believed, origin_of, trust_of
from tui.output import Progress, emit, emit_json, say, warn
from tui.times import parse_time
from tui.verb import Checked, json_option, store_of, verb, vkey_option
from tui.verdicts import text_of

if TYPE_CHECKING:
    from ledger.fsck import Scope
    from ledger.fsck_report import Report
    from ledger.trust import Trust

_REQUIREMENTS: Final = ("anchored", "complete")
_ANCHORED_WITHIN_SECONDS: Final = 3600
"""A log of which the last quorum is older, and that has records since, is not anchored, whatever was before it."""
_CLOCKS_DIFFER_SECONDS: Final = 300
"""A quorum that is further ahead of this verifier's clock says nothing about the last hour."""


def _url(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise MalformedError(f"{text!r} is no URL of a witness", hint="it begins with https:// or http://")
    return text.rstrip("/")


def _since(text: str) -> tuple[int | None, int | None, bytes | None]:
    """A record's index, a time, or the checkpoint in a file."""
    if text.isascii() and text.isdecimal():
        return int(text), None, None
    path = Path(text)
    if path.is_file():
        return None, None, read_kept(path)
    return None, parse_time(text, now=time.time_ns()), None


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
        ("trail verify --trust auditors.toml --witness https://witness.example", "and that it is the history a witness has cosigned"),
        ("trail verify --proof 12.tlog-proof --record 12.json --key VKEY", "one record, without any store"),
        ("trail verify --since yesterday --fast", "only what is new, and no rows: a quick look, which is never called verified"),
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
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="URL",
    type=Checked("url", _url),
    help="Compare with the newest checkpoint of this witness.",
)
@click.option(
    "--trust",
    "trust_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Keys, witnesses and roots of time-stamping authorities that you believe.  [default: the one in your configuration directory; "
    "its keys count where no others are pinned]",
)
@click.option(
    "--proof",
    "proof_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Instead of a store, check this proof (of trail prove) of the record in --record.",
)
@click.option(
    "--record", "record_file", metavar="FILE", type=click.Path(path_type=Path), help="The record's bytes, as trail show --raw wrote them."
)
@click.option(
    "--since",
    metavar="N|T|FILE",
    type=Checked("since", _since),
    help="Read only what is newer than record N, a time, or a checkpoint that was verified then.",
)
@click.option("--fast", is_flag=True, help="Compare files with their seals, and read no rows.")
@click.option(
    "--require",
    metavar="WHAT",
    callback=_requirements,
    help="Also fail unless anchored (a quorum of your witnesses has cosigned all of it, or was there in the last hour), complete, or both: "
    "anchored,complete.",
)
@click.option("--processes", type=click.IntRange(1, 256), help="How many workers.  [default: one a core]")
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    against: tuple[Path, ...],
    witnesses: tuple[str, ...],
    trust_file: Path | None,
    proof_file: Path | None,
    record_file: Path | None,
    since: tuple[int | None, int | None, bytes | None] | None,
    fast: bool,
    require: tuple[str, ...],
    processes: int | None,
    vkey: str | None,
    as_json: bool,
) -> Exit:
    """Derive everything the store says again from its records: the signature, every record, hash, seal, column and content.

    Integrity, completeness and anchoring are three verdicts. Without a pinned public key nothing is ever verified: a key found in the
    store would say whatever the store says. What was restored from a backup, or cut, is found by comparing with what this machine last
    signed, with --against, and with what a witness has seen (--witness). Anchored counts only witnesses that you name yourself, in a trust
    file or a policy of your own.

    With --since or --fast nothing is ever called verified: what was not read is named.
    """
    from ledger.fsck import verify
    from ledger.keys import LastSigned

    if proof_file is not None or record_file is not None:
        of_a_store = {"--against": against, "--witness": witnesses, "--since": since, "--fast": fast, "--processes": processes}
        of_a_store["--require complete"] = "complete" in require
        if named := [name for name, value in of_a_store.items() if value]:
            raise click.UsageError(f"{', '.join(named)}: of a store, and --proof asks about one record without it", context)
        return _of_a_proof(context, proof_file, record_file, vkey, trust_file, require, as_json=as_json)
    store = store_of(context)
    origin = origin_of(store)
    trust, report = _believed(origin, store, vkey, trust_file)
    kept = [read_kept(path) for path in against]
    scope = _scope(since, fast=fast, kept=kept)
    # Before the store's own checkpoint is read: a witness cosigns only what was published, so it is never ahead of an honest store.
    witnessed, unreachable, forgotten = _newest_of(witnesses, origin, store, trust)
    begun = _now()  # how long reading takes is not the witnesses' fault
    if report is None:
        with Progress("verifying", unit="records") as progress:
            report = interruptibly(
                lambda: verify(
                    store,
                    trust=trust,
                    against=kept,
                    witnessed=witnessed,
                    last_signed=LastSigned.default(origin),
                    scope=scope,
                    processes=processes,
                    progress=progress,
                )
            )
    report.unreadable += unreachable
    report.anchoring.not_checked += forgotten
    value = report.as_json()
    unmet = _unmet(value, require, report, begun)
    if as_json:
        emit_json(value)
    else:
        emit(text_of(value, report.not_judged, unmet))
    _keep_evidence(report, report.trust or trust)
    return _exit(value, unmet)


def _of_a_proof(
    context: click.Context,
    proof_file: Path | None,
    record_file: Path | None,
    vkey: str | None,
    trust_file: Path | None,
    require: tuple[str, ...],
    *,
    as_json: bool,
) -> Exit:
    """Check one record and its proof; neither a store nor this machine's last-signed state has a part in it."""
    from tui.proof_check import check_proof, proof_exit, proof_origin, proof_text

    if proof_file is None or record_file is None:
        raise click.UsageError("--proof and --record belong together", context)
    trust = believed(proof_origin(proof_file), None, vkey=vkey, trust_file=trust_file)
    found = check_proof(proof_file, record_file, trust)
    unmet = "anchored" in require and found["verdict"] == "verified" and found["anchoring"]["verdict"] != "anchored"
    if as_json:
        emit_json(found)
    else:
        emit(proof_text(found))
        if unmet:
            emit(f"  REQUIRED  anchored: it is {found['anchoring']['verdict']}")
    return Exit.FALSE if unmet else proof_exit(found)


def _believed(origin: str, store: Path, vkey: str | None, trust_file: Path | None) -> tuple[Trust, Report | None]:
    """What the verifier believes; and a finished report, if the store is another one than was pinned here."""
    from ledger.errors import VerificationError
    from ledger.fsck_files import Failure
    from ledger.fsck_report import Report

    try:
        return believed(origin, store, vkey=vkey, trust_file=trust_file), None
    except VerificationError as exc:
        trust = trust_of(origin, trust_file)  # a trust file for another log says nothing about the store: that ends the run
        report = Report(origin, key="wrong")
        report.rollback.append(Failure("store", None, None, exc.message))
        return trust, report


def _scope(since: tuple[int | None, int | None, bytes | None] | None, *, fast: bool, kept: list[bytes]) -> Scope:
    """How much is read; a checkpoint that was verified earlier is one that the store must extend as well."""
    from ledger.checkpoint import Checkpoint
    from ledger.fsck import Scope
    from ledger.note import parse_note

    index, moment, note = since if since is not None else (None, None, None)
    if note is not None:
        kept.append(note)
        index = Checkpoint.parse(parse_note(note)[0]).size
    return Scope(rows=not fast, since=index or 0, since_received=moment)


def _newest_of(witnesses: tuple[str, ...], origin: str, store: Path, trust: Trust) -> tuple[list[tuple[str, bytes]], list[str], list[str]]:
    """The newest checkpoint of each witness; which of them could not be asked, which leaves that open; and which have forgotten."""
    from ledger.anchors import recent_cosigned_notes
    from ledger.errors import LedgerError, StorageError
    from ledger.layout import Layout
    from ledger.witness_client import newest
    from ledger.witness_memory import DAYS, forgetful

    notes: list[tuple[str, bytes]] = []
    unreachable: list[str] = []
    forgotten: list[str] = []
    stored: list[bytes] = []
    with contextlib.suppress(StorageError):  # which the check of the anchors reports
        # Before the witnesses are asked: a moment later a live store has newer ones.
        stored = [*recent_cosigned_notes(Layout(store), days=DAYS)] if witnesses and trust.policy is not None else []
    for url in witnesses:
        try:
            note = newest(url, origin)
        except LedgerError as exc:
            unreachable.append(f"the witness {url}: {exc.message}")
            continue
        if note is None:
            unreachable.append(f"the witness {url} has never seen a checkpoint of {origin}")
        else:
            notes.append((f"the newest checkpoint of the witness {url}", note))
            why = forgetful(trust.policy, note, stored) if trust.policy is not None else None
            forgotten += [why] if why is not None else []
    return notes, unreachable, forgotten


def _keep_evidence(report: Report, trust: Trust) -> None:
    """Two checkpoints that cannot both be of one log prove something against whoever signed both: keep them."""
    from ledger.errors import LedgerError
    from ledger.evidence import evidence_dir, save_fork_evidence

    verifiers = [key.verifier for key in (trust.keys.keys if trust.keys is not None else ())]
    verifiers += [witness.verifier for witness in (trust.policy.witnesses if trust.policy is not None else ())]
    for fork in report.forks:
        try:
            path = save_fork_evidence(evidence_dir(), fork.kept, fork.shown, fork.proof, verifiers)
        except LedgerError as exc:
            warn(f"the evidence of two histories was not kept: {exc.message}")
        else:
            say(f"kept as evidence: {path}")


def _unmet(value: dict[str, Any], require: tuple[str, ...], report: Report, begun: int) -> dict[str, Exit]:
    """Which requirements do not hold, and what that means."""
    unmet = {}
    if "anchored" in require and (why := _not_anchored(report, begun)):
        unmet[f"anchored: {why}"] = Exit.FALSE
    complete = value["completeness"]["verdict"]
    if "complete" in require and complete != "no_gap_found":
        unmet[f"complete: {complete}"] = Exit.FALSE if complete == "gap" else Exit.UNVERIFIABLE
    return unmet


def _not_anchored(report: Report, begun: int) -> str:
    """Why the store does not count as anchored; nothing if it does.

    A quorum that was met once is not enough: a log whose witnesses have been silent for a month could be rewritten for that month. When it
    was met is in the witnesses' cosignatures; the times in the records are the log's own word.
    """
    anchoring = report.anchoring
    if anchoring.verdict != "anchored":
        return f"it is {anchoring.verdict}"
    if anchoring.to == report.size:
        return ""
    newer = f"and {report.size - (anchoring.to or 0):,} records are newer"
    if anchoring.time is None:
        return f"when the last quorum was is not known, {newer}"
    ahead = anchoring.time - _now()
    if ahead > _CLOCKS_DIFFER_SECONDS:
        return f"the last quorum was {ahead:,} s in the future, {newer}"
    ago = begun - anchoring.time
    return f"the last quorum was {ago:,} s ago, {newer}" if ago > _ANCHORED_WITHIN_SECONDS else ""


def _now() -> int:
    """By this verifier's clock, Unix seconds."""
    return time.time_ns() // 10**9


def _exit(value: dict[str, Any], unmet: dict[str, Exit]) -> Exit:
    if value["verdict"] == "failed" or Exit.FALSE in unmet.values():
        return Exit.FALSE
    if value["verdict"] != "verified" or unmet:
        return Exit.UNVERIFIABLE
    return Exit.OK
