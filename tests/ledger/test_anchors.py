"""Anchors in a store are handed out as they are, damaged or not; and evidence of a fork proves itself or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.anchors import (
    MAX_TOKEN_BYTES,
    append_cosigned,
    cosigned_notes,
    newest_cosigned,
    timestamps,
    write_cosigned,
    write_timestamp,
)
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import BadSignature, LedgerError, MalformedError, StorageError, VerificationError
from ledger.evidence import ForkEvidence, PrefixProof, evidence_dir, save_checkpoint, save_fork_evidence
from ledger.layout import Layout
from ledger.merkle import consistency_path, leaf_hash, root_of
from ledger.note import MAX_NOTE_BYTES, Signer

ORIGIN = "example.com/agents"
LOG = Signer.generate(ORIGIN)
OTHER = Signer.generate(ORIGIN)
WITNESS = Signer.generate("example.org/witness")
COSIGNER = WITNESS.cosigner
ONE = [leaf_hash(b"%d" % n) for n in range(12)]
TWO = [*ONE[:3], *(leaf_hash(b"other %d" % n) for n in range(3, 12))]
SECOND = 1_795_000_000 * 10**9


def note(leaves: list[bytes], size: int, *, signer: Signer = LOG, cosigned: bool = False) -> bytes:
    checkpoint = Checkpoint(ORIGIN, size, root_of(leaves[:size]))
    return sign_checkpoint(checkpoint, signer) + (WITNESS.cosign(checkpoint.text(), 1_795_000_000).encode() if cosigned else b"")


def proof(leaves: list[bytes], old: int, new: int) -> PrefixProof:
    def nodes(wanted):  # type: ignore[no-untyped-def]
        return [root_of(leaves[n << level : (n + 1) << level]) for level, n in wanted]

    return PrefixProof(root=root_of(leaves[:old]), path=tuple(consistency_path(old, new, nodes)))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.history.mkdir(parents=True)
    return layout


def test_nothing_there_is_nothing_found(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "none")
    assert (list(cosigned_notes(layout)), list(timestamps(layout)), newest_cosigned(layout)) == ([], [], None)


def test_cosigned_checkpoints_come_back_as_they_were_written(layout: Layout) -> None:
    first, second, third = (note(ONE, size, cosigned=True) for size in (3, 4, 5))
    append_cosigned(layout, first, published=SECOND)
    append_cosigned(layout, second, published=SECOND + 1)
    append_cosigned(layout, third, published=SECOND + 86_400 * 10**9)
    write_cosigned(layout, first)
    write_cosigned(layout, third)
    assert newest_cosigned(layout) == third
    days = ("checkpoints/2026-11-18.cosigned.jsonl", "checkpoints/2026-11-19.cosigned.jsonl")
    assert list(cosigned_notes(layout)) == [("checkpoints/cosigned", third), (days[0], first), (days[0], second), (days[1], third)]
    line = json.loads((layout.root / days[1]).read_bytes())
    assert line == {"checkpoint": third.decode(), "published": str(SECOND + 86_400 * 10**9)}


def test_a_damaged_line_is_handed_out_and_a_torn_one_is_not(layout: Layout) -> None:
    good = note(ONE, 3, cosigned=True)
    append_cosigned(layout, good, published=SECOND)
    path = layout.history / "2026-11-18.cosigned.jsonl"
    damaged = [b"", b"\xff", b"[1]", b'{"checkpoint": 5}', b'{"published": "5"}', b"{"]
    path.write_bytes(path.read_bytes() + b"".join(line + b"\n" for line in damaged) + b'{"checkpoint": "torn')
    assert [found for _name, found in cosigned_notes(layout)] == [good, *damaged]
    append_cosigned(layout, good, published=SECOND)
    assert [found for _name, found in cosigned_notes(layout)] == [good, *damaged, good]


def test_huge_files_are_read_in_part(layout: Layout) -> None:
    layout.cosigned.write_bytes(b"x" * (MAX_NOTE_BYTES + 999))
    (layout.history / "2026-11-18.cosigned.jsonl").write_bytes(b"y" * (5 * MAX_NOTE_BYTES))
    assert {len(found) for _name, found in cosigned_notes(layout)} == {MAX_NOTE_BYTES + 1, 2 * MAX_NOTE_BYTES}
    write_timestamp(layout, note(ONE, 3), b"z" * (MAX_TOKEN_BYTES + 999), url="https://tsa.example.com")
    assert [len(token) for _name, _note, token in timestamps(layout)] == [MAX_TOKEN_BYTES + 1]


def test_tokens_lie_beside_the_very_bytes_that_were_stamped(layout: Layout) -> None:
    stamped = note(ONE, 3, cosigned=True)
    name = write_timestamp(layout, stamped, b"token", url="https://tsa.example.com")
    assert name.startswith("checkpoints/timestamps/3-")
    assert (layout.root / f"{name}.checkpoint").read_bytes() == stamped
    assert (layout.root / f"{name}.tsr").read_bytes() == b"token"
    assert write_timestamp(layout, stamped, b"token", url="https://tsa.example.com") == name
    with pytest.raises(StorageError):
        write_timestamp(layout, stamped, b"another", url="https://tsa.example.com")
    other = write_timestamp(layout, stamped, b"another", url="https://tsa.example.org")
    assert sorted(timestamps(layout)) == sorted([(name, stamped, b"token"), (other, stamped, b"another")])
    with pytest.raises(MalformedError):
        write_timestamp(layout, b"no note", b"token", url="https://tsa.example.org")


def test_half_a_pair_is_no_anchor(layout: Layout) -> None:
    layout.timestamps.mkdir()
    (layout.timestamps / "3-00000000.checkpoint").write_bytes(note(ONE, 3))
    (layout.timestamps / "4-00000000.tsr").write_bytes(b"token")
    (layout.timestamps / ".5-00000000.tsr").write_bytes(b"token")
    (layout.timestamps / "6-00000000.tsr").mkdir()
    assert list(timestamps(layout)) == []


def test_what_cannot_be_read_is_an_error_of_ours(layout: Layout) -> None:
    layout.cosigned.mkdir()
    with pytest.raises(StorageError):
        list(cosigned_notes(layout))


def test_two_roots_for_one_size_are_evidence(tmp_path: Path) -> None:
    first, second = note(ONE, 5), note(TWO, 5)
    path = save_fork_evidence(tmp_path / "e", first, second, None, [OTHER.verifier, LOG.verifier])
    text = path.read_bytes()
    assert text == b"".join([b"trail-fork/1\n", f"signer {LOG.vkey}\n".encode(), b"first 5\n", first, b"second 5\n", second])
    evidence = ForkEvidence.parse(text)
    assert evidence.check([LOG.verifier, OTHER.verifier]) == (LOG.verifier,)
    with pytest.raises(BadSignature):
        evidence.check([OTHER.verifier])
    assert save_fork_evidence(tmp_path / "e", first, second, None, [LOG.verifier]) == path
    assert list(path.parent.iterdir()) == [path]
    assert path.parent.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(("old", "new"), [(4, 9), (5, 9), (7, 8), (8, 12), (11, 12)])
def test_two_histories_of_different_sizes_are_evidence_with_a_proof(tmp_path: Path, old: int, new: int) -> None:
    first, second = note(ONE, old, cosigned=True), note(TWO, new, cosigned=True)
    proved = proof(TWO, old, new)
    path = save_fork_evidence(tmp_path, first, second, proved, [COSIGNER, LOG.verifier])
    evidence = ForkEvidence.parse(path.read_bytes())
    assert evidence == ForkEvidence(first=first, second=second, proof=proved, signers=(COSIGNER.vkey, LOG.vkey))
    assert evidence.check([COSIGNER]) == (COSIGNER,)
    # One consistent history proves nothing, and nor does a proof that leads elsewhere.
    with pytest.raises(VerificationError, match="agree"):
        save_fork_evidence(tmp_path, note(TWO, old), second, proved, [LOG.verifier])
    with pytest.raises(VerificationError):
        save_fork_evidence(tmp_path, first, second, proof(ONE, old, new), [LOG.verifier])
    with pytest.raises(VerificationError):
        save_fork_evidence(tmp_path, first, note(ONE, new), proved, [LOG.verifier])


def test_what_is_no_fork_is_not_evidence(tmp_path: Path) -> None:
    keys = [LOG.verifier, OTHER.verifier]
    elsewhere = sign_checkpoint(Checkpoint("example.com/b", 5, ONE[0]), Signer(ORIGIN, OTHER._private))
    with pytest.raises(VerificationError, match="two logs"):
        save_fork_evidence(tmp_path, note(ONE, 5), elsewhere, None, keys)
    with pytest.raises(VerificationError, match="agree"):
        save_fork_evidence(tmp_path, note(ONE, 5), note(ONE, 5, cosigned=True), None, keys)
    with pytest.raises(BadSignature, match="both"):
        save_fork_evidence(tmp_path, note(ONE, 5), note(TWO, 5, signer=OTHER), None, keys)
    with pytest.raises(MalformedError, match="smaller"):
        save_fork_evidence(tmp_path, note(ONE, 9), note(TWO, 5), proof(TWO, 5, 9), keys)
    with pytest.raises(MalformedError, match="proof"):
        save_fork_evidence(tmp_path, note(ONE, 5), note(TWO, 9), None, keys)
    with pytest.raises(MalformedError, match="proof"):
        save_fork_evidence(tmp_path, note(ONE, 5), note(TWO, 5), proof(TWO, 5, 9), keys)
    assert list(tmp_path.iterdir()) == []


def test_every_cut_and_every_changed_byte_of_evidence_is_noticed() -> None:
    whole = ForkEvidence(first=note(ONE, 4), second=note(TWO, 9), proof=proof(TWO, 4, 9), signers=(LOG.vkey,)).encode()
    assert ForkEvidence.parse(whole).check([LOG.verifier])
    named = range(whole.index(b"signer "), whole.index(b"root "))
    for at in range(len(whole)):
        with pytest.raises(LedgerError):
            ForkEvidence.parse(whole[:at])
        if at in named:  # who is said to have signed proves nothing either way
            continue
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(LedgerError):
            ForkEvidence.parse(bytes(changed)).check([LOG.verifier])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"trail-fork/1", b"trail-fork/2"),
        lambda text: text + b"\n",
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"signer ", b"signed "),
        lambda text: text.replace(b"first 5", b"first 05"),
        lambda text: text.replace(b"first 5", b"first 99999999"),
        lambda text: text.replace(b"first 5", b"first 4"),
        lambda text: text.replace(b"root ", b"root x"),
        lambda text: text.replace(f"signer {LOG.vkey}\n".encode(), f"signer {LOG.vkey}\n".encode() * 65),
        lambda text: text.replace(b"first 5", b"AAAA\n" * 70 + b"first 5"),
        lambda text: text + b"x" * 3_000_000,
        lambda text: b"\xff" + text,
    ],
)
def test_malformed_evidence(change) -> None:  # type: ignore[no-untyped-def]
    whole = ForkEvidence(first=note(ONE, 4), second=note(TWO, 9), proof=proof(TWO, 4, 9), signers=(LOG.vkey,)).encode()
    changed = change(whole)
    assert changed != whole
    with pytest.raises(MalformedError):
        ForkEvidence.parse(changed)


def test_a_checkpoint_is_kept_verbatim(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "e", note(ONE, 5))
    assert path.read_bytes() == note(ONE, 5)
    assert save_checkpoint(tmp_path / "e", note(ONE, 5)) == path
    path.write_bytes(b"something else")
    with pytest.raises(StorageError):
        save_checkpoint(tmp_path / "e", note(ONE, 5))


def test_evidence_lies_in_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAIL_STATE", str(tmp_path))
    assert evidence_dir() == tmp_path / "evidence"
