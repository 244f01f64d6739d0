"""Entry bundles from a real store: sealed files, the journal behind them, and a writer that seals and merges meanwhile."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from attacks import flip, rewrite, with_value
from stores import Home, all_records, kill, new_home, request, seal, send, settle, wait_for

from ledger import entry_bundles
from ledger.entry_bundles import EntryReader
from ledger.errors import CorruptSegment, LedgerError, MalformedError, RecordAltered
from ledger.journal import read_frames
from ledger.layout import Layout, SealedFile
from ledger.reader import StoreReader
from ledger.segment import Seal, encode_side_file, parse_side_file
from ledger.tiles import decode_bundle, tile_width


def entries(home: Home) -> EntryReader:
    return EntryReader(Layout(home.store))


def bundles(reader: EntryReader, newest: int, size: int | None = None) -> list[bytes]:
    """All records of a size (the newest by default), bundle after bundle."""
    found: list[bytes] = []
    for n in range(-(-(size or newest) // 256)):
        width = tile_width(0, n, size or newest)
        found += decode_bundle(reader.bundle(n, width, newest), width)
    return found


def size_of(home: Home) -> int:
    return int(home.checkpoint.split(b"\n")[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two sealed segments and a tail of several frames in the journal; no bundle begins where a file or a frame does."""
    home = new_home(tmp_path_factory.mktemp("whole") / "log", segment_records=100_000, compact_fan_in=100)
    writer = home.open()
    seed = iter(range(1000))
    for requests in (40, 30, 25):
        for _ in range(requests):
            send(writer, request(next(seed), count=10, size=40))
        if requests > 25:
            seal(writer)
    settle(writer)
    kill(writer)
    return home


@pytest.fixture
def home(whole: Home, tmp_path: Path) -> Home:
    """One to damage."""
    return whole.copy(tmp_path / "log")


def test_every_bundle_in_order_and_out_of_order(home: Home) -> None:
    records, size = all_records(home), size_of(home)
    reader = entries(home)
    assert bundles(reader, size) == records
    assert size > 1000 > StoreReader.open(home.store, vkeys=[home.vkey], cache=home.base / "cache").sealed_end
    rng = random.Random(1)
    for _ in range(60):
        n = rng.randrange(-(-size // 256))
        width = rng.randint(1, tile_width(0, n, size))
        expected = records[256 * n : 256 * n + width]
        assert decode_bundle(reader.bundle(n, width, size), width) == expected
        assert decode_bundle(entries(home).bundle(n, width, size), width) == expected


def test_sizes_that_were_published_earlier(home: Home) -> None:
    records = all_records(home)
    reader = entries(home)
    for size in range(1, len(records), 97):
        assert bundles(reader, len(records), size) == records[:size]
    n, width = divmod(len(records), 256)
    with pytest.raises(MalformedError, match=f"bundle {n} has {width} records at size {len(records)}"):
        reader.bundle(n, width + 1, len(records))


def test_frames_before_the_wanted_one_are_passed_over(home: Home) -> None:
    (path,) = (home.store / "journal").iterdir()
    everything = [(frame.start, frame.count) for frame in read_frames(path)[0]]
    for start in (0, everything[0][0], everything[3][0], everything[3][0] + 1, everything[-1][0] + everything[-1][1]):
        frames, bad = read_frames(path, start=start)
        assert [(frame.start, frame.count) for frame in frames] == [(first, n) for first, n in everything if first + n > start]
        assert bad == []
    path.write_bytes(path.read_bytes() + b"TRJF torn")
    frames, bad = read_frames(path, start=10**6)
    assert (list(frames), [tail.size_bytes for tail in bad]) == ([], [9])


def test_reading_goes_on_while_the_writer_seals_and_merges(tmp_path: Path) -> None:
    home = new_home(tmp_path / "log", segment_records=100_000, compact_fan_in=2, compact_records=10_000)
    with home.writing() as writer:
        reader = entries(home)
        for round_ in range(2):
            for seed in range(30):
                send(writer, request(100 * round_ + seed, count=10, contents=False))
            settle(writer)
            first = size_of(home)
            held = bundles(reader, first)[: -(first % 256) - 256]
            seal(writer)
            wait_for(lambda: len(writer.sealer.segments) == 1)
            # The files that it knows and has open go away when their grace is over.
            wait_for(lambda: len(list((home.store / "records").glob("*.parquet"))) == 1)
            size = size_of(home)
            assert bundles(reader, size)[: len(held)] == held
            assert bundles(reader, size) == bundles(entries(home), size)
    assert bundles(reader, size_of(home)) == all_records(home)


def test_a_file_of_several_row_groups(tmp_path: Path) -> None:
    home = new_home(tmp_path / "log", segment_records=100_000)
    with home.writing() as writer:
        for seed in range(9):
            send(writer, request(seed, count=2000, contents=False, size=16))
    records, size = all_records(home), size_of(home)
    for n in (0, 16_384 // 256 - 1, 16_384 // 256, size // 256):
        width = tile_width(0, n, size)
        assert decode_bundle(entries(home).bundle(n, width, size), width) == records[256 * n : 256 * n + width]
    assert bundles(entries(home), size) == records


def test_full_bundles_are_kept_for_a_while(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    size = size_of(home)
    reader = entries(home)
    first = reader.bundle(0, 256, size)
    for path in (home.store / "records").glob("*.parquet"):
        path.rename(path.with_suffix(".away"))
    assert reader.bundle(0, 256, size) == first
    assert decode_bundle(reader.bundle(0, 7, size), 7) == decode_bundle(first, 256)[:7]
    for path in (home.store / "records").glob("*.away"):
        path.rename(path.with_suffix(".parquet"))
    monkeypatch.setattr(entry_bundles, "KEPT_BYTES", len(first) + 100)
    reader.bundle(1, 256, size)
    for path in (home.store / "records").glob("*.parquet"):
        path.unlink()
    with pytest.raises(CorruptSegment, match="is missing"):
        reader.bundle(0, 256, size)


# ------------------------------------------------------------------------------------------------------- damage


def refused(home: Home, n: int, family: type[LedgerError]) -> LedgerError:
    """What is raised for a full bundle; a second try must not do better."""
    size = size_of(home)
    reader = entries(home)
    with pytest.raises(family) as first:
        reader.bundle(n, 256, size)
    with pytest.raises(family) as again:
        reader.bundle(n, 256, size)
    assert str(first.value) == str(again.value)
    return first.value


def test_a_record_that_is_not_the_leaf(home: Home) -> None:
    flip(home.store / "tile/0/001", 32 * 7 + 3)
    assert refused(home, 1, RecordAltered).index == 256 + 7
    assert len(entries(home).bundle(0, 256, size_of(home))) > 256


def test_a_changed_file_is_not_even_decoded(home: Home) -> None:
    flip(first_file(home), 2000)
    assert "is not the file that was sealed" in str(refused(home, 0, CorruptSegment))


def test_a_changed_file_with_a_seal_made_for_it(home: Home) -> None:
    path = first_file(home)
    rewrite(path, lambda table: with_value(table, "record", 3, b'{"kind":"span"}'))
    side = path.with_name(path.name + ".seal")
    index, record = parse_side_file(side.read_bytes())
    data = path.read_bytes()
    old = Seal.parse(record)
    forged = record.replace(old.sha256.encode(), hashlib.sha256(data).hexdigest().encode())
    forged = forged.replace(f'"bytes":{old.size_bytes}'.encode(), f'"bytes":{len(data)}'.encode())
    side.write_bytes(encode_side_file(index=index, record=forged))
    error = refused(home, 0, RecordAltered)
    assert (error.index, error.path) == (index, f"records/{path.name}.seal")


def test_a_sealed_file_that_is_no_parquet(tmp_path: Path) -> None:
    """The writer has sealed rubbish: the bytes are as committed, and hold no records."""
    home = new_home(tmp_path / "log", segment_records=100_000)
    with home.writing() as writer:
        send(writer, request(1, count=300, contents=False))
        seal(writer)
        old = first_file(home)
        _index, record = parse_side_file(old.with_name(old.name + ".seal").read_bytes())
        rubbish, seal_of = b"PAR1 rubbish PAR1", Seal.parse(record)
        file = SealedFile(seal_of.file.start, seal_of.file.end, 1)
        body = seal_of.body() | {
            "file": file.name,
            "sha256": hashlib.sha256(rubbish).hexdigest(),
            "bytes": len(rubbish),
            "supersedes": [seal_of.file.name],
        }
        receipt = writer.append("seal", body, facts={"name": file.name})
        settle(writer)
    (home.store / file.name).write_bytes(rubbish)
    (home.store / f"{file.name}.seal").write_bytes(encode_side_file(index=receipt.index, record=receipt.record))
    assert "cannot be read as Parquet" in str(refused(home, 0, CorruptSegment))


def test_what_is_missing(home: Home) -> None:
    tile = home.store / "tile/0/000"
    held = tile.read_bytes()
    tile.unlink()
    assert refused(home, 0, CorruptSegment).path == "tile/0/000"
    tile.write_bytes(held[:-1])
    assert "missing or short" in str(refused(home, 0, CorruptSegment))
    tile.write_bytes(held)

    path = first_file(home)
    path.rename(path.with_name("away"))
    assert str(refused(home, 0, CorruptSegment)) == f"records/{path.name} is missing"
    path.with_name(path.name + ".seal").unlink()
    assert "have no records file" in str(refused(home, 0, CorruptSegment))


def test_a_journal_that_is_gone(home: Home) -> None:
    for path in (home.store / "journal").iterdir():
        path.unlink()
    size = size_of(home)
    error = refused(home, size // 256 - 1, CorruptSegment)
    assert "is under the checkpoint, and neither sealed nor in the journal" in str(error)
    assert error.index == sealed_end(home)


def sealed_end(home: Home) -> int:
    return max(int(path.name.split("-")[1].split(".")[0]) for path in (home.store / "records").glob("*.parquet"))


def first_file(home: Home) -> Path:
    return min((home.store / "records").glob("*.parquet"), key=lambda path: int(path.name.split("-")[0]))
