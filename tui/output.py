"""What is printed, and where: data on stdout, talk on stderr, colour and progress only for a terminal.

Recorded text is somebody else's: nothing in it may drive the reader's terminal, so what is not plain text is shown as
escapes (`query.render.visible`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

from query.render import visible, visible_lines

_JSON_CONTROLS: Final = re.compile("[\x7f-\x9f\u2028\u2029]")
"""JSON leaves these as they are, and a terminal obeys some of them."""
_COLOURS: Final = {"red": 31, "green": 32, "yellow": 33, "bold": 1, "dim": 2}
_PROGRESS_SECONDS: Final = 0.1
_GUESS_SECONDS: Final = 1.0
"""Before that, nothing is known of the speed."""
_NARROWEST: Final = 12
_TIME_WIDTH: Final = len("2026-11-20 10:42:05")


def safe(text: str) -> str:
    r"""Text of several lines with every control character shown as an escape.

    >>> safe("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "\n".join(visible_lines(text))


def one_line(value: object) -> str:
    """A value as one safe line; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False, default=_plain)
    return visible(_plain(value) if isinstance(value, bytes) else value)


def coloured(text: str, *colours: str, stream: TextIO | None = None) -> str:
    """The text in these colours, if the stream (default stdout) is a terminal that wants them."""
    if not _wants_colour(stream or sys.stdout) or not text:
        return text
    codes = ";".join(str(_COLOURS[colour]) for colour in colours)
    return f"\x1b[{codes}m{text}\x1b[0m"


def emit(text: str) -> None:
    """Print a line of data."""
    _write(text + "\n")


def emit_json(value: object) -> None:
    """Print a value as JSON, indented for a person and readable by a program."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
    _write(_JSON_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode("utf-8", "replace").decode() + "\n")


def emit_bytes(data: bytes) -> None:
    """Write bytes as they are."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _stop_writing()


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: frozenset[str] = frozenset()) -> None:
    """Print rows in columns. On a terminal the widest cells are cut, and then the last columns left out, to fit it.

    Args:
        columns: the headings, the most important first.
        rows: as many cells each.
        right: the headings of columns of numbers.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(columns)]
    shown = _fit(widths, shutil.get_terminal_size().columns) if sys.stdout.isatty() else len(widths)
    emit(coloured(_row(columns, columns, widths[:shown], right), "bold"))
    for row in cells:
        emit(_row(columns, row, widths[:shown], right))
    if shown < len(columns):
        say(f"left out for want of room: {', '.join(columns[shown:])}; --json has everything")


def say(text: str) -> None:
    """Tell the person something, on stderr."""
    _talk(safe(text) + "\n")


def step(number: int, of: int, text: str) -> None:
    """Tell the person which of several steps begins or is done."""
    _talk(coloured(f"[{number}/{of}]", "bold", stream=sys.stderr) + f" {safe(text)}\n")


def warn(text: str) -> None:
    """Tell the person something that needs attention."""
    _talk(coloured("warning:", "yellow", stream=sys.stderr) + f" {safe(text)}\n")


def shout(what: str, why: str) -> None:
    """Tell the person what they must not miss."""
    _talk(coloured(f"{what}:", "bold", "red", stream=sys.stderr) + f" {safe(why)}\n")


class Progress:
    """A line on stderr that is written over, and nothing at all where stderr is no terminal."""

    def __init__(self, what: str, *, unit: str) -> None:
        """`what` is being done to so many of `unit`."""
        self._what = what
        self._unit = unit
        self._begun = self._shown = time.monotonic()
        self._written = False
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is; a total of 0 is not known."""
        now = time.monotonic()
        if not self._live or now - self._shown < _PROGRESS_SECONDS:
            return
        self._shown, self._written = now, True
        of = f" of {total:,}" if total else ""
        _talk(f"\r\x1b[K{self._what}: {done:,}{of} {self._unit}{time_left(done, total, now - self._begun)}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._written:
            _talk("\r\x1b[K")


def time_left(done: int, total: int, passed: float) -> str:
    """How long the rest takes at the speed so far, for a person; nothing while that would be a guess.

    >>> [time_left(done, 1000, 10.0) for done in (0, 100, 990, 1000)]
    ['', ', about 2 min left', ', less than 5 s left', '']
    >>> time_left(1, 1_000, 60.0), time_left(500, 0, 10.0)
    (', about 17 h left', '')
    """
    if not 0 < done < total or passed < _GUESS_SECONDS:
        return ""
    seconds_left = passed * (total - done) / done
    if seconds_left < 5:
        return ", less than 5 s left"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds_left >= 1.5 * length:
            return f", about {round(seconds_left / length)} {unit} left"
    return f", about {round(seconds_left / 5) * 5} s left"


def size_text(size_bytes: int) -> str:
    """Bytes for a person.

    >>> [size_text(n) for n in (0, 999, 1500, 2_500_000)]
    ['0 B', '999 B', '1.5 kB', '2.5 MB']
    """
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def seconds(moment: str | None) -> str:
    """An ISO time for a table: whole seconds, no zone letter (everything is UTC)."""
    return "" if moment is None else moment.partition(".")[0].removesuffix("Z").replace("T", " ")


def _row(columns: Sequence[str], cells: Sequence[str], widths: Sequence[int], right: frozenset[str]) -> str:
    padded = []
    for name, cell, width in zip(columns, cells, widths, strict=False):  # columns that were left out
        text = cell if len(cell) <= width else cell[: width - 1] + "…"
        padded.append(text.rjust(width) if name in right else text.ljust(width))
    return "  ".join(padded).rstrip()


def _fit(widths: list[int], available: int) -> int:
    """Narrow the columns until they fit; how many of them do."""
    shown = len(widths)
    # A time is not to be cut: what is left of it would be another one.
    times = {place for place, width in enumerate(widths) if width == _TIME_WIDTH}
    while shown > 1 and sum(widths[:shown]) + 2 * (shown - 1) > available:
        wide = [place for place in range(shown) if widths[place] > _NARROWEST and place not in times]
        if wide:
            widths[max(wide, key=lambda place: widths[place])] -= 1
        else:
            shown -= 1
    return shown


def _plain(value: object) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _wants_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:
        _stop_writing()


def _stop_writing() -> None:
    """Whoever read us has enough. What the command came to is still its exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _talk(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (BrokenPipeError, UnicodeEncodeError):
        return
