"""What holds for every test: a home of its own, no deadlines, and a run without a test is no success."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# fsync on a busy disk takes what it takes: a deadline would report the disk. Everything else stays as
# hypothesis has it, its repeatable settings under CI included.
settings.register_profile("trail", settings(), deadline=None)
settings.load_profile("trail")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests, and the processes they start, away from the developer's keys, pins, state and cache."""
    for name in [name for name in os.environ if name.startswith("TRAIL_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name, directory in (
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_STATE_HOME", ".local/state"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_CACHE_HOME", ".cache"),
    ):
        monkeypatch.setenv(name, str(home / directory))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Treat a run in which every test was skipped as one that ran no test: it proved nothing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus != pytest.ExitCode.OK or session.config.option.collectonly or reporter is None:
        return
    if not any(reporter.stats.get(outcome) for outcome in ("passed", "xfailed")):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
