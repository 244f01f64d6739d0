"""Sequence numbers that emitters count: the only thing in telemetry that can show a gap.

Bounded: runs of numbers are kept as ranges, for each (sender, service, run).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

Emitter = tuple[str, str, str]
"""sender, service, run; empty text where a record has none."""


@dataclass(slots=True)
class Sequences:
    """The numbers seen, and the services seen without any."""

    seen: dict[Emitter, set[int]] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)

    def add(self, table: pa.Table) -> None:
        """Take in records."""
        telemetry = table.filter(pc.is_in(table.column("kind"), pa.array(["span", "log"])))
        self.services.update(name for name in pc.unique(telemetry.column("service")).to_pylist() if name)
        counted = telemetry.filter(pc.is_valid(telemetry.column("sequence")))
        names = ("sender", "service", "run_id", "sequence")
        for sender, service, run, number in zip(*(counted.column(name).to_pylist() for name in names), strict=True):
            self.seen.setdefault((sender or "", service or "", run or ""), set()).add(number)

    def merge(self, other: Sequences) -> None:
        """Take in another piece's."""
        self.services |= other.services
        for emitter, numbers in other.seen.items():
            self.seen.setdefault(emitter, set()).update(numbers)

    def gaps(self) -> list[tuple[Emitter, int, int]]:
        """(emitter, last before, first after) of every gap."""
        found = []
        for emitter, numbers in sorted(self.seen.items()):
            found += [(emitter, low, high) for low, high in pairwise(sorted(numbers)) if high != low + 1]
        return found

    def without_counters(self) -> list[str]:
        """Services of which no record carries a number: a gap there cannot be seen."""
        counted = {service for _sender, service, _run in self.seen}
        return sorted(self.services - counted)
