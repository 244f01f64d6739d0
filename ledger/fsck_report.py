"""What `verify` found: three verdicts, and everything that is behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from ledger.evidence import PrefixProof
from ledger.fsck_contents import ContentCounts
from ledger.fsck_files import Failure
from ledger.sequences import Sequences
from ledger.trust import Trust

Verdict = Literal["verified", "failed", "unverifiable"]
MAX_FAILURES: Final = 1_000
"""Listed; more are counted."""
MAX_FORKS: Final = 32


@dataclass(frozen=True, slots=True)
class Fork:
    """Two signed checkpoints that cannot both be of one log: a proof against whoever signed both."""

    kept: bytes
    """The note from elsewhere."""
    shown: bytes
    """The note of the store."""
    proof: PrefixProof | None
    """Which root the store's tree has at the size of the smaller one; None where both cover as many records."""
    where: str = ""
    """Where the first one was found."""


@dataclass(slots=True)
class Anchoring:
    """What others confirm: witnesses in the verifier's own policy, and time-stamping authorities."""

    policy: bool = False
    """Did the verifier bring a policy along?"""
    to: int | None = None
    """The most records under a checkpoint that a quorum of witnesses has cosigned."""
    time: int | None = None
    """When that quorum was complete, by the witnesses' clocks: Unix seconds."""
    witnesses: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The newest checkpoint of each witness of the policy: name, size, time."""
    timestamps: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Literal["anchored", "unanchored", "failed"]:
        """A time stamp proves *no later than*, never *the only version*: only witnesses anchor."""
        if self.failures:
            return "failed"
        return "anchored" if self.to is not None else "unanchored"

    def as_json(self) -> dict[str, Any]:
        """The member `anchoring` of `trail verify --json`."""
        return {
            "verdict": self.verdict,
            "to": self.to,
            "time": iso(self.time) if self.time is not None else None,
            "witnesses": [self.witnesses[name] for name in sorted(self.witnesses)],
            "timestamps": self.timestamps,
            "failures": [failure.as_json() for failure in self.failures],
            "not_checked": self.not_checked,
        }

    def fail(self, failure: Failure) -> None:
        """Add a failure, bounded."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)


def iso(seconds: int) -> str:
    """A time for people; a witness may name any number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"


@dataclass(slots=True)
class Report:
    """What `verify` found; `as_json` is the contract of `trail verify --json`."""

    origin: str
    size: int = 0
    root: str = ""
    key: Literal["pinned", "unpinned", "wrong"] = "unpinned"
    records: int = 0
    by_bytes: int = 0
    """Records of which only the file's bytes were compared with its seal."""
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
    forks: list[Fork] = field(default_factory=list)
    sequences: Sequences = field(default_factory=Sequences)
    anchoring: Anchoring = field(default_factory=Anchoring)
    rotations: list[str] = field(default_factory=list)
    """Changes of the log's key that the verifier's witnesses confirm, and that were followed."""
    rotations_refused: list[str] = field(default_factory=list)
    """Changes of the key that were not, and why."""
    trust: Trust | None = None
    """What was believed in the end, the changes of the key included."""
    partial: bool = False
    """Something was left out on purpose; `not_checked` says what."""

    def fail(self, failure: Failure) -> None:
        """Add a failure, bounded."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)
        else:
            self.failures_not_listed += 1

    def contradicted(self, failure: Failure, fork: Fork | None = None) -> None:
        """Add a checkpoint that contradicts the store, bounded; of one place one fork is proof enough."""
        if len(self.rollback) < MAX_FAILURES:
            self.rollback.append(failure)
        else:
            self.failures_not_listed += 1
        if fork is not None and len(self.forks) < MAX_FORKS and failure.file not in {known.where for known in self.forks}:
            self.forks.append(replace(fork, where=failure.file or ""))

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
        """The worst of integrity, rollback evidence and failed anchoring."""
        return "failed" if self.rollback or self.anchoring.failures else self.integrity

    def as_json(self) -> dict[str, Any]:
        """The shape of `trail verify --json`."""
        return {
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "key": self.key,
            "rotations": {"followed": self.rotations, "refused": self.rotations_refused},
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
            "anchoring": self.anchoring.as_json(),
        }

    def _completeness(self) -> dict[str, Any]:
        gaps = self.sequences.gaps()
        failures = [
            {"what": "gap", "index": None, "file": None, "why": f"{service} run {run} (sender {sender}): nothing between {low} and {high}"}
            for (sender, service, run), low, high in gaps[:MAX_FAILURES]
        ]
        found = self.sequences.seen and not self.sequences.overflow
        verdict = "gap" if gaps else "no_gap_found" if found and not self.partial else "not_checkable"
        return {"verdict": verdict, "failures": failures, "without_counters": self.sequences.without_counters()}
