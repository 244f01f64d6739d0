"""A store of a million records of about 900 bytes without contents, for what reads: verify and ask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ledger import columns
from ledger.contents import ContentRows
from ledger.journal import encode_part
from ledger.keys import LastSigned, Pins
from ledger.merkle import leaf_hashes
from ledger.record import canonical
from ledger.submission import BatchNote
from ledger.writer import StoreWriter, create

RECORDS = 1_000_000
BATCH = 2_000
START_NS = 1_760_000_000_000_000_000
STEP_NS = 36_000_000
"""A million records are ten hours."""
RESOURCES = 10_000
"""Ten actions an hour on each."""


@dataclass(frozen=True)
class Million:
    """The store, and the public key to believe."""

    root: Path
    vkey: str


def make_million(place: Path) -> Million:
    """Write it through the log, as a server does."""
    root = place / "store"
    key = create(root, origin="bench.example/million", key_path=place / "key", pins=Pins(place / "pins.json"))
    writer = StoreWriter.open(root, command="benchmark", key_path=place / "key", last_signed=LastSigned(place / "last"))
    for number in range(RECORDS // BATCH):
        records, facts = [], []
        for i in range(BATCH):
            fact = _fact(number, i)
            text = hashlib.sha256(str(i + number).encode()).hexdigest() * 6
            value = {"v": 1, "kind": "span", "received": str(START_NS), "sender": "loopback", "vocabulary": "otel-genai/1", "facts": fact}
            records.append(canonical(value | {"span": {"attributes": [["text", {"s": text}]]}}))
            facts.append(fact)
        tops = {"kind": "span", "received": str(START_NS), "sender": "loopback", "vocabulary": "otel-genai/1"}
        note = BatchNote(
            received=START_NS + number,
            sender="loopback",
            role=None,
            body={},
            contents=ContentRows.empty(),
            duplicate_key=number.to_bytes(16, "big"),
            nonce=bytes(16),
        )
        writer.log.submit([encode_part(columns.project(records, tops, facts), None)], leaf_hashes(records), note).result()
    writer.close()
    return Million(root, key.signer.vkey)


def _fact(number: int, i: int) -> dict[str, object]:
    run = f"run-{number}-{i // 20}"
    return {
        "time": str(START_NS + (number * BATCH + i) * STEP_NS),
        "service": "bench",
        "agent": "support-agent",
        "run_id": run,
        "event": "execute_tool",
        "name": "execute_tool x",
        "action_id": f"call_{number}_{i}",
        "tool": "edit_file",
        "resource": f"orders/{(number * BATCH + i * 7) % RESOURCES}",
        "change_kind": "update",
        "outcome": "ok",
        "trace_id": f"{number:016x}{i // 20:016x}",
        "span_id": f"{number:08x}{i:08x}",
    }
