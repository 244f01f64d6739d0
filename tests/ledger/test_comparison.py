"""A store against its witnesses: rollback and fork are noticed at the start and while it runs, and nothing more is signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from anchored_stores import (
    FAST,
    NOTHING,
    Liar,
    anchored,
    begin,
    by_path,
    evidence_of,
    forked,
    has_cosigned,
    home_with_records,
    keys_of,
    tell,
)
from stores import ORIGIN, Home, kill, new_home, request, send, set_settings, settle, wait_for
from witness_servers import RealWitness, policy_of, served

from ledger import merkle
from ledger.anchoring import Anchorer
from ledger.anchors import newest_cosigned
from ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.comparison import Account, compare_with_witnesses
from ledger.errors import NotAppendOnly, VerificationError
from ledger.layout import Layout
from ledger.note import Signer
from ledger.policy import Policy
from ledger.recovery import Recovered
from ledger.trust import LogKeys
from ledger.writer import StoreWriter


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", **FAST)


def assert_halted(writer: StoreWriter, anchorer: Anchorer, home: Home) -> None:
    wait_for(lambda: isinstance(writer.log.fault, NotAppendOnly))
    assert anchorer.contradiction is writer.log.fault
    writer.log.settle()  # a checkpoint that was being signed in that moment is out
    signed = home.checkpoint
    with pytest.raises(NotAppendOnly):
        send(writer, request(999))
    with pytest.raises(NotAppendOnly):
        writer.append("note", {"text": "nor this"})
    writer.close()
    assert home.checkpoint == signed


def test_a_fork_is_noticed_while_running_and_nothing_more_is_signed(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness):
        copy, kept = forked(home, tmp_path, first=1, second=4)
        tell(witness, kept)
        writer = copy.open()
        anchorer = begin(copy, writer, policy_of(witness.line))
        assert_halted(writer, anchorer, copy)
        assert "another history" in str(writer.log.fault)
        assert "NOTHING IS SIGNED ANY MORE" in caplog.text
        assert witness.latest(ORIGIN) is not None
    [evidence] = evidence_of(copy)
    assert [verifier.vkey for verifier in evidence.check([home.verifier])] == [home.vkey]
    assert evidence.first.startswith(kept)
    assert evidence.proof is not None
    assert newest_cosigned(Layout(copy.store)) is None


def test_a_rollback_is_noticed_while_running_and_nothing_more_is_signed(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    witness, other = (RealWitness(tmp_path / name, f"example.org/{name}", home.vkey) for name in ("w", "other"))
    with served(witness, other):
        copy, kept = forked(home, tmp_path, first=9, second=0)
        tell(witness, kept)
        tell(other, kept)
        writer = copy.open()
        anchorer = begin(copy, writer, policy_of(witness.line, other.line))
        wait_for(lambda: all("records are missing" in state.error for state in anchorer.states()))
        assert caplog.text.count("NOTHING IS SIGNED ANY MORE") == 1
        assert_halted(writer, anchorer, copy)
        assert "records are missing" in str(writer.log.fault)
        kept_notes = {path.read_bytes() for path in (copy.base / "evidence").iterdir()}
        latest = witness.latest(ORIGIN)
        assert latest in kept_notes
        assert other.latest(ORIGIN) in kept_notes


def test_the_halted_log_starts_again_as_a_store_that_is_whole(home: Home, tmp_path: Path) -> None:
    with home.writing() as writer:
        receipt = send(writer, request(1))
        settle(writer)
        writer.log.halt(VerificationError("a test says so"))
        writer.log.halt(VerificationError("and says it again"))
        assert str(writer.log.fault) == "a test says so"
        with pytest.raises(VerificationError, match="a test says so"):
            send(writer, request(2))
    with home.writing() as writer:
        assert send(writer, request(1)).start == receipt.start
        send(writer, request(2))
        settle(writer)
    assert home.verify().verdict == "verified"


def test_what_was_acknowledged_and_not_signed_stays_unsigned(home: Home) -> None:
    set_settings(home, checkpoint_seconds=60.0, segment_records=1000)
    with home.writing() as writer:
        send(writer, request(1))
        writer.log.halt(VerificationError("a test says so"))
    assert not (home.store / "checkpoint").exists()
    with home.writing() as writer:  # the journal has kept it
        assert writer.log.size > 4


def opening(home: Home, policy: Policy) -> tuple[StoreWriter, list[str]]:
    warnings: list[str] = []

    def compare(recovered: Recovered, keys: LogKeys) -> None:
        account = Account.of_store(
            Layout(home.store), keys, size=recovered.state.tree.size, root=recovered.state.tree.root(), evidence=home.base / "evidence"
        )
        warnings.extend(compare_with_witnesses(policy, account))

    return home.open(before_signing=compare), warnings


def everything_in(home: Home) -> dict[str, bytes]:
    """But for tiles: those of the size where recovery begins are made again, whether or not a checkpoint of that size was published."""
    files = [path for path in home.files("**/*") if path.is_file() and "tile" not in path.parts]
    return {path.relative_to(home.store).as_posix(): path.read_bytes() for path in files}


def test_a_backup_restored_on_a_new_machine_is_refused_before_anything_is_signed(home: Home, tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    policy = policy_of(witness.line)
    with served(witness):
        with anchored(home, policy) as (writer, _anchorer):
            send(writer, request(1))
        backup = home.copy(tmp_path / "backup")
        with anchored(home, policy) as (writer, _anchorer):
            send(writer, request(2, count=7))
        newest = open_checkpoint(home.checkpoint, home.verifier).size
        shutil.rmtree(backup.state.path.parent)
        before = everything_in(backup)
        size = open_checkpoint(backup.checkpoint, home.verifier).size
        with pytest.raises(NotAppendOnly, match=f"{newest - size} records are missing") as caught:
            opening(backup, policy)
        assert (caught.value.expected, caught.value.actual) == (newest, size)
        assert "witness w" in caught.value.message
        assert everything_in(backup) == before
        # The lock is free again, and the true store starts.
        with pytest.raises(NotAppendOnly):
            opening(backup, policy)
        writer, warnings = opening(home, policy)
        writer.close()
        assert warnings == []


def test_a_store_of_another_history_is_refused_and_both_sides_are_kept(home: Home, tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness):
        copy, kept = forked(home, tmp_path, first=1, second=4)
        tell(witness, kept)
        with pytest.raises(NotAppendOnly, match="another history"):
            opening(copy, policy_of(witness.line))
    [evidence] = evidence_of(copy)
    assert evidence.check([home.verifier])


def test_acknowledged_records_in_the_journal_count(home: Home, tmp_path: Path) -> None:
    """A crash after the checkpoint was cosigned loses nothing: the journal gives back what the witness knows."""
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    policy = policy_of(witness.line)
    with served(witness):
        writer = home.open()
        anchorer = begin(home, writer, policy)
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        kill(writer)
        anchorer.finish(seconds=1)
        writer, warnings = opening(home, policy)
        writer.close()
    assert warnings == []


@pytest.mark.parametrize("size", [1 << 40, 1])
def test_an_unsigned_claim_does_not_stop_a_start(home: Home, size: int) -> None:
    forged = sign_checkpoint(Checkpoint(ORIGIN, size, b"r" * 32), Signer.generate(ORIGIN))
    liar = Liar(by_path(NOTHING, (200, "text/plain", forged)))
    with served(liar.server):
        writer, warnings = opening(home_with_records(home), liar.policy)
        writer.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("nothing was compared with the witness liar")


def test_a_witness_that_is_away_or_knows_nothing_does_not_stop_a_start(home: Home, tmp_path: Path) -> None:
    one, two = (RealWitness(tmp_path / name, f"example.org/{name}") for name in ("one", "two"))
    two.stop()
    nameless = f"witness nameless {Signer.generate('example.org/n').cosigner.vkey}\n"
    with served(one, two):
        writer, warnings = opening(home_with_records(home), policy_of(one.line, two.line, nameless))
        writer.close()
    assert len(warnings) == 1
    assert "witness two" in warnings[0]
    writer, warnings = opening(home, policy_of(nameless))
    writer.close()
    assert warnings == []


def test_evidence_that_cannot_be_kept_changes_nothing(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy, kept = forked(home, tmp_path, first=5, second=0)
    (copy.base / "evidence").write_bytes(b"a file")
    head = open_checkpoint(copy.checkpoint, home.verifier)
    account = Account.of_store(Layout(copy.store), keys_of(home), size=head.size, root=head.root, evidence=copy.base / "evidence")
    with pytest.raises(NotAppendOnly, match="records are missing") as caught:
        account.compare("w", kept)
    assert "is kept in" not in caught.value.hint
    assert "the evidence cannot be kept" in caplog.text


def test_a_store_that_has_signed_nothing_is_compared_too(home: Home, tmp_path: Path) -> None:
    _copy, kept = forked(home, tmp_path, first=0, second=0)
    empty = new_home(tmp_path / "empty")
    account = Account.of_store(Layout(empty.store), keys_of(home), size=0, root=merkle.EMPTY_ROOT, evidence=tmp_path / "evidence")
    with pytest.raises(NotAppendOnly, match="this store has 0"):
        account.compare("w", kept)
    assert [path.read_bytes() for path in (tmp_path / "evidence").iterdir()] == [kept]


def test_two_histories_under_two_keys_are_kept_though_no_single_key_signed_both(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home_with_records(home)
    second = Signer.generate(ORIGIN)
    head = open_checkpoint(home.checkpoint, home.verifier)
    other = sign_checkpoint(Checkpoint(ORIGIN, head.size, b"r" * 32), second)
    keys = LogKeys.of(home.vkey, second.vkey)
    account = Account.of_store(Layout(home.store), keys, size=head.size, root=head.root, evidence=tmp_path / "evidence")
    with pytest.raises(NotAppendOnly, match="another history"):
        account.compare("w", other)
    assert {path.read_bytes() for path in (tmp_path / "evidence").iterdir()} == {other, home.checkpoint}
    assert "no proof of a fork by themselves" in caplog.text
