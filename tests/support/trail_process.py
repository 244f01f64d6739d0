"""The `trail` command as a user runs it: a process of its own, its streams and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
PLAY = ROOT / "samples" / "scenario" / "play.py"


@dataclass(frozen=True)
class Ran:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON; nothing else may be there."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Recorded:
    """A store of this test's own; key, pin and last-signed state are in this test's home."""

    store: Path
    origin: str
    vkey: str
    key: Path


def command_line(*args: object) -> list[str]:
    """How the installed script is run."""
    return [sys.executable, "-m", "tui.cli", *map(str, args)]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, with the packages importable from anywhere."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRAIL_") or extra is None}
    return {**ours, "PYTHONPATH": str(ROOT), **(extra or {})}


def run_trail(*args: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run to the end."""
    done = subprocess.run(
        command_line(*args), cwd=cwd, env=environment(env), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


class Server:
    """A running `trail serve`."""

    def __init__(self, store: Path, *args: object, env: Mapping[str, str] | None = None) -> None:
        """Start it, on a free port, and wait until it listens."""
        self._log = store.with_name(store.name + ".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command_line("--store", store, "serve", "--http", "127.0.0.1:0", *args),
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.url = self._wait()

    @property
    def said(self) -> str:
        """What it wrote to stderr so far."""
        return self._log.read_text("utf-8")

    def stop(self, number: int = signal.SIGTERM, *, group: bool = False) -> int:
        """Send it (or, as Ctrl-C does, its whole group) a signal; its exit code."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """As a power cut would."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_SECONDS)

    def _wait(self) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for line in self.said.splitlines():
                if line.startswith("listening"):
                    return line.split()[1]
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.said}")
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not start: {self.said}")


def play(url: str) -> str:
    """Send the scenario with the real exporters; what the script said."""
    done = subprocess.run([sys.executable, str(PLAY), url], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    return done.stdout
