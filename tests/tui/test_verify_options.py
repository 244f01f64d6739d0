"""`trail verify` with what the verifier brings along: witnesses, a trust file, a part only; and stores that are gone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rotations import cosigned, witnesses
from trail_process import Ran, Recorded, command_line, environment

from ledger.anchors import write_cosigned
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.evidence import ForkEvidence
from ledger.keys import LastSigned, Pins, slug
from ledger.keys import config_dir as configuration
from ledger.layout import Layout
from ledger.merkle import consistency_path, leaf_hash
from ledger.note import Signer, Verifier, parse_note
from ledger.tree import tile_nodes
from ledger.witness_client import Conflict, Cosigned, submit
from ledger.witness_files import WitnessFiles
from ledger.witness_protocol import AddCheckpoint
from ledger.writer import StoreWriter
from tui.demo_insider import cut_and_sign_again
from tui.exits import Exit

Call = Callable[..., Ran]


@pytest.fixture
def witness(recorded: Recorded, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of a running witness that knows the log, and its key."""
    files = WitnessFiles(tmp_path / "witness")
    vkey = files.make("witness.example").vkey
    files.add_log(recorded.vkey)
    log = tmp_path / "witness.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command_line("witness", "serve", "--dir", files.directory, "--http", "127.0.0.1:0"), env=environment(), stderr=stderr
        )
    try:
        while (found := re.search(r"listening +(http://\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield found[1], vkey
    finally:
        process.terminate()
        process.wait(30)


def cosign(store: Path, url: str) -> bytes:
    """Submit a store's checkpoint; the note with the cosignature."""
    note = (store / "checkpoint").read_bytes()
    size = int(note.split(b"\n")[1])
    answer = submit(url, AddCheckpoint(old=0, proof=(), note=note))
    if isinstance(answer, Conflict):
        proof = tuple(consistency_path(answer.size, size, tile_nodes(store, size)))
        answer = submit(url, AddCheckpoint(old=answer.size, proof=proof, note=note))
    assert isinstance(answer, Cosigned), answer
    return note + answer.lines.encode()


def trust_file(tmp_path: Path, recorded: Recorded, vkey: str) -> Path:
    path = tmp_path / "trust.toml"
    path.write_text(f'keys = ["{recorded.vkey}"]\npolicy_text = """\nwitness w {vkey}\nquorum w\n"""\n')
    return path


def test_a_witness_that_has_seen_this_history_anchors_it(trail: Call, recorded: Recorded, witness: tuple[str, str], tmp_path: Path) -> None:
    url, vkey = witness
    cosign(recorded.store, url)
    trust = trust_file(tmp_path, recorded, vkey)
    ran = trail("verify", "--store", recorded.store, "--trust", trust, "--witness", url, "--require", "anchored")
    assert ran.code == Exit.OK, ran
    assert "ANCHORED: a quorum of your witnesses has cosigned the first 239 records, which is all of it" in ran.out
    without = trail("verify", "--store", recorded.store, "--witness", url, "--require", "anchored", "--json")
    assert (without.code, without.json["anchoring"]["verdict"]) == (Exit.FALSE, "unanchored"), "nobody said that it is to be believed"


def test_the_insider_is_caught_by_the_witness_and_by_nothing_in_the_store(
    trail: Call, recorded: Recorded, witness: tuple[str, str], tmp_path: Path
) -> None:
    url, _vkey = witness
    cosign(recorded.store, url)
    state = LastSigned(tmp_path / "elsewhere")
    assert cut_and_sign_again(recorded.store, key=recorded.key, keep=180, state=state) == 57
    shutil.copy(state.path, LastSigned.default(recorded.origin).path)  # the insider has this machine, too
    assert trail("verify", "--store", recorded.store).code == Exit.OK
    ran = trail("verify", "--store", recorded.store, "--witness", url)
    assert ran.code == Exit.FALSE
    assert re.search(r"FALSE  rollback: the newest checkpoint of the witness \S+, from record 18\d: 5\d records are missing", ran.out), (
        ran.out
    )


def test_a_fork_is_caught_and_kept_as_evidence(trail: Call, recorded: Recorded, witness: tuple[str, str], tmp_path: Path) -> None:
    url, vkey = witness
    cosign(recorded.store, url)
    state = LastSigned(tmp_path / "elsewhere")
    cut_and_sign_again(recorded.store, key=recorded.key, keep=180, state=state)
    with_more = StoreWriter.open(recorded.store, command="an insider", key_path=recorded.key, last_signed=state)
    for number in range(80):
        with_more.append("note", {"text": f"nothing happened {number}"})
    with_more.close()
    LastSigned.default(recorded.origin).path.unlink()
    ran = trail("verify", "--store", recorded.store, "--witness", url, "--trust", trust_file(tmp_path, recorded, vkey))
    assert ran.code == Exit.FALSE
    assert "FALSE  fork: the newest checkpoint of the witness" in ran.out
    (kept,) = re.findall(r"kept as evidence: (\S+)", ran.err)
    evidence = ForkEvidence.parse(Path(kept).read_bytes())
    assert [verifier.vkey for verifier in evidence.check([Verifier.parse(recorded.vkey)])] == [recorded.vkey]


def test_a_witness_that_cannot_be_asked_leaves_the_question_open(trail: Call, recorded: Recorded) -> None:
    ran = trail("verify", "--store", recorded.store, "--witness", "http://127.0.0.1:9")
    assert ran.code == Exit.UNVERIFIABLE
    assert "NOT CHECKED  the witness http://127.0.0.1:9" in ran.out
    assert trail("verify", "--store", recorded.store, "--witness", "ftp://x").code == Exit.USAGE


def test_a_witness_that_does_not_know_the_log_leaves_it_open_too(trail: Call, recorded: Recorded, witness: tuple[str, str]) -> None:
    ran = trail("verify", "--store", recorded.store, "--witness", witness[0])
    assert ran.code == Exit.UNVERIFIABLE
    assert "has never seen a checkpoint of example.com/week" in ran.out


def test_the_trust_file_of_the_configuration_directory_is_used(
    trail: Call, recorded: Recorded, witness: tuple[str, str], tmp_path: Path
) -> None:
    url, vkey = witness
    write_cosigned(Layout(recorded.store), cosign(recorded.store, url))
    place = configuration() / "trust" / f"{slug(recorded.origin)}.toml"
    place.parent.mkdir()
    shutil.copy(trust_file(tmp_path, recorded, vkey), place)
    assert trail("verify", "--store", recorded.store, "--require", "anchored").code == Exit.OK
    place.write_text("kyes = []\n")
    ran = trail("verify", "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert "unknown member 'kyes'" in ran.err


def test_a_trust_file_for_another_log(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    path = tmp_path / "trust.toml"
    path.write_text(f'keys = ["{Signer.generate("example.com/other").vkey}"]\n')
    ran = trail("verify", "--store", recorded.store, "--trust", path)
    assert ran.code == Exit.FALSE
    assert "is about the log example.com/other" in ran.err


def test_a_key_that_is_believed_up_to_a_size(trail: Call, recorded: Recorded) -> None:
    assert trail("verify", "--store", recorded.store, "--key", f"{recorded.vkey}@<=239").code == Exit.OK
    ran = trail("verify", "--store", recorded.store, "--key", f"{recorded.vkey}@<=238", "--json")
    assert (ran.code, ran.json["key"]) == (Exit.FALSE, "wrong")
    new = Signer.generate(recorded.origin).vkey
    both = trail("verify", "--store", recorded.store, "--key", f"{recorded.vkey}@<=239", "--key", new)
    assert both.code == Exit.OK
    assert trail("verify", "--store", recorded.store, "--key", f"{recorded.vkey}@<=", "--key", new).code == Exit.USAGE
    assert trail("info", "--store", recorded.store, "--key", f"{recorded.vkey}@<=239", "--key", new, "--json").json["vkey"] == new


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--fast"], "rows of 1 segments"),
        (["--since", "100"], "records 0 to 100"),
        (["--since", "1h"], "records 0 to 23"),
        (["--since", "2030-01-01"], "records 0 to 23"),
    ],
)
def test_a_part_is_never_called_verified(trail: Call, recorded: Recorded, options: list[str], says: str) -> None:
    os.utime(recorded.store)
    ran = trail("verify", "--store", recorded.store, *options)
    assert ran.code in (Exit.UNVERIFIABLE, Exit.OK)
    if ran.code == Exit.UNVERIFIABLE:
        assert ran.out.startswith("UNVERIFIABLE")
        assert "nothing false in what was read" in ran.out
        assert says in ran.out
    else:
        assert options == ["--since", "1h"], "what was recorded in the last hour is all there is"


def test_since_a_checkpoint_that_was_verified_then(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    kept = tmp_path / "yesterday"
    shutil.copy(recorded.store / "checkpoint", kept)
    ran = trail("verify", "--store", recorded.store, "--since", kept)
    assert ran.code == Exit.UNVERIFIABLE
    assert "records 0 to 239" in ran.out
    text, _signatures = parse_note(kept.read_bytes())
    kept.write_bytes(kept.read_bytes().replace(text.split("\n")[2].encode(), b"A" * 43 + b"="))
    assert trail("verify", "--store", recorded.store, "--since", kept).code == Exit.FALSE


@pytest.mark.parametrize("verb", [["status"], ["verify"], ["ask", "x"], ["info"], ["doctor"], ["serve", "--http", "127.0.0.1:0"]])
def test_a_deleted_store_is_never_greeted_with_ok(trail: Call, recorded: Recorded, verb: list[str]) -> None:
    Pins.default().add(recorded.vkey, store=recorded.store)
    shutil.rmtree(recorded.store)
    ran = trail(*verb, "--store", recorded.store)
    assert ran.code == Exit.FALSE, ran
    said = " ".join((ran.out + ran.err).split())
    assert re.search(r"the log example.com/week lay at .* and is gone: 239 records of it were signed", said), said


@pytest.mark.parametrize("verb", [["status"], ["verify"], ["doctor"], ["serve", "--http", "127.0.0.1:0"]])
def test_an_emptied_store_is_never_greeted_with_ok(trail: Call, recorded: Recorded, verb: list[str]) -> None:
    for path in recorded.store.iterdir():
        if path.name != "trail.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = trail(*verb, "--store", recorded.store)
    assert ran.code in (Exit.FALSE, Exit.STORAGE), ran
    assert "239" in ran.out + ran.err
    if verb != ["serve", "--http", "127.0.0.1:0"]:
        assert ran.code == Exit.FALSE


def test_an_old_anchor_does_not_cover_what_came_since(
    trail: Call, recorded: Recorded, witness: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, vkey = witness
    write_cosigned(Layout(recorded.store), cosign(recorded.store, url))
    writer = StoreWriter.open(recorded.store, command="trail serve", key_path=recorded.key)
    writer.append("note", {"text": "after the last cosignature"})
    writer.close()
    trust = trust_file(tmp_path, recorded, vkey)
    asked = ["verify", "--store", recorded.store, "--trust", trust, "--require", "anchored"]
    fresh = trail(*asked)
    assert fresh.code == Exit.OK
    assert "newer records are confirmed by nobody outside yet" in fresh.out
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 2 * 3600 * 10**9)
    late = trail(*asked)
    assert late.code == Exit.FALSE
    assert re.search(r"REQUIRED  anchored: the last quorum was 7,2\d\d s ago, and 5 records are newer", late.out), late.out


def add_records(recorded: Recorded, *, ahead: int = 0) -> None:
    """A start, a note and a stop, by a clock that is so many seconds ahead."""
    clock = lambda: time.time_ns() + ahead * 10**9  # noqa: E731
    writer = StoreWriter.open(recorded.store, command="trail serve", key_path=recorded.key, clock=clock)
    writer.append("note", {"text": "after the last cosignature"})
    writer.close()


def anchor(store: Path, signers: list[Signer], *, ago: int) -> None:
    """Have a store's checkpoint cosigned so many seconds ago."""
    write_cosigned(Layout(store), cosigned((store / "checkpoint").read_bytes(), signers, time=int(time.time()) - ago))


def policy_of(*names: str) -> tuple[list[Signer], str]:
    """Witnesses, and a policy, as in a trust file, that wants all of them."""
    signers, _policy = witnesses(*names)
    lines = [f"witness {name} {signer.cosigner.vkey}" for name, signer in zip(names, signers, strict=True)]
    return signers, "\n".join(['policy_text = """', *lines, f"group g all {' '.join(names)}", "quorum g", '"""'])


@pytest.mark.parametrize("years_ahead", [0, 31])
def test_the_times_in_the_records_anchor_nothing(trail: Call, recorded: Recorded, tmp_path: Path, years_ahead: int) -> None:
    signers, policy = policy_of("w")
    (tmp_path / "trust.toml").write_text(policy)
    anchor(recorded.store, signers, ago=40 * 86400)
    asked = ("verify", "--store", recorded.store, "--trust", tmp_path / "trust.toml", "--require", "anchored")
    assert trail(*asked).code == Exit.OK, "all of it, however long ago"
    add_records(recorded, ahead=years_ahead * 365 * 86400)
    ran = trail(*asked)
    assert ran.code == Exit.FALSE
    assert re.search(r"REQUIRED  anchored: the last quorum was 3,4[0-9,]+ s ago, and \d+ records are newer", ran.out), ran.out


@pytest.mark.parametrize(("ago", "code"), [(60, Exit.OK), (3000, Exit.OK), (3700, Exit.FALSE), (-100, Exit.OK), (-3700, Exit.FALSE)])
def test_a_quorum_counts_for_an_hour(trail: Call, recorded: Recorded, tmp_path: Path, ago: int, code: Exit) -> None:
    signers, policy = policy_of("w")
    (tmp_path / "trust.toml").write_text(policy)
    anchor(recorded.store, signers, ago=ago)
    add_records(recorded)
    ran = trail("verify", "--store", recorded.store, "--trust", tmp_path / "trust.toml", "--require", "anchored")
    assert ran.code == code, ran.out
    assert ("REQUIRED" in ran.out) is (code is Exit.FALSE)
    assert ("in the future" in ran.out) is (ago == -3700)


def test_one_witness_of_two_does_not_make_the_quorum_younger(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    signers, policy = policy_of("v", "w")
    (tmp_path / "trust.toml").write_text(policy)
    note = cosigned((recorded.store / "checkpoint").read_bytes(), signers[:1], time=int(time.time()) - 7200)
    write_cosigned(Layout(recorded.store), cosigned(note, signers[1:], time=int(time.time())))
    add_records(recorded)
    ran = trail("verify", "--store", recorded.store, "--trust", tmp_path / "trust.toml", "--require", "anchored")
    assert (ran.code, "the last quorum was 7,20" in ran.out) == (Exit.FALSE, True), ran.out


def test_what_a_followed_rotation_brought_is_believed_to_the_end(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    """By somebody who knows the key of before and the witnesses: what was anchored since, and the evidence of a fork by the new key."""
    signers, policy = policy_of("v", "w")
    (tmp_path / "trust.toml").write_text(policy)
    assert trail("key", "rotate", "--store", recorded.store, "--key", recorded.key).code == Exit.OK
    add_records(recorded)
    anchor(recorded.store, signers, ago=60)
    add_records(recorded)
    asked = ("verify", "--store", recorded.store, "--key", recorded.vkey, "--trust", tmp_path / "trust.toml")
    ran = trail(*asked, "--require", "anchored")
    assert ran.code == Exit.OK, ran.out
    assert re.search(r"KEY  record \d+ rotates the key", ran.out), ran.out
    new = Signer.parse(recorded.key.read_text().strip())
    (tmp_path / "kept").write_bytes(sign_checkpoint(Checkpoint(recorded.origin, 241, leaf_hash(b"another history")), new))
    forked = trail(*asked, "--against", tmp_path / "kept")
    assert (forked.code, "FALSE  fork" in forked.out) == (Exit.FALSE, True), forked.out
    (kept,) = re.findall(r"kept as evidence: (\S+)", forked.err)
    evidence = ForkEvidence.parse(Path(kept).read_bytes())
    assert [verifier.vkey for verifier in evidence.check([Verifier.parse(recorded.vkey), new.verifier])] == [new.vkey]


def test_since_what_is_not_there_yet(trail: Call, recorded: Recorded) -> None:
    ran = trail("verify", "--store", recorded.store, "--since", "999999", "--json")
    assert ran.code == Exit.UNVERIFIABLE
    (left_out,) = ran.json["integrity"]["not_checked"]
    assert left_out.startswith("records 0 to 239:")


@pytest.fixture
def proof(trail: Call, recorded: Recorded, tmp_path: Path) -> tuple[object, ...]:
    """The command line that checks record 12 and its proof."""
    proof, record = tmp_path / "12.tlog-proof", tmp_path / "12.json"
    assert trail("prove", 12, "--store", recorded.store, "-o", proof).code == Exit.OK
    record.write_bytes(trail("show", 12, "--store", recorded.store, "--raw").out.encode())
    return "verify", "--proof", proof, "--record", record


@pytest.mark.parametrize(
    "options",
    [
        ("--against", "nowhere"),
        ("--witness", "http://127.0.0.1:9"),
        ("--since", "3"),
        ("--since", "0"),
        ("--fast",),
        ("--processes", "2"),
        ("--require", "complete"),
        ("--require", "anchored,complete"),
    ],
)
def test_what_is_asked_of_a_store_is_not_asked_of_a_proof(trail: Call, proof: tuple[object, ...], options: tuple[str, ...]) -> None:
    assert trail(*proof).code == Exit.OK
    ran = trail(*proof, *options)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert options[0] in ran.err


def test_a_proof_that_must_be_anchored(
    trail: Call, recorded: Recorded, tmp_path: Path, proof: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    signers, policy = policy_of("w")
    trust = tmp_path / "trust.toml"
    trust.write_text(policy)
    asked = (*proof, "--trust", trust, "--require", "anchored")
    ran = trail(*asked)
    assert (ran.code, "REQUIRED  anchored: it is unanchored" in ran.out) == (Exit.FALSE, True), ran.out
    assert trail(*asked, "--json").code == Exit.FALSE
    assert trail(*proof, "--require", "anchored").code == Exit.FALSE, "nobody is named"
    anchor(recorded.store, signers, ago=40 * 86400)
    assert trail("prove", 12, "--store", recorded.store, "-o", tmp_path / "12.tlog-proof").code == Exit.OK
    assert trail(*asked).code == Exit.OK
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    assert trail(*asked).code == Exit.UNVERIFIABLE, "without a key it is not decided"


PLACES = ("--key", "--trust", "TRAIL_VKEY", "pins", "the configuration directory")


def state(place: str, vkey: str, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Name a key there; what it adds to the command line."""
    match place:
        case "--key":
            return ["--key", vkey]
        case "--trust":
            (tmp_path / "named.toml").write_text(f'keys = ["{vkey}"]\n')
            return ["--trust", tmp_path / "named.toml"]
        case "TRAIL_VKEY":
            monkeypatch.setenv("TRAIL_VKEY", vkey)
        case "pins":
            Pins.default().add(vkey, store=recorded.store)
        case _:
            path = configuration() / "trust" / f"{slug(recorded.origin)}.toml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'keys = ["{vkey}"]\n')
    return []


@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("right", [True, False])
def test_every_verb_believes_the_first_who_names_a_key(
    trail: Call,
    recorded: Recorded,
    tmp_path: Path,
    proof: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    right: bool,
) -> None:
    Pins.default().path.unlink()
    other = Signer.generate(recorded.origin).vkey
    options = state(first, recorded.vkey if right else other, recorded, tmp_path, monkeypatch)
    for later in PLACES[PLACES.index(first) + 1 :]:
        options += state(later, other if right else recorded.vkey, recorded, tmp_path, monkeypatch)
    code = Exit.OK if right else Exit.FALSE
    assert trail("verify", "--store", recorded.store, *options).code == code
    assert trail(*proof, *options).code == code
    if first != "--trust":
        key = options[: 2 * (first == "--key")]
        for verb in (["status"], ["info"], ["ask", "x"], ["prove", 1], ["checkpoint"]):
            ran = trail(*verb, "--store", recorded.store, *key)
            assert (ran.code, "UNVERIFIABLE" in ran.err) == (code, False), ran


def test_an_end_in_the_trust_file_holds_for_a_pinned_key(
    trail: Call, recorded: Recorded, tmp_path: Path, proof: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    state("the configuration directory", f"{recorded.vkey}@<=238", recorded, tmp_path, monkeypatch)
    for ran in (trail("verify", "--store", recorded.store), trail("status", "--store", recorded.store), trail(*proof)):
        assert ran.code == Exit.FALSE, ran
        assert "believed up to 238 only" in ran.out + ran.err
    assert trail("verify", "--store", recorded.store, "--key", recorded.vkey).code == Exit.OK, "this was said now"
    monkeypatch.setenv("TRAIL_VKEY", recorded.vkey)
    assert trail("verify", "--store", recorded.store).code == Exit.OK


def test_a_trust_file_does_not_excuse_a_store_that_was_replaced(
    trail: Call, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pins.default().add(recorded.vkey, store=recorded.store)
    made = trail("init", "--store", tmp_path / "other", "--origin", "example.com/other", "--json")
    place = configuration() / "trust" / f"{slug('example.com/other')}.toml"
    place.parent.mkdir(exist_ok=True)
    place.write_text(f'keys = ["{made.json["vkey"]}"]\n')
    shutil.rmtree(recorded.store)
    (tmp_path / "other").rename(recorded.store)
    ran = trail("verify", "--store", recorded.store)
    assert (ran.code, "the store was replaced" in ran.out) == (Exit.FALSE, True), ran
    assert trail("status", "--store", recorded.store).code == Exit.FALSE
    assert "the store was replaced" not in trail("verify", "--store", recorded.store, "--key", made.json["vkey"]).out


def test_doctor_takes_the_key_of_the_trust_file(trail: Call, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pins.default().path.unlink()
    assert "no public key is pinned" in trail("doctor", "--store", recorded.store).out
    state("the configuration directory", recorded.vkey, recorded, tmp_path, monkeypatch)
    assert "your trust file names the public key" in trail("doctor", "--store", recorded.store).out


def test_one_record_and_its_proof_need_no_store(trail: Call, recorded: Recorded, witness: tuple[str, str], tmp_path: Path) -> None:
    url, vkey = witness
    trust = trust_file(tmp_path, recorded, vkey)
    proof, record = tmp_path / "12.tlog-proof", tmp_path / "12.json"
    assert trail("prove", 12, "--store", recorded.store, "-o", proof).code == Exit.OK
    record.write_bytes(trail("show", 12, "--store", recorded.store, "--raw").out.encode())
    checked = ["verify", "--proof", proof, "--record", record]
    plain = trail(*checked, "--key", recorded.vkey)
    assert (plain.code, plain.out[:8]) == (Exit.OK, "VERIFIED"), plain
    assert "no quorum of witnesses you named" in trail(*checked, "--trust", trust).out
    write_cosigned(Layout(recorded.store), cosign(recorded.store, url))
    assert trail("prove", 12, "--store", recorded.store, "-o", proof).code == Exit.OK
    assert "cosigned by w, a quorum of your witnesses" in trail(*checked, "--trust", trust).out
    assert trail(*checked, "--trust", trust, "--json").json["anchoring"]["verdict"] == "anchored"
    assert trail(*checked, "--key", Signer.generate(recorded.origin).vkey).code == Exit.FALSE
    record.write_bytes(record.read_bytes().replace(b"trail", b"tra1l"))
    altered = trail(*checked, "--key", recorded.vkey)
    assert (altered.code, altered.out[:6]) == (Exit.FALSE, "FAILED")
    proof.write_bytes(b"rubbish")
    assert trail(*checked, "--key", recorded.vkey).code == Exit.UNVERIFIABLE
    assert trail("verify", "--proof", proof).code == Exit.USAGE


def test_a_proof_without_a_key_is_unverifiable(trail: Call, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof, record = tmp_path / "12.tlog-proof", tmp_path / "12.json"
    assert trail("prove", 12, "--store", recorded.store, "-o", proof).code == Exit.OK
    record.write_bytes(trail("show", 12, "--store", recorded.store, "--raw").out.encode())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    assert trail("verify", "--proof", proof, "--record", record).code == Exit.UNVERIFIABLE


@pytest.mark.parametrize("verb", [["status"], ["verify"], ["serve", "--http", "127.0.0.1:0"], ["serve", "--http", "127.0.0.1:0", "--init"]])
def test_a_store_replaced_by_another_is_never_greeted_with_ok(trail: Call, recorded: Recorded, tmp_path: Path, verb: list[str]) -> None:
    Pins.default().add(recorded.vkey, store=recorded.store)
    assert trail("init", "--store", tmp_path / "other").code == Exit.OK
    shutil.rmtree(recorded.store)
    (tmp_path / "other").rename(recorded.store)
    ran = trail(*verb, "--store", recorded.store)
    assert ran.code == Exit.FALSE, ran
    assert "the store was replaced" in ran.out + ran.err
