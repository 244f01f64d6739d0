"""Contents against the commitments in their records; every mark ends in exactly one state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from ledger.record import SUBTREE, ContentMark, commitment, content_marks


@dataclass(slots=True)
class ContentCounts:
    """How many contents are in which state."""

    matching: int = 0
    erased: int = 0
    never_kept: int = 0
    missing: int = 0


class ContentChecker:
    """Takes the records of a range first, then the rows of its contents, then `finish`."""

    def __init__(self, counts: ContentCounts, fail: Callable[[int, str], None]) -> None:
        """Count into `counts`, report failures to `fail(index, why)`."""
        self._counts = counts
        self._fail = fail
        self._expected: dict[int, list[ContentMark | None]] = {}
        """None where a row has answered."""
        self._nested: dict[int, list[ContentMark]] = {}
        self._readable = True

    def expect(self, start: int, records: list[bytes]) -> None:
        """Note the marks of consecutive records."""
        for index, record in enumerate(records, start):
            marks = content_marks(record)
            if marks:
                self._expected[index] = list(marks)

    def add_rows(self, table: pa.Table | None) -> None:
        """Compare rows with the marks of their records, in order of (index, ordinal)."""
        if table is None:
            return
        names = ("index", "ordinal", "field", "type", "salt", "value", "name")
        for index, ordinal, field, kind, salt, value, name in zip(*(table.column(n).to_pylist() for n in names), strict=True):
            self._row(index, ordinal, field, kind, salt, value if name is None else name.encode())

    def unreadable(self) -> None:
        """The file cannot be read: its own failure says so, no mark is blamed one by one."""
        self._readable = False

    def finish(self, end: int) -> None:
        """What no row answered is missing, unless a rule kept it out."""
        for index, marks in self._expected.items():
            if index >= end:
                continue
            for mark in [m for m in marks if m is not None] + self._nested.get(index, []):
                if mark.rule is not None:
                    self._counts.never_kept += 1
                    continue
                self._counts.missing += 1
                if self._readable:
                    self._fail(index, f"a content of record {index} is missing ({mark.size_bytes} bytes, {mark.commitment[:16]}…)")

    def _row(self, index: int, ordinal: int, field: str, kind: str, salt: bytes, value: bytes | None) -> None:
        marks = self._expected.get(index)
        if marks is None:
            self._fail(index, f"there is a content for record {index}, which has none")
            return
        if value is None:
            return  # never kept by its mark's rule, or missing: `finish` tells
        if not 0 <= ordinal < len(marks):
            mark = self._take_nested(index, salt, value)
        else:
            mark, marks[ordinal] = marks[ordinal], None
        if mark is None:
            self._fail(index, f"record {index} has no content number {ordinal} ({field}), or has it twice")
            return
        if kind != mark.type or len(salt) != 16 or len(value) != mark.size_bytes or commitment(salt, value).hex() != mark.commitment:
            self._fail(index, f"the content {field} of record {index} is not what the record commits to")
            return
        self._counts.matching += 1
        if kind == SUBTREE:
            # It holds the marks of its own contents. The type decides, which the record commits to and only we choose; other contents
            # may hold anything that looks like a mark.
            self._nested.setdefault(index, []).extend(content_marks(value))

    def _take_nested(self, index: int, salt: bytes, value: bytes) -> ContentMark | None:
        """A mark inside a moved subtree, found by its commitment."""
        nested = self._nested.get(index, [])
        digest = commitment(salt, value).hex()
        for mark in nested:
            if mark.commitment == digest:
                nested.remove(mark)
                return mark
        return None
