"""Times as people say them, read and shown in UTC.

A length of time counts back from now, a time of day is the last one that has passed, a day given as an end includes that day.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from ledger.errors import MalformedError

FORMS: Final = '"1h", "7d", "-15m", "10:42", "today", "yesterday", "2026-11-20" or "2026-11-20T10:42:00Z"'
_UNITS: Final = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH: Final = re.compile(r"-?([0-9]{1,9})\s*(s|sec|m|min|h|d|w)", re.ASCII)
_OF_DAY: Final = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?", re.ASCII)
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MOMENT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII
)
_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: str, *, now: int, end: bool = False) -> int:
    """Unix nanoseconds.

    Args:
        text: in one of `FORMS`; without a zone it is UTC.
        now: Unix nanoseconds.
        end: it ends a window: a day then means its end.

    Raises:
        MalformedError: it is none of the forms, or no such day.

    >>> noon = 1_763_640_000 * 1_000_000_000  # 2025-11-20T12:00Z
    >>> [(noon - parse_time(text, now=noon)) // 60_000_000_000 for text in ("90m", "-15m", "11:58", "12:30", "today")]
    [90, 15, 2, 1410, 720]
    """
    wanted = text.strip().lower()
    today = datetime.fromtimestamp(now // _SECOND, UTC).date()
    if length := _LENGTH.fullmatch(wanted):
        return now - int(length[1]) * _UNITS[length[2]] * _SECOND
    if wanted == "now":
        return now
    if wanted in ("today", "yesterday"):
        return _of_day(today - timedelta(days=wanted == "yesterday"), end=end)
    if of_day := _OF_DAY.fullmatch(wanted):
        moment = datetime.combine(today, time(int(of_day[1]), int(of_day[2]), int(of_day[3] or 0)), UTC)
        found = _nanoseconds(moment)
        return found if found <= now else found - 86_400 * _SECOND
    try:
        if _DAY.fullmatch(wanted):
            return _of_day(date.fromisoformat(wanted), end=end)
        if match := _MOMENT.fullmatch(text.strip()):
            moment = datetime.fromisoformat(match[1] + (match[3] or "Z"))
            return _nanoseconds(moment) + int((match[2] or "0").ljust(9, "0"))
    except (ValueError, OverflowError) as exc:
        raise MalformedError(f"{text!r} is no time: {exc}", hint=f"write {FORMS}") from exc
    raise MalformedError(f"{text!r} is no time", hint=f"write {FORMS}")


def _of_day(day: date, *, end: bool) -> int:
    return _nanoseconds(datetime.combine(day + timedelta(days=end), time(), UTC))


def _nanoseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * _SECOND
