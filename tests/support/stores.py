"""Real stores for tests, written by the real writer: telemetry-like records, contents with salts, persons, duplicate keys.

Nothing of ours is replaced here. A `Home` is one log with everything that belongs to it (store, key, last-signed state, pins), each in
its own directory, so that a test can copy, lose or damage one of them without the others.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ledger import columns
from ledger.contents import ContentRows, keyed_digest, pseudonym
from ledger.fsck import verify
from ledger.fsck_report import Report
from ledger.journal import Part, encode_part
from ledger.keys import LastSigned, Pins
from ledger.merkle import leaf_hashes
from ledger.note import Verifier
from ledger.reader import StoreReader
from ledger.record import canonical, content_mark
from ledger.segment import read_batches
from ledger.submission import BatchNote, Receipt
from ledger.trust import LogKeys, Trust
from ledger.writer import StoreWriter, create

ORIGIN = "example.com/agents"
SECRET = b"s" * 32
FAST: dict[str, float] = {
    "checkpoint_seconds": 0.02,
    "segment_records": 40,
    "segment_age_seconds": 600.0,
    "compact_grace_seconds": 0.1,
    "reserve_bytes": 1,
}
"""Settings of a store that does in a second what a server does in minutes."""


@dataclass(frozen=True)
class Home:
    """One log and everything that belongs to it."""

    base: Path

    @property
    def store(self) -> Path:
        return self.base / "store"

    @property
    def key(self) -> Path:
        return self.base / "keys" / "log.key"

    @property
    def state(self) -> LastSigned:
        return LastSigned(self.base / "state" / "log.checkpoint")

    @property
    def pins(self) -> Pins:
        return Pins(self.base / "config" / "pins.json")

    @property
    def vkey(self) -> str:
        key = self.pins.key(ORIGIN)
        assert key is not None
        return key

    @property
    def verifier(self) -> Verifier:
        return Verifier.parse(self.vkey.split()[-1])

    def copy(self, base: Path) -> Home:
        """The same log elsewhere, key and state included; times are kept, as a thief or a backup would keep them."""
        shutil.copytree(self.base, base, symlinks=True)
        return Home(base)

    def open(self, **arguments: Any) -> StoreWriter:
        """Take the store over, as a server's start does."""
        return StoreWriter.open(self.store, command="a test", key_path=self.key, last_signed=self.state, **arguments)

    @contextlib.contextmanager
    def writing(self, **arguments: Any) -> Iterator[StoreWriter]:
        """Open, and close cleanly."""
        writer = self.open(**arguments)
        try:
            yield writer
        finally:
            writer.close()

    def read(self, **arguments: Any) -> StoreReader:
        """Open for reading with the pinned key and a cache of its own."""
        return StoreReader.open(self.store, **{"vkeys": [self.vkey], "cache": self.base / "cache", **arguments})

    def verify(self, *, verifier: Verifier | Literal["pinned"] | None = "pinned", trust: Trust | None = None, **arguments: Any) -> Report:
        """Check everything in this process, with the pinned key (or `verifier`, or whatever `trust` says) and the last-signed state."""
        pinned = LogKeys.of(*self.vkey.split()) if verifier == "pinned" and trust is None else None
        believed = trust or Trust(keys=LogKeys.of(verifier) if isinstance(verifier, Verifier) else pinned)
        return verify(self.store, trust=believed, **{"last_signed": self.state, "processes": 1, **arguments})

    @property
    def checkpoint(self) -> bytes:
        return (self.store / "checkpoint").read_bytes()

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.store.glob(pattern))


def new_home(base: Path, *, origin: str = ORIGIN, **settings: float) -> Home:
    """A log with an empty store; `settings` over `FAST`."""
    home = Home(base)
    create(home.store, origin=origin, key_path=home.key, pins=home.pins)
    set_settings(home, **settings)
    return home


def set_settings(home: Home, **settings: float) -> None:
    """Write trail.toml anew, as an operator with an editor does."""
    origin = next(line for line in (home.store / "trail.toml").read_text().splitlines() if line.startswith("origin"))
    lines = ["format = 1", origin, *(f"{name} = {value}" for name, value in (FAST | settings).items())]
    (home.store / "trail.toml").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Request:
    """What one exporter sends at once, ready for `Log.submit`."""

    records: list[bytes]
    parts: list[Part]
    leaves: bytes
    note: BatchNote
    values: list[bytes] = field(default_factory=list)
    """The contents kept beside the records."""


def request(
    seed: int, *, count: int = 3, sender: str = "loopback", contents: bool = True, received: int | None = None, size: int = 200
) -> Request:
    """A request of `count` spans; the same seed is the same body, whoever sends it.

    Args:
        seed: decides ids, texts and salts.
        count: spans in it.
        sender: who it came from.
        contents: with prompts, persons and values that were never kept.
        received: our clock when it came, Unix nanoseconds; now by default.
        size: bytes of each prompt.
    """
    rng = random.Random(seed)
    now = time.time_ns() if received is None else received
    rows = ContentRows.empty()
    records: list[bytes] = []
    facts: list[dict[str, Any]] = []
    values: list[bytes] = []
    for index in range(count):
        fact, attributes = _span(rng, now, index, size)
        if contents:
            attributes += _contents(rng, index, rows, fact, values, size)
        records.append(
            canonical(
                {
                    "v": 1,
                    "kind": "span",
                    "received": str(now),
                    "sender": sender,
                    "vocabulary": "otel-genai/1 trail/1",
                    "facts": fact,
                    "resource": {"attributes": [["service.name", {"s": fact["service"]}]]},
                    "span": {"name": fact["name"], "span_id": fact["span_id"], "attributes": attributes},
                }
            )
        )
        facts.append(fact)
    tops = {"kind": "span", "received": str(now), "sender": sender, "vocabulary": "otel-genai/1 trail/1"}
    part = encode_part(columns.project(records, tops, facts), rows.to_batch())
    return Request(records, [part], leaf_hashes(records), _note(rng, seed, now, sender), values)


def _span(rng: random.Random, now: int, index: int, size: int) -> tuple[dict[str, Any], list[Any]]:
    fact: dict[str, Any] = {
        "time": str(now - rng.randrange(10**9)),
        "service": "support-agent",
        "run_id": f"run-{rng.randrange(5)}",
        "trace_id": rng.randbytes(16).hex(),
        "span_id": rng.randbytes(8).hex(),
        "agent": rng.choice(["support-agent", "refunds_agent"]),
        "name": rng.choice(["execute_tool edit_file", "chat gpt", "Größe ändern"]),
        "outcome": rng.choice(["ok", "error"]),
        "input_tokens": rng.randrange(10_000),
        "score": rng.random(),
    }
    if index % 2:
        fact["contexts"] = [{"source": "kb", "id": f"doc-{rng.randrange(99)}"}, {"source": "tickets", "id": "T-1"}]
    return fact, [["gen_ai.request.model", {"s": "gpt"}], ["note", {"s": rng.randbytes(size // 8).hex()}]]


def _contents(rng: random.Random, index: int, rows: ContentRows, fact: dict[str, Any], values: list[bytes], size: int) -> list[Any]:
    """A prompt, a person, and something a rule kept out; ordinals count in document order."""
    prompt, name = rng.randbytes(size // 2).hex().encode(), f"{rng.choice(['ada', 'grace'])}@example.com"
    keyed = keyed_digest(SECRET, "person", name.encode())
    salts = [rng.randbytes(16) for _ in range(3)]
    rows.add(index, 0, ("gen_ai.input.messages", "s", salts[0], prompt, None, None))
    rows.add(index, 1, ("user.email", "s", salts[1], None, name, keyed))
    rows.add(index, 2, ("http.request.body", "x", salts[2], None, None, None))
    fact["requester"] = pseudonym(keyed)
    values += [prompt, name.encode()]
    return [
        ["gen_ai.input.messages", content_mark(salt=salts[0], value=prompt, type="s")],
        ["user.email", content_mark(salt=salts[1], value=name.encode(), type="s")],
        ["http.request.body", content_mark(salt=salts[2], value=rng.randbytes(30), type="x", rule="too large")],
    ]


def _note(rng: random.Random, seed: int, now: int, sender: str) -> BatchNote:
    body, salt = f"body {seed}".encode(), rng.randbytes(16)
    key = keyed_digest(SECRET, "body", sender.encode() + b"\0" + body)
    rows = ContentRows.empty()
    rows.add(0, 0, ("body", "sha256", salt, None, None, key))
    mark = content_mark(salt=salt, value=hashlib.sha256(body).digest(), type="sha256", rule="request body")
    return BatchNote(
        received=now, sender=sender, role=None, body={"body": mark, "bytes": len(body), "signal": "traces"}, contents=rows,
        duplicate_key=key, nonce=rng.randbytes(16),
    )  # fmt: skip


def send(writer: StoreWriter, asked: Request) -> Receipt:
    """Submit and wait for the receipt."""
    return writer.log.submit(asked.parts, asked.leaves, asked.note).result(timeout=60)


def settle(writer: StoreWriter, *, timeout: float = 30.0) -> None:
    """Wait until every record is under a published checkpoint."""
    writer.log.settle()  # a receipt comes a moment before the tree has grown
    assert writer.log.wait_published(writer.log.size, timeout=timeout)


def seal(writer: StoreWriter, *, timeout: float = 30.0) -> None:
    """Seal what is in the journal now, and wait until the journal is dropped and the seals are under a checkpoint."""
    writer.log.settle()
    end = writer.log.size
    writer.log.rotate()
    wait_for(lambda: any(s.end >= end for s in writer.sealer.segments) and not _holds(writer, end), timeout=timeout)
    settle(writer)


def _holds(writer: StoreWriter, end: int) -> bool:
    return any(int(path.name.split("-")[0]) < end for path in writer.layout.journal.iterdir())


def wait_for(condition: Any, *, timeout: float = 30.0) -> None:
    """Poll until `condition()` is true.

    Raises:
        AssertionError: it did not come true in time.
    """
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def kill(writer: StoreWriter) -> None:
    """Leave a writer as a power cut would: its threads end, nothing more is sealed, the lock is gone.

    What it has written stays as it is; what waits is answered with an error.
    """
    writer.sealer._closing.set()
    writer.sealer._jobs.put(None)
    writer.log.stop()
    writer.sealer._thread.join()
    writer._lock.release()


def small_store(base: Path, *, merged: bool = False, tail: bool = True) -> Home:
    """About twenty records: two sealed segments with contents (merged into one if wanted), and a tail in the journal."""
    home = new_home(base, segment_records=1000, compact_fan_in=2 if merged else 100, compact_records=1000)
    with home.writing() as writer:
        for seed in range(2):
            send(writer, request(seed, count=3))
            seal(writer)
        if merged:
            wait_for(lambda: len(writer.sealer.segments) == 1)
            settle(writer)
    if tail:
        writer = home.open()
        send(writer, request(7, count=2))
        settle(writer)
        kill(writer)
    return home


def all_records(home: Home) -> list[bytes]:
    """Every record under the checkpoint as a reader gets them, sealed files first and then the journal."""
    reader = home.read()
    found: list[bytes] = []
    for path in reader.verified_files("records"):
        for batch in read_batches(path, names=["record"]):
            found += batch.column(0).to_pylist()
    return found + reader.tail().records.column("record").to_pylist()


def seal_record(home: Home, name: str) -> dict[str, Any]:
    """The seal record in a side file, parsed."""
    value = json.loads((home.store / (name + ".seal")).read_bytes())
    record: dict[str, Any] = json.loads(base64.b64decode(value["record"]))
    return record
