"""The state of a witness: restarts, damage, loss, races, and disks that break; it never cosigns two histories, whatever happens to it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reference
from crashes import KILLS, Diary, Disk
from small_log import NOW, SmallLog, conflict, new_witness, request, started

from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, MalformedError, MissingKey, StorageError, StoreLocked, StoreMissing
from ledger.note import Signer, open_note
from ledger.policy import Policy
from ledger.witness import Answer, WitnessStore
from ledger.witness_files import WitnessFiles, policy_line
from ledger.witness_protocol import origin_path

LOG = SmallLog.make()


@pytest.fixture
def files(tmp_path: Path) -> WitnessFiles:
    return new_witness(tmp_path / "witness", LOG)


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """For thousands of requests in a test in which nothing crashes."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def witness(files: WitnessFiles) -> Iterator[WitnessStore]:
    with contextlib.closing(started(files)) as store:
        yield store


def test_a_restart_keeps_the_state(files: WitnessFiles) -> None:
    with contextlib.closing(started(files)) as witness:
        assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
        before = witness.latest(LOG.path)
    with contextlib.closing(started(files)) as witness:
        assert witness.latest(LOG.path) == before
        assert conflict(witness.add_checkpoint(LOG.body(0, 12))) == 9
        assert witness.add_checkpoint(LOG.fork(3).body(9, 12)).status == 422
        assert witness.add_checkpoint(LOG.body(9, 12)).status == 200


def test_one_process_at_a_time(files: WitnessFiles) -> None:
    with contextlib.closing(started(files)), pytest.raises(StoreLocked) as caught:
        started(files)
    assert "two histories" in caught.value.hint
    started(files).close()


def test_nothing_is_cosigned_after_the_end(files: WitnessFiles) -> None:
    witness = started(files)
    witness.close()
    assert witness.add_checkpoint(LOG.body(0, 3)).status == 503
    assert not files.of(LOG.path).directory.exists()


def other_key(files: WitnessFiles) -> bytes:
    text = LOG.checkpoint(9).text()
    return LOG.note(9) + Signer.generate("witness.example/w").cosign(text, NOW).encode()


@pytest.mark.parametrize("damage", ["gone", "empty", "flipped", "torn", "not cosigned", "another key", "another log", "a directory"])
def test_a_witness_that_cannot_read_its_state_cosigns_nothing(files: WitnessFiles, damage: str) -> None:
    other = SmallLog.make("example.com/other")
    files.add_log(other.signer.vkey)
    with contextlib.closing(started(files)) as witness:
        assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
        assert witness.add_checkpoint(other.body(0, 9)).status == 200
    path = files.of(LOG.path).checkpoint
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            path.write_bytes(data.replace(b"\n9\n", b"\n8\n"))
        case "torn":
            path.write_bytes(data[: len(data) // 2])
        case "not cosigned":
            path.write_bytes(LOG.note(9))
        case "another key":
            path.write_bytes(other_key(files))
        case "another log":
            path.write_bytes(files.of(other.path).checkpoint.read_bytes())
        case "a directory":
            path.mkdir()
    with contextlib.closing(started(files)) as witness:
        for body in (LOG.body(0, 9), LOG.body(9, 12), LOG.fork(3).body(0, 9)):
            assert witness.add_checkpoint(body).status == 503
        with pytest.raises(StorageError) as caught:
            witness.latest(LOG.path)
        assert caught.value.path == str(path)
        assert witness.add_checkpoint(other.body(9, 12)).status == 200  # the other log does not suffer
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(data)
        assert witness.add_checkpoint(LOG.body(9, 12)).status == 200


def test_only_a_hash_names_a_log(files: WitnessFiles, witness: WitnessStore) -> None:
    assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
    for name in ("", "..", LOG.path.upper(), LOG.path[:-1], LOG.path + "\n", f"../{files.directory.name}/{LOG.path}", origin_path("other")):
        assert witness.latest(name) is None


def test_two_requests_from_one_size_at_once_exactly_one_is_cosigned(files: WitnessFiles, witness: WitnessStore) -> None:
    size = 1
    assert witness.add_checkpoint(LOG.body(0, size)).status == 200
    for _round in range(12):
        # Honest ones of two sizes: the smaller must not roll the larger back, whichever comes first.
        bodies = [LOG.body(size, size + 1), LOG.body(size, size + 3)]
        gate = threading.Barrier(2)
        answers: list[Answer] = []

        def send(body: bytes, gate: threading.Barrier = gate, answers: list[Answer] = answers) -> None:
            gate.wait()
            answers.append(witness.add_checkpoint(body))

        threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status for answer in answers) == [200, 409]
        size = next(conflict(answer) for answer in answers if answer.status == 409)
        kept = witness.latest(LOG.path)
        assert kept is not None and Checkpoint.parse(open_note(kept, [witness.cosigner]).text) == LOG.checkpoint(size)


def _break(files: WitnessFiles, disk: Disk, diary: Diary) -> None:
    """In a process of its own: two requests over a disk that breaks, and the answers that left."""
    witness = started(files)
    disk.install()
    for old, size in ((0, 5), (5, 9)):
        answer = witness.add_checkpoint(LOG.body(old, size))
        diary.write("answered", size, answer.status)
    disk.remove()
    diary.write("broken", bool(disk.broken))


@pytest.mark.parametrize("how", [*KILLS, "error before", "error half", "error after"])
def test_whatever_breaks_no_cosignature_leaves_that_the_state_does_not_know(tmp_path: Path, how: str) -> None:
    """Every write, fsync, link and rename of two requests, one after the other, fails or is where the process dies."""
    context = multiprocessing.get_context("fork")
    at, broke = 0, True
    while broke:
        files, diary = new_witness(tmp_path / f"{at}", LOG), Diary(tmp_path / f"{at}.diary")
        process = context.Process(target=_break, args=(files, Disk(files.directory, at, how), diary))
        process.start()
        process.join(60)
        assert process.exitcode in (0, -9), (at, process.exitcode)
        broke = process.exitcode == -9 or diary.read("broken") == [[True]]
        answered = dict(diary.read("answered"))
        with contextlib.closing(started(files)) as witness:
            known = conflict(witness.add_checkpoint(LOG.body(11, 12)))
            # The state may be ahead of what left, never behind; and what left is never contradicted.
            assert known >= max([0, *(size for size, status in answered.items() if status == 200)]), (at, answered)
            assert set(answered.values()) <= {200, 409, 503}
            if known:
                assert witness.add_checkpoint(LOG.fork(0).body(known, 12)).status == 422
            assert witness.add_checkpoint(LOG.body(known, 12)).status == 200
        at += 1
    assert at > 8


def test_a_write_that_failed_half_way_is_not_gone_on_from_until_a_restart(files: WitnessFiles) -> None:
    with contextlib.closing(started(files)) as witness:
        assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
        # The new name stands, and making it durable fails: a power cut could bring the old state back.
        disk = Disk(files.of(LOG.path).directory, 0, "error after", only="replace")
        disk.install()
        try:
            assert witness.add_checkpoint(LOG.body(5, 9)).status == 503
        finally:
            disk.remove()
        assert disk.broken
        assert witness.add_checkpoint(LOG.body(5, 9)).status == 503
        with pytest.raises(StorageError):
            witness.latest(LOG.path)
    with contextlib.closing(started(files)) as witness:
        assert conflict(witness.add_checkpoint(LOG.body(5, 9))) == 9


def test_a_write_that_failed_and_left_nothing_readable_is_not_gone_on_from(files: WitnessFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(started(files)) as witness:
        assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
        path, real = files.of(LOG.path).checkpoint, os.replace

        def lose(*arguments: Any) -> None:
            if str(arguments[1]) == str(path):
                path.unlink()
                raise OSError(5, "Input/output error")
            real(*arguments)

        monkeypatch.setattr(os, "replace", lose)
        assert witness.add_checkpoint(LOG.body(5, 9)).status == 503
        monkeypatch.undo()
        assert witness.add_checkpoint(LOG.body(0, 9)).status == 503


def test_a_full_disk_passes(files: WitnessFiles, witness: WitnessStore) -> None:
    assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
    disk = Disk(files.directory, 0, "error half", number=28, only="write")
    disk.install()
    try:
        assert witness.add_checkpoint(LOG.body(5, 9)).status == 503
    finally:
        disk.remove()
    assert witness.add_checkpoint(LOG.body(5, 9)).status == 200


def test_a_fork_is_refused_also_where_it_cannot_be_kept(
    files: WitnessFiles, witness: WitnessStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
    disk = Disk(files.directory, 0, "error before", number=28, for_ever=True)
    disk.install()
    try:
        assert witness.add_checkpoint(LOG.fork(2).body(5, 5)).status == 422
        assert witness.add_checkpoint(LOG.fork(2).body(5, 7)).status == 422
    finally:
        disk.remove()
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "ERROR"]
    (files.of(LOG.path).forks / "9-x.unproven").parent.mkdir(exist_ok=True)
    (files.of(LOG.path).forks / "9-x.unproven").write_text("damaged")
    assert witness.add_checkpoint(LOG.body(5, 9)).status == 200  # damaged evidence keeps nobody from an honest cosignature


# ------------------------------------------------------------------------------------------- the promise, over random interleavings


@pytest.mark.usefixtures("unsynced")
def test_two_inconsistent_checkpoints_are_never_both_cosigned(tmp_path: Path) -> None:
    """500 random lives of a witness: any history, any old size, right and wrong proofs, restarts, and cosignatures that got lost."""
    histories = [LOG, LOG.fork(2), LOG.fork(6), SmallLog(LOG.signer, LOG.fork(2).fork(4).records)]
    roots = [[reference.mth(history.records[:size]) for size in range(13)] for history in histories]
    proofs = [{(old, size): history.proof(old, size) for size in range(13) for old in range(size + 1)} for history in histories]
    notes = [[history.note(size) for size in range(13)] for history in histories]
    refused = cosigned_in_all = 0
    for seed in range(500):
        chance = random.Random(seed)
        files = new_witness(tmp_path / f"{seed}", LOG)
        witness = started(files)
        cosigned: list[tuple[int, int]] = []
        for _step in range(8):
            if chance.random() < 0.1:
                witness.close()
                witness = started(files)
            which, size = chance.randrange(len(histories)), chance.randrange(13)
            state = max((place[1] for place in cosigned), default=0)
            old = min(size, state if chance.random() < 0.8 else chance.randrange(13))
            proof = proofs[chance.randrange(len(histories)) if chance.random() < 0.2 else which][(old, size)]
            answer = witness.add_checkpoint(request(old, notes[which][size], *proof))
            if answer.status == 200:
                assert size >= state, "rolled back"
                cosigned.append((which, size))
            refused += answer.status == 422
        witness.close()
        for earlier, (first, old) in enumerate(cosigned):
            for second, _size in cosigned[earlier:]:
                assert histories[second].records[:old] == histories[first].records[:old], seed
                assert roots[second][old] == roots[first][old], seed
        cosigned_in_all += len(cosigned)
    assert refused > 500 and cosigned_in_all > 500  # the lives were not all alike


# ------------------------------------------------------------------------------------------------------------- making a witness


def test_a_new_witness_keeps_its_key_to_itself_and_a_policy_can_name_it(tmp_path: Path) -> None:
    files = WitnessFiles(tmp_path / "a" / "w")
    verifier = files.make("witness.example/w")
    assert files.directory.stat().st_mode & 0o777 == 0o700
    assert files.key.stat().st_mode & 0o777 == 0o600
    policy = Policy.parse(f"{policy_line(verifier, 'http://127.0.0.1:4320')}\nquorum witness.example/w\n")
    assert policy.witnesses[0].url == "http://127.0.0.1:4320"
    with contextlib.closing(started(files)) as witness:
        assert witness.cosigner.vkey == verifier.vkey == files.load_vkey().vkey


@pytest.mark.parametrize("name", ["none", "a b", "a+b", "", "a\nb", "\x7f"])
def test_names_that_no_policy_could_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MalformedError):
        WitnessFiles(tmp_path / "w").make(name)
    assert not (tmp_path / "w").exists()


def test_a_witness_that_lost_its_key_or_state_cannot_be_made_again_in_place(files: WitnessFiles) -> None:
    with pytest.raises(StorageError, match="already"):
        files.make("witness.example/w")
    key = files.key.read_bytes()
    files.key.unlink()
    with pytest.raises(StorageError, match="not empty"):
        files.make("witness.example/w")
    with pytest.raises(MissingKey):
        started(files)
    files.key.write_bytes(key)
    with pytest.raises(StorageError, match="read by others"):
        files.key.chmod(0o644)
        started(files)


def test_a_key_alone_is_no_witness(tmp_path: Path, files: WitnessFiles) -> None:
    """An old key in a directory without the state it answers for would forget everything it cosigned."""
    bare = WitnessFiles(tmp_path / "bare")
    bare.directory.mkdir()
    with pytest.raises(StoreMissing):
        started(bare)
    shutil.copy2(files.key, bare.key)
    with pytest.raises(StoreMissing):
        started(bare)
    with pytest.raises(StorageError):
        bare.make("witness.example/w")
    other = new_witness(tmp_path / "other", LOG)
    shutil.copy2(files.key, other.key)
    with pytest.raises(StorageError, match="not the one"):
        started(other)


def test_a_damaged_list_of_logs_is_said_at_the_start_and_the_lock_is_free_again(files: WitnessFiles) -> None:
    good = files.logs.read_bytes()
    files.logs.write_bytes(good + b"log nonsense\n")
    with pytest.raises(LedgerError, match="line 3"):
        started(files)
    files.logs.write_bytes(good)
    started(files).close()
