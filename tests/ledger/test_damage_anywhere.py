"""Any damage to any file of a store: every flipped byte, every file lost, cut, garbled or replaced; `verify` fails, and never breaks."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from attacks import CONTENTS, FIRST, SECOND, files_of, flip, footer_start, named, one_of_each, require_failed
from stores import Home, request, send, small_store

from ledger.errors import LedgerError, NotAppendOnly, StorageError
from ledger.fsck_contents import ContentChecker
from ledger.fsck_files import SealClaim, SegmentReport, _check_contents
from ledger.layout import Layout
from ledger.segment import parse_side_file


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three sealed segments, two of them with contents, and a tail in the journal; 21 records."""
    return small_store(tmp_path_factory.mktemp("damage") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    return original.copy(tmp_path / "home")


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _garble(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(path.stat().st_size))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _text(path: Path) -> None:
    path.write_bytes(b'{"index": 1, "record": "e30="}\n')


@pytest.mark.parametrize("damage", [_delete, _empty, _halve, _garble, _directory, _text], ids=lambda f: f.__name__.strip("_"))
def test_no_file_can_be_lost_or_replaced(original: Home, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    wrong = []
    for number, name in enumerate(one_of_each(original)):
        home = original.copy(tmp_path / str(number))
        damage(home.store / name)
        try:
            verdict = home.verify().verdict
        except LedgerError as exc:
            verdict = type(exc).__name__
        # Without a checkpoint nothing can be compared; what was last signed outside the store tells that one is missing.
        if verdict != "failed":
            wrong.append((name, verdict))
    assert wrong == []


def test_an_old_partial_tile_may_go_but_not_lie(home: Home) -> None:
    old = home.store / "tile/0/000.p/14"
    flip(old, 40)
    require_failed(home.verify(), what="tile", file="tile/0/000.p/14")
    old.unlink()
    assert home.verify().verdict == "verified"


def test_a_damaged_journal_is_named(home: Home) -> None:
    path = max(home.files("journal/*"))
    flip(path, path.stat().st_size // 2)
    report = home.verify()
    require_failed(report, what="journal")
    assert path.name in next(failure.why for failure in report.failures if failure.what == "journal")


def test_the_history_of_checkpoints_cannot_be_altered(home: Home) -> None:
    (path,) = home.files("checkpoints/*")
    data = path.read_bytes()
    bad = []
    for offset in range(0, data.index(b'","published"'), 40):
        flip(path, offset)
        if home.verify().verdict != "failed":
            bad.append(offset)
        path.write_bytes(data)
    assert bad == []


def test_a_checkpoint_put_back_is_contradicted_by_the_history(home: Home) -> None:
    older = home.checkpoint
    with home.writing() as writer:
        send(writer, request(61))
    (home.store / "checkpoint").write_bytes(older)
    require_failed(home.verify(last_signed=None), what="rollback")


def test_a_deleted_side_file_is_named(home: Home) -> None:
    (home.store / (FIRST + ".seal")).unlink()
    require_failed(home.verify(), what="file", file=FIRST)


def test_a_side_file_of_another_claim_is_named(home: Home) -> None:
    shutil.copy(home.store / (SECOND + ".seal"), home.store / (FIRST + ".seal"))
    require_failed(home.verify(), what="side file", file=FIRST + ".seal")


def test_a_stray_file_beside_the_records_is_named(home: Home) -> None:
    shutil.copy(home.store / FIRST, home.store / "records/100-106.0.parquet")
    report = home.verify()
    assert report.verdict == "verified"
    assert report.not_judged == ["records/100-106.0.parquet: no seal under this checkpoint names it"]


def test_a_damaged_trail_toml_is_an_error_that_names_it(home: Home) -> None:
    path = home.store / "trail.toml"
    data = path.read_bytes()
    for damaged in (b"", b"\xff\xfe" + data, data.replace(b"format", b"Format"), data + b"unknown = 1\n", b"\0" * 50):
        path.write_bytes(damaged)
        with pytest.raises(LedgerError) as caught:
            home.verify()
        assert caught.value.path is not None
        assert "trail.toml" in caught.value.path


def _flips(home: Home, name: str, *, stride: int, bits: tuple[int, ...]) -> list[str]:
    """Flip bytes of one file, one at a time; what `verify` did not call failed, or without naming the file or a record."""
    path = home.store / name
    data = path.read_bytes()
    bad = []
    for offset in range(0, len(data), stride):
        for bit in bits:
            flip(path, offset, bit)
            report = home.verify()
            # A tile is a row of leaf hashes: what contradicts it is named by the record, or by the tile above.
            names = any(file == name or name.startswith("tile/") or what == "journal" for what, file, _index in named(report))
            if report.verdict != "failed" or not names:
                bad.append(f"{name} byte {offset} bit {bit}: {report.verdict} {named(report)}")
            path.write_bytes(data)
    return bad


def test_flipped_bytes_are_found(home: Home) -> None:
    bad = []
    for name in one_of_each(home):
        size = (home.store / name).stat().st_size
        bad += _flips(home, name, stride=max(1, size // 3), bits=(1,))
    assert bad == []


@pytest.mark.slow
def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    home = small_store(tmp_path / "home", merged=True, tail=False)
    assert [line for name in files_of(home) for line in _flips(home, name, stride=1, bits=(1,))] == []


@pytest.mark.slow
def test_every_flipped_bit_of_a_sample_is_found(tmp_path: Path) -> None:
    home = small_store(tmp_path / "home")
    bits = tuple(1 << n for n in range(8))
    assert [line for name in files_of(home) for line in _flips(home, name, stride=97, bits=bits)] == []


def test_recovery_refuses_or_heals_whatever_is_damaged(original: Home, tmp_path: Path) -> None:
    """A start over damage ends in a verified store or in a `StorageError`, and then has removed nothing."""
    outcomes = set()
    for number, name in enumerate(one_of_each(original)):
        for damage in (_delete, _halve, _garble):
            home = original.copy(tmp_path / f"{number}{damage.__name__}")
            damage(home.store / name)
            before = {path: path.read_bytes() for path in home.files("**/*") if path.is_file()}
            try:
                home.open().close()
            except (StorageError, NotAppendOnly):
                outcomes.add("refused")
                gone = [path for path in before if not path.exists() and not path.name.endswith(".seal")]
                assert [path for path in gone if "tile" not in path.parts] == [], f"{damage.__name__} of {name}"
            else:
                verdict = home.verify().verdict
                outcomes.add(verdict)
                # A start does not hash sealed files; what it cannot see is for `verify`.
                sealed = name.endswith(".parquet")
                assert verdict == "verified" or (sealed and verdict == "failed"), f"{damage.__name__} of {name}: {verdict}"
    assert "verified" in outcomes
    assert "refused" in outcomes


def test_names_that_look_like_numbers_are_no_trouble(home: Home) -> None:
    for name in ("²", "٣", "21.5", "-1", "999", "\udcff"):
        for directory in ("tile/0/000.p", "tile/0", "tile", "journal", "records", "checkpoints"):
            (home.store / directory / name).write_bytes(b"x")
    assert home.verify().verdict == "failed"
    for path in home.files("checkpoints/*"):
        if path.suffix != ".jsonl":
            path.unlink()
    (home.store / "tile/0/000.p/21").unlink()
    assert home.verify().verdict == "failed"
    with pytest.raises(LedgerError):
        home.read()


def _damage_footers(base: Path, seeds: range) -> list[str]:
    """Verify a store over and over with some bytes of a Parquet footer changed; what was not called failed."""
    home = Home(base)
    wrong = []
    for seed in seeds:
        rng = random.Random(seed)
        path = home.store / (FIRST, CONTENTS)[seed % 2]
        data = path.read_bytes()
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 3, 8])):
            damaged[rng.randrange(footer_start(data), len(data))] = rng.choice([rng.randrange(256), 0, 255, 128])
        path.write_bytes(damaged)
        if damaged != data and home.verify().verdict != "failed":
            wrong.append(f"{path.name} {seed}")
        path.write_bytes(data)
    return wrong


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_footers_do_not_kill_the_process(original: Home, tmp_path: Path, count: int) -> None:
    # pyarrow has aborted over some (an exception of C++ that nobody catches), and then there is no verdict at all.
    home = original.copy(tmp_path / "home")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert pool.submit(_damage_footers, home.base, range(count)).result() == []


def _read_damaged_contents(base: Path) -> int:
    """Read a contents file with each byte of its footer flipped, one at a time; how many of them could still be read."""
    home = Home(base)
    path = home.store / CONTENTS
    data = path.read_bytes()
    index, record = parse_side_file((home.store / (CONTENTS + ".seal")).read_bytes())
    claim = SealClaim.read(index, record)
    readable = 0
    for offset in range(footer_start(data), len(data)):
        flip(path, offset)
        report = SegmentReport()
        _check_contents(Layout(home.store), claim, ContentChecker(report.contents, lambda _index, _why: None), (0, 6), report)
        readable += not report.failures
        path.write_bytes(data)
    return readable


def test_the_footers_that_once_did(original: Home, tmp_path: Path) -> None:
    home = original.copy(tmp_path / "home")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        assert pool.submit(_read_damaged_contents, home.base).result() > 0
