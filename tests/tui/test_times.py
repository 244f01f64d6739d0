"""Times as people say them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ledger.errors import MalformedError
from tui.times import parse_time

SECOND = 1_000_000_000
NOW = int(datetime(2026, 11, 20, 12, 30, tzinfo=UTC).timestamp()) * SECOND + 123_456_789


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", NOW - 3600 * SECOND),
        ("-15m", NOW - 900 * SECOND),
        ("90s", NOW - 90 * SECOND),
        ("7d", NOW - 7 * 86_400 * SECOND),
        ("2w", NOW - 14 * 86_400 * SECOND),
        ("now", NOW),
        ("10:42", at(2026, 11, 20, 10, 42)),
        ("10:42:07", at(2026, 11, 20, 10, 42, 7)),
        ("23:00", at(2026, 11, 19, 23)),
        ("today", at(2026, 11, 20)),
        ("Yesterday", at(2026, 11, 19)),
        ("2026-11-01", at(2026, 11, 1)),
        ("2026-11-01T10:42", at(2026, 11, 1, 10, 42)),
        ("2026-11-01 10:42:05", at(2026, 11, 1, 10, 42, 5)),
        ("2026-11-01T10:42:05Z", at(2026, 11, 1, 10, 42, 5)),
        ("2026-11-01T12:42:05+02:00", at(2026, 11, 1, 10, 42, 5)),
        ("2026-11-01T10:42:05.000000001Z", at(2026, 11, 1, 10, 42, 5) + 1),
        ("2026-11-01T10:42:05.5Z", at(2026, 11, 1, 10, 42, 5) + SECOND // 2),
        ("1969-12-31T23:59:59Z", -SECOND),
    ],
)
def test_the_forms(text: str, expected: int) -> None:
    assert parse_time(text, now=NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("yesterday", at(2026, 11, 20)), ("2026-11-01", at(2026, 11, 2)), ("10:42", at(2026, 11, 20, 10, 42))]
)
def test_a_day_that_ends_a_window_belongs_to_it(text: str, expected: int) -> None:
    assert parse_time(text, now=NOW, end=True) == expected


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "1",
        "1y",
        "--1h",
        "+1h",
        "1_0h",
        "\uff11h",
        "25:00",
        "10:60",
        "2026-02-30",
        "2026-13-01",
        "2026-11-01T25:00",
        "20261101",
        "1e3s",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MalformedError) as refused:
        parse_time(text, now=NOW)
    assert "yesterday" in refused.value.hint
