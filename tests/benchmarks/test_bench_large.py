"""The generator of large stores makes true ones: what reads them must find nothing wrong, and what is damaged in them."""

from __future__ import annotations

from pathlib import Path

import bench_large
import pytest
from attacks import flip
from bench_large import make_large

from ledger.fsck import verify
from ledger.merkle import leaf_hash
from ledger.note import Verifier
from ledger.proof import Proof, verify_proof
from ledger.reader import StoreReader
from ledger.record import canonical, parse_record
from ledger.trust import LogKeys, Trust


def test_a_generated_store_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_large, "FILE_RECORDS", 1_000)
    store = make_large(tmp_path, 2_500, processes=2)
    trust = Trust(LogKeys.of(store.vkey))
    found = verify(store.root, trust=trust, processes=1)
    assert (found.verdict, found.records, found.segments) == ("verified", 2_503, 3), found.as_json()

    reader = StoreReader.open(store.root, vkeys=[store.vkey], cache=tmp_path / "cache")
    records = [reader.record(index) for index in (0, 999, 1_000, 2_499, 2_502)]
    assert [parse_record(record)["kind"] for record in records] == ["span"] * 4 + ["seal"]
    assert all(canonical(parse_record(record)) == record for record in records), "in the one form"
    assert len({leaf_hash(reader.record(index)) for index in range(0, 2_503, 7)}) == len(range(0, 2_503, 7))
    assert verify_proof(Proof.parse(reader.prove(1_234)), reader.record(1_234), Verifier.parse(store.vkey)).size == 2_503
    assert store.record_bytes > 500 * store.records

    flip(store.root / "records/1000-2000.0.parquet", 5_000)
    assert verify(store.root, trust=trust, processes=1).verdict == "failed"
