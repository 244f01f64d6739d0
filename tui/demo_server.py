"""The demo's processes: `trail serve` and `trail witness serve`, as anybody would start them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ledger.errors import StorageError
from tui import running

_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
_LISTENING: Final = re.compile(rb"^listening  (http://\S+)", re.MULTILINE)
_OURS: Final = ("TRAIL_STORE", "TRAIL_KEY", "TRAIL_VKEY", "TRAIL_WITNESS", "TRAIL_PASSPHRASE_FILE")
"""Variables that are about the user's own log."""


@contextlib.contextmanager
def running_server(store: Path, *, origin: str, key: Path) -> Iterator[str]:
    """The real server in a process of its own, on a free port; its URL. Stopped at the end, whatever happens.

    Raises:
        StorageError: it does not start, or does not end well.
    """

    def url(process: subprocess.Popen[bytes], _log: Any) -> str | None:
        found = running.find_server(origin, store)
        return found.http if found is not None and found.pid == process.pid else None

    with _running(["--store", str(store), "serve", "--http", "127.0.0.1:0", "--key", str(key)], url) as found:
        yield found


@contextlib.contextmanager
def running_witness(directory: Path) -> Iterator[str]:
    """The real witness in a process of its own, on a free port; its URL.

    Raises:
        StorageError: it does not start, or does not end well.
    """

    def url(_process: subprocess.Popen[bytes], log: Any) -> str | None:
        log.seek(0)
        found = _LISTENING.search(log.read())
        return found[1].decode() if found is not None else None

    with _running(["witness", "serve", "--dir", str(directory), "--http", "127.0.0.1:0"], url) as found:
        yield found


@contextlib.contextmanager
def _running(arguments: Sequence[str], url_of: Callable[[subprocess.Popen[bytes], Any], str | None]) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
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
            yield _wait_until_listening(process, log, url_of)
        finally:
            _stop(process)
        if process.returncode:
            raise StorageError(f"the server ended with exit code {process.returncode}: {_last_line(log)}")


def _wait_until_listening(process: subprocess.Popen[bytes], log: Any, url_of: Callable[[subprocess.Popen[bytes], Any], str | None]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = url_of(process, log)
        if found is not None:
            return found
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
