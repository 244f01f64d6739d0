"""A second verifier, written from `ledger/FORMAT.md` alone: it imports nothing of `ledger`, and shares no decision with it.

`problems(store, vkey)` follows section 16 step by step and returns what is false, each with its place; nothing means *verified*.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NAME = re.compile(r"(records|contents)/(0|[1-9][0-9]*)-([1-9][0-9]*)\.(0|[1-9][0-9]*)\.parquet")
MARK = re.compile(rb'"\$content":\{"bytes":([0-9]+),"commitment":"([0-9a-f]{64})"(,"rule":"([^"\\]*)")?,"type":"([a-z0-9]+)"\}')
TIMES = {"received", "time", "end_time"}
NUMBERS = {"input_tokens", "output_tokens", "cost_usd_micros", "shown_bytes", "sequence"}
TOP = ["kind", "received", "sender", "role", "vocabulary"]
FACTS = [
    "time", "end_time", "service", "environment", "run_id", "trace_id", "span_id", "parent_span_id", "agent", "agent_version",
    "workflow", "owner", "requester", "event", "name", "action_id", "tool", "resource", "outcome", "model", "input_tokens",
    "output_tokens", "cost_usd_micros", "tier", "capability", "change_kind", "before_digest", "after_digest", "decision",
    "decision_id", "policy_id", "policy_version", "rule", "engine", "approval", "approval_id", "approver", "approval_source",
    "scope", "shown", "shown_bytes", "contexts", "evaluation", "score", "label", "reversal", "reversal_ref", "prompt_version",
    "provenance", "incident", "drill", "drill_result", "sequence",
]  # fmt: skip


def type_of(name: str) -> pa.DataType:
    if name in TIMES:
        return pa.timestamp("ns")
    if name == "contexts":
        return pa.list_(pa.struct([("source", pa.string()), ("id", pa.string())]))
    return pa.int64() if name in NUMBERS else pa.float64() if name == "score" else pa.string()


RECORDS = pa.schema([*((name, type_of(name)) for name in TOP + FACTS), pa.field("record", pa.binary(), nullable=False)])
CONTENTS = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("salt", pa.binary(16), nullable=False),
        ("value", pa.binary()),
        ("name", pa.string()),
        ("keyed", pa.binary(16)),
    ]
)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962 2.1, over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha(b"")
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return sha(b"\1" + mth(hashes[:k]) + mth(hashes[k:]))


def crc32c_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


CRC_TABLE = [crc32c_entry(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@dataclass
class Seal:
    index: int
    file: str
    part: str
    start: int
    end: int
    body: dict[str, Any]


@dataclass
class Verifier:
    store: Path
    vkey: str
    problems: list[str] = field(default_factory=list)
    size: int = 0
    leaves: list[bytes] = field(default_factory=list)
    met: list[Seal] = field(default_factory=list)
    marks: dict[int, list[tuple[int, str, str, bool]]] = field(default_factory=dict)

    def bad(self, what: str, index: int | None, why: str) -> None:
        self.problems.append(f"{what} {'-' if index is None else index}: {why}")

    # ---- steps 1 to 3

    def open_note(self, data: bytes) -> tuple[str, int, bytes]:
        """Origin, size and root of a checkpoint that the key signed; ValueError for any other."""
        name, _, encoded = self.vkey.partition("+")
        key = base64.b64decode(encoded.partition("+")[2], validate=True)
        text, gap, signatures = data.decode().rpartition("\n\n")
        if not gap or not signatures.endswith("\n") or key[0] != 1:
            raise ValueError("not a signed note")
        text, found = text + "\n", False
        for line in signatures[:-1].split("\n"):
            dash, who, blob = line.split(" ")
            raw = base64.b64decode(blob, validate=True)
            if dash != "\u2014" or base64.b64encode(raw).decode() != blob:
                raise ValueError("not a signature line")
            if who == name and raw[:4] == sha(name.encode() + b"\n" + key)[:4]:
                try:
                    Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[4:], text.encode())
                except InvalidSignature as exc:
                    raise ValueError("the signature is wrong") from exc
                found = True
        if not found:
            raise ValueError("the key has not signed it")
        lines = text.split("\n")
        if len(lines) < 4 or not re.fullmatch("0|[1-9][0-9]*", lines[1], re.ASCII) or len(base64.b64decode(lines[2], validate=True)) != 32:
            raise ValueError("not a checkpoint")
        return lines[0], int(lines[1]), base64.b64decode(lines[2])

    def tile_name(self, level: int, n: int, width: int) -> str:
        name, rest = f"{n % 1000:03d}", n // 1000
        while rest:
            name, rest = f"x{rest % 1000:03d}/{name}", rest // 1000
        return f"tile/{level}/{name}" + (f".p/{width}" if width < 256 else "")

    def tile(self, level: int, n: int, width: int) -> list[bytes]:
        whole = self.store / self.tile_name(level, n, 256)
        partial = Path(f"{whole}.p")
        names = [p.name for p in partial.iterdir() if p.name.isdigit() and int(p.name) >= width] if partial.is_dir() else []
        for path in [self.store / self.tile_name(level, n, width), whole, *(partial / name for name in sorted(names, key=int))]:
            if path.is_file():
                data = path.read_bytes()[: 32 * width]
                if len(data) < 32 * width:
                    break
                return [data[at : at + 32] for at in range(0, len(data), 32)]
        self.bad("tile", None, f"{self.tile_name(level, n, width)} is missing or short")
        return [b""] * width

    def check_tree(self, root: bytes) -> None:
        level, row, above = 0, [b""] * self.size, None
        while row:
            row = [h for n in range(-(-len(row) // 256)) for h in self.tile(level, n, min(256, len(row) - 256 * n))]
            if level == 0:
                self.leaves = row
                if mth(row) != root:
                    self.bad("root", None, "tile/0 does not give the signed root")
            elif row != above:
                self.bad("tile", None, f"tile/{level} is not made of tile/{level - 1}")
            self.check_other_tiles(level, row)
            above = [mth(row[at : at + 256]) for at in range(0, len(row) - 255, 256)]
            row, level = above, level + 1

    def check_other_tiles(self, level: int, row: list[bytes]) -> None:
        for path in (self.store / "tile" / str(level)).rglob("*"):
            name = path.relative_to(self.store).as_posix()
            match = re.fullmatch(rf"tile/{level}/((?:x\d{{3}}/)*\d{{3}})(?:\.p/([1-9]\d*))?", name, re.ASCII)
            if path.is_dir() or path.name.startswith("."):
                continue
            if match is None:
                self.bad("tile", None, f"{path.name} is no tile")
                continue
            n, width = int(re.sub("[x/]", "", match[1])), int(match[2] or 256)
            now = row[256 * n : 256 * n + width]
            if len(now) == width and path.read_bytes() != b"".join(now):
                self.bad("tile", None, f"{self.tile_name(level, n, width)} is no prefix of the tile that stands now")

    # ---- steps 4 to 6

    def read_seal(self, index: int, record: bytes) -> Seal | None:
        value = json.loads(record)
        match = NAME.fullmatch(value["seal"]["file"]) if value.get("kind") == "seal" else None
        body = value.get("seal", {})
        if match is None or (int(match[2]), int(match[3])) != (body["start"], body["end"]):
            return None
        return Seal(index, body["file"], match[1], body["start"], body["end"], body)

    def side_files(self) -> list[Seal]:
        seals = []
        for path in sorted(self.store.glob("*/*.parquet.seal")):
            name = path.relative_to(self.store).as_posix()
            try:
                value = json.loads(path.read_bytes())
                index, record = value["index"], base64.b64decode(value["record"], validate=True)
                form = f'{{"index":{index},"record":"{base64.b64encode(record).decode()}"}}\n'
                seal = self.read_seal(index, record) if path.read_bytes() == form.encode() else None
            except (ValueError, KeyError, TypeError):
                seal = None
            if seal is None or f"{seal.file}.seal" != name:
                self.bad("side file", None, f"{name} is not the seal of the file beside it")
            elif index < self.size:
                if self.leaves[index] != sha(b"\0" + record):
                    self.bad("side file", index, f"{name} is not that record of the log")
                else:
                    seals.append(seal)
        return seals

    @staticmethod
    def live(seals: Iterable[Seal]) -> dict[str, Seal]:
        newest = {seal.file: seal for seal in sorted(seals, key=lambda seal: seal.index)}
        ranges = {(seal.start, seal.end) for seal in newest.values() if seal.part == "records"}
        force = [seal for seal in newest.values() if (seal.start, seal.end) in ranges]
        gone = {name for seal in force for name in seal.body["supersedes"]}
        return {seal.file: seal for seal in force if seal.file not in gone}

    def check_files(self, live: dict[str, Seal]) -> int:
        """Steps 5 to 8 and the contents of sealed records; where the journal begins."""
        expected = 0
        for seal in sorted((s for s in live.values() if s.part == "records"), key=lambda s: s.start):
            if seal.start != expected:
                self.bad("records", min(seal.start, expected), f"{seal.file} does not begin at {expected}")
            expected = seal.end
            beside = next((s for s in live.values() if s.part == "contents" and (s.start, s.end) == (seal.start, seal.end)), None)
            if (beside.file if beside else None) != seal.body.get("contents"):
                self.bad("file", seal.start, f"the contents of {seal.file} are not those that it was sealed with")
            tables = [self.sealed_table(one) for one in (seal, beside) if one is not None]
            if tables[0] is not None:
                self.check_records(tables[0], seal.start, seal.end)
            if beside is None or tables[-1] is not None:
                self.check_contents(tables[-1] if beside is not None else None, seal.end)
            self.marks.clear()
        return expected

    def sealed_table(self, seal: Seal) -> pa.Table | None:
        path = self.store / seal.file
        if not path.is_file():
            self.bad("file", seal.start, f"{seal.file} is missing")
            return None
        data = path.read_bytes()
        if len(data) != seal.body["bytes"] or hashlib.sha256(data).hexdigest() != seal.body["sha256"]:
            self.bad("file", seal.start, f"{seal.file} is not the file that was sealed")
        try:
            table = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowException, OSError, ValueError) as exc:
            self.bad("file", seal.start, f"{seal.file} cannot be read: {type(exc).__name__}")
            return None
        names = ["index", *RECORDS.names] if seal.part == "records" else CONTENTS.names
        if table.column_names != names or table.num_rows != seal.body["rows"]:
            self.bad("file", seal.start, f"{seal.file} has other columns or rows")
            return None
        return table

    # ---- steps 7, 8, 11

    def check_records(self, table: pa.Table, start: int, end: int) -> None:
        if table.column("index").to_pylist() != list(range(start, end)):
            self.bad("column", start, "index does not count through the range")
        for index, record in enumerate(table.column("record").to_pylist(), start):
            if index >= len(self.leaves) or sha(b"\0" + record) != self.leaves[index]:
                self.bad("record", index, "is not what the log commits to")
                continue
            value = json.loads(record)
            if not isinstance(value, dict) or value["v"] != 1 or len(record) > 65_535:
                self.bad("record", index, "is no record of version 1")
                continue
            self.check_row(table, index - start, index, value)
            marks = [(int(m[1]), m[2].decode(), m[5].decode(), m[3] is not None) for m in MARK.finditer(record)]
            if marks:
                self.marks[index] = marks
            seal = self.read_seal(index, record) if value["kind"] == "seal" else None
            if seal is not None:
                self.met.append(seal)

    def check_row(self, table: pa.Table, row: int, index: int, value: dict[str, Any]) -> None:
        said = {**value["facts"], **{name: value.get(name) for name in TOP}}
        for name in TOP + FACTS:
            held = table.column(name)[row]
            wanted = said.get(name)
            shown = held.value if name in TIMES else held.as_py()
            if shown != (int(wanted) if name in TIMES and wanted is not None else wanted):
                self.bad("column", index, f"{name} is not what the record says")

    def check_contents(self, table: pa.Table | None, end: int) -> None:
        """Every mark of the records read so far against its row; moved subtrees bring marks of their own."""
        rows: dict[int, list[dict[str, Any]]] = {}
        for row in table.to_pylist() if table is not None else []:
            rows.setdefault(row["index"], []).append(row)
        for index in sorted(rows.keys() | self.marks.keys()):
            if index >= end:
                continue
            marks, answered = list(self.marks.get(index, [])), {row["ordinal"]: row for row in rows.get(index, [])}
            if len(answered) != len(rows.get(index, [])):
                self.bad("content", index, "two rows have one ordinal")
            ordinal = 0
            while ordinal < len(marks):
                size, digest, kind, never = marks[ordinal]
                row = answered.pop(ordinal, None)
                ordinal += 1
                value = None if row is None else row["value"] if row["name"] is None else row["name"].encode()
                if row is not None and row["type"] != kind:
                    self.bad("content", index, f"number {ordinal - 1} is of another type")
                if row is None or value is None:
                    if not never:
                        self.bad("content", index, f"number {ordinal - 1} is missing")
                elif len(row["salt"]) != 16 or len(value) != size or sha(b"trail-content/1\0" + row["salt"] + value).hex() != digest:
                    self.bad("content", index, f"number {ordinal - 1} is not what the record commits to")
                elif kind == "t":
                    marks += [(int(m[1]), m[2].decode(), m[5].decode(), m[3] is not None) for m in MARK.finditer(value)]
            if answered:
                self.bad("content", index, f"rows {sorted(answered)} belong to no mark")

    # ---- step 9

    def frames(self, path: Path) -> Iterator[tuple[int, pa.Table, pa.Table]]:
        data = path.read_bytes()
        at = 16
        while data[:16] == b"trail-journal/1\n" and len(data) - at >= 32:
            magic, crc, size, start, count, parts = struct.unpack_from("<4sIQQII", data, at)
            if magic != b"TRJF" or at + 32 + size > len(data) or crc32c(data[at + 8 : at + 32 + size]) != crc:
                return
            at, first = at + 32, start
            records, contents = [], []
            for _ in range(parts):
                contents_bytes, records_bytes, rows = struct.unpack_from("<QQI", data, at)
                at += 20
                if contents_bytes:
                    batch = pa.ipc.read_record_batch(pa.py_buffer(data[at : at + contents_bytes]), CONTENTS)
                    index = pa.array([first + i for i in batch.column("index").to_pylist()], pa.int64())
                    contents.append(pa.RecordBatch.from_arrays([index, *batch.columns[1:]], schema=CONTENTS))
                at += contents_bytes
                records.append(pa.ipc.read_record_batch(pa.py_buffer(data[at : at + records_bytes]), RECORDS))
                at += records_bytes
                first += rows
            if first - start != count:
                return
            yield start, pa.Table.from_batches(records, RECORDS), pa.Table.from_batches(contents, CONTENTS)

    def check_journal(self, expected: int) -> None:
        for path in sorted((self.store / "journal").glob("*.journal")):
            for start, records, contents in self.frames(path):
                if start != expected or expected >= self.size:
                    continue
                count = min(records.num_rows, self.size - start)
                index = pa.array(range(start, start + count), pa.int64())
                self.check_records(records.slice(0, count).add_column(0, "index", index), start, start + count)
                self.check_contents(contents, self.size)
                self.marks.clear()
                expected += records.num_rows
        if expected < self.size:
            self.bad("journal", expected, "records under the checkpoint are neither sealed nor in the journal")

    # ---- all of it

    def check_kept(self, note: bytes, where: str) -> None:
        try:
            _origin, size, root = self.open_note(note)
        except ValueError as exc:
            self.bad("checkpoint", None, f"{where}: {exc}")
            return
        if size > self.size:
            self.bad("rollback", self.size, f"{where}: it covers {size} records")
        elif mth(self.leaves[:size]) != root:
            self.bad("fork", size, f"{where}: another history")

    def run(self, kept: Iterable[bytes]) -> list[str]:
        settings = tomllib.loads((self.store / "trail.toml").read_text("utf-8"))
        if settings["format"] != 1:
            return ["format -: is not 1"]
        try:
            origin, self.size, root = self.open_note((self.store / "checkpoint").read_bytes())
        except (ValueError, OSError) as exc:
            return [f"checkpoint -: {exc}"]
        if origin != settings["origin"]:
            return [f"checkpoint -: is of {origin}"]
        self.check_tree(root)
        beside = self.live(self.side_files())
        self.check_journal(self.check_files(beside))
        wanted = self.live(self.met)
        for name, seal in wanted.items():
            if name not in beside:
                self.bad("file", seal.start, f"{name} is sealed by record {seal.index} and has no side file that says so")
        for path in sorted((self.store / "checkpoints").glob("*")):
            for line in path.read_bytes().splitlines():
                self.check_kept(json.loads(line)["checkpoint"].encode(), path.name)
        for note in kept:
            self.check_kept(note, "kept elsewhere")
        return self.problems


def problems(store: Path, vkey: str, kept: Iterable[bytes] = ()) -> list[str]:
    """What of a store is not what was signed; an empty list means that all of it is."""
    return Verifier(store, vkey).run(kept)
