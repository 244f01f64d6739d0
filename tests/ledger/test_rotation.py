"""Rotation of a log's key: every step can fail, and a verifier is convinced by its own witnesses only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from crashes import Disk
from hypothesis import given
from hypothesis import strategies as st
from rotations import cosigned, lines_of, require_turned, rotations_in, turn, turn_and_die, turn_over, witnesses
from stores import ORIGIN, Home, all_records, request, send, settle, small_store

from ledger import merkle, signers
from ledger.errors import LedgerError, MalformedError, StorageError, StoreLocked
from ledger.fsck_keys import check_keys
from ledger.key_intent import Intent
from ledger.layout import Layout
from ledger.note import Signer
from ledger.policy import Policy
from ledger.record import canonical
from ledger.rotating import NewKey
from ledger.rotation import MAX_LINES, Followed, Rotation, RotationLine, body_of, follow, read_lines, statement_text
from ledger.signers import new_signer
from ledger.tree import tile_nodes
from ledger.trust import LogKeys, Trust


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


# ---- the whole of it


def test_a_rotated_log_is_written_on_and_verified(before: Home, turned: Home) -> None:
    old, new = require_turned(turned, before.vkey)
    assert old != new
    assert turned.read().keys is not None


def test_a_key_can_be_rotated_again_and_again(turned: Home, before: Home, tmp_path: Path) -> None:
    home = turned.copy(tmp_path / "log")
    turn(home)
    with home.writing():
        pass
    turn(home)
    assert len(require_turned(home, before.vkey)) == 4


def test_the_old_key_signs_no_more(turned: Home, tmp_path: Path) -> None:
    home = turned.copy(tmp_path / "log")
    (retired,) = home.key.parent.glob("*.retired-*")
    home.key.write_bytes(retired.read_bytes())
    with pytest.raises(StorageError, match=r"was replaced by .* in record") as caught:
        home.open()
    assert "--key" in caught.value.hint
    with pytest.raises(StorageError, match="was replaced by"):
        turn(home)


def test_a_server_must_be_stopped_first(before: Home, tmp_path: Path) -> None:
    home = before.copy(tmp_path / "log")
    files = sorted(home.key.parent.iterdir())
    with home.writing(), pytest.raises(StoreLocked):
        turn(home)
    assert sorted(home.key.parent.iterdir()) == files


def test_the_new_key_can_be_one_that_is_there(before: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = before.copy(tmp_path / "log")
    old = home.vkey
    monkeypatch.setattr(signers, "KDF_ROUNDS", 1)
    monkeypatch.setenv("TRAIL_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    (tmp_path / "passphrase").write_text("a passphrase")
    chosen, data = new_signer(ORIGIN, b"a passphrase")
    (tmp_path / "chosen.key").write_bytes(data)
    done = turn(home, new=NewKey(source=tmp_path / "chosen.key"))
    assert (done.old, done.new) == (old, chosen.vkey)
    assert home.key.read_bytes() == data
    # And a key that is made now is encrypted because this one is.
    assert turn(home, new=NewKey()).old == chosen.vkey
    assert home.key.read_bytes().startswith(b"-----BEGIN OPENSSH")
    assert turn(home, new=NewKey(protected=False)).size
    assert [one.old.vkey for _at, one in rotations_in(home)][:2] == [old, chosen.vkey]
    for wrong, why in ((Signer.generate("example.com/other"), "is for example.com/other"), (None, "the present one")):
        (tmp_path / "wrong.key").write_text(wrong.encode() if wrong is not None else home.key.read_text())
        files = sorted(home.base.rglob("*"))
        with pytest.raises(MalformedError, match=why):
            turn(home, new=NewKey(source=tmp_path / "wrong.key"))
        assert sorted(home.base.rglob("*")) == files


# ---- interrupted


def finish(home: Home, oldest: str) -> None:
    """Whatever was interrupted: nobody signs alone with one of the keys once the record may be there, and the same call finishes."""
    if Intent.path(home.key).exists():
        with pytest.raises(StorageError, match="begun and is not finished") as caught:
            home.open()
        assert "trail key rotate" in caught.value.hint
    else:
        with home.writing():
            pass
    turn(home)
    require_turned(home, oldest)


WHERE = ["keys/", "checkpoints/keys.jsonl", "config/"]


def calls_of(before: Home, base: Path, where: str) -> int:
    disk = Disk(base / "log", at=-1, how="error before", where=where)
    before.copy(base / "log")
    turn_over(base / "log", disk)
    return disk.calls


@pytest.mark.parametrize("how", ["error before", "error after"])
@pytest.mark.parametrize("where", WHERE)
def test_an_error_at_every_call_that_keeps_a_key_is_got_over(before: Home, tmp_path: Path, where: str, how: str) -> None:
    calls = calls_of(before, tmp_path / "count", where)
    assert calls >= 3
    for at in range(calls):
        home = before.copy(tmp_path / str(at))
        disk = Disk(home.base, at=at, how=how, where=where)
        try:
            turn_over(home.base, disk)
        except LedgerError:
            finish(home, before.vkey)
        else:  # a cleanup that may fail
            require_turned(home, before.vkey)
        assert disk.broken


@pytest.mark.parametrize("how", ["kill before", "kill after", "power"])
@pytest.mark.parametrize(
    ("only", "where", "at"),
    [
        ("replace", "log.key.next", 0),
        ("replace", "log.key.rotating", 0),
        ("write", "journal/", 1),
        ("replace", "store/.checkpoint", 1),
        ("write", "checkpoints/keys.jsonl", 0),
        ("link", "retired", 0),
        ("replace", "keys/.log.key.", 2),
        ("unlink", "log.key.next", 1),
        ("replace", "config/", 0),
        ("unlink", "keys/log.key.rotating", 0),
    ],
)
def test_a_kill_between_the_steps_is_got_over(before: Home, tmp_path: Path, only: str, where: str, at: int, how: str) -> None:
    home = before.copy(tmp_path / "log")
    assert turn_and_die(home.base, Disk(home.base, at=at, how=how, only=only, where=where)) == -9
    finish(home, before.vkey)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "how"), [(0, "kill before"), (1, "kill half"), (2, "kill after"), (3, "power")])
def test_a_kill_at_any_call_is_got_over(before: Home, tmp_path: Path, first: int, how: str) -> None:
    """Every call in one of the ways."""
    calls = calls_of(before, tmp_path / "count", "")
    for at in range(first, calls, 4):
        home = before.copy(tmp_path / str(at))
        turn_and_die(home.base, Disk(home.base, at=at, how=how))
        finish(home, before.vkey)


def test_a_record_that_an_interrupted_rotation_has_left_is_found_again(before: Home, tmp_path: Path) -> None:
    home = before.copy(tmp_path / "log")
    disk = Disk(home.base, at=0, how="error before", where="checkpoints/keys.jsonl")
    with pytest.raises(StorageError):
        turn_over(home.base, disk)
    assert len(rotations_in(home)) == 1
    assert lines_of(home) == []
    assert turn(home).resumed
    assert len(rotations_in(home)) == 1
    require_turned(home, before.vkey)


def test_what_is_missing_for_finishing_is_named(before: Home, tmp_path: Path) -> None:
    home = before.copy(tmp_path / "log")
    with pytest.raises(StorageError):
        turn_over(home.base, Disk(home.base, at=0, how="error before", where="checkpoints/keys.jsonl"))
    following = home.key.with_name("log.key.next")
    kept = following.read_bytes()
    following.unlink()
    with pytest.raises(StorageError, match="the new key of a rotation that was begun is not at"):
        turn(home)
    following.write_text(Signer.generate(ORIGIN).encode())
    with pytest.raises(MalformedError, match=r"a rotation to .* was begun, and the key at"):
        turn(home)
    following.write_bytes(kept)
    old = home.key.read_bytes()
    home.key.write_text(Signer.generate(ORIGIN).encode())
    with pytest.raises(MalformedError, match=r"a rotation from .* was begun, and the key at"):
        turn(home)
    home.key.write_bytes(old)
    intent = Intent.path(home.key).read_bytes()
    for bad in (b"", b"{}", b"[]", intent.replace(b"trail-key-rotation/1", b"trail-key-rotation/2")):
        Intent.path(home.key).write_bytes(bad)
        with pytest.raises(MalformedError, match="does not say which rotation was begun"):
            turn(home)
    Intent.path(home.key).write_bytes(intent)
    turn(home)
    require_turned(home, before.vkey)


# ---- what a verifier comes to believe


def lines_with(home: Home, *signing: Signer) -> list[bytes]:
    """The store's lines, with cosignatures on their checkpoints."""
    return [dataclasses.replace(line, checkpoint=cosigned(line.checkpoint, signing)).encode() for line in lines_of(home)]


def refused(followed: Followed, keys: LogKeys, *words: str) -> None:
    assert followed.keys == keys
    assert not followed.used
    assert all(word in followed.refused[0] for word in words), followed.refused


def test_witnesses_lead_from_the_old_key_to_the_new(before: Home, turned: Home) -> None:
    (one, two), policy = witnesses("one", "two")
    (line,) = lines_of(turned)
    old, new = before.vkey, Rotation.parse(line.record).new.vkey
    keys = LogKeys.of(old)
    followed = follow(lines_with(turned, one, two), keys, policy)
    assert followed.keys.specs == (f"{old}@<={line.index + 1}", new)
    assert (len(followed.used), followed.refused) == (1, [])
    assert new in followed.used[0]
    report = turned.verify(verifier=None, trust=Trust(keys=followed.keys))
    assert report.verdict == "verified"
    # One of two is no quorum, and nobody's word is worth anything without a policy.
    refused(follow(lines_with(turned, one), keys, policy), keys, "no quorum", new, f"--key '{old}@<={line.index + 1}' --key {new}")
    refused(follow(lines_with(turned, one, two), keys, None), keys, "you name none", new, f"--key '{old}@<={line.index + 1}' --key {new}")
    nobody = Policy.parse(f"witness one {one.cosigner.vkey}\nquorum none\n")
    refused(follow(lines_with(turned, one, two), keys, nobody), keys, "you name none")
    (strange, stranger), _theirs = witnesses("one", "two")
    refused(follow(lines_with(turned, strange, stranger), keys, policy), keys, "no quorum")


def test_a_later_checkpoint_that_is_cosigned_will_do(before: Home, turned: Home) -> None:
    signing, policy = witnesses("one")
    keys = LogKeys.of(before.vkey)
    nodes = tile_nodes(turned.store, turned.read().size)

    def path_in(index: int, size: int) -> list[bytes]:
        return merkle.inclusion_path(index, size, nodes)

    lines, notes = read_lines(Layout(turned.store)), [cosigned(turned.checkpoint, signing)]
    assert len(follow(lines, keys, policy, notes=notes, path_in=path_in).used) == 1
    refused(follow(lines, keys, policy, notes=notes), keys, "no quorum")
    refused(follow(lines, keys, policy, notes=notes, path_in=lambda index, size: [b"\0" * 32]), keys, "no quorum")
    refused(follow(lines, keys, policy, notes=[cosigned(before.checkpoint, signing), b"", b"x\n\n"], path_in=path_in), keys, "no quorum")


def test_a_cosigned_checkpoint_without_the_record_will_not_do(before: Home, turned: Home) -> None:
    signing, policy = witnesses("one")
    keys = LogKeys.of(before.vkey)
    (line,) = lines_of(turned)
    older = dataclasses.replace(line, checkpoint=cosigned(before.checkpoint, signing))
    refused(follow([older.encode()], keys, policy), keys, "does not cover it")
    elsewhere = dataclasses.replace(line, index=line.index + 1, checkpoint=cosigned(line.checkpoint, signing))
    refused(follow([elsewhere.encode()], keys, policy), keys, "is not")
    no_path = dataclasses.replace(line, path=(), checkpoint=cosigned(line.checkpoint, signing))
    assert follow([no_path.encode()], keys, policy).keys == keys
    wrong = cosigned(line.checkpoint, signing)[:-8] + b"AAAAAA==\n"
    assert follow([dataclasses.replace(line, checkpoint=wrong).encode()], keys, policy).keys == keys


def test_a_thief_of_the_old_key_is_not_followed(before: Home, turned: Home, tmp_path: Path) -> None:
    """He has the store and the key, and rotates to his own; the witnesses have seen the true log."""
    signing, policy = witnesses("one")
    thief = before.copy(tmp_path / "thief")
    turn(thief)
    keys = LogKeys.of(before.vkey)
    nodes = tile_nodes(thief.store, thief.read().size)

    def path_in(index: int, size: int) -> list[bytes]:
        return merkle.inclusion_path(index, min(size, thief.read().size), nodes)

    (his,) = lines_of(thief)
    refused(follow([his.encode()], keys, policy), keys, "no quorum", Rotation.parse(his.record).new.vkey)
    true = cosigned(turned.checkpoint, signing)
    refused(follow([his.encode()], keys, policy, notes=[true], path_in=path_in), keys)
    grafted = dataclasses.replace(his, checkpoint=cosigned(lines_of(turned)[0].checkpoint, signing))
    refused(follow([grafted.encode()], keys, policy), keys)
    # Beside the true one his line changes nothing, in either order.
    for lines in ([his.encode(), *lines_with(turned, *signing)], [*lines_with(turned, *signing), his.encode()]):
        followed = follow(lines, keys, policy)
        assert followed.keys.specs[-1] == Rotation.parse(lines_of(turned)[0].record).new.vkey
        assert len(followed.used) == 1


def test_whoever_trusts_the_new_key_takes_its_word_for_the_old_one(before: Home, turned: Home) -> None:
    (line,) = lines_of(turned)
    new = Rotation.parse(line.record).new.vkey
    followed = follow(read_lines(Layout(turned.store)), LogKeys.of(new), None)
    assert followed.keys.specs == (f"{before.vkey}@<={line.index + 1}", new)
    cut = dataclasses.replace(line, checkpoint=before.checkpoint)
    assert follow([cut.encode()], LogKeys.of(new), None).keys.specs == (new,)
    assert follow([line.encode()], LogKeys.of(f"{new}@<=3"), None).keys.specs == (f"{new}@<=3",)


def test_keys_alone_verify_what_they_have_signed(before: Home, turned: Home) -> None:
    (line,) = lines_of(turned)
    new = Rotation.parse(line.record).new.vkey
    both = LogKeys.of(f"{before.vkey}@<={line.index + 1}", new)
    assert turned.verify(verifier=None, trust=Trust(keys=both)).verdict == "verified"
    assert turned.verify(verifier=None, trust=Trust(keys=LogKeys.of(before.vkey))).verdict != "verified"
    assert turned.verify(verifier=None, trust=Trust(keys=LogKeys.of(f"{before.vkey}@<={line.index + 1}"))).verdict != "verified"
    assert before.verify(verifier=None, trust=Trust(keys=LogKeys.of(new))).verdict != "verified"


def test_a_chain_of_rotations_is_followed_to_its_end(turned: Home, before: Home, tmp_path: Path) -> None:
    home = turned.copy(tmp_path / "log")
    turn(home)
    signing, policy = witnesses("one")
    vkeys = require_turned(home, before.vkey)
    ends = [line.index + 1 for line in lines_of(home)]
    wanted = (f"{vkeys[0]}@<={ends[0]}", f"{vkeys[1]}@<={ends[1]}", vkeys[2])
    assert follow(lines_with(home, *signing), LogKeys.of(vkeys[0]), policy).keys.specs == wanted
    assert follow(lines_with(home), LogKeys.of(vkeys[2]), None).keys.specs == wanted
    middle = follow(lines_with(home, *signing), LogKeys.of(vkeys[1]), policy)
    assert middle.keys.specs == wanted
    # One checkpoint at the end covers all of it, signed by a key that the verifier has never heard of.
    with home.writing():
        pass
    nodes = tile_nodes(home.store, home.read().size)
    followed = follow(
        lines_with(home), LogKeys.of(vkeys[0]), policy, notes=[cosigned(home.checkpoint, signing)],
        path_in=lambda index, size: merkle.inclusion_path(index, size, nodes),
    )  # fmt: skip
    assert followed.keys.specs == wanted
    # A key that is believed up to a size rotates nothing after it.
    ended = LogKeys.of(f"{vkeys[0]}@<={ends[0] - 1}")
    refused(follow(lines_with(home, *signing), ended, policy), ended, f"up to {ends[0] - 1} records only")


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_for_lines_are_refused_and_never_an_error(lines: list[bytes]) -> None:
    keys = LogKeys.of(Signer.generate(ORIGIN).vkey)
    followed = follow(lines, keys, witnesses("one")[1])
    assert followed.keys == keys
    assert len(followed.refused) == len(lines)


def test_a_line_with_any_member_changed_is_never_an_error(before: Home, turned: Home) -> None:
    signing, policy = witnesses("one")
    keys = LogKeys.of(before.vkey)
    (whole,) = lines_with(turned, *signing)
    value = json.loads(whole)
    for member in value:
        for other in (None, -1, 2**63, 1.5, True, "", "x", "é", [], ["AAAA"], [None], ["A" * 44] * 64, {}, value["record"]):
            changed = json.dumps(value | {member: other}).encode()
            assert other == value[member] or follow([changed], keys, policy).keys == keys
    assert follow([b"x" * 300_000, b"[" * 100_000, *[whole[:-9]] * 1000], keys, policy).keys == keys


def made(old: Signer, new: Signer, changes: dict[str, object] | None = None) -> bytes:
    """A record of a rotation when the log had 5 records, with some members changed."""
    text = statement_text(old=old.verifier, new=new.verifier, size=5)
    body = body_of(text, [old.sign(text), new.sign(text)]) | (changes or {})
    return canonical({"v": 1, "kind": "key", "received": "0", "sender": "trail", "nonce": "00" * 16, "facts": {}, "key": body})


def test_only_what_both_keys_have_signed_is_a_rotation() -> None:
    old, new, other = (Signer.generate(ORIGIN) for _ in range(3))
    assert Rotation.parse(made(old, new)).size == 5
    text = statement_text(old=old.verifier, new=new.verifier, size=5)
    elsewhere = text.replace(ORIGIN, "example.com/other", 1)
    for changes in (
        {"signatures": [old.sign(text).strip()]},
        {"signatures": [new.sign(text).strip()]},
        {"signatures": [old.sign(text).strip(), other.sign(text).strip()]},
        {"signatures": [old.sign(text).strip(), new.sign("x\n").strip()]},
        {"signatures": []},
        {"signatures": "x"},
        {"signatures": [None]},
        {"old": new.vkey},
        {"new": other.vkey},
        {"event": "compromised"},
        {"statement": text + "\n"},
        {"statement": text[:-1]},
        {"statement": text.replace("\n5\n", "\n05\n")},
        {"statement": elsewhere, "signatures": [old.sign(elsewhere).strip(), new.sign(elsewhere).strip()]},
        {"statement": None},
    ):
        with pytest.raises(LedgerError):
            Rotation.parse(made(old, new, changes))
    for one, two in ((old, old), (old, Signer.generate("example.com/other"))):
        with pytest.raises(LedgerError):
            made(one, two)


# ---- what `verify` looks at


def test_false_lines_and_records_are_found(before: Home, turned: Home) -> None:
    records = [(index, record) for index, record in enumerate(all_records(turned)) if b'"kind":"key"' in record]
    (index, record) = records[0]
    (line,) = lines_of(turned)
    nodes = tile_nodes(turned.store, size := turned.read().size)

    def judged(records: list[tuple[int, bytes]], *lines: RotationLine | bytes) -> list[str]:
        data = [one if isinstance(one, bytes) else one.encode() for one in lines]
        found = check_keys(records, data, origin=ORIGIN, size=size, root_at=lambda at: merkle.root_from(at, nodes))
        return [f"{failure.index} {failure.file} {failure.why}" for failure in found]

    assert judged(records, line) == judged(records) == judged([]) == []
    old, new, third = (Signer.generate(ORIGIN) for _ in range(3))
    foreign = made(old, new)
    assert "line 1: it is not record" in judged([], line)[0]
    assert "keys.jsonl line 1" in judged(records, dataclasses.replace(line, record=foreign))[0]
    assert "keys.jsonl line 2" in judged(records, line, b"{}")[0]
    assert judged(records, dataclasses.replace(line, path=line.path[1:]))
    assert judged(records, dataclasses.replace(line, checkpoint=before.checkpoint))
    assert "is no rotation" in judged([(index, foreign.replace(b"rotation/1", b"rotation/2"))])[0]
    assert "when the log had 5 records" in judged([(2, foreign)])[0]
    assert "of the log example.com/x" in judged([(9, made(Signer.generate("example.com/x"), Signer.generate("example.com/x")))])[0]
    assert "since record 6 the key is" in judged([(6, foreign), (7, made(old, third))])[0]
    assert judged([(6, foreign), (7, made(new, third))]) == []
    # Others of the kind are none of ours.
    assert judged([(3, made(old, new, {"event": "compromised"})), (4, record)])[0].startswith("4 ") or index <= 4


def test_no_more_lines_are_read_than_a_log_can_have(turned: Home, tmp_path: Path) -> None:
    home = turned.copy(tmp_path / "log")
    (line,) = read_lines(Layout(home.store))
    path = home.store / "checkpoints" / "keys.jsonl"
    path.write_bytes((line + b"\n") * (MAX_LINES + 50) + b"torn")
    assert len(read_lines(Layout(home.store))) == MAX_LINES
    path.write_bytes(line + b"\ntorn")
    assert read_lines(Layout(home.store)) == [line]
    path.unlink()
    assert read_lines(Layout(home.store)) == []
    with home.writing():  # the writer needs it only to open what the old key has signed
        pass
