"""A user's SQL over the views: one SELECT, bounded in time and rows, that can write nothing and read nothing else.

Three fences, each of which would do against what is known today:
1. the statement's type, and its syntax tree: query nodes that only select, tables that are our views or its own common
   table expressions, table functions from a short list. The type alone is not enough: DuckDB 2.0 types
   `WITH x AS (COPY ... TO 'file') SELECT ...` as a SELECT, and runs it (measured, see `ANSWERS.md`, Decisions);
2. the connection, which reaches the verified files only and cannot be reconfigured (`store`);
3. for a server: a process that may not write the store. This module does not provide it.

Not bounded here: one call of a scalar function. `list_sum(range(2000000000))` allocates its 16 GB outside DuckDB's
memory limit and before a timer can interrupt. A process that exists to run user SQL calls `limit_memory` first.
"""

from __future__ import annotations

import re
import resource
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

import duckdb
import orjson
import pyarrow as pa

from query.errors import QueryError, QueryTimeout, RefusedStatement
from query.statements import VIEWS
from query.store import MEMORY_LIMIT, Views

MAX_SQL_CHARACTERS: Final = 100_000
PROCESS_MEMORY_BYTES: Final = 4 << 30
LIMITED: Final = b"trail.limit"
"""Key in the result schema's metadata: there, rows beyond this many were left out."""
_CTE_NAME: Final = re.compile(r"(?!duckdb_|sqlite_|pragma_|pg_|information_schema)[a-z][a-z0-9_]*")
_QUERIES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_SOURCES: Final = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EMPTY", "EXPRESSION_LIST", "SHOW_REF"})
_TABLE_FUNCTIONS: Final = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree", "repeat", "repeat_row"})
_SCALARS_REFUSED: Final = frozenset(
    {
        "current_setting", "currval", "getenv", "getvariable", "json_serialize_plan", "nextval", "pg_sleep", "setseed", "setval",
        "sleep_ms", "write_log",
    }
)  # fmt: skip
"""They read configuration, keep state, wait or write to a log; none of them answers a question about records."""
_WHAT_IS_ALLOWED: Final = f"ask with one SELECT over {', '.join(VIEWS)}"
_Node = dict[str, Any]


def run_user_sql(views: Views, sql: str, *, max_rows: int, seconds: float, params: Mapping[str, Any] | None = None) -> pa.Table:
    """Run one statement that somebody typed.

    Args:
        views: made by `open_views`; nothing else may run on its connection meanwhile.
        sql: the statement.
        max_rows: the most rows returned; see `row_limit`.
        seconds: how long it may run.
        params: values of its `$name` parameters.

    Raises:
        RefusedStatement: it is anything but one plain SELECT over the views.
        QueryTimeout: it ran too long.
        QueryError: it does not parse, names what does not exist, or fails.
    """
    _require_select(views.connection, sql)
    timer = threading.Timer(seconds, views.connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        relation = views.connection.sql(sql, params=dict(params) if params else None)
        table: pa.Table = relation.limit(max_rows + 1).to_arrow_table()
    except duckdb.InterruptException as exc:
        raise QueryTimeout(f"stopped after {seconds:g} s", hint="narrow it, or allow it more time") from exc
    except duckdb.OutOfMemoryException as exc:
        raise QueryError(f"the statement needs more than {MEMORY_LIMIT} of memory", hint="narrow it: WHERE, LIMIT") from exc
    except duckdb.Error as exc:
        raise _explained(exc) from exc
    finally:
        timer.cancel()
        timer.join()
    if table.num_rows > max_rows:
        return table.slice(0, max_rows).replace_schema_metadata({LIMITED: str(max_rows)})
    return table


def row_limit(table: pa.Table) -> int | None:
    """How many rows a result was cut to; None if it is whole."""
    metadata = table.schema.metadata or {}
    return int(metadata[LIMITED]) if LIMITED in metadata else None


def limit_memory(size_bytes: int = PROCESS_MEMORY_BYTES) -> None:
    """Bound this whole process's address space, for a process that exists to run user SQL; it cannot be undone."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    bound = size_bytes if hard == resource.RLIM_INFINITY else min(size_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


def _require_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """The first fence.

    Raises:
        RefusedStatement: the statement is not one plain SELECT over the views.
        QueryError: it does not parse.
    """
    if len(sql) > MAX_SQL_CHARACTERS:
        raise RefusedStatement(f"the statement is longer than {MAX_SQL_CHARACTERS} characters")
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as exc:
        raise _explained(exc) from exc
    if len(statements) != 1:
        raise RefusedStatement(f"exactly one statement can be run, not {len(statements)}", hint=_WHAT_IS_ALLOWED)
    if statements[0].type != duckdb.StatementType.SELECT:
        raise RefusedStatement(f"{statements[0].type.name} is not allowed", hint=_WHAT_IS_ALLOWED)
    _require_harmless(_tree(connection, statements[0].query))


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> _Node:
    """The syntax tree of a SELECT, as DuckDB's own parser sees it."""
    try:
        row = connection.sql("SELECT json_serialize_sql($sql)", params={"sql": sql}).fetchall()[0]
    except duckdb.Error as exc:
        raise _explained(exc) from exc
    tree: _Node = orjson.loads(row[0])
    if tree.get("error") is not False:
        raise RefusedStatement(f"only a plain SELECT is allowed: {tree.get('error_message')}", hint=_WHAT_IS_ALLOWED)
    return tree


def _require_harmless(tree: _Node) -> None:
    """Every query in the tree selects, every table is known, every function may be called."""
    nodes = list(_nodes(tree))
    own = {entry["key"].lower() for node in nodes for entry in node.get("cte_map", {}).get("map", ())}
    for name in own:
        # A name is allowed wherever it stands, so it must not be the name of anything that is not the statement's own.
        if not _CTE_NAME.fullmatch(name):
            raise RefusedStatement(f"{name!r} cannot name a WITH query", hint="use letters, digits and inner underscores")
    for node in nodes:
        kind = str(node.get("type", ""))
        if kind.endswith("_NODE") and kind not in _QUERIES:
            raise RefusedStatement(
                f"{kind.removesuffix('_QUERY_NODE').removesuffix('_NODE')} is not allowed",
                hint=_WHAT_IS_ALLOWED,
            )
        if "sample" in node and "alias" in node and kind not in _SOURCES:
            raise RefusedStatement(f"{kind} is not allowed as a source of rows", hint=_WHAT_IS_ALLOWED)
        if kind == "BASE_TABLE":
            _require_table(node, own)
        if kind == "SHOW_REF" and node["query"] is None:
            raise RefusedStatement("SHOW is not allowed", hint="DESCRIBE a view; " + _WHAT_IS_ALLOWED)
        if kind == "TABLE_FUNCTION" and (name := _function(node["function"])) not in _TABLE_FUNCTIONS:
            raise RefusedStatement(f"the table function {name} is not allowed", hint=_WHAT_IS_ALLOWED)
        if "function_name" in node and (name := _function(node)) in _SCALARS_REFUSED:
            raise RefusedStatement(f"the function {name} is not allowed", hint=_WHAT_IS_ALLOWED)


def _require_table(node: _Node, own: set[str]) -> None:
    name = str(node["table_name"])
    plain = not node["catalog_name"] and node["schema_name"] in ("", "main")
    if not plain or name.lower() not in own | set(VIEWS):
        raise RefusedStatement(f"there is no view {name}", hint=_WHAT_IS_ALLOWED)


def _function(node: _Node) -> str:
    return str(node["function_name"]).lower()


def _nodes(value: Any) -> Iterator[_Node]:
    """Every mapping in a tree, outside in; without recursion, because a user chooses the depth."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _explained(exc: duckdb.Error) -> QueryError:
    """DuckDB's message as one of ours: its first paragraph, without the name of the class."""
    message = str(exc).strip().split("\n\n")[0]
    return QueryError(message, hint="DESCRIBE a view to see its columns; " + _WHAT_IS_ALLOWED)
