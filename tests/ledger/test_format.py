"""FORMAT.md is normative, so it is tested: its example, its tables, its SQL statement, its program, and a verifier written from it."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import format_example
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import second_verifier
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from ingest import vocabularies
from ingest.batch import Origin
from ingest.normalise import Normaliser
from ledger import columns, contents, fsck
from ledger.note import Signer
from ledger.settings import Settings
from ledger.trust import LogKeys, Trust
from ledger.writer import StoreWriter

TEXT = format_example.FORMAT.read_text("utf-8")
FORGED_MARK = '"$content":{"bytes":1,"commitment":"' + "0" * 64 + '","type":"s"} '
"""What an emitter may send to make a verifier look for a content that never was."""
SEALED_AND_NOT = "segment_records = 40\nsegment_age_seconds = 3600\n"


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def table_of(section: str) -> list[list[str]]:
    """The rows of the first table of a section whose first cell is code."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0], re.MULTILINE)
    return [list(row) for row in rows]


# ---- the text


def test_the_worked_example_is_what_the_code_makes(tmp_path: Path) -> None:
    shown = TEXT.partition(format_example.BEGIN)[2].partition(format_example.END)[0]
    assert format_example.example(tmp_path) == shown


def test_the_columns_are_those_of_the_code() -> None:
    words = {"text": columns.TEXT, "time": columns.TIME, "number": columns.COUNT, "double": columns.REAL, "list": columns.CONTEXTS}
    assert {name: words[kind] for name, kind in table_of("5. Facts and columns")} == columns.FACTS
    assert [name for name, _kind in table_of("5. Facts and columns")] == list(columns.FACTS)
    assert [name for name, _kind in table_of("6. Contents")] == contents.SCHEMA.names


def test_the_second_verifier_has_the_same_columns_from_the_text() -> None:
    assert second_verifier.RECORDS.equals(columns.BATCH_SCHEMA)
    assert second_verifier.CONTENTS.equals(contents.SCHEMA)
    assert not re.search(r"^(?:from|import) (?:ledger|ingest)", Path(second_verifier.__file__).read_text("utf-8"), re.MULTILINE)


def test_the_settings_are_those_of_the_code() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    stated = dict(table_of("12. trail.toml"))
    assert list(stated) == list(defaults)
    assert {name: float(value) if value != "`[]`" else () for name, value in stated.items() if value} == {
        name: value for name, value in defaults.items() if value is not dataclasses.MISSING
    }


# ---- a real store: several segments, contents, a moved subtree, an unsealed tail


def spans(first: int, count: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    group.resource.attributes.add(key="user.email").value.string_value = "ann@example.com"
    scope = group.scope_spans.add()
    for number in range(first, first + count):
        span = scope.spans.add(name=f"step {number}", start_time_unix_nano=10**18 + number, end_time_unix_nano=10**18 + number + 1)
        span.trace_id, span.span_id = (number + 1).to_bytes(16, "big"), (number + 1).to_bytes(8, "big")
        span.attributes.add(key="gen_ai.completion").value.string_value = f"secret {number}"
        span.attributes.add(key="gen_ai.evaluation.score.value").value.double_value = number / 7
        span.attributes.add(key="trail.context.ids").value.string_value = '["doc 1", {"source": "wiki", "id": "2"}]'
        if number % 25 == 0:
            large = [KeyValue(key=f"k{i}", value=AnyValue(string_value="v" * 900)) for i in range(80)]
            span.attributes.extend(large)
    return request


def fill(writer: StoreWriter, first: int, count: int) -> None:
    keep(writer, spans(first, count), first)


def keep(writer: StoreWriter, request: ExportTraceServiceRequest, first: int) -> None:
    normaliser = Normaliser(vocabularies.load(), secret=writer.key.secret, random=format_example.Blocks(first))
    received = 1_780_000_000_000_000_000 + first
    batch = normaliser.spans(request, Origin(received, "loopback", None), exact=False)
    body = request.SerializeToString()
    salt = first.to_bytes(16, "big")
    format_example.submit(writer, batch, body, received=received, salt=salt, nonce=salt)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with three segments and a tail that is only in the journal, as a crash would leave it, and its key."""
    directory = tmp_path_factory.mktemp("made")
    writer = format_example.open_store(directory, settings=SEALED_AND_NOT)
    for number in range(3):
        fill(writer, 45 * number, 45)
        _wait_for_segments(writer, number + 1)
    fill(writer, 1_000, 7)
    writer.append("note", {"text": "the end"})
    assert writer.log.wait_published(writer.log.size, timeout=30)
    copy = directory / "copy"
    shutil.copytree(directory / "store", copy)
    vkey = writer.key.signer.vkey
    writer.close()
    return copy, vkey


def _wait_for_segments(writer: StoreWriter, count: int) -> None:
    import time

    until = time.monotonic() + 60
    while len(writer.sealer.segments) < count or writer.log.journal_bytes > 20_000:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def store(made: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "store")
    return tmp_path / "store"


def bad_leaves(store: Path) -> list[tuple[Any, ...]]:
    statement = block("sql")
    assert statement.count("trail-store") == 2
    with duckdb.connect() as connection:
        return connection.execute(statement.replace("trail-store", str(store))).fetchall()


def test_the_store_of_these_tests_has_what_they_need(store: Path) -> None:
    assert len(list(store.glob("records/*.parquet"))) == 3
    assert len(list(store.glob("contents/*.parquet"))) == 3
    fields = pq.read_table(next(iter(sorted(store.glob("contents/*.parquet"))))).column("field").to_pylist()
    assert {"subtree:attributes", "resource:user.email", "gen_ai.completion", "body"} <= set(fields)
    assert any(path.stat().st_size > 1_000 for path in store.glob("journal/*"))


# ---- the SQL statement


def test_the_sql_statement_finds_nothing_in_a_sound_store(store: Path) -> None:
    assert bad_leaves(store) == []


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    changed = change(pq.read_table(path))
    path.unlink()
    pq.write_table(changed, path)


def with_record(table: pa.Table, row: int, change: Callable[[bytes], bytes]) -> pa.Table:
    records = table.column("record").to_pylist()
    records[row] = change(records[row])
    return table.set_column(table.column_names.index("record"), "record", pa.array(records, pa.binary()))


def test_the_sql_statement_names_a_changed_and_a_missing_record(store: Path) -> None:
    path = sorted(store.glob("records/*.parquet"))[0]
    first = int(path.name.partition("-")[0])
    rewrite(path, lambda table: with_record(table, 17, lambda record: record.replace(b"step", b"stop")))
    assert [row[0] for row in bad_leaves(store)] == [first + 17]
    rewrite(path, lambda table: table.filter(pa.array([row != 5 for row in range(table.num_rows)])))
    assert [(row[0], row[2] is None) for row in bad_leaves(store)] == [(first + 5, True), (first + 17, False)]


# ---- the program


def roots(store: Path, vkey: str, directory: Path) -> subprocess.CompletedProcess[str]:
    program = directory / "roots.py"
    program.write_text(block("python"))
    return subprocess.run([sys.executable, "-I", str(program), str(store), vkey], capture_output=True, text=True, check=False)


def test_the_program_reaches_the_signed_root(store: Path, made: tuple[Path, str], tmp_path: Path) -> None:
    run = roots(store, made[1], tmp_path)
    origin, size, root = (store / "checkpoint").read_text("utf-8").split("\n")[:3]
    assert (run.returncode, run.stdout) == (0, f"{origin} {size} {base64.b64decode(root).hex()}\n")
    assert len([line for line in block("python").splitlines() if line]) <= 40


@pytest.mark.parametrize(("name", "at"), [("checkpoint", 21), ("tile/0/000.p/*", 100), ("checkpoint", -20)])
def test_the_program_refuses_other_bytes(store: Path, made: tuple[Path, str], tmp_path: Path, name: str, at: int) -> None:
    for path in store.glob(name):
        flip(path, at)
    assert roots(store, made[1], tmp_path).returncode != 0


# ---- the second verifier


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def other_verdict(store: Path, vkey: str) -> str:
    return fsck.verify(store, trust=Trust(LogKeys.of(vkey)), processes=1).integrity


def test_the_second_verifier_finds_nothing_in_a_sound_store(store: Path, made: tuple[Path, str]) -> None:
    kept = (store / "checkpoint").read_bytes()
    assert second_verifier.problems(store, made[1], [kept]) == []
    assert other_verdict(store, made[1]) == "verified"


def swap_two_rows(store: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.take([1, 0, *range(2, table.num_rows)])

    rewrite(sorted(store.glob("records/*.parquet"))[0], change)


def edit_column(store: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        names = ["other" if name == "step 3" else name for name in table.column("name").to_pylist()]
        return table.set_column(table.column_names.index("name"), "name", pa.array(names))

    rewrite(sorted(store.glob("records/0-*.parquet"))[0], change)


def drop_content(store: Path) -> None:
    rewrite(sorted(store.glob("contents/0-*.parquet"))[0], lambda table: table.slice(1))


def edit_content(store: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        values = [b"Secret 3" if value == b"secret 3" else value for value in table.column("value").to_pylist()]
        return table.set_column(table.column_names.index("value"), "value", pa.array(values, pa.binary()))

    rewrite(sorted(store.glob("contents/0-*.parquet"))[0], change)


def middle(pattern: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        path = max(store.glob(pattern), key=lambda path: path.stat().st_size)
        flip(path, path.stat().st_size // 2)

    return damage


def remove(pattern: str) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        sorted(store.glob(pattern))[0].unlink()

    return damage


def side_file_of_another(store: Path) -> None:
    first, second = sorted(store.glob("records/*.seal"))[:2]
    first.write_bytes(second.read_bytes())


def another_index(store: Path) -> None:
    path = sorted(store.glob("records/*.seal"))[0]
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps({"index": value["index"] - 1, "record": value["record"]}, separators=(",", ":")) + "\n")


def wrong_history(store: Path) -> None:
    (store / "checkpoints" / "2026-01-01").write_text(json.dumps({"checkpoint": (store / "checkpoint").read_text("utf-8")[:-3]}) + "\n")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "two rows swapped": (swap_two_rows, "record"),
    "a column edited": (edit_column, "column 5: name"),
    "a content dropped": (drop_content, "file"),
    "a content edited": (edit_content, "content"),
    "a byte of a records file": (middle("records/*.parquet"), "file"),
    "a byte of a contents file": (middle("contents/*.parquet"), "file"),
    "a byte of the journal": (middle("journal/*"), "journal"),
    "a byte of a side file": (middle("records/*.seal"), "side file"),
    "a byte of a tile": (middle("tile/0/000.p/*"), ""),
    "a byte of the checkpoint": (lambda store: flip(store / "checkpoint", 30), "checkpoint"),
    "a records file missing": (remove("records/*.parquet"), "file"),
    "a contents file missing": (remove("contents/*.parquet"), "file"),
    "a side file missing": (remove("records/*.seal"), "file"),
    "a contents side file missing": (remove("contents/*.seal"), "file"),
    "another file's side file": (side_file_of_another, "side file"),
    "a side file that names another record": (another_index, "side file"),
    "the journal missing": (lambda store: shutil.rmtree(store / "journal"), "journal"),
    "a file below tile that is none": (lambda store: (store / "tile/0/tile").write_bytes(b"x"), "tile"),
    "a checkpoint of the history damaged": (wrong_history, "checkpoint"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_both_verifiers_refuse_damage(store: Path, made: tuple[Path, str], name: str) -> None:
    damage, expected = DAMAGE[name]
    damage(store)
    found = second_verifier.problems(store, made[1])
    assert any(problem.startswith(expected) for problem in found), found
    assert other_verdict(store, made[1]) == "failed"


def test_a_checkpoint_kept_elsewhere_shows_a_rollback(store: Path, tmp_path: Path, made: tuple[Path, str]) -> None:
    shutil.copytree(made[0].parent / "store", tmp_path / "newer")
    newer = (tmp_path / "newer" / "checkpoint").read_bytes()
    assert any(problem.startswith("rollback") for problem in second_verifier.problems(store, made[1], [newer]))
    assert second_verifier.problems(tmp_path / "newer", made[1], [(store / "checkpoint").read_bytes()]) == []


def test_another_key_verifies_nothing(store: Path) -> None:
    other = Signer.generate(format_example.ORIGIN).vkey
    assert second_verifier.problems(store, other)[0].startswith("checkpoint")


def test_no_emitter_can_make_a_content_look_missing(tmp_path: Path) -> None:
    request = spans(0, 1)
    request.resource_spans[0].scope_spans[0].spans[0].attributes.add(key="subtree:mine").value.string_value = FORGED_MARK * 20
    writer = format_example.open_store(tmp_path)
    keep(writer, request, 0)
    writer.close()
    assert second_verifier.problems(tmp_path / "store", writer.key.signer.vkey) == []
    assert other_verdict(tmp_path / "store", writer.key.signer.vkey) == "verified"
