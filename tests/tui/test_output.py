"""What is printed cannot drive the reader's terminal, and is data on stdout only."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from trail_process import environment

from tui.output import emit_json, emit_table, one_line, safe, size_text
from tui.tabular import plain_rows

HOSTILE = "a\x1b]0;owned\x07b\x9b31mc\u202ed\x00e"


def test_escape_sequences_are_shown_and_not_obeyed() -> None:
    assert safe(HOSTILE) == "a\\x1b]0;owned\\x07b\\x9b31mc\\u202ed\\x00e"
    assert safe("one\ntwo\r\n") == "one\ntwo\n"
    assert one_line("one\ntwo") == "one\\ntwo"


def test_json_is_json_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": HOSTILE, "more": ["\u2028", "\ud800", b"\xff"]}
    emit_json(value)
    printed = capsys.readouterr().out
    assert not set(printed) & {"\x1b", "\x9b", "\x07", "\x00", "\u2028"}
    assert json.loads(printed)["text"] == HOSTILE
    assert json.loads(printed)["more"][2] == "ff"


def test_no_colour_and_no_cutting_where_stdout_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    emit_table(["NAME", "COUNT"], [["x" * 300, 1], [None, 22]], right=frozenset({"COUNT"}))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{'NAME':<300}  COUNT", f"{'x' * 300}      1", f"{'':<300}     22"]


def test_a_terminal_gets_what_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("NO_COLOR", "1")
    emit_table(["TIME", "RUN", "AGENT", "OWNER"], [["2026-11-20 10:42:05", "r" * 30, "a" * 30, "o" * 30]])
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == f"2026-11-20 10:42:05  {'r' * 11}…  {'a' * 11}…"
    assert all(len(line) <= 50 for line in out.splitlines())
    assert "OWNER" in err


def test_a_reader_who_has_enough_is_no_error_and_changes_no_exit_code() -> None:
    code = "from tui.output import emit, emit_bytes; import sys; [emit('x' * 100) for _ in range(10_000)]; emit_bytes(b'y'); sys.exit(3)"
    with subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 3


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1_000, "1.0 kB"), (10**15, "1000.0 TB")])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_every_kind_of_value_becomes_plain() -> None:
    columns: dict[str, tuple[list[Any], pa.DataType]] = {
        "time": ([1_763_633_000_000_000_001, None], pa.timestamp("ns")),
        "zoned": ([1_763_633_000_000_000, 0], pa.timestamp("us", tz="UTC")),
        "blob": ([b"\x00\xff", None], pa.binary()),
        "number": ([math.nan, math.inf], pa.float64()),
        "sum": ([Decimal(10) ** 20, Decimal(-1)], pa.decimal128(38, 0)),
        "share": ([Decimal("0.25"), Decimal("1.00")], pa.decimal128(10, 2)),
        "list": ([[1, None], []], pa.list_(pa.int64())),
        "struct": ([{"at": 1, "name": "x"}, None], pa.struct([("at", pa.timestamp("ns")), ("name", pa.string())])),
        "map": ([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    }
    table = pa.table({name: pa.array(values, kind) for name, (values, kind) in columns.items()})
    first, second = plain_rows(table)
    assert first == {
        "time": "2025-11-20T10:03:20.000000001Z",
        "zoned": "2025-11-20T10:03:20.000000000Z",
        "blob": "00ff",
        "number": "NaN",
        "sum": 10**20,
        "share": 0.25,
        "list": [1, None],
        "struct": {"at": "1970-01-01T00:00:00.000000001Z", "name": "x"},
        "map": [{"key": "k", "value": 1}],
    }
    assert second["number"] == "Infinity"
    assert second["time"] is None
    json.dumps([first, second], allow_nan=False)


def test_columns_of_one_name_are_told_apart() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert plain_rows(table) == [{"a": 1, "a_1": 2}]
