"""A log that is gone is not begun anew unnoticed, and one that goes on from it names it in its first record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from crashes import Disk
from trail_process import Ran, Recorded, run_trail

from ledger import writer as writing
from ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ledger.continuation import MAX_CONTINUED_BYTES, Continued
from ledger.errors import LedgerError, MalformedError
from ledger.keys import LastSigned, Pins
from ledger.layout import Layout
from ledger.note import Signer, Verifier
from ledger.writer import StoreWriter
from tui.exits import Exit

Call = Callable[..., Ran]


def first_record(trail: Call, store: Path) -> dict[str, object]:
    shown = run_trail("sql", "--json", "--store", store, "SELECT decode(record) AS record FROM records WHERE index = 0")
    assert shown.code == Exit.OK, shown.err
    (row,) = shown.json["rows"] if isinstance(shown.json, dict) else shown.json
    text = row["record"] if isinstance(row, dict) else row[0]
    value: dict[str, object] = json.loads(text)
    return value


@pytest.mark.parametrize("verb", [("init",), ("serve", "--init", "--http", "127.0.0.1:0")])
def test_a_store_that_is_gone_is_not_made_anew(trail: Call, recorded: Recorded, tmp_path: Path, verb: tuple[str, ...]) -> None:
    path = tmp_path / "place"
    assert trail("init", "--store", path, "--origin", "example.com/unused").code == Exit.OK
    shutil.rmtree(path)
    # Nothing of it was signed: there is nothing to miss.
    assert trail("init", "--store", path, "--origin", "example.com/used", "--key", tmp_path / "used.key").code == Exit.OK
    StoreWriter.open(path, command="a test", key_path=tmp_path / "used.key").close()
    size = Checkpoint.parse((path / "checkpoint").read_text().rpartition("\n\n")[0] + "\n").size
    shutil.rmtree(path)
    refused = trail(*verb, "--store", path)
    assert (refused.code, refused.out) == (Exit.FALSE, "")
    for word in (
        "example.com/used",
        f"{size} records",
        str(LastSigned.default("example.com/used").path),
        "restore a backup",
        "--continues",
    ):
        assert word in refused.err
    assert not path.exists()
    path.mkdir()  # an emptied directory is no better
    assert trail(*verb, "--store", path).code == Exit.FALSE
    assert list(path.iterdir()) == []


def test_a_log_goes_on_from_an_old_store(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    new = tmp_path / "new"
    made = trail("init", "--json", "--store", new, "--continues", recorded.store)
    assert made.code == Exit.OK, made.err
    assert made.json["origin"] != recorded.origin
    body = first_record(trail, new)["lifecycle"]
    assert isinstance(body, dict)
    assert (body["event"], body["size"]) == ("start", 0)
    continued = body["continues"]
    note = (recorded.store / "checkpoint").read_bytes()
    old = open_checkpoint(note, Verifier.parse(recorded.vkey))
    assert continued == {"origin": old.origin, "size": old.size, "root": old.root.hex(), "checkpoint": note.decode()}
    assert trail("verify", "--store", new).code == Exit.OK
    assert not (new / "continues").exists()


def test_a_log_goes_on_at_the_place_of_the_one_that_is_gone(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    Pins.default().add(recorded.vkey, store=recorded.store)
    state = LastSigned.default(recorded.origin).path
    shutil.rmtree(recorded.store)
    assert trail("init", "--store", recorded.store).code == Exit.FALSE
    other = Signer.generate("example.com/other")
    (tmp_path / "other").write_bytes(sign_checkpoint(Checkpoint("example.com/other", 1, b"\1" * 32), other))
    assert trail("init", "--store", recorded.store, "--continues", tmp_path / "other", "--old-key", other.vkey).code == Exit.FALSE
    made = trail("init", "--store", recorded.store, "--continues", state, "--json")
    assert made.code == Exit.OK, made.err
    body = first_record(trail, recorded.store)["lifecycle"]
    assert isinstance(body, dict)
    assert body["continues"]["origin"] == recorded.origin
    assert Pins.default().origin_at(recorded.store) == made.json["origin"]


def test_the_greatest_signed_checkpoint_counts(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    signer = Signer.parse(recorded.key.read_text().strip())
    state = LastSigned.default(recorded.origin)
    state.write(sign_checkpoint(Checkpoint(recorded.origin, 1_000_000, b"\1" * 32), signer))
    made = trail("init", "--store", tmp_path / "new", "--continues", recorded.store)
    assert made.code == Exit.OK, made.err
    assert f"the last checkpoint of {recorded.origin}, over 1,000,000 records" in made.err
    body = first_record(trail, tmp_path / "new")["lifecycle"]
    assert isinstance(body, dict)
    assert body["continues"]["size"] == 1_000_000


def test_only_a_checkpoint_of_a_known_key_is_gone_on_from(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    new = ("init", "--store", tmp_path / "new")
    stranger = Signer.generate(recorded.origin)
    forged = tmp_path / "forged"
    forged.write_bytes(sign_checkpoint(Checkpoint(recorded.origin, 5, b"\1" * 32), stranger))
    unknown = tmp_path / "unknown"
    unknown.write_bytes(sign_checkpoint(Checkpoint("example.com/nobody", 5, b"\1" * 32), Signer.generate("example.com/nobody")))
    (tmp_path / "garbage").write_bytes(b"garbage")
    for args, code in (
        ((*new, "--continues", forged), Exit.FALSE),
        ((*new, "--continues", recorded.store, "--old-key", stranger.vkey), Exit.FALSE),
        ((*new, "--continues", unknown), Exit.FALSE),
        ((*new, "--continues", tmp_path / "garbage"), Exit.UNVERIFIABLE),
        ((*new, "--continues", tmp_path / "none"), Exit.STORAGE),
        ((*new, "--continues", recorded.store, "--origin", recorded.origin, "--key", tmp_path / "k"), Exit.USAGE),
        ((*new, "--old-key", stranger.vkey), Exit.USAGE),
    ):
        ran = trail(*args)
        assert (ran.code, ran.out) == (code, ""), (args, ran.err)
        assert not (tmp_path / "new" / "trail.toml").exists()


def test_a_crash_does_not_lose_what_the_first_record_has_to_say(recorded: Recorded, tmp_path: Path) -> None:
    note = (recorded.store / "checkpoint").read_bytes()
    pins = Pins(tmp_path / "pins.json")
    counting = Disk(tmp_path / "0", at=-1, how="error before")
    for at in range(60):
        disk = Disk(tmp_path / str(at), at=at, how="error before") if at else counting
        store, key = disk.base / "store", disk.base / "key"
        disk.base.mkdir()
        disk.install()
        try:
            writing.create(store, origin="example.com/new", key_path=key, pins=pins, continues=Continued.parse(note))
        except LedgerError:
            continue  # no store: whoever asks again asks for the same
        finally:
            disk.remove()
            if not (store / "trail.toml").exists():
                assert at
        if at > counting.calls:
            break
    assert (store / "continues").exists()
    assert Layout(store).settings.exists()
    StoreWriter.open(store, command="a test", key_path=key, pins=pins).close()
    assert not (store / "continues").exists()
    StoreWriter.open(store, command="a test", key_path=key, pins=pins).close()


def test_an_interrupted_attempt_leaves_nothing_for_another_log(recorded: Recorded, tmp_path: Path) -> None:
    store = tmp_path / "place"
    store.mkdir()
    (store / "continues").write_bytes((recorded.store / "checkpoint").read_bytes())
    writing.create(store, origin="example.com/new", key_path=tmp_path / "key", pins=Pins(tmp_path / "pins.json"))
    assert not (store / "continues").exists()


def test_a_checkpoint_that_fills_a_record_is_refused() -> None:
    signer = Signer.generate("example.com/log")
    note = sign_checkpoint(Checkpoint("example.com/log", 1, b"\1" * 32, ("x" * MAX_CONTINUED_BYTES,)), signer)
    with pytest.raises(MalformedError, match="too large"):
        Continued.parse(note)
