"""A writer under `strace`, which lets chosen system calls fail or kill: what is below Python too, pyarrow's writes among them.

strace counts the calls of each thread by itself, so that `when=3` is the third call of every thread that makes three.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crashes import Diary
from stores import Home

CALLS: Final = {
    "sync": ("fsync", "fdatasync"),
    "write": ("write", "pwrite64"),
    "rename": ("?rename", "?renameat", "renameat2"),
    "link": ("?link", "linkat"),
    "unlink": ("?unlink", "unlinkat"),
    "cut": ("ftruncate",),
}
"""The system calls that change a store or make it durable, by what they do; not every machine has those with a question mark."""
_TIMEOUT_SECONDS: Final = 120.0
_PROGRAM: Final = "import sys; from pathlib import Path; import crashes; crashes.drive_plainly(Path(sys.argv[1]), Path(sys.argv[2]))"
_SUPPORT: Final = Path(__file__).parent


@dataclass(frozen=True)
class Fault:
    """What happens to which calls."""

    call: str
    """One of `CALLS`."""
    what: str
    """`error=EIO`, `error=ENOSPC`, `signal=KILL`: what strace calls tampering."""
    when: str
    """The number of the call in its thread, from 1; with a plus: from then on."""

    @property
    def kills(self) -> bool:
        return self.what.startswith("signal")

    def __str__(self) -> str:
        return f"{self.call} {self.what} when={self.when}"


def why_not() -> str:
    """Why there is no strace here that can inject faults; nothing when there is one."""
    strace = shutil.which("strace")
    if strace is None:
        return "SKIPPED FOR WANT OF strace: no fault below Python was tried (apt install strace)"
    tried = [strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "true"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else f"SKIPPED, strace cannot trace here: no fault below Python was tried ({done.stderr.strip()})"


def run_traced(home: Home, diary: Diary, fault: Fault | None, log: Path) -> int:
    """Run the scenario of `crashes` under strace; its exit code (-9: killed).

    Args:
        home: the store.
        diary: what the writer sees.
        fault: what to break; None only watches.
        log: gets the calls that were traced.
    """
    calls = ",".join(name for names in CALLS.values() for name in names)
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}", "-e", "signal=none"]
    if fault is None or not fault.kills:
        command.append("--seccomp-bpf")  # many times faster; but a signal given at the stops of such a filter is lost
    if fault is not None:
        command += ["-e", f"inject={','.join(CALLS[fault.call])}:{fault.what}:when={fault.when}"]
    program = [sys.executable, "-B", "-c", _PROGRAM, str(home.base), str(diary.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_SUPPORT), str(_SUPPORT.parents[1])])}
    done = subprocess.run(
        [*command, *program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode


def injected(log: Path) -> list[str]:
    """The calls that were tampered with."""
    return [line for line in log.read_text("utf-8", errors="replace").splitlines() if "(INJECTED)" in line]


def opened(command: list[str], log: Path, *, environment: dict[str, str]) -> tuple[int, set[str]]:
    """Run a command; its exit code, and every path that it, or a library beneath it, opened or tried to."""
    watch = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), "-e", "trace=?open,openat,?openat2", "-e", "signal=none", "-s", "4096"]
    done = subprocess.run(
        [*watch, *command], env=environment, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, set(re.findall(r'"((?:[^"\\]|\\.)*)"', log.read_text("utf-8", errors="replace")))
