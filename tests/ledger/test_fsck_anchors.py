"""Anchoring, the third verdict: only the verifier's own witnesses count, only for a prefix of this tree, and forgeries fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stores import Home, request, seal, send, settle, small_store

from ledger import anchors
from ledger.evidence import ForkEvidence
from ledger.fsck import Report
from ledger.layout import Layout
from ledger.note import Signer, parse_note
from ledger.policy import Policy
from ledger.trust import LogKeys, Trust

NOON = 1_790_000_000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("anchors") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    return original.copy(tmp_path / "home")


@pytest.fixture
def witnesses() -> list[Signer]:
    return [Signer.generate(f"witness.example/{name}") for name in "abc"]


def policy(witnesses: list[Signer], quorum: str = "2") -> Policy:
    names = [f"w{number}" for number in range(len(witnesses))]
    lines = [f"witness {name} {witness.cosigner.vkey}" for name, witness in zip(names, witnesses, strict=True)]
    return Policy.parse("\n".join([*lines, f"group all-of-them {quorum} {' '.join(names)}", "quorum all-of-them", ""]))


def trusting(home: Home, witnesses: list[Signer], quorum: str = "2") -> Trust:
    return Trust(LogKeys.of(home.vkey), policy(witnesses, quorum))


def cosigned(note: bytes, *witnesses: Signer, time: int = NOON) -> bytes:
    text, _lines = parse_note(note)
    return note + "".join(witness.cosign(text, time) for witness in witnesses).encode()


def anchoring(report: Report) -> dict[str, object]:
    value: dict[str, object] = report.as_json()["anchoring"]
    return value


def test_nothing_outside_is_unanchored(home: Home, witnesses: list[Signer]) -> None:
    report = home.verify(trust=trusting(home, witnesses))
    assert report.verdict == "verified"
    nothing = {"verdict": "unanchored", "to": None, "time": None, "witnesses": [], "timestamps": [], "failures": [], "not_checked": []}
    assert anchoring(report) == nothing


def test_a_quorum_of_the_verifiers_witnesses_anchors(home: Home, witnesses: list[Signer]) -> None:
    anchors.write_cosigned(Layout(home.store), cosigned(home.checkpoint, *witnesses[:2]))
    with home.writing() as writer:
        send(writer, request(5))
    report = home.verify(trust=trusting(home, witnesses))
    assert (report.verdict, report.anchoring.verdict, report.anchoring.to) == ("verified", "anchored", 21)
    assert report.size > 21
    assert [(w["name"], w["size"], w["time"], w["where"]) for w in report.as_json()["anchoring"]["witnesses"]] == [
        ("w0", 21, "2026-09-21T14:13:20Z", "checkpoints/cosigned"),
        ("w1", 21, "2026-09-21T14:13:20Z", "checkpoints/cosigned"),
    ]


def test_fewer_than_the_quorum_do_not(home: Home, witnesses: list[Signer]) -> None:
    anchors.write_cosigned(Layout(home.store), cosigned(home.checkpoint, witnesses[0]))
    report = home.verify(trust=trusting(home, witnesses))
    assert (report.verdict, report.anchoring.verdict, len(report.anchoring.witnesses)) == ("verified", "unanchored", 1)


def test_half_a_quorum_on_each_of_two_checkpoints_is_none(home: Home, witnesses: list[Signer]) -> None:
    layout = Layout(home.store)
    anchors.append_cosigned(layout, cosigned(home.checkpoint, witnesses[0]), published=10**18)
    with home.writing() as writer:
        send(writer, request(5))
    anchors.append_cosigned(layout, cosigned(home.checkpoint, witnesses[1]), published=10**18)
    assert home.verify(trust=trusting(home, witnesses)).anchoring.verdict == "unanchored"


def test_witnesses_that_the_verifier_does_not_know_count_for_nothing(home: Home, witnesses: list[Signer]) -> None:
    strangers = [Signer.generate("witness.example/x"), Signer.generate("witness.example/y")]
    layout = Layout(home.store)
    layout.policy.write_text("\n".join([f"witness x {strangers[0].cosigner.vkey}", "quorum x", ""]))
    anchors.write_cosigned(layout, cosigned(home.checkpoint, *strangers))
    assert home.verify(trust=trusting(home, witnesses)).anchoring.verdict == "unanchored"
    nobody = home.verify()
    assert nobody.anchoring.verdict == "unanchored"
    assert any("no witness is named" in why for why in nobody.anchoring.not_checked)


def test_a_policy_that_wants_nobody_anchors_nothing(home: Home, witnesses: list[Signer]) -> None:
    anchors.write_cosigned(Layout(home.store), cosigned(home.checkpoint, *witnesses))
    none = Policy.parse(f"witness w {witnesses[0].cosigner.vkey}\nquorum none\n")
    assert home.verify(trust=Trust(LogKeys.of(home.vkey), none)).anchoring.verdict == "unanchored"


def test_a_forged_cosignature_of_a_known_witness_fails(home: Home, witnesses: list[Signer]) -> None:
    good = cosigned(home.checkpoint, witnesses[0], time=NOON)
    lines = good.decode().splitlines(keepends=True)
    other = cosigned(home.checkpoint, witnesses[0], time=NOON + 1).decode().splitlines(keepends=True)[-1]
    name, blob = lines[-1].rsplit(" ", 1)
    forged = "".join(lines[:-1]) + f"{name} {blob[:20]}{other.rsplit(' ', 1)[1][20:]}"
    anchors.write_cosigned(Layout(home.store), forged.encode())
    report = home.verify(trust=trusting(home, witnesses))
    assert (report.verdict, report.anchoring.verdict) == ("failed", "failed")
    assert report.integrity == "verified", "what is there is intact, and that is a verdict of its own"
    assert report.anchoring.failures[0].file == "checkpoints/cosigned"


def _forked(home: Home, tmp_path: Path) -> tuple[Home, bytes]:
    """A store, and the cosignable checkpoint of another history by the same key."""
    other = home.copy(tmp_path / "other")
    for side, seed in ((home, 71), (other, 72)):
        with side.writing() as writer:
            send(writer, request(seed))
    return other, other.checkpoint


def test_a_cosigned_checkpoint_of_another_history_fails_and_is_evidence(home: Home, witnesses: list[Signer], tmp_path: Path) -> None:
    _other, note = _forked(home, tmp_path)
    with home.writing() as writer:
        send(writer, request(73))
    anchors.write_cosigned(Layout(home.store), cosigned(note, *witnesses))
    report = home.verify(trust=trusting(home, witnesses))
    assert report.verdict == "failed"
    assert [(failure.what, failure.file) for failure in report.rollback] == [("fork", "checkpoints/cosigned")]
    (fork,) = report.forks
    evidence = ForkEvidence(first=fork.kept, second=fork.shown, proof=fork.proof, signers=())
    assert [verifier.vkey for verifier in evidence.check([home.verifier])] == [home.vkey], "the log's key signed both"


def test_what_a_witness_shows_is_compared_and_counted(home: Home, witnesses: list[Signer], tmp_path: Path) -> None:
    shown = ("the witness", cosigned(home.checkpoint, *witnesses[:2]))
    report = home.verify(trust=trusting(home, witnesses), witnessed=[shown], last_signed=None)
    assert (report.verdict, report.anchoring.verdict, report.anchoring.to) == ("verified", "anchored", 21)
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(81))
    newer = ("the witness", cosigned(home.checkpoint, *witnesses[:2]))
    cut = backup.verify(trust=trusting(home, witnesses), witnessed=[newer], last_signed=None)
    assert (cut.verdict, cut.integrity, cut.anchoring.verdict) == ("failed", "verified", "unanchored")
    assert cut.rollback[0].what == "rollback"
    assert "are missing" in cut.rollback[0].why


def test_a_witness_that_shows_another_logs_checkpoint_is_no_anchor(home: Home, witnesses: list[Signer], tmp_path: Path) -> None:
    other = small_store(tmp_path / "stranger")
    report = home.verify(trust=trusting(home, witnesses), witnessed=[("the witness", cosigned(other.checkpoint, *witnesses))])
    assert (report.verdict, report.anchoring.to) == ("failed", None)


@pytest.mark.parametrize("damage", [b"", b"rubbish\n", b"\xff" * 100, b"{}\n"], ids=["empty", "text", "bytes", "json"])
def test_a_damaged_anchor_fails_and_is_named(home: Home, witnesses: list[Signer], damage: bytes) -> None:
    Layout(home.store).cosigned.write_bytes(damage)
    report = home.verify(trust=trusting(home, witnesses))
    assert report.verdict == "failed"
    assert report.anchoring.failures[0].file == "checkpoints/cosigned"


def test_a_lost_anchor_is_only_no_anchor(home: Home, witnesses: list[Signer]) -> None:
    layout = Layout(home.store)
    anchors.write_cosigned(layout, cosigned(home.checkpoint, *witnesses))
    anchors.append_cosigned(layout, cosigned(home.checkpoint, *witnesses), published=10**18)
    layout.cosigned.unlink()
    assert home.verify(trust=trusting(home, witnesses)).anchoring.verdict == "anchored"
    for path in home.files("checkpoints/*.cosigned.jsonl"):
        path.unlink()
    assert home.verify(trust=trusting(home, witnesses)).anchoring.verdict == "unanchored"


def test_a_line_of_the_cosigned_history_that_was_altered_fails(home: Home, witnesses: list[Signer]) -> None:
    layout = Layout(home.store)
    anchors.append_cosigned(layout, cosigned(home.checkpoint, *witnesses), published=10**18)
    (path,) = home.files("checkpoints/*.cosigned.jsonl")
    line = json.loads(path.read_bytes())
    line["checkpoint"] = line["checkpoint"].replace("\n21\n", "\n20\n")
    path.write_text(json.dumps(line) + "\n")
    report = home.verify(trust=trusting(home, witnesses))
    assert report.verdict == "failed"
    assert (report.anchoring.failures[0].file or "").endswith(".cosigned.jsonl")


def test_without_a_key_nothing_is_counted(home: Home, witnesses: list[Signer]) -> None:
    anchors.write_cosigned(Layout(home.store), cosigned(home.checkpoint, *witnesses))
    report = home.verify(trust=Trust(None, policy(witnesses)))
    assert (report.verdict, report.anchoring.verdict) == ("unverifiable", "unanchored")
    assert report.anchoring.not_checked == ["cosignatures and time stamps: no key is pinned"]


def test_files_that_are_just_being_made_are_no_anchors(home: Home, witnesses: list[Signer]) -> None:
    """What a crash, or a look at the wrong moment, finds beside the anchors."""
    layout = Layout(home.store)
    layout.timestamps.mkdir()
    for place in (
        layout.history / ".cosigned.0a1b2c3d.tmp",
        layout.history / ".2026-11-20.jsonl.tmp",
        layout.timestamps / ".21-ab.tsr.tmp",
    ):
        place.write_bytes(b"half of")
    assert home.verify(trust=trusting(home, witnesses)).verdict == "verified"
    home.open().close()
    assert [path.name for path in layout.history.rglob(".*")] == [], "recovery removes them"


def test_a_checkpoint_over_nothing_confirms_nothing(tmp_path: Path, witnesses: list[Signer]) -> None:
    from ledger.checkpoint import Checkpoint, sign_checkpoint
    from ledger.keys import KeyFile
    from ledger.merkle import EMPTY_ROOT

    home = small_store(tmp_path / "home")
    signer = KeyFile.load(home.key, origin="example.com/agents").signer
    note = sign_checkpoint(Checkpoint("example.com/agents", 0, EMPTY_ROOT), signer)
    anchors.write_cosigned(Layout(home.store), cosigned(note, *witnesses))
    report = home.verify(trust=trusting(home, witnesses))
    assert (report.verdict, report.anchoring.verdict, report.anchoring.to) == ("verified", "unanchored", None)


def test_damaged_tiles_do_not_hide_what_was_kept(home: Home, witnesses: list[Signer], tmp_path: Path) -> None:
    backup = home.copy(tmp_path / "backup")
    with home.writing() as writer:
        send(writer, request(81))
    for path in backup.files("tile/0/000.p/*"):
        path.unlink()
    report = backup.verify(trust=trusting(home, witnesses), against=[home.checkpoint], last_signed=None)
    assert [failure.what for failure in report.rollback] == ["rollback"]
    assert any("older checkpoints" in why for why in report.not_checked)


def test_a_history_full_of_contradictions_is_bounded(home: Home, witnesses: list[Signer], tmp_path: Path) -> None:
    _other, note = _forked(home, tmp_path)
    with home.writing() as writer:
        send(writer, request(73))
    line = json.dumps({"checkpoint": cosigned(note, *witnesses).decode(), "published": "1"}) + "\n"
    (home.store / "checkpoints/2026-01-01.cosigned.jsonl").write_text(line * 3000)
    report = home.verify(trust=trusting(home, witnesses))
    assert (report.verdict, len(report.rollback), len(report.forks), report.failures_not_listed) == ("failed", 1000, 1, 2000)


def test_the_quorum_is_as_old_as_its_last_member(home: Home, witnesses: list[Signer]) -> None:
    text = home.checkpoint.decode().rpartition("\n\n")[0] + "\n"
    times = (NOON + 500, NOON, NOON + 100)
    note = home.checkpoint + "".join(witness.cosign(text, time) for witness, time in zip(witnesses, times, strict=True)).encode()
    anchors.write_cosigned(Layout(home.store), note)
    assert home.verify(trust=trusting(home, witnesses, "2")).anchoring.time == NOON + 100
    assert home.verify(trust=trusting(home, witnesses, "3")).anchoring.time == NOON
    assert home.verify(trust=trusting(home, witnesses, "any")).anchoring.time == NOON + 500


def test_anchors_while_the_log_grows(home: Home, witnesses: list[Signer]) -> None:
    writer = home.open()
    try:
        for seed in range(3):
            send(writer, request(100 + seed))
            settle(writer)
            anchors.write_cosigned(Layout(home.store), cosigned(home.checkpoint, *witnesses))
            assert home.verify(trust=trusting(home, witnesses)).anchoring.verdict == "anchored"
        seal(writer)
    finally:
        writer.close()
