"""House rules, kept by a test instead of by memory. They read the tree, so they need no git."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("ledger", "ingest", "query", "tui")
LINES_MAX = 500
TEXT_SUFFIXES = {".py", ".pyi", ".md", ".toml", ".sql", ".tcss", ".txt", ".sh"}

FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"(?<![\w.<>*{}/-])/(?:work|tmp|root|Users)/\w"),
    "a registry's host": re.compile(r"(?:pypi|pythonhosted)\.org/|--(?:extra-)?index-url|--trusted-host"),
    "a note to oneself": re.compile(r"\b(?:TODO|FIXME|XXX)\b"),
}


def our_files() -> Iterator[Path]:
    """Every text file written here: not what came from elsewhere (vectors), nor what tools make."""
    yield from (ROOT / name for name in ("Makefile", ".ci/run", ".gitignore"))
    yield from (path for path in ROOT.iterdir() if path.suffix in TEXT_SUFFIXES)
    for top in (*PACKAGES, "tests", "samples"):
        for path in (ROOT / top).rglob("*"):
            if path.suffix in TEXT_SUFFIXES and ROOT / "tests" / "vectors" not in path.parents:
                yield path


def our_modules() -> list[Path]:
    return [path for path in our_files() if path.suffix == ".py"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_module_is_too_long_to_read() -> None:
    lengths = {relative(path): len(path.read_text("utf-8").splitlines()) for path in our_modules()}
    assert {name: length for name, length in lengths.items() if length > LINES_MAX} == {}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in our_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if FORBIDDEN[what].search(line)
    ]
    assert found == []


def test_modules_are_named_after_what_they_are_about() -> None:
    vague = {"utils", "util", "helpers", "common", "misc"}
    assert [relative(path) for path in our_modules() if path.stem in vague] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in our_modules() if ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None]
    assert [relative(path) for path in silent] == []


def test_tests_are_no_package() -> None:
    # tests/ledger/__init__.py alone would make `import ledger` find the tests.
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed_and_only_a_map(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
    docstring, names = ast.parse((ROOT / package / "__init__.py").read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(names, ast.AnnAssign)
    assert ast.unparse(names.target) == "__all__"


def test_every_dependency_has_a_reason_and_a_pin() -> None:
    lines = (ROOT / "pyproject.toml").read_text("utf-8").splitlines()
    project = tomllib.loads("\n".join(lines))["project"]
    extras = [name for listed in project["optional-dependencies"].values() for name in listed]
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin)] == []
    pinned = {pin.split("==")[0] for pin in pins}
    for requirement in [*project["dependencies"], *extras]:
        entry = re.compile(rf'\s*"{re.escape(requirement)}",\s*# \S.*')
        assert any(entry.fullmatch(line) for line in lines), f"no reason beside {requirement}"
        name = re.match(r"[a-z0-9-]+", requirement)
        assert name is not None
        assert name[0] in pinned | {project["name"]}, f"{requirement} is not pinned in constraints.txt"
