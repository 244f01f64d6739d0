"""`verify` over journals that somebody made: failures, in bounded time, and never an exception."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from stores import Home, kill, new_home, request, send, settle

from ledger import columns, fsck
from ledger.contents import SCHEMA as CONTENTS_SCHEMA
from ledger.journal import FILE_MAGIC, Part, encode_frame, encode_part

BASE = {"v": 1, "kind": "span", "received": "5", "sender": "loopback", "vocabulary": "otel-genai/1"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", segment_records=1000)


# ---- hostile journals: whoever can write the store can also make checksums


def _hostile(home: Home, frame: bytes) -> fsck.Report:
    """A journal with this frame where the next records of a signed tree would be."""
    writer = home.open()
    send(writer, request(1))
    settle(writer)
    kill(writer)
    for path in home.files("journal/*"):
        path.write_bytes(FILE_MAGIC + frame)
    report = home.verify()
    with pytest.raises(fsck.LedgerError):
        home.read()
    with pytest.raises(fsck.LedgerError):
        home.open()
    return report


def _frame(*parts: Part, start: int = 0) -> bytes:
    return b"".join(bytes(piece) for piece in encode_frame(start, parts))


def _records(count: int = 6) -> pa.RecordBatch:
    asked = request(1, count=count)
    return pa.ipc.read_record_batch(pa.py_buffer(asked.parts[0].records), columns.BATCH_SCHEMA)


def _nulls() -> Part:
    batch = _records()
    arrays = [*batch.columns[:-1], pa.nulls(6, pa.binary())]
    return Part(
        6, pa.RecordBatch.from_arrays(arrays, schema=pa.schema([f.with_nullable(True) for f in columns.BATCH_SCHEMA])).serialize(), b""
    )


def _null_contents() -> Part:
    part = encode_part(_records(), None)
    nullable = pa.schema([field.with_nullable(True) for field in CONTENTS_SCHEMA])
    rows = pa.RecordBatch.from_arrays([pa.nulls(3, field.type) for field in nullable], schema=nullable)
    return Part(6, part.records, rows.serialize().to_pybytes())


def _cut() -> Part:
    part = encode_part(_records(), None)
    return Part(6, bytes(part.records)[:-40], b"")


def _offsets() -> Part:
    """Offsets of the record column that point far outside its bytes."""
    batch = _records()
    data = bytearray(encode_part(batch, None).records)
    offsets = batch.column(len(batch.columns) - 1).buffers()[1].to_pybytes()
    at = data.rindex(offsets)
    data[at + 4 : at + 8] = (1 << 30).to_bytes(4, "little")
    return Part(6, bytes(data), b"")


HOSTILE = {
    "fewer records than announced": lambda: _frame(Part(9, encode_part(_records(), None).records, b"")),
    "more records than announced": lambda: _frame(Part(2, encode_part(_records(), None).records, b"")),
    "records that are null": lambda: _frame(_nulls()),
    "contents that are null": lambda: _frame(_null_contents()),
    "a batch cut off": lambda: _frame(_cut()),
    "offsets outside the batch": lambda: _frame(_offsets()),
    "no batch at all": lambda: _frame(Part(6, b"", b"")),
    "a batch of random bytes": lambda: _frame(Part(6, bytes(range(256)) * 4, b"")),
    "contents of random bytes": lambda: _frame(Part(6, encode_part(_records(), None).records, bytes(range(256)))),
    "records of another schema": lambda: _frame(Part(6, pa.record_batch({"a": [1] * 6}).serialize().to_pybytes(), b"")),
    "an index beyond 64 bits": lambda: _frame(encode_part(_records(), None), start=2**64 - 1),
    "other records, well made": lambda: _frame(encode_part(_records(), None)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_journal_is_a_failure_and_never_an_exception(home: Home, kind: str) -> None:
    report = _hostile(home, HOSTILE[kind]())
    assert report.verdict == "failed"
    assert {failure.what for failure in report.failures} <= {"journal", "record", "content", "column"}


def test_a_journal_made_to_be_slow_is_read_in_no_time(home: Home) -> None:
    # Each of these headers claims all the bytes behind it, so that finding frames behind the bad one costs a checksum over them.
    size = 3_000_000
    header = b"TRJF" + b"\0" * 4
    claims = b"".join(header + (size - at - 2000).to_bytes(8, "little") + b"\0" * 16 for at in range(0, size // 2, 32))
    report = _hostile(home, claims + b"\0" * (size - len(claims)))
    assert report.verdict == "failed"


def test_whole_frames_behind_a_broken_one_are_named(home: Home) -> None:
    writer = home.open()
    send(writer, request(1))
    settle(writer)
    kill(writer)
    (path,) = home.files("journal/*")
    with path.open("ab") as handle:
        handle.write(b"\0" * 64 + _frame(encode_part(_records(), None), start=6))
    report = home.verify()
    assert report.verdict == "verified"
    assert [line for line in report.not_judged if "1 whole frames behind" in line] == report.not_judged != []
