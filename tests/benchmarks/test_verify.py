"""Verify: records checked a second, columns derived again and all; memory must not grow with the store.

The floor is SHA-256 over the same record bytes in one thread: what the leaves alone cost.
"""

from __future__ import annotations

import hashlib
import resource
import time

import pytest
from bench import report
from bench_store import Million

from ledger import fsck
from ledger.reader import StoreReader
from ledger.trust import LogKeys, Trust

pytestmark = pytest.mark.benchmark


def test_verify(million: Million) -> None:
    start = time.perf_counter()
    found = fsck.verify(million.root, trust=Trust(LogKeys.of(million.vkey)))
    seconds = time.perf_counter() - start
    assert found.verdict == "verified", found.as_json()
    record = StoreReader.open(million.root, vkeys=[million.vkey]).record(500_000)
    start = time.perf_counter()
    for _ in range(200_000):
        hashlib.sha256(record).digest()
    floor = 200_000 / (time.perf_counter() - start)
    report(
        "verify",
        records=found.records,
        record_bytes=len(record),
        segments=found.segments,
        seconds=round(seconds, 2),
        records_s=round(found.records / seconds),
        sha256_floor_one_core_records_s=round(floor),
        ratio_to_floor=round(found.records / seconds / floor, 3),
        largest_worker_mib=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
    )
