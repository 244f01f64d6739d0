"""Ctrl-C reaches every process of the terminal's group: it is ours to act on, and our worker processes must not die of it.

A decoder that died of Ctrl-C would take requests with it that the draining server still means to answer.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing import resource_tracker
from typing import NoReturn, TypeVar

from tui.exits import Exit

Result = TypeVar("Result")


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """Processes started within, and by threads started within, never see Ctrl-C; one that comes meanwhile reaches us at the end."""
    # Its first start unblocks the signal again, so it has to be over before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interruptibly(work: Callable[[], Result]) -> Result:
    """Do work that starts processes of its own, so that Ctrl-C ends it and them at once."""
    done: Future[Result] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as exc:
            done.set_exception(exc)

    with deaf_children():
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            child.terminate()
        raise


def leave(code: int) -> NoReturn:
    """End the process; after Ctrl-C at once.

    CPython ends a process by the signal if it was ever raised inside `eval` (of which imports are full), even though it was caught:
    the exit code would be lost.
    """
    if code == Exit.INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
