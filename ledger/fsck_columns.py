"""Columns against records: each column of a records file derived again from the record's bytes, with DuckDB's JSON reader."""

from __future__ import annotations

from typing import Final

import duckdb
import orjson
import pyarrow as pa

from ledger import columns

_MAX_LISTED: Final = 20
_TIMES: Final = [name for name, kind in (columns.TOP_LEVEL | columns.FACTS).items() if kind == columns.TIME]
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
        # As numbers: to DuckDB the largest timestamp is "infinity", and one emitter with an odd clock would make an honest log fail.
        for name in _TIMES:
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, table.column(place).cast(pa.int64()))
        self._connection.register("held", table)
        rows = self._connection.execute(self._query).fetchall()
        return [(index, [name for name in names if name is not None]) for index, names in rows]


def _query() -> str:
    """Built from the schema alone, no value from outside is in it."""
    structure = {name: _json_type(kind) for name, kind in columns.TOP_LEVEL.items()}
    facts = {name: _json_type(kind) for name, kind in columns.FACTS.items()}
    shape = orjson.dumps({**structure, "facts": facts}).decode()
    pairs = [(name, f"said.{name}") for name in columns.TOP_LEVEL] + [(name, f"said.facts.{name}") for name in columns.FACTS]
    tests = []
    for name, said in pairs:
        tests.append((name, f'compared."{name}" IS DISTINCT FROM compared.{said}'))
    anywhere = " OR ".join(test for _name, test in tests)
    named = ", ".join(f"CASE WHEN {test} THEN '{name}' END" for name, test in tests)
    return (
        # Materialised: the optimiser would otherwise parse the JSON again for each of the comparisons.
        f"WITH compared AS MATERIALIZED (SELECT *, from_json(decode(record), '{shape}') AS said FROM held) "  # noqa: S608
        f'SELECT "index", [{named}] FROM compared WHERE {anywhere} ORDER BY 1 LIMIT {_MAX_LISTED}'
    )


def _json_type(kind: pa.DataType) -> object:
    return [{"source": "VARCHAR", "id": "VARCHAR"}] if kind == columns.CONTEXTS else _JSON_TYPES[kind]
