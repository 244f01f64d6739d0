"""The server's side of witnessing, with real stores and real witnesses on sockets: quorum, retry, and the clean stop."""

from __future__ import annotations

import datetime
import json
import threading
from pathlib import Path

import pytest
from anchored_stores import (
    FAST,
    NOTHING,
    anchored,
    begin,
    by_path,
    cosigners,
    has_cosigned,
    home_with_records,
    keys_of,
    lines_by,
    state_of,
)
from stores import ORIGIN, Home, new_home, request, send, set_settings, settle, wait_for
from witness_servers import HostileWitness, RealWitness, Reply, policy_of, served

from ledger.anchoring import Anchorer
from ledger.anchors import cosigned_notes, newest_cosigned
from ledger.checkpoint import open_checkpoint
from ledger.errors import MalformedError
from ledger.layout import Layout
from ledger.note import Signer
from ledger.witness_state import read_states


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return new_home(tmp_path / "home", **FAST)


def test_a_checkpoint_is_cosigned_by_all_and_the_last_one_too(home: Home, tmp_path: Path) -> None:
    one, two = (RealWitness(tmp_path / name, f"example.org/{name}", home.vkey) for name in ("one", "two"))
    policy = policy_of(one.line, two.line, quorum="all")
    with served(one, two):
        with anchored(home, policy) as (writer, anchorer):
            for seed in range(8):
                send(writer, request(seed))
                settle(writer)
                wait_for(lambda: has_cosigned(home, writer.log.signed_size))
            assert cosigners(policy, newest_cosigned(writer.layout)) == {"one", "two"}
            wait_for(lambda: all(state.cosigned and not state.error for state in anchorer.states()))
            assert all(state.size > 8 for state in anchorer.states())
        last = newest_cosigned(Layout(home.store))
        assert last is not None
        # The stop is a record, and the checkpoint over it is cosigned before the process ends.
        assert last.startswith(home.checkpoint)
        assert cosigners(policy, last) == {"one", "two"}
        assert one.latest(ORIGIN) is not None
    notes = [note for _name, note in cosigned_notes(Layout(home.store))]
    assert notes[0] == notes[-1] == last
    assert len(notes) == 3  # one a minute, and the last
    assert read_states(home.base / "witnesses.json") == anchorer.states()
    assert home.verify().verdict == "verified"


def test_a_quorum_does_not_wait_for_a_witness_that_is_not_there(home: Home, tmp_path: Path) -> None:
    one, two = (RealWitness(tmp_path / name, f"example.org/{name}", home.vkey) for name in ("one", "two"))
    two.stop()
    policy = policy_of(one.line, two.line, quorum="1")
    with served(one, two), anchored(home, policy) as (writer, anchorer):
        for seed in range(3):
            send(writer, request(seed))
            settle(writer)
            wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        assert cosigners(policy, newest_cosigned(writer.layout)) == {"one"}
        failed = state_of(anchorer, "two")
        assert "cannot be reached" in failed.error
        assert failed.tries >= 1
        assert failed.cosigned is None
        assert json.loads((home.base / "witnesses.json").read_bytes())["witnesses"][1]["error"] == failed.error
        two.start()
        # Nothing new comes: it is asked again all the same.
        wait_for(lambda: not state_of(anchorer, "two").error)
        wait_for(lambda: cosigners(policy, newest_cosigned(writer.layout)) == {"one", "two"})
        assert state_of(anchorer, "two").tries == 0


def test_a_witness_may_crash_and_come_back_while_we_write(home: Home, tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    policy = policy_of(witness.line)
    with served(witness), anchored(home, policy) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        witness.stop()
        send(writer, request(2))
        settle(writer)
        wait_for(lambda: bool(state_of(anchorer, "w").error))
        assert writer.log.fault is None
        witness.start()
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        assert state_of(anchorer, "w").error == ""


def test_a_witness_that_knows_us_already_tells_its_size(home: Home, tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    policy = policy_of(witness.line)
    with served(witness):
        for seed in range(3):
            with anchored(home, policy) as (writer, anchorer):
                send(writer, request(seed, count=300))
                settle(writer)
                wait_for(lambda: has_cosigned(home, writer.log.signed_size))
            assert [state.error for state in anchorer.states()] == [""]
            latest = witness.latest(ORIGIN)
            assert latest is not None
            assert open_checkpoint(latest, home.verifier).size > 300 * (seed + 1)


def test_nothing_without_a_quorum_is_called_cosigned(home: Home, tmp_path: Path) -> None:
    one = RealWitness(tmp_path / "one", "example.org/one", home.vkey)
    stranger = RealWitness(tmp_path / "two", "example.org/two")
    policy = policy_of(one.line, stranger.line, quorum="all")
    with served(one, stranger):
        with anchored(home, policy) as (writer, anchorer):
            send(writer, request(1))
            settle(writer)
            wait_for(lambda: bool(state_of(anchorer, "one").cosigned and state_of(anchorer, "two").error))
            assert "404" in state_of(anchorer, "two").error
            assert newest_cosigned(writer.layout) is None
            stranger.files.add_log(home.vkey)
            wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        assert cosigners(policy, newest_cosigned(Layout(home.store))) == {"one", "two"}


def test_a_stop_does_not_wait_for_the_next_turn(home: Home, tmp_path: Path) -> None:
    set_settings(home, **{**FAST, "witness_seconds": 3600.0})
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness), anchored(home, policy_of(witness.line)) as (writer, _anchorer):
        wait_for(lambda: has_cosigned(home, 1))
        send(writer, request(1, count=9))
        settle(writer)
        assert not has_cosigned(home, 9)
    last = newest_cosigned(Layout(home.store))
    assert last is not None
    assert last.startswith(home.checkpoint)


def test_it_does_not_wait_for_a_hanging_witness_at_a_stop(home: Home, tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_method: str, _path: str, _body: bytes) -> Reply:
        release.wait(60)
        return 503, "text/plain", b"late"

    one, hanging = RealWitness(tmp_path / "one", "example.org/one", home.vkey), HostileWitness(hang)
    line = f"witness hanging {Signer.generate('example.org/h').cosigner.vkey} {hanging.url}\n"
    policy = policy_of(one.line, line)
    with served(one, hanging):
        writer = home.open()
        anchorer = begin(home, writer, policy, timeout=60.0)
        writer.on_stopped[:] = [lambda: anchorer.finish(seconds=5.0)]
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, 1))
        writer.close()
        release.set()
    last = newest_cosigned(Layout(home.store))
    assert last is not None
    assert last.startswith(home.checkpoint)
    before = [*cosigned_notes(Layout(home.store))]
    wait_for(lambda: bool(state_of(anchorer, "hanging").error))
    assert [*cosigned_notes(Layout(home.store))] == before


def test_a_policy_with_a_url_that_is_none_is_refused(home: Home) -> None:
    policy = policy_of(f"witness w {Signer.generate('example.org/n').cosigner.vkey} ftp://example.org\n")
    with home.writing() as writer, pytest.raises(MalformedError, match="not the URL of a witness"):
        Anchorer(writer.log, policy, keys_of(home))


def test_disks_that_fail_are_said_and_stop_nothing(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    (home.store / "checkpoints" / "cosigned").mkdir()  # cannot be replaced by a file
    with served(witness), anchored(home, policy_of(witness.line)) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: "is not kept" in caplog.text)
        assert writer.log.fault is None
        assert state_of(anchorer, "w").error == ""
    assert home.checkpoint


def test_a_history_and_a_state_that_cannot_be_written_stop_nothing(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    (home.base / "witnesses.json").mkdir()
    with served(witness), home.writing() as writer:
        for days in (0, 1):  # the test may run into midnight
            day = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days)
            (home.store / "checkpoints" / f"{day.date().isoformat()}.cosigned.jsonl").mkdir()
        begin(home, writer, policy_of(witness.line))
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        wait_for(lambda: "history of cosigned checkpoints lacks" in caplog.text)
        assert "states of the witnesses cannot be written" in caplog.text
        assert writer.log.fault is None


def test_while_the_checkpoint_is_damaged_there_is_nothing_to_submit(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness), home.writing() as writer:
        send(writer, request(1))
        settle(writer)
        (home.store / "checkpoint").write_bytes(b"damaged")
        begin(home, writer, policy_of(witness.line))
        wait_for(lambda: "no checkpoint to submit" in caplog.text)
        assert witness.latest(ORIGIN) is None
        send(writer, request(2))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))


def test_a_late_cosignature_of_an_older_checkpoint_replaces_nothing(home: Home, tmp_path: Path) -> None:
    signer, release, asked = Signer.generate("example.org/slow"), threading.Event(), threading.Semaphore(0)
    said: list[int] = []

    def reply(body: bytes) -> Reply:
        said.append(len(body))
        if len(said) == 1:  # from now on it is one that failed, and is not waited for
            return 503, "text/plain", b"busy"
        asked.release()
        release.wait(60)
        return lines_by(signer)(body)

    good = RealWitness(tmp_path / "good", "example.org/good", home.vkey)
    slow = HostileWitness(by_path(reply, NOTHING))
    policy = policy_of(good.line, f"witness slow {signer.cosigner.vkey} {slow.url}\n")
    with served(good, slow), anchored(home, policy, timeout=60.0) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        asked.acquire(timeout=60)
        for seed in (2, 3):
            send(writer, request(seed))
            settle(writer)
            wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        newest = newest_cosigned(writer.layout)
        release.set()
        wait_for(lambda: bool(state_of(anchorer, "slow").cosigned))
        assert newest is not None
        kept = newest_cosigned(writer.layout)
        assert kept is not None
        assert kept.startswith(newest)


def test_a_clock_that_fails_is_said(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0])
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness), home.writing() as writer:
        anchorer = Anchorer(
            writer.log, policy_of(witness.line), keys_of(home), states=home.base / "w.json", clock=lambda: 5 // next(times, 1)
        )
        writer.on_stopped.append(anchorer.finish)
        anchorer.start()
        wait_for(lambda: "not submitted to witnesses any more" in caplog.text)
    # The last attempt is made all the same.
    assert has_cosigned(home, open_checkpoint(home.checkpoint, home.verifier).size)


def test_a_bug_is_said_and_ends_only_that_try(home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home_with_records(home)
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness), anchored(home, policy_of(witness.line)) as (writer, anchorer):
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        submitter = anchorer._submitters[0]
        client, submitter._client = submitter._client, None  # type: ignore[assignment]
        send(writer, request(5))
        wait_for(lambda: "internal error" in submitter.state.error)
        submitter._client = client
        wait_for(lambda: has_cosigned(home, writer.log.signed_size) and not submitter.state.error)
    assert "this is a bug" in caplog.text


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"witnesses": [{"name": "a"}]}', b'{"witnesses": [{"name": 1, "url": ""}]}', b"\xff"])
def test_a_damaged_state_file_says_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "states").write_bytes(data)
    assert read_states(tmp_path / "states") == []
    assert read_states(tmp_path / "none") == []


def test_the_round_trip_is_kept_short_by_one_connection(home: Home, tmp_path: Path) -> None:
    witness = RealWitness(tmp_path / "w", "example.org/w", home.vkey)
    with served(witness), anchored(home, policy_of(witness.line)) as (writer, anchorer):
        send(writer, request(1))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        connection = anchorer._submitters[0]._client._http._connection
        send(writer, request(2))
        settle(writer)
        wait_for(lambda: has_cosigned(home, writer.log.signed_size))
        assert connection is not None
        assert anchorer._submitters[0]._client._http._connection is connection
