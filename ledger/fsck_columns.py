"""Columns against records: each column of a records file derived again from the record's bytes, with DuckDB's JSON reader."""

from __future__ import annotations

from typing import Final

import duckdb
import orjson
import pyarrow as pa

from ledger import columns

_MAX_LISTED: Final = 20
_JSON_TYPES: Final = {columns.TEXT: "VARCHAR", columns.TIME: "BIGINT", columns.COUNT: "BIGINT", columns.REAL: "DOUBLE"}


class ColumnChecker:
    """One DuckDB connection that compares tables with their records."""

    def __init__(self) -> None:
        """Open an in-memory database that can reach nothing else."""
        self._connection = duckdb.connect(config={"threads": 1, "enable_external_access": False, "autoload_known_extensions": False})
        self._query = _query()

    def differences(self, table: pa.Table) -> list[tuple[int, list[str]]]:
        """(index, column names) of the rows whose columns are not what the record says; at most 20 rows."""
        if table.num_rows == 0:
            return []
        self._connection.register("held", table)
        rows = self._connection.execute(self._query).fetchall()
        return [(index, [name for name in names if name is not None]) for index, names in rows]


def _query() -> str:
    """Built from the schema alone, no value from outside is in it."""
    structure = {name: _json_type(kind) for name, kind in columns.TOP_LEVEL.items()}
    facts = {name: _json_type(kind) for name, kind in columns.FACTS.items()}
    shape = orjson.dumps({**structure, "facts": facts}).decode()
    pairs = [(name, f"said.{name}", kind) for name, kind in columns.TOP_LEVEL.items()]
    pairs += [(name, f"said.facts.{name}", kind) for name, kind in columns.FACTS.items()]
    tests = []
    for name, said, kind in pairs:
        held = f'epoch_ns(held."{name}")' if kind == columns.TIME else f'held."{name}"'
        tests.append((name, f"{held} IS DISTINCT FROM {said}"))
    anywhere = " OR ".join(test for _name, test in tests)
    named = ", ".join(f"CASE WHEN {test} THEN '{name}' END" for name, test in tests)
    return (
        f"SELECT held.\"index\", [{named}] FROM (SELECT *, from_json(decode(record), '{shape}') AS said FROM held) AS held "  # noqa: S608
        f"WHERE {anywhere} ORDER BY 1 LIMIT {_MAX_LISTED}"
    ).replace("said.", "held.said.")


def _json_type(kind: pa.DataType) -> object:
    return [{"source": "VARCHAR", "id": "VARCHAR"}] if kind == columns.CONTEXTS else _JSON_TYPES[kind]
