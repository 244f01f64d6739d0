"""What every verb has: help that teaches, refusals that help, and no slow start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest
from trail_process import ROOT, Ran, environment, run_trail

from tui.cli import SECTIONS, VERBS
from tui.exits import MEANINGS, Exit
from tui.verb import Verb, VerbGroup

Call = Callable[..., Ran]
GROUPS = {
    "token": ("add", "list", "revoke"),
    "witness": ("init", "add-log", "serve", "show"),
    "key": ("new", "rotate", "pin", "list", "compromised"),
}
LEAVES = [(name,) for name in VERBS if name not in GROUPS] + [(group, name) for group, names in GROUPS.items() for name in names]
READS = ("ask", "runs", "timeline", "show", "sql", "verify", "prove", "checkpoint", "status", "info", "doctor")


def test_trail_alone_says_where_to_begin(trail: Call) -> None:
    ran = trail()
    assert ran.code == Exit.OK
    assert "trail demo" in ran.out


def test_help_lists_every_verb_and_every_exit_code(trail: Call) -> None:
    text = trail("--help").out
    assert all(f"  {name} " in text for name in VERBS)
    assert all(f"  {int(code)} " in text for code in Exit)
    assert all(title in text for title in SECTIONS)


@pytest.mark.parametrize("verb", LEAVES, ids=" ".join)
def test_help_of_a_verb_teaches(trail: Call, verb: tuple[str, ...]) -> None:
    ran = trail(*verb, "--help")
    assert ran.code == Exit.OK
    assert "Examples:" in ran.out
    assert ran.out.count(f"  trail {verb[0]}") >= 2
    assert "Exit codes:" in ran.out
    assert "--store" in ran.out
    purpose = ran.out.split("\n\n")[1].strip()
    assert len(purpose) > 60


def test_every_module_of_commands_is_a_verb() -> None:
    modules = {path.stem for path in (ROOT / "tui" / "commands").glob("*.py")} - {"__init__"}
    assert modules == {module for module, _line in VERBS.values()}
    for name, (module, _line) in VERBS.items():
        command = import_module(f"tui.commands.{module}").command
        assert isinstance(command, Verb | VerbGroup)
        assert command.name == name


@pytest.mark.parametrize("verb", READS)
def test_every_read_speaks_json(verb: str) -> None:
    command = import_module(f"tui.commands.{VERBS[verb][0]}").command
    assert any("--json" in parameter.opts for parameter in command.params if isinstance(parameter, click.Option))


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 4, 130]


@pytest.mark.parametrize(
    "args",
    [
        ("ask", ""),
        ("ask", "x", "--agent", ""),
        ("ask", "x", "--agent="),
        ("ask", "   "),
        ("ask", "--store", ""),
        ("--store", "", "ask", "x"),
        ("sql", ""),
        ("verify", "--key", ""),
        ("verify", "--against", ""),
        ("timeline", "--since", ""),
        ("import", ""),
        ("token", "add", "", "--role", "emitter"),
        ("token", "add", "a", "--role", "emitter", "--service", ""),
    ],
    ids=" ".join,
)
def test_an_empty_argument_is_no_filter(trail: Call, args: tuple[str, ...]) -> None:
    ran = trail(*args)
    assert ran.code == Exit.USAGE
    assert ran.out == ""
    assert "empty" in ran.err


@pytest.mark.parametrize("name", ["TRAIL_STORE", "TRAIL_KEY", "TRAIL_VKEY", "TRAIL_STATE"])
def test_an_empty_variable_is_no_default(trail: Call, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    ran = trail("status")
    assert ran.code == Exit.USAGE
    assert name in ran.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("akk",), "did you mean ask?"),
        (("xyzzy",), "trail --help"),
        (("ask", "--nonsense"), "--nonsense"),
        (("show",), "N"),
        (("show", "x"), "x"),
        (("show", "-1"), "-1"),
        (("timeline", "--since", "whenever"), "yesterday"),
        (("serve", "--http", "4318"), "HOST:PORT"),
        (("serve", "--http", "localhost:99999"), "65536"),
        (("verify", "--key", "nonsense"), "public key"),
        (("verify", "--require", "perfect"), "anchored"),
        (("sql", "SELECT 1", "--json", "--csv"), "exclude"),
        (("token", "add", "a", "--role", "king"), "king"),
        (("ask", "--limit", "0"), "limit"),
        (("ask", "--since", "10:00", "--until", "09:00"), "window"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_command_line_is_told_what_is_wrong(trail: Call, args: tuple[str, ...], said: str) -> None:
    ran = trail(*args)
    assert ran.code == Exit.USAGE
    assert ran.out == ""
    assert said in ran.err
    assert len(ran.err.splitlines()) <= 3


def test_the_store_is_named_before_or_after_the_verb_or_by_the_environment(
    trail: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trail("--store", "one", "init").code == Exit.OK
    assert trail("init", "--store", "two").code == Exit.OK
    monkeypatch.setenv("TRAIL_STORE", "three")
    assert trail("init").code == Exit.OK
    assert trail("--store", "one", "info", "--store", "two", "--json").json["paths"]["store"] == str(tmp_path / "two")
    monkeypatch.delenv("TRAIL_STORE")
    assert trail("init").code == Exit.OK
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two", "three", "trail-store"}


def test_version() -> None:
    ran = run_trail("--version")
    assert ran.code == Exit.OK
    assert ran.out.startswith("trail ")


@pytest.mark.parametrize("args", [["--help"], ["ask", "--help"], ["verify", "--help"], ["ask", ""], ["verify"]], ids=" ".join)
def test_nothing_slow_is_loaded_for_it(args: list[str], tmp_path: Path) -> None:
    code = f"import sys\nfrom tui.cli import run\nrun({args!r})\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.partition("LOADED")[2].split()}
    slow = {"fastapi", "uvicorn", "textual", "opentelemetry", "google"} | ({"duckdb", "pyarrow"} if args != ["verify"] else set())
    assert not loaded & slow
