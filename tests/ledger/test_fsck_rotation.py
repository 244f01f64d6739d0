"""`verify` of a log whose key was changed: whom the verifier's own witnesses confirm is followed, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from rotations import cosigned, turn, witnesses
from stores import Home, new_home, request, send, settle, small_store

from ledger import anchors
from ledger.fsck import Scope
from ledger.layout import Layout
from ledger.note import Signer
from ledger.policy import Policy
from ledger.rotation import read_lines
from ledger.trust import LogKeys, Trust


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("old") / "log", tail=False)


@pytest.fixture(scope="module")
def signers() -> tuple[list[Signer], Policy]:
    return witnesses("one", "two")


@pytest.fixture
def rotated(old: Home, tmp_path: Path) -> Home:
    """The log under its new key; nobody has cosigned anything yet."""
    home = old.copy(tmp_path / "log")
    turn(home)
    with home.writing() as writer:
        send(writer, request(9))
        settle(writer)
    return home


def test_with_both_keys_it_is_verified(old: Home, rotated: Home) -> None:
    both = LogKeys.of(*str(rotated.pins.key(old.vkey.partition("+")[0])).split())
    report = rotated.verify(trust=Trust(both))
    assert (report.verdict, report.rotations, report.rotations_refused) == ("verified", [], [])


def test_the_old_key_alone_fails_and_says_what_to_do(old: Home, rotated: Home) -> None:
    report = rotated.verify(trust=Trust(LogKeys.of(old.vkey)))
    assert (report.verdict, report.key) == ("failed", "wrong")
    (why,) = report.rotations_refused
    assert "no witness of yours confirms it" in why
    assert f"--key '{old.vkey}@<=" in why


def test_a_quorum_of_the_verifiers_witnesses_is_followed(old: Home, rotated: Home, signers: tuple[list[Signer], Policy]) -> None:
    who, policy = signers
    trust = Trust(LogKeys.of(old.vkey), policy)
    assert rotated.verify(trust=trust).verdict == "failed", "nobody has cosigned it yet"
    anchors.write_cosigned(Layout(rotated.store), cosigned(rotated.checkpoint, who))
    report = rotated.verify(trust=trust)
    assert (report.verdict, report.key, report.anchoring.verdict) == ("verified", "pinned", "anchored")
    (how,) = report.rotations
    assert f"{old.vkey} up to" in how
    assert report.as_json()["rotations"] == {"followed": [how], "refused": []}


def test_what_a_witness_shows_is_enough(old: Home, rotated: Home, signers: tuple[list[Signer], Policy]) -> None:
    who, policy = signers
    shown = [("the witness", cosigned(rotated.checkpoint, who))]
    assert rotated.verify(trust=Trust(LogKeys.of(old.vkey), policy), witnessed=shown).verdict == "verified"


def test_half_a_quorum_is_not(old: Home, rotated: Home, signers: tuple[list[Signer], Policy]) -> None:
    who, policy = signers
    anchors.write_cosigned(Layout(rotated.store), cosigned(rotated.checkpoint, who[:1]))
    report = rotated.verify(trust=Trust(LogKeys.of(old.vkey), policy))
    assert report.verdict == "failed"
    assert "no quorum" in report.rotations_refused[0]


def test_the_old_key_cannot_sign_on_once_it_was_followed(
    old: Home, rotated: Home, tmp_path: Path, signers: tuple[list[Signer], Policy]
) -> None:
    """A thief of the old key shows another continuation of the log, with the true lines and cosignatures beside it."""
    who, policy = signers
    thief = old.copy(tmp_path / "thief")
    with thief.writing() as writer:
        for seed in range(40, 46):
            send(writer, request(seed))
    anchors.write_cosigned(Layout(thief.store), cosigned(rotated.checkpoint, who))
    Layout(thief.store).key_rotations.write_bytes(Layout(rotated.store).key_rotations.read_bytes())
    assert thief.verify(trust=Trust(LogKeys.of(old.vkey)), last_signed=None).verdict == "failed", (
        "the line and the checkpoint are of another history"
    )
    assert thief.verify(trust=Trust(LogKeys.of(old.vkey), policy), last_signed=None).verdict == "failed"


def test_a_rotation_of_the_thiefs_own_is_not_followed(
    old: Home, rotated: Home, tmp_path: Path, signers: tuple[list[Signer], Policy]
) -> None:
    who, policy = signers
    thief = old.copy(tmp_path / "thief")
    turn(thief)
    anchors.write_cosigned(Layout(thief.store), cosigned(rotated.checkpoint, who))
    report = thief.verify(trust=Trust(LogKeys.of(old.vkey), policy), last_signed=None)
    assert report.verdict == "failed"
    assert report.rotations == []


def test_a_line_that_lies_is_found(old: Home, rotated: Home) -> None:
    path = Layout(rotated.store).key_rotations
    path.write_bytes(path.read_bytes().replace(b'"index":', b'"index":1', 1))
    both = LogKeys.of(*str(rotated.pins.key(old.vkey.partition("+")[0])).split())
    report = rotated.verify(trust=Trust(both))
    assert report.verdict == "failed"
    assert "checkpoints/keys.jsonl" in {failure.file for failure in report.failures}


def test_a_partial_run_reads_no_lines_about_records_it_has_not_read(old: Home, rotated: Home) -> None:
    both = LogKeys.of(*str(rotated.pins.key(old.vkey.partition("+")[0])).split())
    assert read_lines(Layout(rotated.store))
    for scope in (Scope(rows=False), Scope(since=10_000)):
        assert rotated.verify(trust=Trust(both), scope=scope).failures == []


@pytest.mark.parametrize("ended", [False, True], ids=["the new key alone", "both keys, the old one ended"])
def test_a_history_of_the_old_keys_thief_is_not_vouched_for_by_true_lines(old: Home, rotated: Home, tmp_path: Path, ended: bool) -> None:
    """Whoever believes the new key believes its word for the old one; the thief of the old key puts that word into a forged store."""
    line_of_keys = str(rotated.pins.key(old.vkey.partition("+")[0])).split()
    trust = Trust(LogKeys.of(*(line_of_keys if ended else line_of_keys[-1:])))
    thief = new_home(tmp_path / "thief")
    thief.key.write_bytes(old.key.read_bytes())
    thief.key.with_name(thief.key.name + ".secret").write_bytes(old.key.with_name(old.key.name + ".secret").read_bytes())
    with thief.writing() as writer:
        send(writer, request(77))
    assert thief.read(vkeys=[old.vkey]).size < rotated.read(vkeys=line_of_keys).size
    without = thief.verify(trust=trust, last_signed=None)
    Layout(thief.store).key_rotations.write_bytes(Layout(rotated.store).key_rotations.read_bytes())
    report = thief.verify(trust=trust, last_signed=None)
    assert report.verdict == "failed", report.as_json()
    assert "rollback" in {failure.what for failure in report.rollback}
    assert ended or without.verdict == "failed"
