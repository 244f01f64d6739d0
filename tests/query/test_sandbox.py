"""User SQL: what may be asked, and that nothing can be written, read or kept busy with it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from refund_story import refund_story

from query.errors import QueryError, QueryTimeout, RefusedStatement
from query.sandbox import row_limit, run_user_sql
from query.store import Views, open_views


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sandbox") / "it's a store"
    refund_story().build(root, cuts=[3, 6])
    (root / "trail.toml").write_text('origin = "example.com/secret"\n')
    (root / "other.parquet").write_bytes((root / "records" / "0-3.0.parquet").read_bytes())
    return root


@pytest.fixture(scope="module")
def views(store: Path) -> Iterator[Views]:
    with open_views(refund_story().build(store, cuts=[3, 6])) as opened:
        yield opened


def fingerprint(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def run(views: Views, sql: str, **params: object) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = run_user_sql(views, sql, max_rows=100, seconds=20, params=params).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT count(*) AS n FROM records", [{"n": 10}]),
        ("FROM actions SELECT action_id WHERE run_id = 'run-1'", [{"action_id": "call_1"}]),
        ("WITH x AS (SELECT index FROM records) SELECT max(index) AS m FROM x -- a comment", [{"m": 9}]),
        ("SELECT * FROM range(2) r(i) ORDER BY i DESC;", [{"i": 1}, {"i": 0}]),
        ("WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 3) SELECT sum(i)::INT AS s FROM t", [{"s": 6}]),
        ("SELECT a.action_id FROM main.actions a JOIN changes c USING (action_id)", [{"action_id": "call_1"}]),
        ("SELECT 1 AS a UNION SELECT 1", [{"a": 1}]),
        ("VALUES (1)", [{"col0": 1}]),
    ],
)
def test_what_may_be_asked(views: Views, sql: str, expected: list[dict[str, object]]) -> None:
    assert run(views, sql) == expected


def test_a_view_can_be_described(views: Views) -> None:
    assert [row["column_name"] for row in run(views, "DESCRIBE custody")] == ["index", "time", "who", "what", "why"]


def test_values_are_parameters(views: Views) -> None:
    assert run(views, "SELECT index FROM records WHERE tool = $tool", tool="edit_config") == [{"index": 6}]
    assert run(views, "SELECT $x AS x", x="'; DROP VIEW records; --") == [{"x": "'; DROP VIEW records; --"}]


def test_rows_are_limited_and_it_is_said(views: Views) -> None:
    cut = run_user_sql(views, "SELECT index FROM records ORDER BY index DESC", max_rows=3, seconds=20)
    assert (cut.column("index").to_pylist(), row_limit(cut)) == ([9, 8, 7], 3)
    whole = run_user_sql(views, "SELECT index FROM records", max_rows=10, seconds=20)
    assert (whole.num_rows, row_limit(whole)) == (10, None)
    endless = run_user_sql(views, "SELECT * FROM range(1000000000000)", max_rows=5, seconds=20)
    assert endless.num_rows == 5


STATEMENTS = [
    "COPY (SELECT 1) TO '{store}/records/0-3.0.parquet'",
    "COPY records TO '{store}/out.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/out.csv'",
    "EXPLAIN SELECT 1",
    "ATTACH '{store}/new.db'",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "SET threads = 1",
    "RESET lock_configuration",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CREATE TABLE t (i INT)",
    "CREATE OR REPLACE VIEW records AS SELECT 1",
    "CREATE MACRO f() AS TABLE SELECT 1",
    "DROP VIEW records",
    "INSERT INTO _tail VALUES (1)",
    "UPDATE records SET kind = 'x'",
    "DELETE FROM records",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "EXPORT DATABASE '{store}/out'",
    "IMPORT DATABASE '{store}/out'",
    "USE memory",
    "PREPARE p AS SELECT 1",
    "BEGIN",
    "SHOW TABLES",
    "PIVOT records ON kind USING count(*)",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{store}/out.csv'",
    "",
    "-- nothing",
    # Typed as SELECT by DuckDB 2.0, and it wrote into the store when this was tried.
    "WITH x AS (COPY (SELECT 1) TO '{store}/records/0-3.0.parquet' (USE_TMP_FILE false)) SELECT * FROM x",
    "WITH x AS (COPY (SELECT 1) TO '{store}/out.csv') SELECT * FROM x",
    "WITH x AS (INSERT INTO _tail VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM records RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE records SET kind = 'x' RETURNING *) SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{store}/out.csv') SELECT * FROM x)",
    "SELECT (WITH x AS (COPY (SELECT 1) TO '{store}/out.csv') SELECT count(*) FROM x)",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_text('{store}/trail.toml')",
    "SELECT * FROM read_blob('{store}/trail.toml')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('{store}/other.parquet')",
    "SELECT * FROM read_parquet('{store}/records/0-3.0.parquet')",
    "SELECT * FROM parquet_metadata('{store}/other.parquet')",
    "SELECT * FROM '{store}/other.parquet'",
    "FROM '/etc/passwd'",
    "SELECT * FROM \"{store}/other.parquet\"",
    "SELECT * FROM glob('*')",
    "SELECT getenv('HOME')",
    "SELECT current_setting('allowed_paths')",
    "SELECT nextval('s')",
    "SELECT write_log('x')",
    "SELECT sleep_ms(60000)",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM _base",
    "SELECT * FROM _contents",
    "SELECT * FROM local_variable",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('records')",
    "SELECT * FROM json_execute_serialized_sql('x')",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM enable_logging('QueryLog')",
    "SELECT * FROM other.main.records",
    "SELECT unknown_column FROM records",
    "SELEC 1",
    "SELECT (",
    "SELECT * FROM records WHERE",
]  # fmt: skip


@pytest.mark.parametrize("sql", STATEMENTS)
def test_nothing_else_can_be_said(views: Views, store: Path, sql: str) -> None:
    local_variable = views.table("run_rows", runs=[], actions=[])
    assert local_variable.num_rows == 0
    before = fingerprint(store.parent)
    with pytest.raises(QueryError) as caught:
        run(views, sql.format(store=str(store).replace("'", "''")))
    assert caught.value.hint
    assert "example.com" not in str(caught.value)
    assert fingerprint(store.parent) == before
    # The connection is as good as before.
    assert run(views, "SELECT count(*) AS n FROM records") == [{"n": 10}]


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t",
        "SELECT count(*) FROM range(10000000) a, range(10000000) b, range(1000) c",
        "SELECT count(*) FROM records a, records b, records c, records d, records e, records f, records g, records h, records i, records j",
    ],
)
def test_nothing_runs_for_ever(views: Views, sql: str) -> None:
    start = time.monotonic()
    with pytest.raises(QueryTimeout) as caught:
        run_user_sql(views, sql, max_rows=10, seconds=0.3)
    assert time.monotonic() - start < 15
    assert "0.3 s" in caught.value.message
    assert run(views, "SELECT 1 AS one") == [{"one": 1}]


def test_memory_is_bounded(views: Views) -> None:
    with pytest.raises((QueryError, QueryTimeout)):
        run_user_sql(views, "SELECT list(repeat(i::VARCHAR, 1000)) FROM range(20000000) t(i)", max_rows=10, seconds=20)


def test_the_second_fence_holds_alone(views: Views, store: Path) -> None:
    """The connection itself, without the look at the statement, reaches no other file and cannot be reconfigured."""
    before = fingerprint(store.parent)
    place = str(store).replace("'", "''")
    for sql in (
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_text('{store}/trail.toml')",
        "SELECT * FROM '{store}/other.parquet'",
        "COPY (SELECT 1) TO '{store}/out.csv'",
        "ATTACH '{store}/new.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SET allowed_paths = ['/etc/passwd']",
        "RESET lock_configuration",
        "SELECT * FROM before",
    ):
        with pytest.raises(duckdb.Error):
            views.connection.execute(sql.format(store=place)).fetchall()
    assert fingerprint(store.parent) == before


def test_a_long_statement_is_refused(views: Views) -> None:
    with pytest.raises(RefusedStatement, match="longer"):
        run(views, "SELECT 1" + " " * 100_001)
