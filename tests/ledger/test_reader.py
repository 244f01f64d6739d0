"""A store as a reader sees it: nothing believed before it is checked, under a writer that seals and merges."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from attacks import flip, footer_start, rewrite, swap, with_value
from stores import ORIGIN, Home, kill, new_home, request, seal, send, settle, small_store, wait_for

from ledger import merkle
from ledger.errors import (
    BadSignature,
    CorruptSegment,
    LedgerError,
    MalformedError,
    RecordAltered,
    RootMismatch,
    StoreMissing,
    VerificationError,
)
from ledger.note import Signer, Verifier
from ledger.proof import Proof, verify_proof
from ledger.reader import StoreReader
from ledger.record import parse_record
from ledger.writer import StoreWriter

FIRST = "records/0-6.0.parquet"
SECOND = "records/6-12.0.parquet"
CONTENTS = "contents/0-6.0.parquet"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("reader") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    return original.copy(tmp_path / "home")


def test_everything_is_there_and_proven(home: Home) -> None:
    reader = home.read()
    assert (reader.origin, reader.size, reader.key_status, reader.sealed_end) == (ORIGIN, 21, "pinned", 15)
    assert [(segment.start, segment.end, segment.contents is not None) for segment in reader.segments] == [
        (0, 6, True),
        (6, 12, True),
        (12, 15, False),
    ]
    tail = reader.tail()
    assert (tail.records.num_rows, tail.unsigned) == (6, 0)
    assert tail.records.column("index").to_pylist() == list(range(15, 21))
    assert set(tail.contents.column("index").to_pylist()) <= set(range(15, 21))
    for index in range(reader.size):
        record = reader.record(index)
        proof = Proof.parse(reader.prove(index))
        assert verify_proof(proof, record, home.verifier).size == 21
        parse_record(record)
    with pytest.raises(MalformedError, match="there is no record 21"):
        reader.record(21)
    with pytest.raises(MalformedError):
        reader.prove(-1)
    assert not reader.refresh()


def test_a_proof_is_of_one_record_at_one_place(home: Home) -> None:
    reader = home.read()
    proof = Proof.parse(reader.prove(4))
    path = proof.path
    wrong = [
        Proof(index=5, path=path, checkpoint=proof.checkpoint),
        Proof(index=4, path=path[:-1], checkpoint=proof.checkpoint),
        Proof(index=4, path=(*path, path[0]), checkpoint=proof.checkpoint),
        Proof(index=4, path=(path[1], path[0], *path[2:]), checkpoint=proof.checkpoint),
        Proof(index=21, path=path, checkpoint=proof.checkpoint),
        Proof(index=2**62, path=path, checkpoint=proof.checkpoint),
    ]
    for case in wrong:
        with pytest.raises((RootMismatch, MalformedError)):
            verify_proof(case, reader.record(4), home.verifier)
    with pytest.raises(RootMismatch):
        verify_proof(proof, reader.record(5), home.verifier)
    with pytest.raises(BadSignature):
        verify_proof(proof, reader.record(4), Verifier.parse(Signer.generate(ORIGIN).vkey))


def test_a_tail_behind_the_checkpoint_is_counted_and_left_out_unless_wanted(home: Home) -> None:
    writer = home.open()
    send(writer, request(1, count=2, sender="late"))
    settle(writer)
    kill(writer)
    signed = home.read().size
    with home.writing() as writer:
        writer.log._publish_if_due = lambda *, force: None  # type: ignore[method-assign]  # a checkpoint is never due
        send(writer, request(2, count=4, sender="later"))
        reader = home.read()
        assert reader.size == signed
        assert reader.tail().records.column("index").to_pylist()[-1] == signed - 1
        whole = reader.tail(include_unsigned=True)
        assert whole.unsigned == whole.records.num_rows - reader.tail().records.num_rows >= 5
        assert max(whole.contents.column("index").to_pylist()) >= signed
        assert max(reader.tail().contents.column("index").to_pylist()) < signed
        with pytest.raises(MalformedError, match="there is no record"):
            reader.record(signed)
        del writer.log._publish_if_due  # type: ignore[attr-defined]


# ---- keys


def test_no_key_in_the_store_is_ever_believed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Everything that an attacker could put beside the records: a key, a pin file, an environment file.
    for name in ("vkey", "log.vkey", "pins.json", "trail.vkey", ".env"):
        (home.store / name).write_text(home.vkey)
    reader = StoreReader.open(home.store, cache=tmp_path / "cache")
    assert (reader.key_status, reader.vkey) == ("unpinned", None)
    monkeypatch.setenv("TRAIL_VKEY", home.vkey)
    assert StoreReader.open(home.store, cache=tmp_path / "cache").key_status == "pinned"
    monkeypatch.delenv("TRAIL_VKEY")
    assert StoreReader.open(home.store, cache=tmp_path / "cache", pins=home.pins).key_status == "pinned"


def test_a_wrong_key_is_refused(home: Home) -> None:
    with pytest.raises(BadSignature):
        home.read(vkeys=[Signer.generate(ORIGIN).vkey])
    with pytest.raises(VerificationError, match=r"the key is for example\.com/others"):
        home.read(vkeys=[Signer.generate("example.com/others").vkey])
    with pytest.raises(MalformedError):
        home.read(vkeys=["no key"])
    assert home.read(vkeys=[Signer.generate("example.com/others").vkey, home.vkey]).key_status == "pinned"


def test_another_log_at_a_pinned_path_is_a_replaced_store(home: Home, tmp_path: Path) -> None:
    other = small_store(tmp_path / "other")
    home.pins.add(home.vkey, store=home.store)
    text = (home.store / "trail.toml").read_text()
    shutil.rmtree(home.store)
    shutil.copytree(other.store, home.store)
    with pytest.raises(BadSignature):
        StoreReader.open(home.store, pins=home.pins, cache=tmp_path / "cache")
    (home.store / "trail.toml").write_text(text.replace(ORIGIN, "example.com/mine"))
    with pytest.raises(VerificationError, match="the store was replaced"):
        StoreReader.open(home.store, pins=home.pins, cache=tmp_path / "cache")


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="no trail store"):
        StoreReader.open(tmp_path / "nowhere", vkeys=[])


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    reader = home.read()
    assert (reader.size, reader.segments, reader.tail().records.num_rows) == (0, [], 0)
    assert reader.root == merkle.EMPTY_ROOT.hex()


# ---- damage


def test_an_altered_file_is_not_answered_from(home: Home) -> None:
    for name in (FIRST, CONTENTS):
        path = home.store / name
        data = path.read_bytes()
        flip(path, footer_start(data) + 40)
        reader = home.read()
        with pytest.raises(CorruptSegment, match=r"0-6\.0\.parquet is not the file that was sealed") as caught:
            reader.verified_files("records" if name == FIRST else "contents")
        assert caught.value.path == str(path)
        assert caught.value.hint
        path.write_bytes(data)


def test_an_altered_file_gives_no_record(home: Home) -> None:
    rewrite(home.store / FIRST, lambda table: with_value(table, "record", 0, table.column("record")[1].as_py()))
    reader = home.read()
    with pytest.raises(CorruptSegment):
        reader.record(0)
    with pytest.raises(CorruptSegment):
        reader.prove(5)
    assert reader.record(7), "the other files are as good as ever"


def test_a_missing_file_is_named(home: Home) -> None:
    (home.store / FIRST).unlink()
    reader = home.read()
    for action in (lambda: reader.verified_files("records"), lambda: reader.record(2)):
        with pytest.raises(CorruptSegment, match=r"0-6\.0\.parquet is missing"):
            action()


def test_swapped_files_are_found(home: Home) -> None:
    swap(home.store / FIRST, home.store / SECOND)
    with pytest.raises(CorruptSegment):
        home.read().verified_files("records")


def test_a_forged_side_file_is_found(home: Home) -> None:
    side = home.store / (FIRST + ".seal")
    other = json.loads((home.store / (SECOND + ".seal")).read_bytes())
    forged = json.loads(side.read_bytes()) | {"index": other["index"]}
    side.write_bytes(json.dumps(forged, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(RecordAltered, match="is not record"):
        home.read()


@pytest.mark.parametrize(
    "text",
    [b"", b"[]\n", b'{"index":1,"record":"e30="}\n', b'{"index":-1,"record":"e30="}\n', b'{"index":true,"record":"e30="}\n', b"\xff"],
)
def test_a_damaged_side_file_is_malformed_and_named(home: Home, text: bytes) -> None:
    (home.store / (FIRST + ".seal")).write_bytes(text)
    with pytest.raises(MalformedError) as caught:
        home.read()
    assert caught.value.path == FIRST + ".seal"


@pytest.mark.parametrize(
    "seal",
    [
        {"file": 5, "start": 0, "end": 6},
        {"file": FIRST, "start": 0, "end": 6, "supersedes": [{}]},
        {"file": FIRST, "start": 0, "end": 6, "supersedes": "records"},
        {"file": FIRST, "start": "0", "end": 6},
        [],
        "seal",
    ],
)
def test_a_side_file_of_any_shape_is_an_error_of_ours(home: Home, seal: object) -> None:
    from ledger.segment import encode_side_file

    record = json.dumps({"v": 1, "kind": "seal", "seal": seal}).encode()
    (home.store / (FIRST + ".seal")).write_bytes(encode_side_file(index=3, record=record))
    with pytest.raises(MalformedError):
        home.read()
    assert home.verify().verdict == "failed"


def test_a_missing_side_file_is_a_gap(home: Home) -> None:
    (home.store / (FIRST + ".seal")).unlink()
    with pytest.raises(CorruptSegment, match="have no records file"):
        home.read()


def test_an_altered_journal_is_found(home: Home) -> None:
    path = max(path for path in home.files("journal/*") if path.stat().st_size > 16)
    flip(path, path.stat().st_size // 2)
    with pytest.raises(CorruptSegment, match="neither sealed nor in the journal"):
        home.read()


def test_altered_tiles_are_found(home: Home) -> None:
    for path in home.files("tile/0/000.p/*"):
        flip(path, 3)
    with pytest.raises(VerificationError):
        home.read()


def test_missing_tiles_are_found(home: Home) -> None:
    shutil.rmtree(home.store / "tile")
    with pytest.raises(LedgerError):
        home.read()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"no note", b"\n\n\n"])
def test_a_damaged_checkpoint_is_malformed(home: Home, text: bytes) -> None:
    (home.store / "checkpoint").write_bytes(text)
    if text:
        with pytest.raises(MalformedError):
            home.read()
        with pytest.raises(MalformedError):
            home.read(vkeys=[])


# ---- what was checked is remembered


def cache_entries(home: Home) -> dict[str, object]:
    (path,) = (home.base / "cache").glob("*.json")
    entries: dict[str, object] = json.loads(path.read_bytes())
    return entries


def test_what_was_hashed_is_remembered_with_the_reader_and_not_in_the_store(home: Home) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.store.rglob("*")}
    home.read().verified_files("records")
    assert len(cache_entries(home)) == 3
    assert {path: path.stat().st_mtime_ns for path in home.store.rglob("*")} == before


def test_a_file_that_changed_is_hashed_again_even_with_its_old_size_and_time(home: Home) -> None:
    reader = home.read()
    reader.verified_files("records")
    path = home.store / FIRST
    stat = path.stat()
    flip(path, 100)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    for again in (reader, home.read()):
        with pytest.raises(CorruptSegment):
            again.verified_files("records")


def test_a_file_that_was_replaced_is_hashed_again(home: Home) -> None:
    home.read().verified_files("records")
    path = home.store / FIRST
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.rename(path.with_name("aside"))
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(CorruptSegment):
        home.read().verified_files("records")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', "\xff"])
def test_a_damaged_cache_is_no_cache(home: Home, text: str) -> None:
    home.read().verified_files("records")
    (path,) = (home.base / "cache").glob("*.json")
    path.write_text(text, encoding="latin-1")
    assert len(home.read().verified_files("records")) == 3


def test_a_cache_that_cannot_be_kept_is_no_obstacle(home: Home) -> None:
    blocked = home.base / "blocked"
    blocked.write_text("a file, where a directory would be")
    assert len(home.read(cache=blocked).verified_files("records")) == 3


# ---- under a running writer


def test_readers_keep_up_with_a_writer_that_seals_and_merges(tmp_path: Path) -> None:
    home = new_home(
        tmp_path / "home", segment_records=30, compact_fan_in=3, compact_records=300, compact_grace_seconds=0.2, checkpoint_seconds=0.01
    )
    errors: list[str] = []
    looks = [0]
    stop = threading.Event()

    def read() -> None:
        reader = home.read()
        size = 0
        while not stop.is_set():
            try:
                reader.refresh()
                assert reader.size >= size
                size = reader.size
                rows = sum(segment.end - segment.start for segment in reader.segments) + reader.tail().records.num_rows
                assert rows == size
                reader.verified_files("records")
                reader.verified_files("contents")
                reader.prove(size // 2)
                home.read()
                looks[0] += 1
            except Exception as exc:
                errors.append(repr(exc))
                return

    def check() -> None:
        while not stop.is_set():
            report = home.verify()
            if report.verdict != "verified":
                errors.append(str(report.as_json()["integrity"]))
                return

    with home.writing() as writer:
        settle(writer)
        threads = [threading.Thread(target=read), threading.Thread(target=check)]
        for thread in threads:
            thread.start()
        for burst in range(2):
            for number in range(30):
                send(writer, request(burst * 100 + number, count=9))
                time.sleep(0.01)
            # It merges when nothing waits to be sealed, and removes what it replaced after a grace.
            wait_for(lambda: errors or merged(writer) > burst, timeout=20.0)  # noqa: B023
            time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert looks[0] > 5
    seal_sizes = [segment.end - segment.start for segment in home.read().segments]
    assert sum(seal_sizes) > 300


def merged(writer: StoreWriter) -> int:
    """How many live segments were made by merging."""
    return sum(segment.records.seal.file.generation > 0 for segment in writer.sealer.segments)


def test_a_reader_opens_nothing_in_the_store_for_writing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def watched(path: object, flags: int, *arguments: object, **keywords: object) -> int:
        assert not (str(path).startswith(str(home.store)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return real(path, flags, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watched)
    reader = home.read()
    reader.verified_files("records")
    reader.prove(3)
    assert not (home.store / "lock").read_text()


def test_a_store_is_sealed_by_hand_in_tests_too(tmp_path: Path) -> None:
    home = new_home(tmp_path / "home")
    with home.writing() as writer:
        send(writer, request(1))
        seal(writer)
        assert len(writer.sealer.segments) == 1
