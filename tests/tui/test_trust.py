"""What the exit code says when the evidence is false, cannot be decided, or the store cannot be read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from trail_process import Ran, Recorded

from ledger.keys import LastSigned
from ledger.note import Signer
from tui.exits import Exit

Call = Callable[..., Ran]
ASKING = (["ask", "x"], ["runs"], ["timeline"], ["show", "1"], ["prove", "1"], ["checkpoint"], ["status"], ["info"], ["verify"])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_verified(trail: Call, recorded: Recorded) -> None:
    ran = trail("verify", "--store", recorded.store, "--json")
    assert (ran.code, ran.err) == (Exit.OK, "")
    report = ran.json
    assert (report["verdict"], report["key"], report["integrity"]["verdict"]) == ("verified", "pinned", "verified")
    assert report["anchoring"]["verdict"] == "unanchored"
    text = trail("verify", "--store", recorded.store).out
    assert text.startswith("VERIFIED")
    assert "UNANCHORED" in text


def test_without_a_pin_nothing_is_verified_and_everything_can_be_asked(
    trail: Call, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    ran = trail("verify", "--store", recorded.store, "--json")
    assert ran.code == Exit.UNVERIFIABLE
    assert (ran.json["verdict"], ran.json["key"]) == ("unverifiable", "unpinned")
    asked = trail("ask", "config/refunds.yaml", "--store", recorded.store, "--json")
    assert asked.code == Exit.OK
    assert "UNVERIFIABLE" in asked.err
    assert asked.json["cards"][0]["intact"]["verdict"] == "unverifiable"
    assert trail("info", "--store", recorded.store, "--json").json["vkey"] is None
    assert trail("verify", "--store", recorded.store, "--key", recorded.vkey).code == Exit.OK
    monkeypatch.setenv("TRAIL_VKEY", recorded.vkey)
    assert trail("verify", "--store", recorded.store).code == Exit.OK


def test_another_key_makes_it_false(trail: Call, recorded: Recorded) -> None:
    other = Signer.generate(recorded.origin).vkey
    ran = trail("verify", "--store", recorded.store, "--key", other, "--json")
    assert (ran.code, ran.json["verdict"], ran.json["key"]) == (Exit.FALSE, "failed", "wrong")
    for args in ASKING[:-1]:
        asked = trail(*args, "--store", recorded.store, "--key", other)
        assert (asked.code, asked.out) == (Exit.FALSE, "")


def test_the_key_of_another_log_makes_it_false(trail: Call, recorded: Recorded) -> None:
    ran = trail("verify", "--store", recorded.store, "--key", Signer.generate("example.com/other").vkey, "--json")
    assert (ran.code, ran.json["verdict"]) == (Exit.FALSE, "failed")


def test_a_changed_byte_is_found_and_named(trail: Call, recorded: Recorded) -> None:
    path = max((recorded.store / "records").glob("*.parquet"), key=lambda found: found.stat().st_size)
    flip(path, path.stat().st_size // 2)
    ran = trail("verify", "--store", recorded.store, "--json")
    assert ran.code == Exit.FALSE
    assert f"records/{path.name}" in {failure["file"] for failure in ran.json["integrity"]["failures"]}
    assert path.name in trail("verify", "--store", recorded.store).out
    asked = trail("ask", "config/refunds.yaml", "--store", recorded.store)
    assert (asked.code, asked.out) == (Exit.FALSE, "")
    assert path.name in asked.err


def test_a_missing_sealed_file_is_false(trail: Call, recorded: Recorded) -> None:
    path = next((recorded.store / "records").glob("*.parquet"))
    path.unlink()
    assert trail("verify", "--store", recorded.store).code == Exit.FALSE
    ran = trail("runs", "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.FALSE, "")


def test_a_rollback_is_seen_by_what_was_kept(trail: Call, recorded: Recorded, serving: Callable[..., object], tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(recorded.store, backup)
    server = serving(recorded.store)
    assert server.stop() == 0, server.said
    kept = tmp_path / "kept.checkpoint"
    assert trail("checkpoint", "-o", kept, "--store", recorded.store).code == Exit.OK
    assert trail("verify", "--store", recorded.store, "--against", kept).code == Exit.OK

    shutil.rmtree(recorded.store)
    shutil.copytree(backup, recorded.store)
    status = trail("status", "--store", recorded.store, "--json")
    assert (status.code, status.json["signed"]["state"]) == (Exit.FALSE, "rollback")
    assert "NOT WHAT WAS SIGNED" in status.err
    asked = trail("ask", "config/refunds.yaml", "--store", recorded.store, "--json")
    assert (asked.code, asked.json["cards"][0]["intact"]["verdict"]) == (Exit.FALSE, "failed")
    for args in (["prove", 1], ["checkpoint"]):
        assert trail(*args, "--store", recorded.store).code == Exit.FALSE
    assert trail("doctor", "--store", recorded.store).code == Exit.FALSE
    served = trail("serve", "--http", "127.0.0.1:0", "--store", recorded.store)
    assert served.code in (Exit.FALSE, Exit.STORAGE)
    ran = trail("verify", "--store", recorded.store, "--json")
    assert (ran.code, ran.json["verdict"]) == (Exit.FALSE, "failed")

    shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]))
    assert trail("verify", "--store", recorded.store).code == Exit.OK
    ran = trail("verify", "--store", recorded.store, "--against", kept, "--json")
    assert (ran.code, ran.json["verdict"]) == (Exit.FALSE, "failed")


def test_a_checkpoint_that_cannot_be_read_decides_nothing(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    assert trail("verify", "--store", recorded.store, "--against", tmp_path / "junk").code == Exit.UNVERIFIABLE
    missing = trail("verify", "--store", recorded.store, "--against", tmp_path / "nothing")
    assert (missing.code, missing.out) == (Exit.UNVERIFIABLE, "")


def test_what_is_required_decides_too(trail: Call, recorded: Recorded) -> None:
    ran = trail("verify", "--store", recorded.store, "--require", "anchored")
    assert (ran.code, "REQUIRED  anchored" in ran.out) == (Exit.FALSE, True)
    assert trail("verify", "--store", recorded.store, "--require", "complete").code in (Exit.OK, Exit.UNVERIFIABLE)


def test_a_replaced_store_is_noticed(trail: Call, tmp_path: Path) -> None:
    assert trail("init", "--store", tmp_path / "a", "--origin", "example.com/a").code == Exit.OK
    assert trail("init", "--store", tmp_path / "b", "--origin", "example.com/b").code == Exit.OK
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b").rename(tmp_path / "a")
    ran = trail("verify", "--store", tmp_path / "a", "--json")
    assert (ran.code, ran.json["verdict"]) == (Exit.FALSE, "failed")
    assert trail("ask", "x", "--store", tmp_path / "a").code == Exit.FALSE


@pytest.mark.parametrize("args", [*ASKING, ["serve"], ["import", __file__], ["token", "list"]], ids=lambda args: args[0])
def test_no_store(trail: Call, tmp_path: Path, args: list[str]) -> None:
    ran = trail(*args, "--store", tmp_path / "nothing")
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "there is no trail store" in ran.err
    assert "trail init" in ran.err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("args", [*ASKING, ["serve", "--http", "127.0.0.1:0"]], ids=lambda args: args[0])
def test_a_store_of_a_newer_version(trail: Call, recorded: Recorded, args: list[str]) -> None:
    settings = recorded.store / "trail.toml"
    settings.write_text(settings.read_text("utf-8").replace("format = 1", "format = 2"), "utf-8")
    ran = trail(*args, "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert "newer" in ran.err


def test_settings_with_a_typing_mistake(trail: Call, recorded: Recorded) -> None:
    settings = recorded.store / "trail.toml"
    settings.write_text(settings.read_text("utf-8") + "segment_recods = 5\n", "utf-8")
    ran = trail("status", "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert "segment_recods" in ran.err


@pytest.mark.parametrize("verb", [["status"], ["info"], ["ask", "x"], ["prove", "1"], ["checkpoint"], ["verify"]], ids=lambda verb: verb[0])
def test_a_store_of_before_the_rotation_is_false_for_somebody_with_the_old_key(
    trail: Call, recorded: Recorded, tmp_path: Path, verb: list[str]
) -> None:
    shutil.copytree(recorded.store, tmp_path / "backup")
    assert trail("key", "rotate", "--store", recorded.store, "--key", recorded.key).code == Exit.OK
    shutil.rmtree(recorded.store)
    shutil.copytree(tmp_path / "backup", recorded.store)
    for key in (recorded.vkey, f"{recorded.vkey}@<=239"):
        ran = trail(*verb, "--store", recorded.store, "--key", key)
        assert ran.code == Exit.FALSE, ran
    output = tmp_path / "output"
    if verb[0] in ("prove", "checkpoint"):
        assert trail(*verb, "--store", recorded.store, "--key", recorded.vkey, "-o", output).code == Exit.FALSE
    assert not output.exists()


def test_a_last_signed_state_that_cannot_be_read_leaves_it_open(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    LastSigned.default(recorded.origin).path.write_bytes(b"junk")
    status = trail("status", "--store", recorded.store, "--json")
    assert (status.code, status.json["signed"]["state"]) == (Exit.UNVERIFIABLE, "unreadable")
    asked = trail("ask", "config/refunds.yaml", "--store", recorded.store, "--json")
    assert (asked.code, len(asked.json["cards"]) > 0, "UNVERIFIABLE" in asked.err) == (Exit.UNVERIFIABLE, True, True)
    for verb in (["prove", "1"], ["checkpoint"]):
        ran = trail(*verb, "--store", recorded.store, "-o", tmp_path / "output")
        assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
        assert "cannot be read" in ran.err
    assert not (tmp_path / "output").exists()
    assert re.search(r"last signed +.*cannot be read", trail("doctor", "--store", recorded.store).out)


def test_a_checkpoint_that_nobody_has_checked_is_not_handed_out(
    trail: Call, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    kept = tmp_path / "kept"
    for options in ([], ["--json"], ["-o", kept]):
        ran = trail("checkpoint", "--store", recorded.store, *options)
        assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
        assert "no key is pinned" in " ".join(ran.err.split())
    assert not kept.exists()
    assert trail("checkpoint", "--store", recorded.store, "-o", kept, "--key", recorded.vkey).code == Exit.OK
    assert kept.exists()


def test_an_empty_store_compares_nothing(trail: Call, tmp_path: Path) -> None:
    assert trail("init", "--store", tmp_path / "s").code == Exit.OK
    assert trail("verify", "--store", tmp_path / "s").code == Exit.UNVERIFIABLE
    ran = trail("checkpoint", "--store", tmp_path / "s")
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert trail("ask", "x", "--store", tmp_path / "s", "--json").json["cards"] == []
    assert trail("status", "--store", tmp_path / "s").code == Exit.OK


def test_a_missing_key(trail: Call, recorded: Recorded) -> None:
    recorded.key.unlink()
    ran = trail("serve", "--http", "127.0.0.1:0", "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert "TRAIL_KEY" in ran.err
    assert trail("verify", "--store", recorded.store).code == Exit.OK


def test_init_never_overwrites(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    before = recorded.key.read_bytes()
    ran = trail("init", "--store", recorded.store)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    ran = trail("init", "--store", tmp_path / "other", "--key", recorded.key)
    assert ran.code == Exit.STORAGE
    assert recorded.key.read_bytes() == before
    assert trail("init", "--store", tmp_path / "third", "--origin", "two words").code == Exit.USAGE
