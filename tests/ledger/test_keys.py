"""Keys, pins and the last-signed state, outside the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger import keys
from ledger.contents import keyed_digest, pseudonym
from ledger.errors import LedgerError, MalformedError, MissingKey, StorageError
from ledger.keys import KeyFile, LastSigned, Pins
from ledger.note import Signer

ORIGIN = "example.com/agents"


# ---- where things lie


def test_places_follow_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    assert keys.default_key_path(ORIGIN).is_relative_to(keys.config_dir())
    assert LastSigned.default(ORIGIN).path.is_relative_to(keys.state_dir())
    assert Pins.default().path.parent == keys.config_dir()
    monkeypatch.setenv("TRAIL_KEY", "here/log.key")
    monkeypatch.setenv("TRAIL_STATE", "there")
    assert keys.default_key_path(ORIGIN) == Path("here/log.key")
    assert LastSigned.default(ORIGIN).path.parent == Path("there")
    monkeypatch.setenv("TRAIL_KEY", "")
    assert keys.default_key_path(ORIGIN).is_relative_to(keys.config_dir())


def test_origins_that_look_alike_have_files_of_their_own() -> None:
    names = {keys.slug(origin) for origin in ("example.com/a", "example.com_a", "example.com/A", "x" * 200, "x" * 201, "../../etc", "")}
    assert len(names) == 7
    assert all("/" not in name and len(name) < 80 for name in names)


# ---- the key


def test_a_key_is_read_back_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "log.key"
    made = KeyFile.create(path, origin=ORIGIN)
    read = KeyFile.load(path, origin=ORIGIN)
    assert (read.signer.vkey, read.secret) == (made.signer.vkey, made.secret)
    assert len(read.secret) == keys.SECRET_BYTES
    assert [p.stat().st_mode & 0o777 for p in sorted(path.parent.iterdir())] == [0o600, 0o600]
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    made = KeyFile.create(path, origin=ORIGIN)
    with pytest.raises(StorageError, match="already a key"):
        KeyFile.create(path, origin=ORIGIN)
    assert KeyFile.load(path, origin=ORIGIN).signer.vkey == made.signer.vkey


def test_a_secret_without_its_key_is_never_replaced_either(tmp_path: Path) -> None:
    # Pseudonyms and duplicate keys of some store rest on it.
    path = tmp_path / "log.key"
    KeyFile.create(path, origin=ORIGIN)
    path.unlink()
    with pytest.raises(StorageError):
        KeyFile.create(path, origin=ORIGIN)


def test_a_missing_key_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingKey, match="signing key of") as caught:
        KeyFile.load(tmp_path / "log.key", origin=ORIGIN)
    assert "--key" in caught.value.hint


def test_the_key_of_another_log_is_refused(tmp_path: Path) -> None:
    KeyFile.create(tmp_path / "log.key", origin="example.com/others")
    with pytest.raises(MalformedError, match=r"signs for example\.com/others, not for example\.com/agents"):
        KeyFile.load(tmp_path / "log.key", origin=ORIGIN)


@pytest.mark.parametrize("text", [b"", b"PRIVATE+KEY+", b"\xff\xfe", b"a" * 100_000, b"\n\n"])
def test_what_is_no_key_is_malformed(tmp_path: Path, text: bytes) -> None:
    KeyFile.create(tmp_path / "log.key", origin=ORIGIN)
    (tmp_path / "log.key").write_bytes(text)
    with pytest.raises(MalformedError):
        KeyFile.load(tmp_path / "log.key", origin=ORIGIN)


@pytest.mark.parametrize("text", [b"", b"xyz", b"00" * 31, b"00" * 33, b"\xff" * 64, b"0"])
def test_what_is_no_secret_is_malformed(tmp_path: Path, text: bytes) -> None:
    KeyFile.create(tmp_path / "log.key", origin=ORIGIN)
    (tmp_path / "log.key.secret").write_bytes(text)
    with pytest.raises(MalformedError, match="secret"):
        KeyFile.load(tmp_path / "log.key", origin=ORIGIN)


def test_keyed_digests_of_other_secrets_and_purposes_are_others() -> None:
    digests = {keyed_digest(secret, purpose, b"ada") for secret in (b"a" * 32, b"b" * 32) for purpose in ("person", "body")}
    assert len(digests) == 4
    assert all(len(digest) == 16 and len(pseudonym(digest)) == 18 for digest in digests)


# ---- pins


def test_pins_are_read_back(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "config" / "pins.json")
    assert (pins.key(ORIGIN), pins.origin_at(tmp_path)) == (None, None)
    one, two = (Signer.generate(origin).vkey for origin in (ORIGIN, "example.com/others"))
    pins.add(one, store=tmp_path / "a")
    pins.add(two, store=tmp_path / "b")
    again = Pins(pins.path)
    assert (again.key(ORIGIN), again.key("example.com/others")) == (one, two)
    assert (again.origin_at(tmp_path / "a"), again.origin_at(tmp_path / "x" / ".." / "b")) == (ORIGIN, "example.com/others")
    assert pins.path.stat().st_mode & 0o777 == 0o600


def test_only_a_verifier_key_is_pinned(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins.json")
    for wrong in ("", "example.com", Signer.generate(ORIGIN).encode()):
        with pytest.raises(MalformedError):
            pins.add(wrong, store=tmp_path)
    assert not pins.path.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"keys": {}}', '{"keys": 5, "stores": {}}', "\xff"])
def test_a_damaged_pin_file_is_named(tmp_path: Path, text: str) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.path.write_text(text, encoding="latin-1")
    with pytest.raises(MalformedError, match=r"pins\.json is not a pin file"):
        pins.key(ORIGIN)


def test_a_pin_that_is_no_text_is_an_error_of_ours(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.path.write_text(json.dumps({"keys": {ORIGIN: 5}, "stores": {}}))
    with pytest.raises(LedgerError):
        pins.key(ORIGIN)


# ---- the last signed state


def test_the_last_signed_note_is_read_back(tmp_path: Path) -> None:
    state = LastSigned(tmp_path / "a" / "b.checkpoint")
    assert state.read() is None
    for note in (b"one", b"two"):
        state.write(note)
        assert state.read() == note
    assert state.path.stat().st_mode & 0o777 == 0o600
    assert state.path.parent.stat().st_mode & 0o777 == 0o700
    assert len(list(state.path.parent.iterdir())) == 1


def test_a_state_that_cannot_be_read_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with pytest.raises(StorageError):
        LastSigned(tmp_path / "state").read()
