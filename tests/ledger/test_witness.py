"""A witness: every rule of c2sp.org/tlog-witness, which logs and keys it knows, its clock, and the evidence it keeps."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_log import NOW, SmallLog, conflict, cosigned_at, new_witness, request, started

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import MalformedError
from ledger.merkle import EMPTY_ROOT
from ledger.note import Signer, encode_base64, open_note, sign
from ledger.witness import TEXT_TYPE, WitnessStore
from ledger.witness_files import MAX_UNPROVEN, WitnessFiles
from ledger.witness_protocol import MAX_BODY_BYTES

LOG = SmallLog.make()
EM_DASH = "\N{EM DASH}".encode()


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


# ------------------------------------------------------------------------------------------------- every status of the protocol


def test_a_first_checkpoint_a_next_one_and_the_same_again(witness: WitnessStore) -> None:
    for old, size in ((0, 7), (7, 20), (20, 20), (20, 21)):
        answer = witness.add_checkpoint(LOG.body(old, size))
        assert cosigned_at(witness, LOG.note(size), answer) == NOW
    kept = witness.latest(LOG.path)
    assert kept is not None
    note = open_note(kept, [LOG.signer.verifier, witness.cosigner])
    assert Checkpoint.parse(note.text) == LOG.checkpoint(21)
    assert len(note.verified) == 2 and not note.unverified


@pytest.mark.usefixtures("unsynced")
def test_all_pairs_of_small_sizes_are_cosigned_and_none_of_a_fork(tmp_path: Path) -> None:
    for old in range(1, 10):
        for size in range(old, 13):
            place = tmp_path / f"{old}-{size}"
            with contextlib.closing(started(new_witness(place, LOG))) as witness:
                assert witness.add_checkpoint(LOG.body(0, old)).status == 200
                for at in range(old):  # another history from a record on that was cosigned
                    assert witness.add_checkpoint(LOG.fork(at).body(old, size)).status == 422
                assert witness.add_checkpoint(LOG.body(old, size)).status == 200


def test_404_for_a_log_that_is_not_known(witness: WitnessStore) -> None:
    stranger = SmallLog.make("example.com/stranger")
    assert witness.add_checkpoint(stranger.body(0, 3)).status == 404
    # It comes before the signature and before what the checkpoint says.
    assert witness.add_checkpoint(request(9, sign("example.com/stranger\nno size\n\n", [LOG.signer]))).status == 404


def test_403_without_a_signature_of_a_trusted_key(witness: WitnessStore) -> None:
    impostor = Signer.generate(LOG.origin)
    assert witness.add_checkpoint(request(0, LOG.note(3, impostor))).status == 403
    # A key of another name over this log's origin, and the witness's own.
    assert witness.add_checkpoint(request(0, LOG.note(3, Signer.generate("example.com/other")))).status == 403
    # A right signature and a wrong one of the same key: the note is malformed (signed-note), and the protocol says 403.
    wrong = LOG.note(3) + LOG.note(4).splitlines(keepends=True)[-1]
    assert witness.add_checkpoint(request(0, wrong)).status == 403
    assert witness.add_checkpoint(request(9, LOG.note(3, impostor))).status == 403  # before the 400 of sizes
    assert witness.latest(LOG.path) is None


def test_signatures_of_unknown_keys_are_ignored_and_not_kept(witness: WitnessStore) -> None:
    stranger = Signer.generate("stranger.example/w")
    note = LOG.note(3) + stranger.cosign(LOG.checkpoint(3).text(), 5).encode()
    assert witness.add_checkpoint(request(0, note)).status == 200
    assert b"stranger" not in (witness.latest(LOG.path) or b"stranger")


@pytest.mark.parametrize(
    "text",
    [
        f"{LOG.origin}\n03\n{encode_base64(bytes(32))}\n",
        f"{LOG.origin}\n-3\n{encode_base64(bytes(32))}\n",
        f"{LOG.origin}\n3\n{encode_base64(bytes(31))}\n",
        f"{LOG.origin}\n3\n{encode_base64(bytes(32))} \n",
        f"{LOG.origin}\n3\n{encode_base64(bytes(32))}\n\nextension after an empty line\n",
        f"{LOG.origin}\n3\n",
        f"{LOG.origin}\n",
        f"{LOG.origin}\n{2**63}\n{encode_base64(bytes(32))}\n",
    ],
)
def test_400_for_what_the_log_signed_and_is_no_checkpoint(witness: WitnessStore, text: str) -> None:
    assert witness.add_checkpoint(request(0, sign(text, [LOG.signer]))).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00" * 1000,
        b"x" * (MAX_BODY_BYTES + 1),
        LOG.body(0, 3).replace(b"\n", b"\r\n"),
        LOG.body(0, 3) + b"\n",
        LOG.body(0, 3)[:-1],
        LOG.body(0, 3).replace(b"old 0", b"old  0"),
        LOG.body(0, 3).replace(b"old 0", b"old 00"),
        LOG.body(0, 3).replace(b"old 0\n", b"old 5\n" + b"A" * 43 + b"=\n" * 64),
        b"old 5\n" + (encode_base64(bytes(32)).encode() + b"\n") * 64 + b"\n" + LOG.note(7),
        LOG.body(0, 3).replace(EM_DASH, b"--"),
    ],
)
def test_400_for_hostile_bodies_in_one_line(witness: WitnessStore, body: bytes) -> None:
    answer = witness.add_checkpoint(body)
    assert (answer.status, answer.content_type) == (400, TEXT_TYPE)
    assert answer.body.count(b"\n") == 1 and len(answer.body) < 200
    assert witness.add_checkpoint(LOG.body(0, 3)).status == 200


def test_400_when_the_old_size_is_larger(witness: WitnessStore) -> None:
    assert witness.add_checkpoint(request(9, LOG.note(3))).status == 400
    assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
    assert witness.add_checkpoint(request(9, LOG.note(3))).status == 400  # also where it is our size: never back


def test_409_names_the_size_that_is_known(witness: WitnessStore) -> None:
    assert conflict(witness.add_checkpoint(request(3, LOG.note(5), *LOG.proof(3, 5)))) == 0
    assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
    for old in (0, 3, 10):
        assert conflict(witness.add_checkpoint(LOG.body(old, 12))) == 9
    assert conflict(witness.add_checkpoint(LOG.body(3, 5))) == 9
    assert conflict(witness.add_checkpoint(LOG.body(5, 5))) == 9


def test_422_for_a_proof_that_is_wrong_short_long_or_not_wanted(witness: WitnessStore) -> None:
    extra = bytes(32)
    assert witness.add_checkpoint(request(0, LOG.note(7), extra)).status == 422
    assert witness.add_checkpoint(LOG.body(0, 7)).status == 200
    proof = LOG.proof(7, 20)
    for wrong in ((), proof[:-1], (*proof, extra), (extra, *proof), proof[::-1], (extra, *proof[1:]), (*proof[:-1], extra)):
        assert witness.add_checkpoint(request(7, LOG.note(20), *wrong)).status == 422
    assert witness.add_checkpoint(request(7, LOG.note(7), extra)).status == 422
    assert witness.add_checkpoint(LOG.body(7, 20)).status == 200


def test_422_for_two_roots_of_one_size(witness: WitnessStore) -> None:
    assert witness.add_checkpoint(LOG.body(0, 7)).status == 200
    assert witness.add_checkpoint(LOG.fork(3).body(7, 7)).status == 422


def test_the_empty_tree_is_cosigned_and_everything_extends_it(witness: WitnessStore) -> None:
    assert cosigned_at(witness, LOG.note(0), witness.add_checkpoint(LOG.body(0, 0))) == NOW
    assert witness.add_checkpoint(request(0, LOG.note(0), bytes(32))).status == 422
    assert conflict(witness.add_checkpoint(LOG.body(3, 5))) == 0
    assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
    assert conflict(witness.add_checkpoint(LOG.body(0, 0))) == 5


def test_422_for_the_empty_tree_with_another_root(witness: WitnessStore) -> None:
    assert bytes(32) != EMPTY_ROOT
    note = sign(f"{LOG.origin}\n0\n{encode_base64(bytes(32))}\n", [LOG.signer])
    assert witness.add_checkpoint(request(0, note)).status == 422


def test_extension_lines_are_cosigned_with_the_rest(witness: WitnessStore) -> None:
    checkpoint = Checkpoint(LOG.origin, 3, LOG.checkpoint(3).root, ("an extension",))
    note = sign_checkpoint(checkpoint, LOG.signer)
    assert cosigned_at(witness, note, witness.add_checkpoint(request(0, note))) == NOW


# ------------------------------------------------------------------------------------------------------ which logs, which keys


def test_a_log_is_added_while_it_runs_and_a_damaged_list_cosigns_nothing(files: WitnessFiles, witness: WitnessStore) -> None:
    other = SmallLog.make("example.com/other")
    assert witness.add_checkpoint(other.body(0, 3)).status == 404
    assert files.add_log(other.signer.vkey) == [other.signer.vkey]
    assert witness.add_checkpoint(other.body(0, 3)).status == 200
    good = files.logs.read_bytes()
    files.logs.write_bytes(good + b"quorum none\n")
    assert witness.add_checkpoint(other.body(3, 4)).status == 503
    files.logs.unlink()
    assert witness.add_checkpoint(other.body(3, 4)).status == 503
    files.logs.write_bytes(b"# nothing\n")
    assert witness.add_checkpoint(other.body(3, 4)).status == 404
    files.logs.write_bytes(good)
    assert witness.add_checkpoint(other.body(3, 4)).status == 200


def test_adding_a_log_twice_changes_nothing_and_a_comment_stays(files: WitnessFiles) -> None:
    files.logs.write_bytes(files.logs.read_bytes() + b"# mine")
    before = files.logs.read_bytes()
    assert files.add_log(LOG.signer.vkey) == [LOG.signer.vkey]
    assert files.logs.read_bytes() == before
    new = Signer.generate(LOG.origin).vkey
    assert files.add_log(new) == [LOG.signer.vkey, new]
    assert files.logs.read_bytes() == before + b"\nlog " + new.encode() + b"\n"
    for wrong in (LOG.signer.cosigner.vkey, "x", LOG.signer.vkey + "\nquorum none"):
        with pytest.raises(MalformedError):
            files.add_log(wrong)


def test_after_a_change_of_keys_either_key_continues_the_same_history(files: WitnessFiles, witness: WitnessStore) -> None:
    new = Signer.generate(LOG.origin)
    files.add_log(new.vkey)
    assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
    assert witness.add_checkpoint(request(5, LOG.note(8, new), *LOG.proof(5, 8))).status == 200
    both = sign(LOG.checkpoint(9).text(), [LOG.signer, new])
    assert witness.add_checkpoint(request(8, both, *LOG.proof(8, 9))).status == 200
    kept = witness.latest(LOG.path)
    assert kept is not None and len(open_note(kept, [LOG.signer.verifier, new.verifier, witness.cosigner]).verified) == 3
    # The old key cannot start over with it.
    assert witness.add_checkpoint(SmallLog(new, LOG.fork(2).records).body(9, 9)).status == 422
    files.logs.write_text(f"log {new.vkey}\n")
    assert witness.add_checkpoint(LOG.body(9, 10)).status == 403
    assert witness.add_checkpoint(request(9, LOG.note(10, new), *LOG.proof(9, 10))).status == 200


def test_logs_do_not_touch_each_other(files: WitnessFiles, witness: WitnessStore) -> None:
    other = SmallLog.make("example.com/other")
    files.add_log(other.signer.vkey)
    assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
    assert witness.add_checkpoint(other.body(0, 3)).status == 200
    assert conflict(witness.add_checkpoint(LOG.body(0, 10))) == 9
    assert conflict(witness.add_checkpoint(other.body(0, 10))) == 3
    assert [state.directory.name for state in files.states()] == sorted([LOG.path, other.path])
    # The other log's key over this log's origin.
    assert witness.add_checkpoint(request(9, LOG.note(10, Signer.generate(other.origin)), *LOG.proof(9, 10))).status == 403


# ------------------------------------------------------------------------------------------------------------------- the clock


def test_the_time_never_goes_back_and_the_log_says_so_once(files: WitnessFiles, caplog: pytest.LogCaptureFixture) -> None:
    now = [NOW]
    with contextlib.closing(WitnessStore.open(files.directory, clock=lambda: now[0])) as witness, caplog.at_level(logging.WARNING):
        times = []
        for size, moment in ((1, NOW), (2, NOW + 9), (3, NOW - 3600), (4, NOW - 3599), (5, NOW + 10)):
            now[0] = moment
            times.append(cosigned_at(witness, LOG.note(size), witness.add_checkpoint(LOG.body(size - 1, size))))
    assert times == [NOW, NOW + 9, NOW + 9, NOW + 9, NOW + 10]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with contextlib.closing(started(files, NOW - 99)) as witness:  # also after a restart
        assert cosigned_at(witness, LOG.note(6), witness.add_checkpoint(LOG.body(5, 6))) == NOW + 10


def test_a_clock_that_is_not_set_cosigns_nothing(files: WitnessFiles) -> None:
    with contextlib.closing(started(files, 0)) as witness:
        assert witness.add_checkpoint(LOG.body(0, 3)).status == 503
        assert witness.latest(LOG.path) is None


# ------------------------------------------------------------------------------------------------------------------- evidence


def test_a_fork_is_kept_as_proof_whatever_old_size_came_with_it(
    files: WitnessFiles, witness: WitnessStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert witness.add_checkpoint(LOG.body(0, 9)).status == 200
    first, second = LOG.fork(3), LOG.fork(5)
    assert witness.add_checkpoint(first.body(9, 9)).status == 422
    assert conflict(witness.add_checkpoint(second.body(4, 9))) == 9
    assert witness.add_checkpoint(first.body(9, 9)).status == 422  # again: kept once, said once
    state = files.of(LOG.path)
    kept = state.evidence("fork")
    assert sorted(path.name for path in kept) == sorted(f"9-{log.checkpoint(9).root.hex()}.fork" for log in (first, second))
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "CRITICAL"]
    for path in kept:
        value = json.loads(path.read_text())
        notes = [open_note(value[name].encode(), [LOG.signer.verifier]) for name in ("offered", "cosigned")]
        offered, cosigned = (Checkpoint.parse(note.text) for note in notes)
        assert offered.size == cosigned.size and offered.root != cosigned.root  # proof against the log, with nothing else
        open_note(value["cosigned"].encode(), [witness.cosigner])
        assert path.stat().st_mode & 0o777 == 0o600
    assert witness.add_checkpoint(LOG.body(9, 12)).status == 200  # the history that was cosigned goes on


def test_what_anybody_can_send_is_no_proof_and_fills_nothing_up(files: WitnessFiles, witness: WitnessStore) -> None:
    """Whoever sees the log's checkpoints can send them with a wrong proof; that must not look as if the log had forked."""
    log = SmallLog(LOG.signer, tuple(b"%d" % number for number in range(MAX_UNPROVEN + 20)))
    assert witness.add_checkpoint(log.body(0, 3)).status == 200
    for size in range(4, MAX_UNPROVEN + 14):
        assert witness.add_checkpoint(request(3, log.note(size), bytes(32))).status == 422
    state = files.of(LOG.path)
    assert not state.evidence("fork")
    assert len(state.evidence("unproven")) == MAX_UNPROVEN
    assert witness.add_checkpoint(log.fork(1).body(3, 3)).status == 422
    assert len(state.evidence("fork")) == 1  # a proof has its own room


def test_what_was_put_aside_is_judged_when_its_size_is_cosigned(files: WitnessFiles, witness: WitnessStore) -> None:
    fork = LOG.fork(3)
    assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
    assert witness.add_checkpoint(request(5, LOG.note(8), bytes(32))).status == 422  # true, with a false proof
    assert witness.add_checkpoint(fork.body(5, 8)).status == 422  # false
    assert witness.add_checkpoint(fork.body(5, 9)).status == 422
    state = files.of(LOG.path)
    assert len(state.evidence("unproven")) == 3
    assert witness.add_checkpoint(LOG.body(5, 8)).status == 200
    assert [path.name.split("-")[0] for path in state.evidence("unproven")] == ["9"]
    (proof,) = state.evidence("fork")
    value = json.loads(proof.read_text())
    roots = [Checkpoint.parse(open_note(value[name].encode(), [LOG.signer.verifier]).text) for name in ("offered", "cosigned")]
    assert roots == [fork.checkpoint(8), LOG.checkpoint(8)]


def test_a_race_that_was_lost_honestly_leaves_no_evidence(files: WitnessFiles, witness: WitnessStore) -> None:
    assert witness.add_checkpoint(LOG.body(0, 5)).status == 200
    assert witness.add_checkpoint(LOG.body(5, 9)).status == 200
    assert conflict(witness.add_checkpoint(LOG.body(5, 12))) == 9
    assert conflict(witness.add_checkpoint(LOG.body(5, 7))) == 9
    assert witness.add_checkpoint(request(9, LOG.note(9), bytes(32))).status == 422
    assert not files.of(LOG.path).forks.exists()
