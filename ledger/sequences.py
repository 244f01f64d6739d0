"""Sequence numbers that emitters count: the only thing in telemetry that can show a gap.

Bounded: numbers are kept as ranges for each (sender, service, run), and emitters choose them, so their number has a limit, which is
reported when it is reached.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

MAX_RANGES: Final = 200_000
"""Of all emitters together; an honest emitter has one."""

Emitter = tuple[str, str, str]
"""sender, service, run; empty text where a record has none."""


@dataclass(slots=True)
class Ranges:
    """A set of integers as half-open ranges that neither touch nor overlap, in order."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, start: int, end: int) -> None:
        """Add `[start, end)`."""
        first = bisect_left(self.ends, start)
        last = first
        while last < len(self.starts) and self.starts[last] <= end:
            start, end = min(start, self.starts[last]), max(end, self.ends[last])
            last += 1
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]


@dataclass(slots=True)
class Sequences:
    """The numbers seen, and the services seen without any."""

    seen: dict[Emitter, Ranges] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)
    overflow: bool = False
    """More ranges than are kept: gaps among the rest were not looked for."""

    def add(self, table: pa.Table) -> None:
        """Take in records."""
        telemetry = table.filter(pc.is_in(table.column("kind"), pa.array(["span", "log"])))
        self.services.update(name for name in pc.unique(telemetry.column("service")).to_pylist() if name)
        counted = telemetry.filter(pc.is_valid(telemetry.column("sequence")))
        names = ("sender", "service", "run_id", "sequence")
        for sender, service, run, number in zip(*(counted.column(name).to_pylist() for name in names), strict=True):
            self._add((sender or "", service or "", run or ""), number, number + 1)

    def merge(self, other: Sequences) -> None:
        """Take in another piece's."""
        self.services |= other.services
        self.overflow |= other.overflow
        for emitter, ranges in other.seen.items():
            for start, end in zip(ranges.starts, ranges.ends, strict=True):
                self._add(emitter, start, end)

    def gaps(self) -> list[tuple[Emitter, int, int]]:
        """(emitter, last before, first after) of every gap."""
        found = []
        for emitter, ranges in sorted(self.seen.items(), key=lambda item: item[0]):
            bounds = zip(ranges.starts, ranges.ends, strict=True)
            found += [(emitter, before[1] - 1, after[0]) for before, after in pairwise(bounds)]
        return found

    def without_counters(self) -> list[str]:
        """Services of which no record carries a number: a gap there cannot be seen."""
        counted = {service for _sender, service, _run in self.seen}
        return sorted(self.services - counted)

    def _add(self, emitter: Emitter, start: int, end: int) -> None:
        ranges = self.seen.get(emitter)
        if ranges is None:
            if len(self.seen) >= MAX_RANGES:
                self.overflow = True
                return
            ranges = self.seen[emitter] = Ranges()
        if len(ranges.starts) >= MAX_RANGES:
            self.overflow = True
            return
        ranges.add(start, end)
