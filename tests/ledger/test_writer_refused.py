"""Starts that must be refused for what lies around a store or in the place of its files: another log's store, lost journals, pipes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rotations import turn
from stores import ORIGIN, Home, request, seal, send, small_store

from ledger import comparison, merkle, timestamping
from ledger.continuation import get_continued, last_checkpoint
from ledger.errors import LedgerError, MissingKey, StorageError, VerificationError
from ledger.keys import KeyFile
from ledger.layout import Layout
from ledger.note import Signer
from ledger.rotating import NewKey
from ledger.seals import read_side_files
from ledger.trust import LogKeys
from ledger.writer import StoreWriter
from tui.running import lock_holder

LONGEST_SECONDS = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("original") / "home")


@pytest.fixture
def home(original: Home, tmp_path: Path) -> Home:
    return original.copy(tmp_path / "home")


# ---- the secret, and the pin of the path


def test_a_missing_secret_is_named_with_what_it_is_for(home: Home) -> None:
    secret = home.key.with_name("log.key.secret")
    secret.unlink()
    with pytest.raises(MissingKey, match="pseudonyms and recognises repeated requests") as caught:
        home.open()
    assert str(secret) in caught.value.message
    assert "backup" in caught.value.hint
    assert home.verify().verdict == "verified", "it signs nothing"


def test_a_key_without_a_name_does_not_sign_for_another_store(home: Home) -> None:
    """An OpenSSH key signs for whatever log the store says that it is; the pin of the path knows better."""
    seed = Ed25519PrivateKey.generate()
    home.key.write_bytes(seed.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    home.pins.add(Signer(ORIGIN, seed).vkey, store=home.store)
    shutil.rmtree(home.store)
    home.store.mkdir()
    (home.store / "trail.toml").write_text('format = 1\norigin = "evil.example/log"\n')
    assert KeyFile.load(home.key, origin="evil.example/log").signer.name == "evil.example/log"
    before, state = sorted(home.base.rglob("*")), home.state.path.read_bytes()
    for action in (lambda: home.open(pins=home.pins), lambda: turn(home, new=NewKey(protected=False))):
        with pytest.raises(VerificationError, match="the store was replaced") as caught:
            action()
        assert (caught.value.expected, caught.value.actual) == (ORIGIN, "evil.example/log")
        assert caught.value.hint
    assert (sorted(home.base.rglob("*")), home.state.path.read_bytes()) == (before, state)
    with pytest.raises(VerificationError, match="the store was replaced"):
        StoreWriter.open(home.store, command="a test", key_path=home.key, last_signed=home.state, pins=home.pins)


# ---- what the files of a store say of each other


def test_a_store_that_lost_the_seals_with_its_journal_is_refused(home: Home) -> None:
    """The sealed files are here and the journal is not: other records would take the place of the ones that seal them."""
    writer = home.open()
    send(writer, request(8))
    seal(writer)
    writer.close()
    for path in (home.store / "journal").iterdir():
        path.unlink()
    for path in (home.store / "checkpoint", home.state.path):  # nothing that was signed is at hand: only the files themselves tell
        path.unlink()
    seals = read_side_files(Layout(home.store))
    before = {path: path.read_bytes() for path in home.files("**/*") if path.is_file() and path.name != "lock"}
    with pytest.raises(StorageError, match=r"was sealed in record \d+, and the store has \d+ records: the journal is missing") as caught:
        home.open()
    assert caught.value.index in {found.index for found in seals}
    assert caught.value.path in {found.seal.file.name for found in seals}
    assert "restore the journal" in caught.value.hint
    assert {path: path.read_bytes() for path in home.files("**/*") if path.is_file() and path.name != "lock"} == before


# ---- pipes, and files of a terabyte


def _status(home: Home) -> None:
    lock_holder(home.store)
    raise StorageError("is no ordinary file: it says of nobody that he holds the lock")


def _account(home: Home) -> None:
    comparison.Account.of_store(Layout(home.store), LogKeys.of(home.vkey), size=0, root=merkle.EMPTY_ROOT)


ACTIONS: dict[str, tuple[str, Callable[[Home], object]]] = {
    "start": ("checkpoint", lambda home: home.open()),
    "rotation": ("checkpoint", turn),
    "comparison with witnesses": ("checkpoint", _account),
    "time stamp": ("checkpoint", lambda home: timestamping.newest(Layout(home.store))),
    "log that goes on": ("checkpoint", lambda home: last_checkpoint(home.store, pins=home.pins)),
    "start of a log that goes on": ("continues", lambda home: get_continued(Layout(home.store))),
    "who holds the lock": ("lock", _status),
}


def _ends(base: Path, action: str) -> None:
    """End with 7 if it is refused as it should be."""
    try:
        ACTIONS[action][1](Home(base))
    except LedgerError as exc:
        sys.exit(7 if "is no ordinary file" in exc.message else 1)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_pipe_keeps_nobody_waiting(home: Home, action: str) -> None:
    name, _function = ACTIONS[action]
    (home.store / name).unlink(missing_ok=True)
    os.mkfifo(home.store / name)
    process = multiprocessing.get_context("forkserver").Process(target=_ends, args=(home.base, action))
    process.start()
    process.join(LONGEST_SECONDS)
    code = process.exitcode
    process.kill()
    process.join()
    assert code == 7


@pytest.mark.parametrize("action", [name for name, (file, _function) in ACTIONS.items() if file == "checkpoint"])
def test_a_file_of_a_terabyte_is_not_read(home: Home, action: str) -> None:
    os.truncate(home.store / "checkpoint", 1 << 40)
    with pytest.raises(StorageError, match="has 1099511627776 bytes, more than 1000000"):
        ACTIONS[action][1](home)


def test_a_side_file_that_is_far_too_long_is_made_again(home: Home) -> None:
    """Beside one that is damaged, so that every one of them is looked at alone."""
    first, second = home.files("records/*.seal")[:2]
    kept = first.read_bytes(), second.read_bytes()
    first.write_bytes(b"x" + kept[0][1:])
    os.truncate(second, 1 << 40)
    home.open().close()
    assert (first.read_bytes(), second.read_bytes()) == kept
    assert home.verify().verdict == "verified"
