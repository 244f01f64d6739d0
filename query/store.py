"""The confined DuckDB: views over verified segments and the journal's tail, and one typed function for each statement.

Nothing else calls DuckDB but `sandbox`, which runs a user's SQL on a connection made here. Confinement is not
read-only: a connection may write the very files it may read (measured, see `ANSWERS.md`, Decisions), so a text that is
not ours never reaches it without `sandbox`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from ledger import columns, contents
from ledger.errors import CorruptSegment
from query.errors import QueryError
from query.rows import as_rows
from query.source import Source
from query.statements import DEFINITIONS, statement

MEMORY_LIMIT: Final = "1GB"
THREADS: Final = 2
_FIXED: Final[dict[str, str | bool | int | float | list[str]]] = {
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "allow_unsigned_extensions": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": MEMORY_LIMIT,
    # Otherwise a name that is no view is looked up among the variables of whichever Python frame is calling.
    "python_enable_replacements": False,
    "temp_directory": "",
}
_Row = dict[str, Any]


@dataclass(slots=True)
class Views:
    """A connection on which the views stand, and what they cover."""

    connection: duckdb.DuckDBPyConnection
    size: int
    """How many records the checkpoint covers."""
    root: str
    """The checkpoint's root hash, hex."""
    unsigned: int
    """How many acknowledged records beyond the checkpoint are in the views."""

    def close(self) -> None:
        """Free the memory; the views are gone."""
        self.connection.close()

    def __enter__(self) -> Views:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def table(self, name: str, **params: Any) -> pa.Table:
        """The result of the statement `name` of `query/sql/`.

        Raises:
            CorruptSegment: a verified file could not be read as what it should be.
            QueryError: the statement could not be run, for instance for want of memory.
        """
        with _translated():
            relation = self.connection.sql(statement(name), params=params or None)
            table: pa.Table = relation.to_arrow_table()
        return table

    def rows(self, name: str, **params: Any) -> list[_Row]:
        """The same as a list of mappings, times as Unix nanoseconds."""
        return as_rows(self.table(name, **params))


def open_views(reader: Source, *, tail: bool = False, contents: bool = True, defined: bool = True) -> Views:
    """Open the views over everything a reader has verified.

    Args:
        reader: the store; every records file (and contents file) of it is verified here, which is remembered by it.
        tail: also show records that are acknowledged and not yet under the checkpoint.
        contents: also open contents. Without them values, names of persons and states of contents are NULL.
        defined: False leaves only the internal views over the files, for statements that need no other.

    Raises:
        CorruptSegment: a file is not what was sealed.
    """
    record_files = _paths(reader.verified_files("records"))
    content_files = _paths(reader.verified_files("contents")) if contents else []
    held = reader.tail(include_unsigned=tail)
    connection = _connect([*record_files, *content_files])
    _expose(connection, record_files, held.records, content_files, held.contents if contents else None)
    if defined:
        _define(connection, DEFINITIONS)
    return Views(connection, reader.size, reader.root, held.unsigned if tail else 0)


def open_contents(reader: Source, segments: Sequence[Any], *, tail: bool = False) -> Views:
    """Open only the contents of some segments and of the tail, verified."""
    files = _paths(reader.verified_files("contents", segments))
    held = reader.tail(include_unsigned=tail)
    connection = _connect(files, threads=1)
    _expose(connection, [], columns.SCHEMA.empty_table(), files, held.contents)
    return Views(connection, reader.size, reader.root, held.unsigned if tail else 0)


def views_over(records: pa.Table, *, like: Views, definitions: Sequence[str] = DEFINITIONS) -> Views:
    """The views over some records only, all of them of whole traces and runs; contents are not opened.

    The same definitions as over the whole store, so an answer about a run cannot differ from a query about it.

    Args:
        records: of `ledger.columns.SCHEMA`.
        like: whose checkpoint the records were read under.
        definitions: which views to define, each after those it reads; computing all of them costs 0.1 s.
    """
    # A second thread only adds its scheduling to statements over a few thousand rows.
    connection = _connect([], threads=1)
    _expose(connection, [], records, [], None)
    _define(connection, definitions, kept=True)
    return Views(connection, like.size, like.root, like.unsigned)


def _paths(files: Sequence[Path]) -> list[str]:
    return [str(file.absolute()) for file in files]


def _connect(files: Sequence[str], *, threads: int = THREADS) -> duckdb.DuckDBPyConnection:
    """An in-memory database that can reach these files and nothing else, and cannot be told otherwise."""
    connection = duckdb.connect(":memory:", config=_FIXED | {"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET allowed_paths = $files", {"files": list(files)})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _expose(
    connection: duckdb.DuckDBPyConnection,
    record_files: Sequence[str],
    held: pa.Table,
    content_files: Sequence[str],
    held_contents: pa.Table | None,
) -> None:
    """Make `_base`, `_contents` and `_contents_opened`."""
    opened = held_contents is not None
    connection.register("_tail", held)
    connection.register("_tail_contents", held_contents if held_contents is not None else contents.SCHEMA.empty_table())
    with _translated():
        connection.execute(_union("_base", columns.SCHEMA.names, record_files, "_tail"))
        connection.execute(_union("_contents", contents.SCHEMA.names, content_files, "_tail_contents"))
        connection.execute(f"CREATE VIEW _contents_opened AS SELECT {str(opened).lower()} AS opened")


def _union(view: str, names: Sequence[str], files: Sequence[str], tail: str) -> str:
    """Define a view over literal files and a registered table: a view cannot take its paths as parameters."""
    listed = ", ".join(_identifier(name) for name in names)
    parts = [f"SELECT {listed} FROM {tail}"]  # noqa: S608 - our own names
    if files:
        parts.insert(0, f"SELECT {listed} FROM read_parquet([{', '.join(_literal(file) for file in files)}])")  # noqa: S608
    return f"CREATE VIEW {view} AS " + " UNION ALL ".join(parts)


def _define(connection: duckdb.DuckDBPyConnection, definitions: Sequence[str], *, kept: bool = False) -> None:
    """Define views, or tables holding their rows: planning views over views costs more than a few thousand rows do."""
    with _translated():
        for name in definitions:
            text = statement(name)
            connection.execute(text.replace("CREATE VIEW", "CREATE TABLE", 1) if kept else text)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """DuckDB's errors as ours: what it cannot read was verified a moment ago, so the fault is the file's or memory's."""
    try:
        yield
    except duckdb.OutOfMemoryException as exc:
        raise QueryError(
            f"the question needs more than {MEMORY_LIMIT} of memory",
            hint="narrow it: --since, --until, --run or --agent",
        ) from exc
    except (duckdb.IOException, duckdb.InvalidInputException) as exc:
        raise CorruptSegment(f"a sealed file could not be read: {exc}", hint="run trail verify") from exc
    except duckdb.Error as exc:
        raise QueryError(f"the statement could not be run: {exc}") from exc
