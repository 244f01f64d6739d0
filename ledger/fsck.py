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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson

from ledger import merkle
from ledger.believed import follow_rotations
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import BadSignature, LedgerError, RootMismatch, StorageError
from ledger.fsck_anchors import check_anchors
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
from ledger.fsck_kept import (
    AGAINST,
    Kept,
    check_kept,
    check_shorter,
    nothing_published,
    read_kept,
    signed_and_not_published,
    wait_for_the_first,
)
from ledger.fsck_keys import check_keys, kept_in
from ledger.fsck_leaves import level_zero, stored_nodes
from ledger.fsck_report import MAX_FAILURES, Report
from ledger.fsck_tree import check_history, check_stray_tiles, check_tiles, moved_on, root_at
from ledger.keys import LastSigned
from ledger.layout import Layout, SealedFile
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.record import RECORD_VERSION
from ledger.regular import read_file
from ledger.rotation import read_lines
from ledger.settings import Settings
from ledger.trust import LogKeys, Trust

Progress = Callable[[int, int], None]
"""(records checked, records in all)."""


@dataclass(frozen=True, slots=True)
class Scope:
    """How much of a store is read. Whatever is left out is named in the report, which then never says *verified*."""

    rows: bool = True
    """Read records, columns and contents; without, only that the files' bytes are those that were sealed."""
    since: int = 0
    """The first record to read again; of files with nothing but older ones only that they are there."""
    since_received: int | None = None
    """The same as a time, Unix nanoseconds: the first record of the first segment that holds one received then or later."""

    @property
    def is_whole(self) -> bool:
        """Nothing is left out."""
        return self.rows and not self.since and self.since_received is None


WHOLE: Final = Scope()


def verify(
    root: Path,
    *,
    trust: Trust,
    against: Sequence[bytes] = (),
    witnessed: Sequence[tuple[str, bytes]] = (),
    last_signed: LastSigned | None = None,
    scope: Scope = WHOLE,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check a store.

    Args:
        root: the store.
        trust: what the verifier believes; without a key nothing is ever *verified*.
        against: checkpoints that somebody kept; the store must extend each of them.
        witnessed: (where, note): the newest checkpoints as witnesses show them, fetched before this call; the store must extend them too.
        last_signed: what this machine last signed for the log.
        scope: how much to read.
        processes: workers; default one a core.
        progress: called now and then.

    Raises:
        StoreMissing, UnsupportedFormat: there is nothing to check, or not for this program.
    """
    layout = Layout(root)
    settings, _text = Settings.load(layout)
    report = Report(settings.origin, key="pinned" if trust.keys is not None else "unpinned")
    trust, followed = follow_rotations(layout, trust, notes=[note for _where, note in witnessed])
    report.trust = trust
    if followed is not None:
        report.rotations, report.rotations_refused = followed.used, followed.refused
    # Before the store's own checkpoint, which is written after it: read in this order it is never ahead for being read late.
    kept = read_kept(trust.keys, [*((AGAINST, note) for note in against), *witnessed], last_signed, report)
    journal = open_journal(layout)
    if not layout.checkpoint.exists():
        wait_for_the_first(layout.checkpoint, kept)
    head = _checkpoint(layout, trust.keys, report)
    if head is None:
        if report.key != "wrong":
            nothing_published(kept, report)
        elif kept:
            report.not_checked.append(
                "kept checkpoints: the store's own is signed by a key that is not believed, so nothing was compared with it"
            )
        return report
    kept += _kept_in_the_store(layout, trust.keys, head.checkpoint)
    head = signed_and_not_published(layout, head, kept, report)
    checkpoint = head.checkpoint
    report.size, report.root = checkpoint.size, checkpoint.root.hex()
    if not checkpoint.size:
        report.unreadable.append("the store is empty: nothing was compared")
    since, key_records = _check_records(layout, checkpoint, journal, trust.keys, scope, report, processes, progress)
    nodes = check_tiles(layout, checkpoint, report.fail, since=since)
    check_stray_tiles(layout, checkpoint, report.fail)
    check_shorter(head, kept, report)
    if nodes is not None:
        try:
            _check_rotations(layout, checkpoint, key_records, nodes, report)
            check_history(layout, checkpoint, trust.keys, nodes, report.fail)
            check_kept(head, kept, nodes, report)
            check_anchors(layout, head, trust, nodes, witnessed, report)
            return report
        except RootMismatch as exc:
            report.fail(Failure("tile", None, "tile", f"the tiles do not lead from an older state to the checkpoint: {exc.message}"))
    report.not_checked.append("older checkpoints, kept ones, changes of the key and anchors, or a part of them: the tiles are damaged")
    return report


def _checkpoint(layout: Layout, keys: LogKeys | None, report: Report) -> Kept | None:
    """The store's checkpoint; None, and why, when there is none to believe."""
    path = layout.checkpoint
    if not path.exists():
        report.unreadable.append("there is no checkpoint: nothing was compared")
        return None
    try:
        with storage_errors("reading", path):
            note = read_file(path, limit=MAX_NOTE_BYTES)
        checkpoint = keys.open(note) if keys is not None else Checkpoint.parse(parse_note(note)[0])
        return Kept(checkpoint, note, "checkpoint")
    except BadSignature as exc:
        report.key = "wrong"
        report.fail(Failure("checkpoint", None, "checkpoint", f"not signed by the pinned key: {exc.message}"))
    except LedgerError as exc:
        report.fail(Failure("checkpoint", None, "checkpoint", exc.message))
    return None


def _kept_in_the_store(layout: Layout, keys: LogKeys | None, head: Checkpoint) -> list[Kept]:
    """Checkpoints beside the rotations of the key: whoever puts true lines into a forged store has put the promises in them there, too."""
    if keys is None:
        return []
    with contextlib.suppress(StorageError):  # which `_check_rotations` reports
        found = kept_in(read_lines(layout), keys, size=head.size, moved_on=lambda checkpoint: moved_on(layout, checkpoint))
        return [Kept(keys.open(note), note, where) for where, note in found]
    return []


def _check_records(
    layout: Layout,
    head: Checkpoint,
    opened: list[OpenJournal],
    keys: LogKeys | None,
    scope: Scope,
    report: Report,
    processes: int | None,
    progress: Progress | None,
) -> tuple[int, list[tuple[int, bytes]]]:
    """Segments in workers, then the journal; together they must be `[0, size)` once each, and what the log's own seals name.

    Returns:
        The first record that was looked at, and the records of kind `key` among those.
    """
    leaves = level_zero(layout, head.size)
    beside = SegmentReport()
    claims = live_claims(read_side_files(layout, head, leaves, beside))
    _take(report, beside, head.size, None)
    live = [claim for claim in claims if claim.file.part == "records"]
    expected = 0
    for claim in live:
        if claim.file.start > expected:
            report.fail(Failure("records", expected, claim.file.name, f"records {expected} to {claim.file.start} have no file"))
        elif claim.file.start < expected:
            report.fail(Failure("records", claim.file.start, claim.file.name, f"records {claim.file.start} to {expected} are sealed twice"))
        expected = max(expected, claim.file.end)
    since = min(max(scope.since, _first_received(live, scope.since_received, expected)), head.size)
    read = [claim for claim in live if claim.file.end > since]
    total = head.size - since
    seals: list[tuple[int, bytes]] = []
    keys_met: list[tuple[int, bytes]] = []
    if not scope.is_whole:
        for gone in _leave_out(layout, claims, read, since, scope, report):
            for piece in _look_again(layout, head, keys, gone, (0, gone.file.end - gone.file.start)):
                _take(report, piece, total, None)
    for found in _map(layout, head, read, _contents_of(claims), replace(scope, since=since), processes, report):
        again = [found] if found.gone is None else _look_again(layout, head, keys, *found.gone)
        for piece in again:
            seals += piece.seals
            keys_met += piece.keys
            _take(report, piece, total, progress)
    report.segments = len(live)
    journal, not_judged = check_journal(layout, opened, head, start=expected, leaves=leaves)
    seals += journal.seals
    keys_met += journal.keys
    _take(report, journal, total, progress)
    report.not_judged += not_judged
    _check_seals(layout, claims, seals, report)
    return since, sorted(keys_met)


def _check_rotations(layout: Layout, head: Checkpoint, records: list[tuple[int, bytes]], nodes: merkle.NodeReader, report: Report) -> None:
    """Every rotation in the log is signed by both keys, and every line beside it is true; of a part of the log only its own records."""
    try:
        lines = [] if report.partial else read_lines(layout)
    except StorageError as exc:
        report.fail(Failure("key", None, "checkpoints/keys.jsonl", exc.message))
        return
    newer = [index for index, record in records if orjson.loads(record)["v"] > RECORD_VERSION]
    report.not_checked += [f"record {index}: a change of the key, made by a newer version" for index in newer]
    known = [(index, record) for index, record in records if index not in newer]

    def published(checkpoint: Checkpoint) -> bool:
        return moved_on(layout, checkpoint)

    for failure in check_keys(
        known, lines, origin=head.origin, size=head.size, root_at=lambda size: root_at(head, size, nodes), moved_on=published
    ):
        report.fail(failure)


def _first_received(live: Sequence[SealClaim], moment: int | None, end: int) -> int:
    """The start of the first segment that holds a record received at this moment or later; clocks step back, so the last may be first."""
    if moment is None:
        return 0
    return min((claim.file.start for claim in live if claim.max_received >= moment), default=end)


def _leave_out(
    layout: Layout, claims: list[SealClaim], read: list[SealClaim], since: int, scope: Scope, report: Report
) -> Iterator[SealClaim]:
    """Say what is not read; of older files check at least that they are there, in their size.

    Yields:
        Records files that are not there: a merge may have replaced them while we read.
    """
    report.partial = bool(since or (not scope.rows and read))
    if since:
        report.not_checked.append(f"records 0 to {since}: neither rows nor the bytes of their files, nor the tiles of them alone")
    if not scope.rows and read:
        report.not_checked.append(f"rows of {len(read)} segments: records, columns and contents; their files are as they were sealed")
    for claim in claims:
        if claim.file.end <= since:
            try:
                size = (layout.root / claim.file.name).stat().st_size
            except OSError:
                if claim.file.part == "records":
                    yield claim
                elif (layout.root / claim.file.sibling("records").name).exists():
                    report.fail(Failure("file", claim.file.start, claim.file.name, f"is missing (sealed by record {claim.index})"))
                continue
            if size != claim.size_bytes:
                why = f"has {size} bytes; record {claim.index} sealed {claim.size_bytes}"
                report.fail(Failure("file", claim.file.start, claim.file.name, why))


def _contents_of(claims: list[SealClaim]) -> dict[tuple[int, int], SealClaim]:
    return {(claim.file.start, claim.file.end): claim for claim in claims if claim.file.part == "contents"}


def _look_again(layout: Layout, head: Checkpoint, keys: LogKeys | None, gone: SealClaim, piece: tuple[int, int]) -> Iterator[SegmentReport]:
    """Check one piece of a file that vanished while we read, in the file that a merge has put in its place since, if one has."""
    newer = _checkpoint(layout, keys, Report(head.origin))
    now = newer.checkpoint if newer is not None else None
    first, end = gone.file.start + piece[0], gone.file.start + piece[1]
    if now is not None and now.size > head.size:
        nodes = stored_nodes(layout, now.size)
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
    if report.partial:  # the seals of what was not read are not known
        return
    known = {claim.file.name for claim in read}
    for path in sorted(layout.root.glob("*/*.parquet")):
        name = path.relative_to(layout.root).as_posix()
        if name not in known and name not in present and not path.name.startswith("."):
            report.not_judged.append(f"{name}: no seal under this checkpoint names it")


def _take(report: Report, found: SegmentReport, total: int, progress: Progress | None) -> None:
    report.records += found.records
    report.by_bytes += found.by_bytes
    for name in ("matching", "erased", "never_kept", "missing"):
        setattr(report.contents, name, getattr(report.contents, name) + getattr(found.contents, name))
    for failure in found.failures:
        report.fail(failure)
    report.sequences.merge(found.sequences)
    report.not_checked += found.not_checked[: MAX_FAILURES - len(report.not_checked)]
    if progress is not None:
        progress(report.records + report.by_bytes, total)


def _map(
    layout: Layout,
    head: Checkpoint,
    live: Sequence[SealClaim],
    contents: Mapping[tuple[int, int], SealClaim],
    scope: Scope,
    processes: int | None,
    report: Report,
) -> Iterator[SegmentReport]:
    """Check segments, large ones cut into pieces, on all cores."""
    count = processes or os.cpu_count() or 1
    if not scope.rows:
        for claim in live:
            try:
                yield _bytes_of(layout, claim, contents.get((claim.file.start, claim.file.end)))
            except FileNotFoundError:
                yield SegmentReport(gone=(claim, (0, claim.file.end - claim.file.start)))
        return
    jobs = [
        (layout, head.size, claim, contents.get((claim.file.start, claim.file.end)), piece)
        for claim in live
        for piece in _pieces(claim.file)
        if piece[0] == 0 or claim.file.start + piece[1] > scope.since
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


def _bytes_of(layout: Layout, claim: SealClaim, beside: SealClaim | None) -> SegmentReport:
    """Only whether the files are the ones that were sealed.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    found = SegmentReport(by_bytes=claim.file.end - claim.file.start)
    check_whole(layout, claim, beside, found)
    return found


def _bytes_alone(layout: Layout, claim: SealClaim, beside: SealClaim | None) -> SegmentReport:
    try:
        return _bytes_of(layout, claim, beside)
    except FileNotFoundError:
        found = SegmentReport()
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
