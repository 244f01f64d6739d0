"""The worked example of `ledger/FORMAT.md`: a real store with a fixed key, clock, salts and nonces, and the text that shows its bytes.

`python tests/support/format_example.py` prints the text, `--write` puts it into FORMAT.md; `tests/ledger/test_format.py` compares.
The final bytes of the Parquet files depend on the version of the Parquet library, so the text leaves their digests out.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest import vocabularies
from ingest.batch import Batch, Origin
from ingest.normalise import Normaliser
from ledger.contents import ContentRows, keyed_digest
from ledger.journal import encode_part
from ledger.keys import LastSigned, Pins
from ledger.note import Verifier
from ledger.record import content_mark
from ledger.submission import BatchNote
from ledger.writer import StoreWriter, create

FORMAT = Path(__file__).parents[2] / "ledger" / "FORMAT.md"
BEGIN, END = "<!-- worked example: made by tests/support/format_example.py -->\n", "<!-- end of the worked example -->\n"

ORIGIN = "example.com/agents"
SEED, SECRET = bytes(range(32)), bytes(range(32, 64))
START = 1_780_000_000_000_000_000
SECOND = 1_000_000_000


class Clock:
    """Unix nanoseconds, one second later at every look."""

    def __init__(self) -> None:
        self._now = START

    def __call__(self) -> int:
        self._now += SECOND
        return self._now


class Blocks:
    """Bytes instead of randomness: 16 times 01, 16 times 02, and so on."""

    def __init__(self, first: int) -> None:
        self._next = first

    def __call__(self, count: int) -> bytes:
        blocks = range(self._next, self._next + -(-count // 16))
        self._next = blocks.stop
        return b"".join(bytes([block % 256]) * 16 for block in blocks)[:count]


def private_key() -> str:
    """The fixed key in its file's form; its name, its ID and the seed are in FORMAT.md for everyone to see."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    verifier = Verifier(ORIGIN, Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw())
    return f"PRIVATE+KEY+{ORIGIN}+{verifier.key_id:08x}+{base64.b64encode(b'%c' % 1 + SEED).decode()}"


def open_store(
    directory: Path, *, settings: str = "", clock: Callable[[], int] | None = None, random: Callable[[int], bytes] | None = None
) -> StoreWriter:
    """Make `directory/store` with the fixed key beside it, and open it for writing."""
    store, key = directory / "store", directory / "log.key"
    create(store, origin=ORIGIN, key_path=key, pins=Pins(directory / "pins.json"))
    key.write_text(private_key() + "\n")
    key.with_name("log.key.secret").write_text(SECRET.hex() + "\n")
    if settings:
        (store / "trail.toml").write_text((store / "trail.toml").read_text("utf-8") + settings)
    return reopen(directory, clock=clock, random=random)


def reopen(directory: Path, *, clock: Callable[[], int] | None = None, random: Callable[[int], bytes] | None = None) -> StoreWriter:
    """Open `directory/store` for writing."""
    last = LastSigned(directory / "state" / "last.checkpoint")
    more: dict[str, Any] = {name: value for name, value in (("clock", clock), ("random", random)) if value is not None}
    return StoreWriter.open(directory / "store", command="trail serve", key_path=directory / "log.key", last_signed=last, **more)


def request() -> ExportTraceServiceRequest:
    """One tool call by one person's agent."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = group.scope_spans.add()
    scope.scope.name = "demo"
    span = scope.spans.add(
        trace_id=bytes(range(1, 17)),
        span_id=bytes(range(1, 9)),
        name="execute_tool write_file",
        start_time_unix_nano=START,
        end_time_unix_nano=START + SECOND // 4,
    )
    for key, text in (
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "write_file"),
        ("gen_ai.tool.call.arguments", '{"path":"/srv/shop/config.yaml"}'),
        ("trail.resource", "/srv/shop/config.yaml"),
        ("user.email", "ann@example.com"),
    ):
        span.attributes.add(key=key).value.string_value = text
    return message


def submit(writer: StoreWriter, batch: Batch, body: bytes, *, received: int, salt: bytes, nonce: bytes) -> None:
    """Hand a request to the log the way the pipeline does, with a salt and a nonce of our own."""
    rows = ContentRows.empty()
    digest = hashlib.sha256(body).digest()
    key = keyed_digest(writer.key.secret, "body", b"loopback\0traces\0" + digest)
    rows.add(0, 0, ("body", "sha256", salt, None, None, key))
    said = {
        "body": content_mark(salt=salt, value=digest, type="sha256", rule="body"),
        "bytes": len(body),
        "content_type": "application/x-protobuf",
        "content_encoding": "none",
        "signal": "traces",
        "kept": len(batch.records),
        "not_kept": 0,
    }
    note = BatchNote(received=received, sender="loopback", role=None, body=said, contents=rows, duplicate_key=key, nonce=nonce)
    writer.log.submit([encode_part(batch.project(), batch.rows.to_batch())], batch.leaf_hashes(), note).result()


def lines(title: str, data: bytes, width: int = 120) -> list[str]:
    """Text that is too long for a page, folded; the fold is not part of it."""
    text = data.decode()
    return [f"{title}:", *(f"    {text[at : at + width]}" for at in range(0, len(text), width))]


def example(directory: Path) -> str:
    """Make the store and describe it."""
    blocks = Blocks(1)
    writer = open_store(directory, clock=Clock(), random=blocks)
    store = directory / "store"
    message = request()
    received = START + SECOND
    normaliser = Normaliser(vocabularies.load(), secret=SECRET, random=Blocks(0xA0))
    batch = normaliser.spans(message, Origin(received, "loopback", None), exact=False)
    submit(writer, batch, message.SerializeToString(), received=received, salt=b"\xb0" * 16, nonce=blocks(16))
    assert writer.log.wait_published(4, timeout=30)
    checkpoint = (store / "checkpoint").read_bytes()
    tile = (store / "tile/0/000.p/4").read_bytes()
    frames = [name.name for name in sorted((store / "journal").iterdir())]
    records = _records(directory)
    out = [
        "```text",
        f"seed of the key  {SEED.hex()}   (an example: never a key of yours)",
        f"secret           {SECRET.hex()}",
        f"vkey             {writer.key.signer.vkey}",
        "",
        "trail.toml:",
        *(f"    {line}" for line in (store / "trail.toml").read_text("utf-8").splitlines()),
        "",
    ]
    for index, record in enumerate(records):
        out += lines(f"record {index}, {len(record)} bytes", record)
        out += [f"  leaf hash {hashlib.sha256(b'%c' % 0 + record).hexdigest()}", ""]
    out += ["contents rows (index ordinal field type salt, then value or name, then keyed):"]
    rows = batch.rows
    for at, ordinal in enumerate(rows.ordinal):
        value, name, keyed = rows.value[at], rows.name[at], rows.keyed[at]
        shown = f"value {(value or b'').decode()}" if name is None else f"name {name}"
        out += [f"    {2 + rows.index[at]} {ordinal} {rows.field[at]} {rows.type[at]} {rows.salt[at].hex()}", f"        {shown}"]
        out += [f"        keyed {keyed.hex()}"] if keyed else []
    body_key = keyed_digest(SECRET, "body", b"loopback\0traces\0" + hashlib.sha256(message.SerializeToString()).digest())
    out += [f"    3 0 body sha256 {'b0' * 16}", "        value and name NULL: never kept", f"        keyed {body_key.hex()}"]
    commitment = hashlib.sha256(b"trail-content/1\0" + rows.salt[0] + (rows.value[0] or b"")).hexdigest()
    out += ["", 'SHA-256("trail-content/1" 00 salt value) of the first row:', f"    {commitment}", ""]
    leaves = [tile[at : at + 32] for at in range(0, len(tile), 32)]
    nodes = [hashlib.sha256(b"\1" + leaves[at] + leaves[at + 1]).digest() for at in (0, 2)]
    out += ["tile/0/000.p/4, 128 bytes: the four leaf hashes"]
    out += [f"SHA-256(01 leaf {at} leaf {at + 1})   {node.hex()}" for at, node in zip((0, 2), nodes, strict=True)]
    out += [f"SHA-256(01 left right), root  {hashlib.sha256(b'%c' % 1 + nodes[0] + nodes[1]).hexdigest()}", ""]
    out += ["checkpoint, after four records:", *(f"    {line}".rstrip() for line in checkpoint.decode().split("\n")[:-1]), ""]
    out += [f"journal: {' '.join(frames)}", "", "After a clean stop the store has seven records, two of them seals, and these files:"]
    writer.close()
    names = sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())
    # How many widths of a partial tile there are depends on how many checkpoints the disk had time for.
    out += [f"    {name}" for name in names if ".p/" not in name or name.endswith("/7")]
    seal = base64.b64decode(re.search(rb'"record":"([^"]*)"', (store / "records/0-5.0.parquet.seal").read_bytes())[1])  # type: ignore[index]
    masked = re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"(64 hex digits)"', re.sub(rb'"bytes":[0-9]+', b'"bytes":(a number)', seal))
    out += ["", *lines("record 6, the seal of records/0-5.0.parquet", masked), "```", ""]
    return "\n".join(out)


def _records(directory: Path) -> list[bytes]:
    from ledger.journal import read_frames

    found: list[bytes] = []
    for path in sorted((directory / "store" / "journal").iterdir()):
        for frame in read_frames(path)[0]:
            for batch in frame.records:
                found += batch.column("record").to_pylist()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        made = example(Path(directory))
    if "--write" not in sys.argv:
        print(made)
        return
    before, _, rest = FORMAT.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    FORMAT.write_text(before + BEGIN + made + END + after, "utf-8")


if __name__ == "__main__":
    main()
