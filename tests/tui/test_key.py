"""`trail key`: made, listed, rotated, and what a stolen one exposes."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crashes import Disk
from rotations import cosigned, witnesses
from trail_process import Ran, Recorded, Server, run_trail

from ledger import signers
from ledger.anchors import write_cosigned
from ledger.keys import Pins
from ledger.layout import Layout
from ledger.note import Signer, Verifier
from ledger.witness_files import WitnessFiles
from ledger.writer import StoreWriter
from tui.demo_server import running_witness
from tui.exits import Exit

Call = Callable[..., Ran]


@pytest.fixture
def store(trail: Call, tmp_path: Path) -> Path:
    assert trail("init", "--store", tmp_path / "store", "--origin", "example.com/log").code == Exit.OK
    return tmp_path / "store"


# ---- new and list


def test_a_key_is_made_and_never_replaced(trail: Call, tmp_path: Path) -> None:
    made = trail("key", "new", tmp_path / "some" / "next.key", "--origin", "example.com/log")
    assert made.code == Exit.OK
    path = tmp_path / "some" / "next.key"
    assert Signer.parse(path.read_text().strip()).vkey == made.out.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    kept = path.read_bytes()
    again = trail("key", "new", path, "--origin", "example.com/log")
    assert (again.code, again.out) == (Exit.STORAGE, "")
    assert path.read_bytes() == kept
    bad = trail("key", "new", tmp_path / "bad.key", "--origin", "two words")
    assert (bad.code, bad.out) == (Exit.USAGE, "")
    assert not (tmp_path / "bad.key").exists()


def test_a_key_with_a_passphrase_is_shown_by_nothing(trail: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers, "KDF_ROUNDS", 1)
    path = tmp_path / "next.key"
    none = trail("key", "new", path, "--origin", "example.com/log", "--passphrase")
    assert (none.code, none.out) == (Exit.STORAGE, "")
    assert "TRAIL_PASSPHRASE_FILE=FILE" in none.err
    assert not path.exists()
    (tmp_path / "passphrase").write_text("hunter2\n")
    monkeypatch.setenv("TRAIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    made = trail("key", "new", path, "--origin", "example.com/log", "--passphrase")
    assert made.code == Exit.OK
    assert Verifier.parse(made.out.strip()).name == "example.com/log"
    assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert "hunter2" not in made.out + made.err
    monkeypatch.setenv("TRAIL_PASSPHRASE_FILE", "")
    assert trail("key", "list").code == Exit.USAGE


def test_the_list_names_every_key_and_file(trail: Call, store: Path) -> None:
    (only,) = trail("key", "list", "--json", "--store", store).json
    assert (only["state"], only["form"], only["mode"], only["until"], only["pinned"]) == ("current", "plain", "0600", None, "yes")
    rotated = trail("key", "rotate", "--json", "--store", store)
    assert rotated.code == Exit.OK, rotated.err
    old, new = trail("key", "list", "--json", "--store", store).json
    done = rotated.json
    assert (old["vkey"], old["state"], old["until"], old["pinned"]) == (done["old"], "retired", done["until"], f"to {done['until']}")
    assert (old["file"], old["mode"]) == (done["retired"], "0600")
    assert (new["vkey"], new["state"], new["until"], new["pinned"]) == (done["new"], "current", None, "yes")
    shown = trail("key", "list", "--store", store)
    assert done["new"] in shown.out
    assert "PRIVATE" not in shown.out + shown.err
    # The old key put back is not passed off as the present one; a strange line is told.
    Path(new["file"]).write_bytes(Path(old["file"]).read_bytes())
    assert trail("key", "list", "--json", "--store", store).json[0]["state"] == "RETIRED"
    with (store / "checkpoints" / "keys.jsonl").open("a") as file:
        file.write("{}\n")
    assert "is no rotation" in trail("key", "list", "--store", store).err


def test_a_key_with_a_passphrase_is_made_once(trail: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signers, "KDF_ROUNDS", 1)
    monkeypatch.setenv("TRAIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    (tmp_path / "passphrase").write_text("hunter2\n")
    made = []
    real = signers.new_signer
    monkeypatch.setattr(signers, "new_signer", lambda *args: made.append(real(*args)) or made[-1])
    ran = trail("key", "new", tmp_path / "next.key", "--origin", "example.com/log", "--passphrase")
    assert [signer.vkey for signer, _data in made] == [ran.out.strip()]


# ---- pin


def test_a_key_is_pinned_for_a_log_and_its_place(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    """On the machine of somebody who has been given the key and a copy of the store."""
    pins = Pins.default()
    pins.path.unlink(missing_ok=True)
    store = ("--store", recorded.store)
    none = trail("key", "pin", *store)
    assert (none.code, none.out) == (Exit.STORAGE, "")
    assert "trail key pin VKEY" in none.err
    assert trail("verify", *store).code == Exit.UNVERIFIABLE
    pinned = trail("key", "pin", recorded.vkey, *store)
    assert pinned.code == Exit.OK, pinned.err
    assert pinned.out == f"key    {recorded.vkey}\nstore  {recorded.store.resolve()}\n"
    assert "no key" in pinned.err
    assert "no log" in pinned.err
    assert trail("verify", *store).code == Exit.OK
    assert (pins.key(recorded.origin), pins.origin_at(recorded.store)) == (recorded.vkey, recorded.origin)
    # Once more is nothing new; from here on the place is known.
    again = trail("key", "pin", recorded.vkey, "--json", *store)
    assert again.code == Exit.OK
    assert again.json["before"] == {"keys": [recorded.vkey], "origin": recorded.origin}
    shutil.rmtree(recorded.store)
    recorded.store.mkdir()
    (recorded.store / "trail.toml").write_text('format = 1\norigin = "example.com/other"\n')
    assert "the store was replaced" in trail("status", *store).err


def test_other_keys_are_pinned_only_when_it_is_meant(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    store, pins = ("--store", recorded.store), Pins.default()
    pins.add(recorded.vkey, store=recorded.store)
    before, new = pins.path.read_bytes(), Signer.generate(recorded.origin).vkey
    old = f"{recorded.vkey}@<=9"
    for specs in ((new,), (old,), (old, new), (recorded.vkey, new)):
        refused = trail("key", "pin", *specs, *store)
        assert (refused.code, refused.out) == (Exit.FALSE, "")
        assert recorded.vkey in refused.err
        assert "--replace" in refused.err
        assert pins.path.read_bytes() == before
    replaced = trail("key", "pin", old, new, "--replace", *store)
    assert replaced.code == Exit.OK, replaced.err
    assert replaced.out.splitlines()[:2] == [f"key    {old}", f"key    {new}"]
    assert f"{recorded.vkey}." in replaced.err
    assert pins.key(recorded.origin) == f"{old} {new}"
    assert trail("key", "pin", new, old, *store).code == Exit.OK, "the same ones"


def test_a_key_of_another_log_is_not_pinned(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    pins = Pins.default()
    pins.add(recorded.vkey, store=recorded.store)
    before = pins.path.read_bytes()
    other = Signer.generate("example.com/other").vkey
    for args in (("pin", other), ("pin", other, "--replace")):
        refused = trail("key", *args, "--store", recorded.store)
        assert (refused.code, refused.out) == (Exit.FALSE, "")
        assert "example.com/other" in refused.err
    assert pins.path.read_bytes() == before
    # The place is another log's: it stays so until somebody means it.
    assert trail("init", "--store", tmp_path / "other", "--origin", "example.com/other").code == Exit.OK
    shutil.rmtree(recorded.store)
    (tmp_path / "other").rename(recorded.store)
    refused = trail("key", "pin", "--store", recorded.store)
    assert (refused.code, refused.out) == (Exit.FALSE, "")
    assert "the store was replaced" in refused.err
    meant = trail("key", "pin", "--replace", "--store", recorded.store)
    assert meant.code == Exit.OK, meant.err
    assert f"at this path: {recorded.origin}." in meant.err
    assert pins.origin_at(recorded.store) == "example.com/other"
    assert trail("key", "pin", "--store", tmp_path / "nothing").code == Exit.STORAGE


def test_a_store_that_was_moved_is_known_at_its_new_place(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    pins = Pins.default()
    pins.add(recorded.vkey, store=recorded.store)
    recorded.store.rename(tmp_path / "moved")
    pinned = trail("key", "pin", "--store", tmp_path / "moved")
    assert pinned.code == Exit.OK, pinned.err
    assert (pins.key(recorded.origin), pins.origin_at(tmp_path / "moved")) == (recorded.vkey, recorded.origin)


# ---- rotate


def test_a_rotated_store_is_verified_by_whoever_knows_how(trail: Call, recorded: Recorded) -> None:
    rotated = trail("key", "rotate", "--store", recorded.store, "--key", recorded.key)
    assert rotated.code == Exit.OK, rotated.err
    old, new = (line.split()[1] for line in rotated.out.splitlines())
    assert old.startswith(f"{recorded.vkey}@<=")
    assert trail("verify", "--store", recorded.store).code == Exit.OK  # by the pins
    assert trail("verify", "--store", recorded.store, "--key", old, "--key", new).code == Exit.OK
    assert trail("verify", "--store", recorded.store, "--key", old).code == Exit.FALSE
    wrong = Signer.generate(recorded.origin).vkey
    assert trail("verify", "--store", recorded.store, "--key", wrong).code == Exit.FALSE
    assert Pins.default().key(recorded.origin) == f"{old} {new}"


def test_an_auditor_with_witnesses_follows_to_the_new_key(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    """The auditor has the old key and a witness, and is told nothing; the witness knows the log by its old key."""
    files = WitnessFiles(tmp_path / "witness")
    vkey = files.make("witness.example").vkey
    files.add_log(recorded.vkey)
    trust = trusting(tmp_path, recorded.vkey, f"witness one {vkey}\nquorum one\n")
    with running_witness(files.directory) as url:
        Layout(recorded.store).policy.write_text(f"witness one {vkey} {url}\nquorum one\n")
        rotated = trail("key", "rotate", "--json", "--store", recorded.store, "--key", recorded.key)
    assert rotated.code == Exit.OK, rotated.err
    Layout(recorded.store).policy.unlink()
    StoreWriter.open(recorded.store, command="a test", key_path=recorded.key).close()  # from here on only the new key signs
    verified = trail("verify", "--json", "--store", recorded.store, "--trust", trust)
    assert verified.code == Exit.OK, verified.out + verified.err
    # Without the cosigned checkpoint it would be anybody's rotation.
    for path in [Layout(recorded.store).cosigned, *(recorded.store / "checkpoints").glob("*.cosigned.jsonl")]:
        path.unlink()
    lone = trail("verify", "--store", recorded.store, "--trust", trust)
    assert lone.code == Exit.FALSE
    assert rotated.json["new"] in lone.out + lone.err


def test_a_running_server_keeps_its_key(trail: Call, recorded: Recorded, serving: Callable[..., Server]) -> None:
    server = serving(recorded.store, "--key", recorded.key)
    refused = trail("key", "rotate", "--store", recorded.store, "--key", recorded.key)
    assert (refused.code, refused.out) == (Exit.STORAGE, "")
    assert "stop that process" in refused.err
    assert server.stop() == 0, server.said
    assert trail("key", "rotate", "--store", recorded.store, "--key", recorded.key).code == Exit.OK
    again = serving(recorded.store, "--key", recorded.key)
    assert again.stop() == 0, again.said
    assert trail("verify", "--store", recorded.store).code == Exit.OK


def test_an_interrupted_rotation_stops_the_server_until_it_is_finished(trail: Call, recorded: Recorded) -> None:
    disk = Disk(recorded.store, at=0, how="error before", where="keys.jsonl")
    disk.install()
    try:
        broken = trail("key", "rotate", "--store", recorded.store, "--key", recorded.key)
    finally:
        disk.remove()
    assert (broken.code, broken.out) == (Exit.STORAGE, "")
    refused = trail("serve", "--store", recorded.store, "--key", recorded.key, "--http", "127.0.0.1:0")
    assert refused.code == Exit.STORAGE
    assert "finish it: trail key rotate" in refused.err
    assert "not finished" in trail("key", "list", "--store", recorded.store, "--key", recorded.key).err
    finished = trail("key", "rotate", "--json", "--store", recorded.store, "--key", recorded.key)
    assert finished.code == Exit.OK, finished.err
    assert finished.json["resumed"]
    assert trail("verify", "--store", recorded.store).code == Exit.OK


def test_the_command_line_is_refused_where_it_contradicts_itself(trail: Call, store: Path, tmp_path: Path) -> None:
    for args in (
        ("rotate", "--to", "x", "--passphrase"),
        ("new", "x"),
        ("new", "--origin", "x"),
        ("compromised", "nothing", "--since", "1h"),
        ("compromised",),
        ("pin", "nothing"),
        ("pin", Signer.generate("example.com/a").vkey, Signer.generate("example.com/b").vkey),
        ("compromised", "--since", "whenever"),
    ):
        ran = trail("key", *args, "--store", store)
        assert (ran.code, ran.out) == (Exit.USAGE, ""), args
    gone = trail("key", "list", "--store", tmp_path / "nothing")
    assert (gone.code, gone.out) == (Exit.STORAGE, "")


# ---- compromised


def trusting(tmp_path: Path, vkey: str, policy: str, roots: str = "") -> Path:
    path = tmp_path / "trust.toml"
    path.write_text(f"keys = ['{vkey}']\npolicy_text = '''\n{policy}'''\n{roots}")
    return path


def test_what_was_cosigned_before_the_theft_is_covered(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    now = int(time.time())
    (one,), _policy = witnesses("one")
    layout = Layout(recorded.store)
    note = layout.checkpoint.read_bytes()
    size = int(note.split(b"\n")[1])
    write_cosigned(layout, cosigned(note, [one], time=now - 3600))
    trust = trusting(tmp_path, recorded.vkey, f"witness one {one.cosigner.vkey}\nquorum one\n")
    call = ("key", "compromised", "--json", "--store", recorded.store)
    recent = ("--since", "30m")
    bare = trail(*call, *recent)
    assert bare.code == Exit.UNVERIFIABLE
    assert (bare.json["covered"], bare.json["exposed"]) == (0, size)
    assert "name your witnesses" in bare.json["not_counted"][0]
    with_trust = trail(*call, "--trust", trust, *recent)
    assert with_trust.code == Exit.OK, with_trust.err
    assert (with_trust.json["covered"], with_trust.json["exposed"], with_trust.json["key"]) == (size, 0, recorded.vkey)
    assert with_trust.json["covers"][0]["by"] == "cosigned by one"
    late = trail(*call, "--trust", trust, "--since", "2h")
    assert late.code == Exit.UNVERIFIABLE
    assert late.json["covered"] == 0
    assert f"--key '{recorded.vkey}@<=0'" in " ".join(late.json["next"])
    shown = trail("key", "compromised", "--store", recorded.store, "--trust", trust, *recent)
    assert "exposed   none" in shown.out


def test_what_is_cosigned_covers_nothing_while_nobody_says_since_when(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    """Whoever has the key has had his own records cosigned too: "until now" would count them."""
    (one,), _policy = witnesses("one")
    layout = Layout(recorded.store)
    kept = tmp_path / "kept.checkpoint"
    kept.write_bytes(layout.checkpoint.read_bytes())
    StoreWriter.open(recorded.store, command="the thief", key_path=recorded.key).close()
    write_cosigned(layout, cosigned(layout.checkpoint.read_bytes(), [one], time=int(time.time()) - 60))
    trust = trusting(tmp_path, recorded.vkey, f"witness one {one.cosigner.vkey}\nquorum one\n")
    call = ("key", "compromised", "--json", "--store", recorded.store, "--trust", trust)
    refused = trail(*call)
    assert (refused.code, refused.out) == (Exit.USAGE, "")
    assert "--since" in refused.err
    assert "--against" in refused.err
    with_kept = trail(*call, "--against", kept)
    assert with_kept.code == Exit.UNVERIFIABLE
    size = int(kept.read_bytes().split(b"\n")[1])
    assert (with_kept.json["since"], with_kept.json["covered"], [one["by"] for one in with_kept.json["covers"]]) == (None, size, ["kept"])
    assert "a time that was not given" in trail(*call[:2], *call[3:], "--against", kept).out
    recording = trail(*call, "--against", kept, "--record")
    assert (recording.code, recording.out) == (Exit.USAGE, "")


@pytest.mark.parametrize("what", ["missing", "directory", "long"])
def test_a_kept_checkpoint_that_cannot_be_read_leaves_it_open(trail: Call, recorded: Recorded, tmp_path: Path, what: str) -> None:
    kept = tmp_path / "kept.checkpoint"
    if what == "directory":
        kept.mkdir()
    if what == "long":
        kept.touch()
        os.truncate(kept, 1 << 40)
    ran = trail("key", "compromised", "--store", recorded.store, "--against", kept)
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert str(kept) in ran.err


def test_a_kept_checkpoint_may_come_through_a_pipe(trail: Call, recorded: Recorded) -> None:
    reading, writing = os.pipe()
    os.write(writing, (recorded.store / "checkpoint").read_bytes())
    os.close(writing)
    ran = trail("key", "compromised", "--store", recorded.store, "--against", f"/dev/fd/{reading}")
    os.close(reading)
    assert ran.code == Exit.OK, ran.err


def test_a_kept_checkpoint_covers_or_contradicts(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    kept = tmp_path / "kept.checkpoint"
    assert trail("checkpoint", "--store", recorded.store, "-o", kept).code == Exit.OK
    size = int(kept.read_bytes().split(b"\n")[1])
    call = ("key", "compromised", "--json", "--store", recorded.store, "--against", kept)
    assert trail(*call).json["covered"] == size
    # More is written; it is exposed, and then the log says so itself.
    recording = trail(*call[:2], *call[3:], "--record", "--signing-key", recorded.key, "--since", "1h")
    assert recording.code == Exit.OK, recording.err
    assert "recorded in record" in recording.err
    after = trail(*call, recorded.vkey.split("+")[1])
    assert after.code == Exit.UNVERIFIABLE
    assert (after.json["covered"], after.json["exposed"] > 0) == (size, True)
    found = run_trail("sql", "--json", "--store", recorded.store, "SELECT name, record FROM records WHERE kind = 'key'")
    assert "compromised" in found.out
    assert trail("verify", "--store", recorded.store).code == Exit.OK
    # Somebody has kept a checkpoint that this key has signed, over a history that this store does not have.
    signer = Signer.parse(recorded.key.read_text().strip())
    lines = kept.read_text().split("\n")
    forged = "\n".join([lines[0], lines[1], "A" * 43 + "=", ""])
    kept.write_text(forged + "\n" + signer.sign(forged))
    contradicted = trail(*call)
    assert contradicted.code == Exit.FALSE
    assert "of another history" in contradicted.json["contradictions"][0]
    assert "CONTRADICTED" in trail(*call[:2], *call[3:]).err


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_a_program_can_take_over_from_a_file(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    """From a key on disk to one in hardware: here openssl plays the hardware."""
    pem, program = tmp_path / "token.pem", tmp_path / "sign"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", pem], check=True, capture_output=True)
    der = subprocess.run(["openssl", "pkey", "-in", pem, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/m.$$; exec openssl pkeyutl -sign -rawin -inkey {pem} -in {tmp_path}/m.$$\n")
    program.chmod(0o700)
    if subprocess.run([program], input=b"x", capture_output=True, check=False).returncode:
        pytest.skip("this openssl does not sign raw messages")
    vkey = Verifier(recorded.origin, der[-32:]).vkey
    (tmp_path / "token.toml").write_text(f"signer = 'command'\nvkey = '{vkey}'\ncommand = ['{program}']\n")
    (tmp_path / "token.toml").chmod(0o600)
    rotated = trail("key", "rotate", "--json", "--store", recorded.store, "--key", recorded.key, "--to", tmp_path / "token.toml")
    assert rotated.code == Exit.OK, rotated.err
    assert rotated.json["new"] == vkey
    assert trail("verify", "--store", recorded.store).code == Exit.OK
    assert trail("key", "list", "--json", "--store", recorded.store, "--key", recorded.key).json[-1]["form"] == "command"
    assert os.stat(recorded.key).st_mode & 0o777 == 0o600  # noqa: PTH116 - the mode of the file itself
