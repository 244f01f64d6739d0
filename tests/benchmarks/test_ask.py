"""Ask: one resource in one hour of a million records, in a process that is warm, and as a whole command.

The floor is the least a reader can do with DuckDB: count that hour's rows of the resource in the same files.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import duckdb
import pytest
from bench import report
from bench_store import RESOURCES, START_NS, Million

from ledger.reader import StoreReader
from query.answers import ask
from query.question import Question

pytestmark = pytest.mark.benchmark
HOUR_NS = 3_600_000_000_000
ROUNDS = 15


def median_ms(work: Callable[[int], object]) -> float:
    """The median of some rounds."""
    times = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def test_ask(million: Million) -> None:
    reader = StoreReader.open(million.root, vkeys=[million.vkey])
    since = START_NS + 4 * HOUR_NS

    def question(number: int) -> None:
        wanted = f"orders/{number * 31 % RESOURCES}"
        answer = ask(reader, Question(resource=wanted, since=since, until=since + HOUR_NS, limit=5))
        assert answer.cards, wanted

    question(0)
    warm = median_ms(question)
    files = [str(path) for path in reader.verified_files("records")]
    connection = duckdb.connect(config={"threads": 2})
    statement = "SELECT count(*) FROM read_parquet($files) WHERE resource = $name AND epoch_ns(time) BETWEEN $low AND $high"
    floor = median_ms(
        lambda number: connection.execute(
            statement, {"files": files, "name": f"orders/{number * 31 % RESOURCES}", "low": since, "high": since + HOUR_NS}
        ).fetchall()
    )
    environment = os.environ | {"TRAIL_VKEY": million.vkey}
    command = [sys.executable, "-m", "tui.cli", "ask", "orders/7", "--store", str(million.root), "--since", "2025-10-09T12:53:20Z"]
    command += ["--until", "2025-10-09T13:53:20Z", "--json"]

    def whole(_number: int) -> None:
        subprocess.run(command, env=environment, capture_output=True, check=True)

    whole(0)  # hashes the files once; remembered in the user's cache
    report(
        "ask",
        records=reader.size,
        warm_ms=round(warm),
        floor_ms=round(floor),
        ratio_to_floor=round(warm / floor, 1),
        command_ms=round(median_ms(whole)),
    )
