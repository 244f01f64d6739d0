"""The demo's server: `trail serve` as anybody would start it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ledger.errors import StorageError
from tui import running

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05


@contextlib.contextmanager
def running_server(store: Path, *, origin: str, key: Path) -> Iterator[str]:
    """The real server in a process of its own, on a free port; its URL. Stopped at the end, whatever happens.

    Raises:
        StorageError: it does not start, or does not end well.
    """
    arguments = ["--store", str(store), "serve", "--http", "127.0.0.1:0", "--key", str(key)]
    environment = {name: value for name, value in os.environ.items() if name not in ("TRAIL_STORE", "TRAIL_KEY", "TRAIL_VKEY")}
    with tempfile.TemporaryFile() as log:
        # A session of its own, so that Ctrl-C reaches us and we stop the server in order.
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "tui.cli", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
        try:
            url = _wait_until_listening(store, origin, process, log)
            yield url
        finally:
            _stop(process)
        if process.returncode:
            raise StorageError(f"the server ended with exit code {process.returncode}: {_last_line(log)}")


def _wait_until_listening(store: Path, origin: str, process: subprocess.Popen[bytes], log: Any) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = running.find_server(origin, store)
        if found is not None and found.pid == process.pid:
            return found.http
        if process.poll() is not None:
            raise StorageError(f"the server did not start: {_last_line(log)}", hint="see trail doctor")
        time.sleep(_POLL_SECONDS)
    raise StorageError(f"the server did not start within {_START_SECONDS:.0f} s", hint="try again on a machine with less to do")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _last_line(log: Any) -> str:
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("trail:")), lines[-1] if lines else "it said nothing")
