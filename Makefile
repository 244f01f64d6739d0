# Each target does its own set-up: on a fresh machine it needs python3 (3.11 or newer, with venv) and make, nothing else.
#
#   make demo      the first thing to run        make test      what CI runs
#   make check     everything before a commit    make nightly   make test, and the slow and interop tests
#   make bench     the figures of the README     make cover     branch coverage of ledger
#   make clean     remove what make made         PYTHON=python3.12 chooses the interpreter of a new .venv

PYTHON ?= python3
BIN := .venv/bin

# pip's own variable rather than -c, because it reaches the isolated environment that builds the project as well.
# (From pip 25.3 on that environment listens to the second one only.)
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DELETE_ON_ERROR:
.PHONY: demo test check nightly bench cover clean

demo: .venv/.ready-demo
	@$(BIN)/trail demo

test: .venv/.ready-test
	$(BIN)/python -m pytest

check: .venv/.ready-test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

nightly: .venv/.ready-test
	$(BIN)/python -m pytest -m "not benchmark"

bench: .venv/.ready-test
	$(BIN)/python -m pytest -s -m benchmark tests/benchmarks

cover: .venv/.ready-test
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=100 tests/ledger

clean:
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find ledger ingest query tui tests -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set-up, written only when everything before it went well, so an interrupted installation is simply repeated.
.venv/.ready-demo: .venv/.made pyproject.toml constraints.txt
	@echo "Installing trail into .venv (once, about a minute) ..." >&2
	@$(BIN)/python -m pip install --quiet -e '.[samples]'
	@touch $@

.venv/.ready-test: .venv/.made pyproject.toml constraints.txt
	@echo "Installing trail and its development tools into .venv (once, about a minute) ..." >&2
	@$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

.venv/.made:
	@command -v $(PYTHON) >/dev/null || { echo "trail needs Python 3.11 or newer, and there is no $(PYTHON) here." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "trail needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1): name another one with make PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { echo "$(PYTHON) could not make a virtual environment (on Debian and Ubuntu, install python3-venv)." >&2; exit 1; }
	@touch $@
