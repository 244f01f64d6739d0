"""The SQL files: each has a header, is used, is one statement and plans; the examples in docstrings hold."""

from __future__ import annotations

import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from build_segments import StoreBuilder

import query
from query.statements import DEFINITIONS, statement
from query.store import Views, open_views

PACKAGE = Path(query.__file__).parent
FILES = sorted(path.stem for path in (PACKAGE / "sql").glob("*.sql"))
SOURCES = {path.name: path.read_text("utf-8") for path in PACKAGE.glob("*.py")}


def parameters_of(name: str) -> set[str]:
    """The parameters of a statement: not those in comments and in literals."""
    text = re.sub(r"^--.*$|'[^']*'", "", statement(name), flags=re.MULTILINE)
    return set(re.findall(r"\$([a-z_]+)", text))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Views]:
    with open_views(StoreBuilder().build(tmp_path_factory.mktemp("empty"))) as views:
        yield views


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_it_is(name: str) -> None:
    text = statement(name)
    header = " ".join(line.removeprefix("-- ") for line in text.splitlines() if line.startswith("--"))
    assert text.startswith("-- ")
    assert "Order:" in header
    assert "Output:" in header or "Documented in ANSWERS.md" in header
    used = parameters_of(name)
    parameters = re.search(r"Parameters: (.*?)(?:Output:|$)", header)
    assert used <= set(re.findall(r"[a-z_]+", parameters[1] if parameters is not None else ""))
    assert len(duckdb.extract_statements(text)) == 1


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_used(name: str) -> None:
    places = [module for module, text in SOURCES.items() if f'"{name}"' in text]
    assert places
    assert name in DEFINITIONS or not name.startswith("view_")


@pytest.mark.parametrize("name", [name for name in FILES if name not in DEFINITIONS])
def test_a_statement_plans_over_an_empty_store(name: str, empty: Views) -> None:
    names = parameters_of(name)
    lists = {"indexes", "runs", "traces", "actions", "resources", "policies", "fields"}
    numbers = {"most", "since", "until", "first_since", "first_until"}
    params = {key: [] if key in lists else 0 if key in numbers else None for key in names}
    rows = empty.rows(name, **params)
    assert rows == [] or set(rows[0].values()) == {None}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_examples_hold(name: str) -> None:
    module = importlib.import_module("query" if name == "__init__.py" else f"query.{name.removesuffix('.py')}")
    assert doctest.testmod(module).failed == 0
