"""Opening the views: over a real store of `ledger`, over odd paths, and only over what was verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest
from build_segments import Kept, StoreBuilder
from refund_story import refund_story

import query
from ledger.errors import CorruptSegment
from ledger.reader import StoreReader
from ledger.writer import StoreWriter, create
from query.answers import ask, runs, show, timeline
from query.question import Question
from query.source import Source
from query.statements import VIEWS
from query.store import open_contents, open_views

ACTION = {"action_id": "call_1", "run_id": "run-1", "tool": "edit", "resource": "/etc/app.yaml"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "store"
    create(place, origin="example.com/query")
    return place


def test_a_real_store(root: Path) -> None:
    writer = StoreWriter.open(root, command="test")
    index = writer.append("note", {"text": "edited"}, facts=ACTION).index
    writer.append("custody", {"who": "ada", "what": "a bundle", "why": "audit"})
    writer.close()
    reader: Source = StoreReader.open(root)
    with open_views(reader) as views:
        count = views.connection.sql("SELECT count(*) FROM records").fetchall()
        sealed = views.connection.sql('SELECT min(start), max("end") FROM seals').fetchall()
        custody = views.connection.sql("SELECT who, what, why FROM custody").fetchall()
    assert count == [(reader.size,)]
    assert sealed == [(0, reader.size - 1)]
    assert custody == [("ada", "a bundle", "audit")]
    (card,) = ask(reader, Question(resource="app.yaml")).cards
    assert (card["action"]["records"], card["intact"]["verdict"]) == ([index], "verified")
    assert show(reader, index)["record"]["note"] == {"text": "edited"}
    assert [row["run_id"] for row in runs(reader)] == ["run-1"]
    assert [row["index"] for row in timeline(reader, run="run-1")] == [index]


def test_a_real_store_that_is_being_written(root: Path) -> None:
    writer = StoreWriter.open(root, command="test")
    try:
        index = writer.append("note", {"text": "edited"}, facts=ACTION).index
        writer.log.wait_published(index + 1, timeout=30)
        (card,) = ask(StoreReader.open(root), Question(resource="app.yaml")).cards
        assert (card["action"]["records"], card["intact"]["verdict"]) == ([index], "verified")
    finally:
        writer.close()


def test_an_unpinned_store_is_unverifiable(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    writer = StoreWriter.open(root, command="test")
    writer.append("note", {"text": "edited"}, facts=ACTION)
    writer.close()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody else"))
    (card,) = ask(StoreReader.open(root), Question(resource="app.yaml")).cards
    assert card["intact"]["verdict"] == "unverifiable"


def test_a_changed_file_of_a_real_store_answers_nothing(root: Path) -> None:
    writer = StoreWriter.open(root, command="test")
    writer.append("note", {"text": "edited"}, facts=ACTION)
    writer.close()
    (path,) = (root / "records").glob("*.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptSegment):
        ask(StoreReader.open(root), Question(resource="app.yaml"))


@pytest.mark.parametrize("name", ["it's", 'quo"te', "semi;colon", "star*[x]?{a,b}", "ünïcode", "$1 %s {0}", "hive=1/part=2"])
def test_paths_are_taken_literally(name: str, tmp_path: Path) -> None:
    store = refund_story().build(tmp_path / name, cuts=[3, 10])
    # A neighbour that a pattern would also match must not be read.
    refund_story().build(tmp_path / "starX", cuts=[10])
    with open_views(store) as views:
        assert views.connection.sql("SELECT count(*) FROM records").fetchall() == [(10,)]


def test_only_the_files_that_were_verified_can_be_read(tmp_path: Path) -> None:
    builder = StoreBuilder()
    for place in range(4):
        builder.add(attributes={"k": Kept(f"value {place}")})
    store = builder.build(tmp_path, cuts=[2, 4])
    with open_contents(store, store.segments[:1]) as contents:
        rows: list[dict[str, Any]] = contents.rows("contents_of", record=0)
        assert [row["value"] for row in rows] == [b"value 0"]
        assert contents.rows("contents_of", record=3) == []


def test_the_tail_is_shown_up_to_the_checkpoint_or_to_its_end(tmp_path: Path) -> None:
    builder = StoreBuilder()
    for place in range(5):
        builder.add(at=place, attributes={"k": Kept("v")})
    store = builder.build(tmp_path, cuts=[2], unsigned=2)
    for tail, expected in ((False, 3), (True, 5)):
        with open_views(store, tail=tail) as views:
            assert views.connection.sql("SELECT count(*) FROM records").fetchall() == [(expected,)]
            assert views.connection.sql("SELECT count(*) FROM contents").fetchall() == [(expected,)]
            assert (views.size, views.unsigned) == (3, 2 if tail else 0)


def test_the_documented_statement_runs_in_stock_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refund_story().build(tmp_path, cuts=[4, 10])
    text = (Path(query.__file__).parent / "ANSWERS.md").read_text("utf-8")
    (sql,) = re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    rows = duckdb.connect().execute(sql).fetchall()
    assert [row[0] for row in rows] == [0, 4, 5, 6]
    assert rows[-1][3:6] == ("edit_config", "/srv/config/refunds.yaml", "ok")


@pytest.mark.parametrize("name", VIEWS)
def test_the_documented_columns_are_the_views(name: str, tmp_path: Path) -> None:
    text = (Path(query.__file__).parent / "ANSWERS.md").read_text("utf-8").replace("\n", " ")
    with open_views(StoreBuilder().build(tmp_path)) as views:
        columns = ", ".join(row[0] for row in views.connection.sql(f"DESCRIBE {name}").fetchall())
    assert f"`{columns}`" in text
