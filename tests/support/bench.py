"""What the benchmarks share: a server to look at, a driver, and the line of figures that the README quotes."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench_load import SPANS_A_REQUEST


@dataclass(frozen=True)
class Server:
    """A running `trail serve`."""

    store: Path
    port: int
    pid: int
    environment: dict[str, str]

    def cpu_seconds(self) -> float:
        """User and system time of the server and its processes."""
        return sum(_cpu(pid) for pid in _tree(self.pid))

    def peak_bytes(self) -> int:
        """Largest resident memory, summed over its processes."""
        return sum(_peak(pid) for pid in _tree(self.pid))

    def trail(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a user would."""
        return subprocess.run(
            [sys.executable, "-m", "tui.cli", *arguments, "--store", str(self.store)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Posted:
    """What the driver saw."""

    seconds: float
    spans: int
    latencies_ms: list[float]
    """Sorted."""

    def percentile(self, share: float) -> float:
        """The latency below which this share of requests was answered."""
        return self.latencies_ms[min(len(self.latencies_ms) - 1, int(len(self.latencies_ms) * share))]


def post(port: int, bodies: list[bytes], *, connections: int = 4) -> Posted:
    """Post every body once over keep-alive connections; anything but 200 is an error."""
    todo = list(reversed(bodies))
    latencies: list[float] = []
    failures: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                body = todo.pop() if todo else None
            if body is None:
                connection.close()
                return
            at = time.perf_counter()
            connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
            with lock:
                latencies.append((time.perf_counter() - at) * 1e3)
                if answer.status != 200:
                    failures.append(str(answer.status))

    threads = [threading.Thread(target=work) for _ in range(connections)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    assert not failures, failures[:5]
    return Posted(seconds, len(bodies) * SPANS_A_REQUEST, sorted(latencies))


def report(name: str, **figures: object) -> None:
    """Print one line of figures, as the README quotes them."""
    print(f"\n{name}: " + json.dumps(figures))


def disk_bytes(path: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0
