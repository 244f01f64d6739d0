"""What one witness may answer: lies are its own problem, and it is asked again, ever more rarely."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from anchored_stores import (
    FAST,
    FORGED,
    NOTHING,
    STRANGER,
    Liar,
    anchored,
    by_path,
    conflict,
    cosigners,
    forked,
    has_cosigned,
    home_with_records,
    keys_of,
    lines_by,
    state_of,
    tell,
    text_in,
)
from stores import ORIGIN, Home, new_home, request, send, settle, wait_for
from witness_servers import HostileWitness, RealWitness, Reply, policy_of, served

from ledger.anchors import newest_cosigned
from ledger.checkpoint import Checkpoint, open_checkpoint
from ledger.errors import NotAppendOnly, WitnessUnreachable
from ledger.layout import Layout
from ledger.note import Signer
from ledger.submitter import Submitter
from ledger.witness_files import WitnessFiles
from ledger.witness_protocol import SIZE_TYPE, origin_path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", **FAST)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            by_path(conflict(1 << 40), NOTHING), "claims to know size 1099511627776, and shows no checkpoint", id="a size, no proof"
        ),
        pytest.param(by_path(conflict(1 << 40), (200, "text/plain", FORGED)), "has not signed", id="a checkpoint of somebody else's"),
        pytest.param(by_path(conflict(1 << 40), (200, "text/plain", b"rubbish")), "has not signed", id="no checkpoint"),
        pytest.param(by_path(conflict(1 << 40), (500, "text/plain", b"")), "answers 500", id="no answer"),
        pytest.param(by_path(conflict(0), NOTHING), "claims to know size 0", id="the size that was named"),
        pytest.param(by_path((422, "text/plain", b"no"), NOTHING), "does not extend", id="calls a true proof wrong"),
        pytest.param(by_path((403, "text/plain", b"go away"), NOTHING), "403 go away", id="refuses"),
        pytest.param(by_path((200, "text/plain", b""), NOTHING), "no cosignature", id="empty"),
        pytest.param(by_path((200, "text/plain", b"\xff\xfe"), NOTHING), "no cosignature", id="bytes"),
        pytest.param(by_path(lines_by(STRANGER), NOTHING), "no cosignature", id="of a key nobody knows"),
    ],
)
def test_a_witness_that_lies_is_its_own_problem(home: Home, answer: Callable[[str, str, bytes], Reply], words: str) -> None:
    liar = Liar(answer)
    with served(liar.server), anchored(home, liar.policy) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: words in state_of(anchorer, "liar").error)
        assert anchorer.contradiction is None
        assert writer.log.fault is None
        send(writer, request(2))
        settle(writer)
    assert newest_cosigned(Layout(home.store)) is None
    assert not (home.base / "evidence").exists()
    assert home.verify().verdict == "verified"


def test_a_cosignature_of_something_else_is_not_kept(home: Home, tmp_path: Path) -> None:
    signer = Signer.generate("example.org/liar")
    other = Checkpoint(ORIGIN, 1, b"r" * 32).text()
    server = HostileWitness(by_path(lines_by(signer, other), NOTHING))
    good = RealWitness(tmp_path / "good", "example.org/good", home.vkey)
    policy = policy_of(good.line, f"witness liar {signer.cosigner.vkey} {server.url}\n")
    with served(server, good), anchored(home, policy) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        wait_for(lambda: "is wrong" in state_of(anchorer, "liar").error)
        assert cosigners(policy, newest_cosigned(writer.layout)) == {"good"}


def test_a_witness_that_sends_further_lines_is_taken_at_its_own(home: Home) -> None:
    signer = Signer.generate("example.org/w")

    def reply(body: bytes) -> Reply:
        text = text_in(body)
        return 200, "text/plain", (STRANGER.cosign(text, 5) + signer.cosign(text, 1_795_000_000)).encode()

    server = HostileWitness(by_path(reply, NOTHING))
    policy = policy_of(f"witness w {signer.cosigner.vkey} {server.url}\n")
    with served(server), anchored(home, policy) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        note = newest_cosigned(writer.layout)
        assert note is not None
        assert b"stranger" not in note
        assert state_of(anchorer, "w").cosigned == 1_795_000_000


def test_a_cosignature_of_another_witness_is_not_its_own(home: Home) -> None:
    home_with_records(home)
    own = Signer.generate("example.org/own")
    server = HostileWitness(by_path(lines_by(STRANGER), NOTHING))
    policy = policy_of(f"witness own {own.cosigner.vkey} {server.url}\n", f"witness stranger {STRANGER.cosigner.vkey}\n", quorum="1")
    with served(server), anchored(home, policy) as (_writer, anchorer):
        wait_for(lambda: "none of its own" in state_of(anchorer, "own").error)
    assert newest_cosigned(Layout(home.store)) is None


def submitter_of(home: Home, server: HostileWitness | RealWitness, signer: Signer) -> Submitter:
    witness = policy_of(f"witness w {signer.cosigner.vkey} {server.url}\n").witnesses[0]
    return Submitter(
        witness, server.url, Layout(home.store), keys_of(home), [witness.verifier],
        evidence=home.base / "evidence", monotonic=lambda: 100.0, jitter=lambda: 1.0, timeout=5.0,
    )  # fmt: skip


def test_a_witness_that_knows_a_newer_checkpoint_of_ours_is_no_contradiction(home: Home) -> None:
    with home.writing() as writer:
        settle(writer)
        older = home.checkpoint
        send(writer, request(1))
    newest = open_checkpoint(home.checkpoint, home.verifier).size
    server = HostileWitness(by_path(conflict(newest), (200, "text/plain", home.checkpoint)))
    submitter = submitter_of(home, server, STRANGER)
    with served(server), contextlib.closing(submitter), pytest.raises(WitnessUnreachable, match=f"knows size {newest} already"):
        submitter.cosign(older, open_checkpoint(older, home.verifier))
    assert submitter.state.tries == 1
    assert submitter.due == 101.0


def test_a_witness_that_calls_every_proof_wrong_is_not_asked_for_ever(home: Home) -> None:
    home_with_records(home)
    server = HostileWitness(by_path((422, "text/plain", b"no"), (200, "text/plain", home.checkpoint)))
    with served(server), contextlib.closing(submitter_of(home, server, STRANGER)) as submitter:
        for tries in range(1, 9):
            with pytest.raises(WitnessUnreachable, match="another size each time"):
                submitter.cosign(home.checkpoint, open_checkpoint(home.checkpoint, home.verifier))
            # Twice as long each time, and never longer than a minute.
            assert submitter.due == 100.0 + min(2 ** (tries - 1), 60)


# ----------------------------------------------------------------------------------------- a fork behind an answer that says nothing


@pytest.mark.parametrize("kind", ["text/plain", SIZE_TYPE])
def test_a_conflict_without_a_size_is_compared_and_a_fork_behind_it_found(home: Home, tmp_path: Path, kind: str) -> None:
    copy, theirs = forked(home, tmp_path, first=2, second=1)
    server = HostileWitness(by_path((409, kind, b"no"), (200, "text/plain", theirs)))
    with served(server), contextlib.closing(submitter_of(copy, server, STRANGER)) as submitter, pytest.raises(NotAppendOnly):
        submitter.cosign(copy.checkpoint, open_checkpoint(copy.checkpoint, home.verifier))


# ------------------------------------------------------------------------------------------------------------- witnesses that forget


def backed_up(home: Home, tmp_path: Path) -> tuple[RealWitness, Path, int]:
    """A witness that has cosigned a log, a backup of it, and how many records of the log the backup knows."""
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    home_with_records(home)
    tell(witness, home.checkpoint)
    witness.stop()
    shutil.copytree(tmp_path / "w", tmp_path / "backup")
    return witness, tmp_path / "backup", open_checkpoint(home.checkpoint, home.verifier).size


def put_back(witness: RealWitness, backup: Path) -> None:
    shutil.rmtree(witness.files.directory)
    shutil.copytree(backup, witness.files.directory)


@pytest.mark.parametrize("how", ["while the server runs", "between two runs", "of everything between two runs"])
def test_a_witness_that_was_restored_from_a_backup_counts_no_more(home: Home, tmp_path: Path, how: str) -> None:
    witness, backup, known = backed_up(home, tmp_path)
    if how.startswith("of everything"):
        shutil.rmtree(WitnessFiles(backup).of(origin_path(ORIGIN)).directory)
        known = 0
    policy = policy_of(witness.line)

    def forget(size: int) -> str:
        witness.stop()
        shutil.copytree(witness.files.directory, tmp_path / "true")
        put_back(witness, backup)
        witness.start()
        return f"forgot {size - known} records: it has cosigned {size} and knows {known}"

    witness.start()
    with served(witness):
        words = ""
        with anchored(home, policy) as (writer, anchorer):
            send(writer, request(2))
            settle(writer)
            wait_for(lambda: has_cosigned(home, writer.log.signed_size))
            size = writer.log.signed_size
            if how == "while the server runs":
                words = forget(size)
                send(writer, request(3))
                settle(writer)
                wait_for(lambda: words in state_of(anchorer, "w").error)
        if not words:
            size = open_checkpoint(home.checkpoint, home.verifier).size
            assert has_cosigned(home, size)
            words = forget(size)
        with anchored(home, policy) as (writer, anchorer):
            send(writer, request(4))
            settle(writer)
            wait_for(lambda: words in state_of(anchorer, "w").error)
            assert not has_cosigned(home, size + 1), "nothing that it says counts"
            assert "retire it" in state_of(anchorer, "w").error
            assert writer.log.fault is None
            # With its own memory back it is as good as before.
            witness.stop()
            put_back(witness, tmp_path / "true")
            witness.start()
            wait_for(lambda: has_cosigned(home, writer.log.signed_size))
            assert state_of(anchorer, "w").error == ""


def test_a_store_that_has_less_than_it_once_had_cosigned_is_found_out(home: Home, tmp_path: Path) -> None:
    copy, _theirs = forked(home, tmp_path, first=3, second=0)
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    tell(witness, home.checkpoint)
    with served(witness):
        policy = policy_of(witness.line)
        submitter = Submitter(
            policy.witnesses[0], witness.url, Layout(copy.store), keys_of(home), [witness.verifier],
            evidence=home.base / "evidence", monotonic=lambda: 100.0, jitter=lambda: 1.0, timeout=5.0,
        )  # fmt: skip
        submitter.remember(open_checkpoint(home.checkpoint, home.verifier).size)
        with contextlib.closing(submitter), pytest.raises(NotAppendOnly):
            submitter.cosign(copy.checkpoint, open_checkpoint(copy.checkpoint, home.verifier))
