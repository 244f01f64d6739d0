# Each target does its own set-up: on a fresh machine it needs python3 (3.11 or newer, with venv) and make, nothing else.
#
#   make demo      the first thing to run         make test      what CI runs
#   make check     everything before a commit     make nightly   make test, and the slow and interop tests
#   make interop   what others wrote reads ours   make bench     the figures of the README
#   make cover     branch coverage of ledger      make clean     remove what make made
#   PYTHON=python3.12 chooses the interpreter of a new .venv

PYTHON ?= python3
BIN := .venv/bin
# Three on two cores: tests wait for disks, processes and clocks about as long as they compute. make test WORKERS=0 runs them one by one.
WORKERS ?= 3
TESTS = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# pip's own variable rather than -c, because it reaches the isolated environment that builds the project as well.
# (From pip 25.3 on that environment listens to the second one only.)
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DELETE_ON_ERROR:
.PHONY: demo test check nightly interop bench cover clean

demo: .venv/.ready-demo
	@$(BIN)/trail demo

test: .venv/.ready-test
	$(TESTS)

check: .venv/.ready-test
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TESTS)

nightly: .venv/.ready-test
	$(TESTS) -m "not benchmark"

# Programs that nobody here wrote, over what we write. Go gets its modules at the versions of tests/interop/go/go.mod and go.sum, into its
# own cache; without one of these tools the tests of make nightly are skipped and say so, but this target was asked for them.
interop: .venv/.ready-test
	@for tool in go openssl; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then echo "make interop needs$$missing, which is not here (on Debian and Ubuntu: apt install golang-go openssl; go must be 1.24 or newer)." >&2; exit 1; fi
	cd tests/interop/go && go build -o /dev/null ./...
	$(BIN)/python -m pytest -m interop tests/interop

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
