"""The dependency direction, twice: the graph by import-linter, and the truth by what a process loads."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONTRACTS = {contract["id"]: contract for contract in CONFIGURATION["tool"]["importlinter"]["contracts"]}
SERVERS_AND_SCREENS = ("fastapi", "starlette", "uvicorn", "textual", "opentelemetry", "grpc")

# Runs `trail verify --help` the way the installed script does.
VERIFY_HELP = """
import tui.cli
sys.argv = ["trail", "verify", "--help"]
try:
    tui.cli.main()
except SystemExit as exit:
    assert not exit.code, exit.code
"""


def need(*modules: str) -> None:
    """Skip, by name, what concerns modules that are not written yet."""
    if missing := [module for module in modules if find_spec(module) is None]:
        pytest.skip(f"not written yet: {', '.join(missing)}")


def loaded_by(code: str) -> set[str]:
    """The names of all modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint('\\n' + '\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_import_contract_holds(contract: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    need(*CONTRACTS[contract].get("source_modules", ()))
    monkeypatch.chdir(ROOT)
    # It configures logging for a process of its own, and would silence every logger of ours for the tests that follow in this one.
    monkeypatch.setattr("logging.config.dictConfig", lambda _config: None)
    status = lint_imports(config_filename="pyproject.toml", limit_to_contracts=(contract,), no_cache=True)
    assert status == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "code"),
    [
        pytest.param("ledger", "import ledger", id="ledger"),
        pytest.param("ledger.fsck", "import ledger.fsck", id="ledger.fsck"),
        pytest.param("tui.cli", VERIFY_HELP, id="trail verify --help"),
    ],
)
def test_an_auditor_loads_no_server_and_no_screen(module: str, code: str) -> None:
    need(module)
    unwanted = {name for name in loaded_by(code) if name.startswith(SERVERS_AND_SCREENS)}
    assert not unwanted


@pytest.mark.parametrize("package", ["ledger", "ingest", "query", "tui"])
def test_importing_a_package_loads_nothing_else(package: str) -> None:
    bare = loaded_by("")
    assert loaded_by(f"import {package}") - bare == {package}
