"""`verify`: everything a store says, derived again from its records. Shares no code with the writer but the pure core.

Integrity, completeness and anchoring are three verdicts. Integrity: the checkpoint's signature, every record against its leaf, every tile
against the root, every sealed file and side file against its seal, every column against its record, every content against its commitment,
the journal's frames. What could not be checked is named and never counted as good. The files are read once, in one process a core, a row
group at a time: memory does not grow with the store.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ledger import merkle, tiles
from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.durable import storage_errors
from ledger.errors import BadSignature, LedgerError, MalformedError, VerificationError
from ledger.fsck_contents import ContentCounts
from ledger.fsck_files import (
    Failure,
    SealClaim,
    SegmentReport,
    check_segment,
    check_whole,
    live_claims,
    read_side_files,
)
from ledger.fsck_journal import OpenJournal, check_journal, open_journal
from ledger.fsck_leaves import level_zero, read_file, read_hashes
from ledger.fsck_tree import check_history, check_stray_tiles, check_tiles
from ledger.keys import LastSigned
from ledger.layout import Layout, SealedFile
from ledger.note import MAX_NOTE_BYTES, Verifier, parse_note
from ledger.sequences import Sequences
from ledger.settings import Settings

Verdict = Literal["verified", "failed", "unverifiable"]
MAX_FAILURES: Final = 1_000
"""Listed; more are counted."""
_OWN: Final = "the last checkpoint this machine signed"
Progress = Callable[[int, int], None]
"""(records checked, records in all)."""


@dataclass(slots=True)
class Report:
    """What `verify` found; `as_json` is the contract of `trail verify --json`."""

    origin: str
    size: int = 0
    root: str = ""
    key: Literal["pinned", "unpinned", "wrong"] = "unpinned"
    records: int = 0
    segments: int = 0
    contents: ContentCounts = field(default_factory=ContentCounts)
    failures: list[Failure] = field(default_factory=list)
    failures_not_listed: int = 0
    not_checked: list[str] = field(default_factory=list)
    not_judged: list[str] = field(default_factory=list)
    """What lies in the store and is no part of it as of this checkpoint."""
    unreadable: list[str] = field(default_factory=list)
    """Why nothing could be compared at all."""
    rollback: list[Failure] = field(default_factory=list)
    """The store has less, or another history, than was signed or than somebody kept."""
    sequences: Sequences = field(default_factory=Sequences)

    def fail(self, failure: Failure) -> None:
        """Add a failure, bounded."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)
        else:
            self.failures_not_listed += 1

    @property
    def integrity(self) -> Verdict:
        """Are the records, and everything derived from them, what was committed to?"""
        if self.failures:
            return "failed"
        if self.unreadable or self.key == "unpinned":
            return "unverifiable"
        return "verified" if not self.not_checked else "unverifiable"

    @property
    def verdict(self) -> Verdict:
        """The worst of integrity and rollback evidence."""
        return "failed" if self.rollback else self.integrity

    def as_json(self) -> dict[str, Any]:
        """The shape of `trail verify --json`."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "key": self.key,
            "verdict": self.verdict,
            "integrity": {
                "verdict": self.integrity,
                "records": self.records,
                "segments": self.segments,
                "contents": asdict(self.contents),
                "failures": [failure.as_json() for failure in [*self.rollback, *self.failures]],
                "failures_not_listed": self.failures_not_listed,
                "not_checked": [*self.unreadable, *self.not_checked],
            },
            "completeness": self._completeness(),
            "anchoring": {"verdict": "unanchored", "to": None, "witnesses": [], "timestamps": []},
        }

    def _completeness(self) -> dict[str, Any]:
        gaps = self.sequences.gaps()
        failures = [
            {"what": "gap", "index": None, "file": None, "why": f"{service} run {run} (sender {sender}): nothing between {low} and {high}"}
            for (sender, service, run), low, high in gaps[:MAX_FAILURES]
        ]
        found = self.sequences.seen and not self.sequences.overflow
        verdict = "gap" if gaps else "no_gap_found" if found else "not_checkable"
        return {"verdict": verdict, "failures": failures, "without_counters": self.sequences.without_counters()}


def verify(
    root: Path,
    *,
    verifier: Verifier | None,
    against: Sequence[bytes] = (),
    last_signed: LastSigned | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a whole store.

    Args:
        root: the store.
        verifier: the pinned public key; without one nothing is ever *verified*.
        against: checkpoints that somebody kept; the store must extend each of them.
        last_signed: what this machine last signed for the log.
        processes: workers; default one a core.
        progress: called now and then.

    Raises:
        StoreMissing, UnsupportedFormat: there is nothing to check, or not for this program.
    """
    layout = Layout(root)
    settings, _text = Settings.load(layout)
    report = Report(settings.origin, key="pinned" if verifier is not None else "unpinned")
    # Before the store's own checkpoint, which is written after it: read in this order it is never ahead for being read late.
    kept = _kept_checkpoints(settings, verifier, against, last_signed, report)
    journal = open_journal(layout)
    if not layout.checkpoint.exists() and any(checkpoint.size for checkpoint, _where in kept):
        # A log that has just begun signs its first checkpoint before it publishes it.
        _wait_for(layout.checkpoint)
    head = _checkpoint(layout, settings, verifier, report)
    if head is not None:
        head = _signed_and_not_published(layout, head, kept, report)
    if head is None:
        for checkpoint, where in kept:
            if checkpoint.size:
                why = f"the store has no checkpoint; {checkpoint.size} records were signed"
                report.rollback.append(Failure("rollback", None, where, why))
        return report
    report.size, report.root = head.size, head.root.hex()
    if not head.size:
        report.unreadable.append("the store is empty: nothing was compared")
    _check_records(layout, head, journal, verifier, report, processes, progress)
    nodes = check_tiles(layout, head, report.fail)
    check_stray_tiles(layout, head, report.fail)
    if nodes is not None:
        check_history(layout, head, verifier, nodes, report.fail)
        _check_kept(head, kept, nodes, report)
    return report


def _checkpoint(layout: Layout, settings: Settings, verifier: Verifier | None, report: Report) -> Checkpoint | None:
    path = layout.checkpoint
    if not path.exists():
        report.unreadable.append("there is no checkpoint: nothing was compared")
        return None
    try:
        with storage_errors("reading", path):
            note = read_file(path, limit=MAX_NOTE_BYTES)
        if verifier is not None:
            return open_checkpoint(note, verifier, settings.origin)
        return Checkpoint.parse(parse_note(note)[0])
    except BadSignature as exc:
        report.key = "wrong"
        report.fail(Failure("checkpoint", None, "checkpoint", f"not signed by the pinned key: {exc.message}"))
    except LedgerError as exc:
        report.fail(Failure("checkpoint", None, "checkpoint", exc.message))
    return None


def _kept_checkpoints(
    settings: Settings, verifier: Verifier | None, against: Sequence[bytes], last_signed: LastSigned | None, report: Report
) -> list[tuple[Checkpoint, str]]:
    """Checkpoints from elsewhere, each signed by the pinned key."""
    kept = []
    notes = [(note, "the checkpoint given with --against") for note in against]
    own = last_signed.read() if last_signed is not None else None
    if own is not None:
        notes.append((own, _OWN))
    for note, where in notes:
        if verifier is None:
            report.not_checked.append(f"{where}: no key is pinned")
            continue
        try:
            kept.append((open_checkpoint(note, verifier, settings.origin), where))
        except MalformedError as exc:
            report.unreadable.append(f"{where} cannot be read: {exc.message}")
        except VerificationError as exc:
            report.rollback.append(Failure("against", None, where, f"{where} is not this log's: {exc.message}"))
    return kept


def _signed_and_not_published(layout: Layout, head: Checkpoint, kept: list[tuple[Checkpoint, str]], report: Report) -> Checkpoint:
    """The last signed checkpoint in place of the store's, where a crash came between the two and the store holds what it covers.

    The store's own is then one of those that must be kept.
    """
    for number, (checkpoint, where) in enumerate(kept):
        if where != _OWN or checkpoint.size <= head.size:
            continue
        nodes = tiles.node_reader(checkpoint.size, lambda level, n, width: read_hashes(layout.root, level, n, width) or b"")
        with contextlib.suppress(LedgerError):
            if merkle.root_from(checkpoint.size, nodes) == checkpoint.root:
                report.not_judged.append(f"checkpoint: covers {head.size} records; {checkpoint.size} were signed, and those are checked")
                kept[number] = (head, "the checkpoint in the store")
                return checkpoint
    return head


def _wait_for(path: Path) -> None:
    """Give a file a second to appear."""
    for _ in range(20):
        if path.exists():
            return
        time.sleep(0.05)


def _check_kept(head: Checkpoint, kept: list[tuple[Checkpoint, str]], nodes: merkle.NodeReader, report: Report) -> None:
    for checkpoint, where in kept:
        if checkpoint.size > head.size:
            missing = checkpoint.size - head.size
            report.rollback.append(
                Failure(
                    "rollback", head.size, where, f"{missing} records are missing: it covers {checkpoint.size}, the store has {head.size}"
                )
            )
        elif merkle.root_from(checkpoint.size, nodes) != checkpoint.root:
            report.rollback.append(Failure("fork", checkpoint.size, where, f"the store has another history up to record {checkpoint.size}"))


def _check_records(
    layout: Layout,
    head: Checkpoint,
    opened: list[OpenJournal],
    verifier: Verifier | None,
    report: Report,
    processes: int | None,
    progress: Progress | None,
) -> None:
    """Segments in workers, then the journal; together they must be `[0, size)` once each, and what the log's own seals name."""
    leaves = level_zero(layout, head.size)
    beside = SegmentReport()
    claims = live_claims(read_side_files(layout, head, leaves, beside))
    _take(report, beside, head, progress)
    live = [claim for claim in claims if claim.file.part == "records"]
    expected = 0
    for claim in live:
        if claim.file.start > expected:
            report.fail(Failure("records", expected, claim.file.name, f"records {expected} to {claim.file.start} have no file"))
        elif claim.file.start < expected:
            report.fail(Failure("records", claim.file.start, claim.file.name, f"records {claim.file.start} to {expected} are sealed twice"))
        expected = max(expected, claim.file.end)
    seals: list[tuple[int, bytes]] = []
    for found in _map(layout, head, live, _contents_of(claims), processes, report):
        again = [found] if found.gone is None else _look_again(layout, head, verifier, *found.gone)
        for piece in again:
            seals += piece.seals
            _take(report, piece, head, progress)
    report.segments = len(live)
    journal, not_judged = check_journal(layout, opened, head, start=expected, leaves=leaves)
    seals += journal.seals
    _take(report, journal, head, progress)
    report.not_judged += not_judged
    _check_seals(layout, claims, seals, report)


def _contents_of(claims: list[SealClaim]) -> dict[tuple[int, int], SealClaim]:
    return {(claim.file.start, claim.file.end): claim for claim in claims if claim.file.part == "contents"}


def _look_again(
    layout: Layout, head: Checkpoint, verifier: Verifier | None, gone: SealClaim, piece: tuple[int, int]
) -> Iterator[SegmentReport]:
    """Check one piece of a file that vanished while we read, in the file that a merge has put in its place since, if one has."""
    settings, _text = Settings.load(layout)
    now = _checkpoint(layout, settings, verifier, Report(settings.origin))
    first, end = gone.file.start + piece[0], gone.file.start + piece[1]
    if now is not None and now.size > head.size:
        nodes = tiles.node_reader(now.size, lambda level, n, width: read_hashes(layout.root, level, n, width) or b"")
        claims = live_claims(read_side_files(layout, now, level_zero(layout, now.size), SegmentReport()))
        for claim in claims:
            if claim.file.part == "records" and claim.file.start <= first and end <= claim.file.end:
                contents = _contents_of(claims).get((claim.file.start, claim.file.end))
                report = check_segment(layout, now.size, claim, contents, (first - claim.file.start, end - claim.file.start))
                if report.gone is None and _extends(now, head, nodes):
                    if first != claim.file.start:  # the first piece of a file has hashed it already
                        check_whole(layout, claim, contents, report)
                    yield report
                    return
    report = SegmentReport()
    report.fail("file", gone.file.start, gone.file.name, f"is missing, or its contents file is (sealed by record {gone.index})")
    yield report


def _extends(now: Checkpoint, head: Checkpoint, nodes: merkle.NodeReader) -> bool:
    try:
        return merkle.root_from(now.size, nodes) == now.root and merkle.root_from(head.size, nodes) == head.root
    except LedgerError:
        return False


def _check_seals(layout: Layout, claims: list[SealClaim], seals: list[tuple[int, bytes]], report: Report) -> None:
    """What the log's seal records name must be there, with its side file, and nothing else may lie beside it."""
    read = [claim for index, record in seals if (claim := SealClaim.read(index, record)) is not None]
    wanted = {claim.file.name: claim for claim in live_claims(read)}
    present = {claim.file.name for claim in claims}
    ranges = {(claim.file.start, claim.file.end) for claim in claims}
    gaps = any(failure.what in ("records", "journal") for failure in report.failures)
    for name, claim in wanted.items():
        if name in present:
            continue
        there = (layout.root / name).exists()
        if there and not gaps and (claim.file.start, claim.file.end) not in ranges:
            # Side files are written once the seals are under a checkpoint; until then the journal, or the files before a merge, have
            # the records.
            report.not_judged.append(f"{name}: sealed by record {claim.index}, and its side file is not there yet")
            continue
        why = "its side file is missing or damaged" if there else "is missing"
        report.fail(Failure("file", claim.file.start, name, f"{why} (sealed by record {claim.index})"))
    known = {claim.file.name for claim in read}
    for path in sorted(layout.root.glob("*/*.parquet")):
        name = path.relative_to(layout.root).as_posix()
        if name not in known and name not in present and not path.name.startswith("."):
            report.not_judged.append(f"{name}: no seal under this checkpoint names it")


def _take(report: Report, found: SegmentReport, head: Checkpoint, progress: Progress | None) -> None:
    report.records += found.records
    for name in ("matching", "erased", "never_kept", "missing"):
        setattr(report.contents, name, getattr(report.contents, name) + getattr(found.contents, name))
    for failure in found.failures:
        report.fail(failure)
    report.sequences.merge(found.sequences)
    report.not_checked += found.not_checked[: MAX_FAILURES - len(report.not_checked)]
    if progress is not None:
        progress(report.records, head.size)


def _map(
    layout: Layout,
    head: Checkpoint,
    live: Sequence[SealClaim],
    contents: Mapping[tuple[int, int], SealClaim],
    processes: int | None,
    report: Report,
) -> Iterator[SegmentReport]:
    """Check segments, large ones cut into pieces, on all cores."""
    count = processes or os.cpu_count() or 1
    jobs = [
        (layout, head.size, claim, contents.get((claim.file.start, claim.file.end)), piece)
        for claim in live
        for piece in _pieces(claim.file)
    ]
    if count == 1 or len(jobs) < 2 or sum(claim.file.end - claim.file.start for claim in live) < SMALL_STORE:
        for job in jobs:
            yield check_segment(*job)
        return
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(check_segment, *job): job for job in jobs}
        while waiting:
            done, _pending = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                _layout, _size, claim, beside, _piece = waiting.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    # Out of memory, or a file made to kill its reader: its bytes alone can still be compared here.
                    report.not_checked.append(f"{claim.file.name}: the process that checked it died")
                    yield _bytes_alone(layout, claim, beside)


def _bytes_alone(layout: Layout, claim: SealClaim, beside: SealClaim | None) -> SegmentReport:
    found = SegmentReport()
    try:
        check_whole(layout, claim, beside, found)
    except FileNotFoundError:
        found.fail("file", claim.file.start, claim.file.name, f"is missing (sealed by record {claim.index})")
    return found


SMALL_STORE: Final = 20_000
"""Records below which starting workers costs more than it brings."""
PIECE_RECORDS: Final = 131_072
"""A multiple of a tile and of a row group, so that one large segment is work for all cores."""


def _pieces(file: SealedFile) -> list[tuple[int, int]]:
    """Ranges of one file, each `[first, end)` in records counted from the file's start."""
    count = file.end - file.start
    return [(first, min(first + PIECE_RECORDS, count)) for first in range(0, count, PIECE_RECORDS)]
