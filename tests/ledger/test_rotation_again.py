"""Keys that a log has had: it never goes back to one, and what a thief of one makes contradicts the lines beside it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from rotations import lines_of, turn
from stores import ORIGIN, Home, request, send, settle, small_store

from ledger.errors import MalformedError, StorageError
from ledger.fsck_keys import check_keys, kept_in
from ledger.layout import Layout
from ledger.note import Signer
from ledger.rotating import NewKey, retired_keys
from ledger.rotation import read_lines
from ledger.trust import MAX_KEYS, LogKeys, Trust


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A log before its key is rotated."""
    return small_store(tmp_path_factory.mktemp("before") / "log", tail=False)


@pytest.fixture(scope="module")
def turned(before: Home, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The same after one rotation and another record."""
    home = before.copy(tmp_path_factory.mktemp("turned") / "log")
    turn(home)
    with home.writing() as writer:
        send(writer, request(9))
        settle(writer)
    return home


def test_the_log_does_not_go_back_to_a_key_that_it_has_given_up(turned: Home, tmp_path: Path) -> None:
    home = turned.copy(tmp_path / "log")
    (retired,) = retired_keys(home.key).values()
    kept = tmp_path / "kept.key"
    kept.write_bytes(retired.read_bytes())
    ended = Signer.generate(ORIGIN)
    (tmp_path / "ended.key").write_text(ended.encode())

    def refused(source: Path) -> None:
        files = {path: path.read_bytes() for path in home.base.rglob("*") if path.is_file()}
        with pytest.raises(MalformedError, match="was a key of this log before") as caught:
            turn(home, new=NewKey(source=source))
        assert "make another one" in caught.value.hint
        assert {path: path.read_bytes() for path in home.base.rglob("*") if path.is_file()} == files

    refused(retired)
    # By the line alone, by the pin alone, by the file alone.
    pins, lines = home.vkey.split(), Layout(home.store).key_rotations
    retired.rename(tmp_path / "elsewhere")
    home.pins.add(pins[-1], store=home.store)
    refused(kept)
    line = lines.read_bytes()
    lines.write_bytes(dataclasses.replace(lines_of(home)[0], path=()).encode())  # which nobody follows, and a start would refuse
    refused(kept)
    lines.unlink()
    home.pins.add(" ".join(pins), store=home.store)
    refused(kept)
    home.pins.add(pins[-1], store=home.store)
    (tmp_path / "elsewhere").rename(retired)
    refused(kept)
    lines.write_bytes(line)
    home.pins.add(" ".join([f"{ended.vkey}@<=3", *pins]), store=home.store)
    refused(tmp_path / "ended.key")
    home.pins.add(" ".join(pins), store=home.store)
    turn(home)
    with home.writing():
        pass


def test_a_log_that_has_had_all_its_keys_is_told_so(before: Home, tmp_path: Path) -> None:
    home = before.copy(tmp_path / "log")
    earlier = [f"{Signer.generate(ORIGIN).vkey}@<={number + 1}" for number in range(MAX_KEYS - 2)]
    home.pins.add(" ".join([*earlier, home.vkey]), store=home.store)
    turn(home)
    files = sorted(home.base.rglob("*"))
    with pytest.raises(StorageError, match=f"has had {MAX_KEYS} keys") as caught:
        turn(home)
    assert "trail init --continues" in caught.value.hint
    assert sorted(home.base.rglob("*")) == files
    with home.writing():  # it goes on with the key that it has
        pass


# ---- the lines as promises


@pytest.fixture
def forged(before: Home, turned: Home, tmp_path: Path) -> Home:
    """What the thief of the old key makes: a short history of its own, with the true line beside it."""
    thief = before.copy(tmp_path / "thief")
    for name in ("journal", "records", "contents", "tile", "checkpoints"):
        shutil.rmtree(thief.store / name)
    (thief.store / "checkpoint").unlink()
    thief.state.path.unlink()
    with thief.writing() as writer:
        send(writer, request(999, count=2))
        settle(writer)
    Layout(thief.store).key_rotations.write_bytes(Layout(turned.store).key_rotations.read_bytes())
    return thief


def test_the_checkpoint_in_a_line_is_a_promise(before: Home, turned: Home, forged: Home) -> None:
    """Found by its line alone: neither a last-signed state nor a witness is at hand."""
    for keys in (LogKeys.of(turned.vkey.split()[-1]), LogKeys.of(*turned.vkey.split())):
        report = forged.verify(trust=Trust(keys), last_signed=None)
        assert report.verdict == "failed"
        assert any("it was rolled back, or replaced" in failure.why for failure in [*report.failures, *report.rollback])


def test_the_checkpoints_in_lines_count_as_kept_ones(before: Home, turned: Home, forged: Home) -> None:
    lines, size = read_lines(Layout(forged.store)), forged.read(vkeys=[before.vkey]).size
    (line,) = lines_of(turned)
    both = LogKeys.of(*turned.vkey.split())
    kept = [("line 2 of checkpoints/keys.jsonl", line.checkpoint)]
    assert kept_in([b"{}", *lines, *lines], both, size=size, moved_on=lambda _checkpoint: False) == kept
    assert kept_in([b"{}", *lines], both, size=line.index + 1, moved_on=lambda _checkpoint: True) == kept, "nothing to excuse"
    assert kept_in([b"{}", *lines], both, size=size, moved_on=lambda checkpoint: checkpoint.size > size) == []
    assert kept_in(lines, LogKeys.of(Signer.generate(ORIGIN).vkey), size=size, moved_on=lambda _checkpoint: False) == []
    assert kept_in(lines, LogKeys.of(f"{before.vkey}@<={line.index}"), size=size, moved_on=lambda _checkpoint: False) == []
    # A writer that goes on while somebody reads is no thief; the record of a line that is not ahead is looked at all the same.
    behind = {"origin": ORIGIN, "size": line.index, "root_at": None}
    assert check_keys([], lines, **behind, moved_on=lambda _checkpoint: True) == []
    assert "it was rolled back" in check_keys([], lines, **behind)[0].why
    assert "is not record" in check_keys([], lines, **behind | {"size": line.index + 1}, moved_on=lambda _checkpoint: True)[0].why
