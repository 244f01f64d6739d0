"""Key files of three forms, told apart by content; real ssh-keygen and real programs that sign."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stores import ORIGIN, new_home, request, send, settle

from ledger import passphrase as passphrases
from ledger import signers
from ledger.errors import BadSignature, LedgerError, MalformedError, MissingKey, StorageError
from ledger.keys import KeyFile
from ledger.note import Signer, Verifier, open_note, sign
from ledger.signers import BothSigners, form_of, load_signer, new_signer, read_key_file, vkey_in

SECRET = b"correct horse battery staple"
TEXT = "example.com/agents\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for each key would be a minute for all."""
    monkeypatch.setattr(signers, "KDF_ROUNDS", 1)


def encrypted(path: Path, passphrase: bytes = SECRET) -> Signer:
    signer, data = new_signer(ORIGIN, passphrase)
    path.write_bytes(data)
    path.chmod(0o600)
    return signer


def said(passphrase: bytes) -> Callable[[Path], bytes]:
    return lambda _path: passphrase


def never(_path: Path) -> bytes:
    raise AssertionError("asked for a passphrase")


# ---- with a passphrase


def test_rounds_of_the_key_derivation_are_above_those_of_ssh_keygen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert signers.KDF_ROUNDS > 24


def test_an_encrypted_key_is_read_with_its_passphrase_only(tmp_path: Path) -> None:
    made = encrypted(tmp_path / "key")
    assert load_signer(tmp_path / "key", origin=ORIGIN, passphrase=said(SECRET)).vkey == made.vkey
    assert vkey_in(tmp_path / "key", origin=ORIGIN) == made.vkey
    assert form_of(read_key_file(tmp_path / "key"), tmp_path) == "encrypted"
    for wrong in (b"hunter2", SECRET + b" ", SECRET[:-1]):
        with pytest.raises(MalformedError, match="passphrase is wrong") as caught:
            load_signer(tmp_path / "key", origin=ORIGIN, passphrase=said(wrong))
        assert "TRAIL_PASSPHRASE_FILE" in caught.value.hint
        assert wrong.decode() not in str(caught.value.__dict__) + str(caught.value.__cause__)
    assert made.encode().encode()[-20:] not in (tmp_path / "key").read_bytes()


def test_the_passphrase_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = encrypted(tmp_path / "key")
    for ending in (b"", b"\n", b"\r\n"):
        (tmp_path / "passphrase").write_bytes(SECRET + ending)
        monkeypatch.setenv("TRAIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
        assert load_signer(tmp_path / "key", origin=ORIGIN).vkey == made.vkey
    for bad in (b"", b"\n", b"x" * 73):
        (tmp_path / "passphrase").write_bytes(bad)
        with pytest.raises(MalformedError, match="1 to 72 bytes"):
            load_signer(tmp_path / "key", origin=ORIGIN)
    (tmp_path / "passphrase").unlink()
    with pytest.raises(StorageError, match="passphrase"):
        load_signer(tmp_path / "key", origin=ORIGIN)


def test_without_a_terminal_and_a_file_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted(tmp_path / "key")
    with (tmp_path / "nothing").open("w+") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(MissingKey, match="needs a passphrase") as caught:
            load_signer(tmp_path / "key", origin=ORIGIN)
    assert "TRAIL_PASSPHRASE_FILE=FILE" in caught.value.hint


def test_a_new_passphrase_is_typed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    typed = iter(["one", "one", "one", "two"])
    monkeypatch.setattr(passphrases.getpass, "getpass", lambda _prompt: next(typed))
    assert passphrases.read_passphrase(tmp_path, new=True) == b"one"
    with pytest.raises(MalformedError, match="not the same"):
        passphrases.read_passphrase(tmp_path, new=True)


def test_no_byte_of_an_encrypted_key_can_be_changed_into_another_key(tmp_path: Path) -> None:
    # The cipher has no authentication: bits of the seed can be flipped, and only the public key in the open shows it.
    made = encrypted(tmp_path / "key")
    whole = (tmp_path / "key").read_bytes()
    outcomes = set()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / "changed").write_bytes(bytes(changed))
        try:
            found = load_signer(tmp_path / "changed", origin=ORIGIN, passphrase=said(SECRET))
        except MalformedError as exc:
            outcomes.add("was changed" if "was changed" in exc.message else "refused")
        else:
            assert found.vkey == made.vkey, place
    assert outcomes == {"was changed", "refused"}


def test_ssh_keygen_changes_and_removes_the_passphrase(tmp_path: Path) -> None:
    tool = shutil.which("ssh-keygen")
    if tool is None:
        pytest.skip("there is no ssh-keygen")
    made = encrypted(tmp_path / "key")
    change = [tool, "-q", "-p", "-f", str(tmp_path / "key"), "-P", SECRET.decode(), "-N"]
    subprocess.run([*change, "another one"], check=True, capture_output=True)
    with pytest.raises(MalformedError):
        load_signer(tmp_path / "key", origin=ORIGIN, passphrase=said(SECRET))
    assert load_signer(tmp_path / "key", origin=ORIGIN, passphrase=said(b"another one")).vkey == made.vkey
    change[6] = "another one"
    subprocess.run([*change, ""], check=True, capture_output=True)
    assert form_of(read_key_file(tmp_path / "key"), tmp_path) == "openssh"
    assert load_signer(tmp_path / "key", origin=ORIGIN, passphrase=never).vkey == made.vkey


def test_a_log_runs_on_an_encrypted_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home(tmp_path / "log")
    plain = Signer.parse(home.key.read_text().strip())
    key = Ed25519PrivateKey.generate()
    monkeypatch.setattr(Ed25519PrivateKey, "generate", staticmethod(lambda: key))
    signer, data = new_signer(ORIGIN, SECRET)
    assert signer.vkey != plain.vkey
    home.key.write_bytes(data)
    home.pins.add(signer.vkey, store=home.store)
    (tmp_path / "passphrase").write_bytes(b"wrong\n")
    monkeypatch.setenv("TRAIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    before = sorted(home.base.rglob("*"))
    with pytest.raises(MalformedError, match="passphrase is wrong"):
        home.open()
    assert sorted(home.base.rglob("*")) == before
    (tmp_path / "passphrase").write_bytes(SECRET)
    with home.writing() as writer:
        send(writer, request(1))
        settle(writer)
    assert home.verify().verdict == "verified"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_an_openssh_key_of_another_type_is_refused(tmp_path: Path, kind: str) -> None:
    tool = shutil.which("ssh-keygen")
    if tool is None:
        pytest.skip("there is no ssh-keygen")
    subprocess.run([tool, "-q", "-t", kind, "-N", "", "-f", str(tmp_path / "key")], check=True, capture_output=True)
    with pytest.raises(MalformedError, match="ed25519"):
        load_signer(tmp_path / "key", origin=ORIGIN, passphrase=never)


# ---- a program


def named(path: Path, verifier: Verifier, *command: str) -> Path:
    listed = ", ".join(f"'{part}'" for part in command)
    path.write_text(f'signer = "command"\nvkey = "{verifier.vkey}"\ncommand = [{listed}]\n')
    path.chmod(0o600)
    return path


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


@pytest.fixture
def hardware(tmp_path: Path) -> tuple[Verifier, str]:
    """A key that only openssl can reach, and a program that signs with it."""
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("there is no openssl")
    pem = tmp_path / "token.pem"
    subprocess.run([tool, "genpkey", "-algorithm", "ed25519", "-out", str(pem)], check=True, capture_output=True)
    der = subprocess.run([tool, "pkey", "-in", str(pem), "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
    # openssl wants a file: an Ed25519 signature needs the whole message at once.
    lines = f'cat > "{tmp_path}/message.$$"\n"{tool}" pkeyutl -sign -rawin -inkey "{pem}" -in "{tmp_path}/message.$$"'
    program = script(tmp_path / "sign", lines)
    tried = subprocess.run([program], input=b"x", capture_output=True, check=False)
    if tried.returncode or len(tried.stdout) != 64:
        pytest.skip(f"this openssl does not sign raw messages: {tried.stderr.decode()[:200]}")
    return Verifier(ORIGIN, der[-32:]), program


def test_a_program_signs_for_a_log(tmp_path: Path, hardware: tuple[Verifier, str]) -> None:
    verifier, program = hardware
    home = new_home(tmp_path / "log")
    named(home.key, verifier, program)
    home.pins.add(verifier.vkey, store=home.store)
    assert KeyFile.load(home.key, origin=ORIGIN).signer.vkey == vkey_in(home.key, origin=ORIGIN) == verifier.vkey
    with home.writing() as writer:
        send(writer, request(1))
        settle(writer)
    assert home.verify(verifier=verifier).verdict == "verified"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("cat >/dev/null; head -c 64 /dev/zero", "no signature by"),
        ("cat >/dev/null; echo garbage", "no signature by"),
        ("cat >/dev/null", "wrote 0 bytes"),
        ("cat >/dev/null; head -c 100000 /dev/zero", "wrote 65 bytes"),
        ("cat >/dev/null; echo 'the token is gone' >&2; echo more >&2; exit 1", "ended with 1: the token is gone"),
        ("cat >/dev/null; head -c 5000 /dev/zero | tr '\\0' x >&2; exit 3", "ended with 3: xxx"),
        ("exit 7", "ended with 7: it said nothing"),
        ("sleep 60", r"has not signed within 0\.5 s"),
        ("sleep 60 & sleep 60", r"has not signed within 0\.5 s"),
    ],
)
def test_a_program_that_does_not_sign_is_an_error_of_storage(tmp_path: Path, lines: str, why: str) -> None:
    verifier = Signer.generate(ORIGIN).verifier
    signer = signers.CommandSigner(verifier, (script(tmp_path / "sign", lines),), timeout=0.5 if "sleep" in lines else 30.0)
    with pytest.raises(StorageError, match=why) as caught:
        signer.sign(TEXT)
    assert len(caught.value.message) < 400


def test_a_signature_of_another_key_is_not_used(tmp_path: Path, hardware: tuple[Verifier, str]) -> None:
    _verifier, program = hardware
    signer = signers.CommandSigner(Signer.generate(ORIGIN).verifier, (program,))
    with pytest.raises(StorageError, match="64 bytes that are no signature by"):
        signer.sign(TEXT)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    signer = signers.CommandSigner(Signer.generate(ORIGIN).verifier, (str(tmp_path / "none"),))
    with pytest.raises(StorageError, match="does not run"):
        signer.sign(TEXT)


def test_a_log_waits_for_a_program_that_fails(tmp_path: Path, hardware: tuple[Verifier, str]) -> None:
    """What a token that was pulled out costs: nothing is published, nothing is lost, and it goes on when the token is back."""
    verifier, program = hardware
    home = new_home(tmp_path / "log")
    gone = tmp_path / "gone"
    wrapped = script(tmp_path / "perhaps", f'test -e "{gone}" && {{ echo no token >&2; exit 9; }}\nexec "{program}"')
    named(home.key, verifier, wrapped)
    home.pins.add(verifier.vkey, store=home.store)
    with home.writing() as writer:
        settle(writer)
        gone.touch()
        send(writer, request(1))
        assert not writer.log.wait_published(writer.log.size, timeout=0.5)
        assert "no token" in str(writer.log.fault)
        gone.unlink()
        settle(writer)
    assert home.verify(verifier=verifier).verdict == "verified"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "signer = 'command'\n",
        "signer = 'other'\nvkey = 'VKEY'\ncommand = ['/bin/true']\n",
        "signer = 'command'\nvkey = 'VKEY'\ncommand = []\n",
        "signer = 'command'\nvkey = 'VKEY'\ncommand = '/bin/true'\n",
        "signer = 'command'\nvkey = 'VKEY'\ncommand = ['true']\n",
        "signer = 'command'\nvkey = 'VKEY'\ncommand = ['/bin/true', 5]\n",
        "signer = 'command'\nvkey = 'nothing'\ncommand = ['/bin/true']\n",
        "signer = 'command'\nvkey = 'COSIGNER'\ncommand = ['/bin/true']\n",
        "signer = 'command'\nvkey = 'VKEY'\ncommand = ['/bin/true']\nshell = true\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nYWJj\n",
        "PRIVATE+KEY+example.com/agents+00000000+AAAA",
        "\x00" * 70_000,
    ],
)
def test_what_is_no_key_file_is_malformed_and_not_shown(tmp_path: Path, text: str) -> None:
    signer = Signer.generate(ORIGIN)
    (tmp_path / "key").write_text(text.replace("VKEY", signer.vkey).replace("COSIGNER", signer.cosigner.vkey))
    (tmp_path / "key").chmod(0o600)
    for read in (lambda path: load_signer(path, origin=ORIGIN, passphrase=never), lambda path: vkey_in(path, origin=ORIGIN)):
        with pytest.raises(MalformedError) as caught:
            read(tmp_path / "key")
        assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_names_a_program_is_nobody_elses_to_write(tmp_path: Path, mode: int) -> None:
    path = named(tmp_path / "key", Signer.generate(ORIGIN).verifier, "/bin/true")
    path.chmod(mode)
    with pytest.raises(StorageError, match="others may write"):
        load_signer(path, origin=ORIGIN)


def test_a_file_of_another_user_names_no_program_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = named(tmp_path / "key", Signer.generate(ORIGIN).verifier, "/bin/true")
    mine = path.stat().st_uid
    if mine == 0:
        os.chown(path, 12345, -1)
        mine = 12345
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(StorageError, match="others may write"):
        load_signer(path, origin=ORIGIN)


# ---- two keys at once


def test_two_keys_sign_a_note_that_each_of_them_opens() -> None:
    old, new = Signer.generate(ORIGIN), Signer.generate(ORIGIN)
    both = BothSigners(old, new)
    note = sign(TEXT, [both])
    for verifier in (old.verifier, new.verifier):
        assert len(open_note(note, [verifier]).verified) == 1
    assert (both.name, both.vkey, both.verifier.key_id) == (ORIGIN, new.vkey, new.verifier.key_id)
    with pytest.raises(BadSignature):
        open_note(note, [Signer.generate(ORIGIN).verifier])


def test_a_key_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(LedgerError):
        load_signer(tmp_path, origin=ORIGIN)
