"""The thread that has checkpoints stamped: what it stamps, when again, and that nothing waits for it."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tsa
from stores import Home, new_home, request, send, settle, small_store, wait_for
from tsa import Authority, make_authority, needs_openssl

from ledger import anchors
from ledger.checkpoint import Checkpoint
from ledger.errors import MalformedError
from ledger.layout import Layout
from ledger.note import Signer, parse_note
from ledger.timestamping import Stamper, StampState, newest
from ledger.timestamps import verify_token

pytestmark = needs_openssl
NOBODY = "http://127.0.0.1:9/tsr"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tsa") / "tsa")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("made") / "home")


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return made.copy(tmp_path / "home")


@pytest.fixture
def server(authority: Authority) -> Iterator[tsa.Running]:
    with tsa.serving(tsa.answering(authority.stamp)) as running:
        yield running


def size_of(note: bytes) -> int:
    return Checkpoint.parse(parse_note(note)[0]).size


def kept(home: Home) -> list[int]:
    return sorted(size_of(note) for _name, note, _token in anchors.timestamps(Layout(home.store)))


def grow(home: Home, seed: int) -> int:
    """Another request; the size of the checkpoint after it."""
    with home.writing() as writer:
        send(writer, request(seed))
        settle(writer)
    return size_of(home.checkpoint)


def cosign(home: Home) -> bytes:
    """The newest checkpoint, cosigned."""
    text = parse_note(home.checkpoint)[0]
    note = home.checkpoint + Signer.generate("witness.example").cosign(text, 1_800_000_000).encode()
    anchors.write_cosigned(Layout(home.store), note)
    return note


def test_every_new_tree_is_stamped_once(home: Home, server: tsa.Running, authority: Authority) -> None:
    stamper = Stamper(Layout(home.store), [server.url], seconds=0.02)
    assert stamper.states() == [StampState(url=server.url)]
    sizes = [size_of(home.checkpoint)]
    stamper.start()
    try:
        wait_for(lambda: kept(home) == sizes)
        time.sleep(0.3)  # many times over it could ask again
        assert len(server.queries) == 1
        sizes.append(grow(home, 99))
        wait_for(lambda: stamper.states()[0].size == sizes[-1])
    finally:
        stamper.stop()
    assert sizes[-1] in kept(home)
    assert len(server.queries) == len(kept(home))
    for _name, note, token in anchors.timestamps(Layout(home.store)):
        stamp = verify_token(token, note, authority.roots)
        assert stamp.time <= datetime.now(UTC)
    state = stamper.states()[0]
    assert (state.error, state.tries, state.time) == ("", 0, stamp.time)


def test_the_cosigned_checkpoint_is_stamped_if_it_is_news(home: Home) -> None:
    layout = Layout(home.store)
    assert newest(layout) == home.checkpoint
    cosigned = cosign(home)
    assert newest(layout) == cosigned
    later = grow(home, 99)
    assert newest(layout) == cosigned
    assert newest(layout, beyond=size_of(cosigned)) == home.checkpoint
    assert newest(layout, beyond=later) is None


def test_damage_to_the_cosigned_one_does_not_end_the_stamps(home: Home) -> None:
    layout = Layout(home.store)
    layout.cosigned.write_bytes(b"junk")
    assert newest(layout) == home.checkpoint
    layout.checkpoint.write_bytes(b"junk")
    with pytest.raises(MalformedError):
        newest(layout)


def test_a_log_that_is_empty_is_waited_for(tmp_path: Path, server: tsa.Running) -> None:
    home = new_home(tmp_path / "home")
    assert newest(Layout(home.store)) is None
    stamper = Stamper(Layout(home.store), [server.url], seconds=0.02)
    stamper.start()
    try:
        time.sleep(0.1)
        assert server.queries == []
        grow(home, 1)
        wait_for(lambda: stamper.states()[0].size > 0)
    finally:
        stamper.stop()
    assert kept(home)


def test_a_failing_authority_is_asked_again_and_the_others_do_not_wait(home: Home, server: tsa.Running, authority: Authority) -> None:
    stop_hanging = threading.Event()

    def hang(_handler: http.server.BaseHTTPRequestHandler, _query: bytes) -> None:
        stop_hanging.wait(30)

    failing = tsa.answering(lambda _: b"busy", status=503)
    with tsa.serving(failing) as flaky, tsa.serving(hang) as hanging:
        urls = [hanging.url, flaky.url, NOBODY, server.url]
        stamper = Stamper(Layout(home.store), urls, seconds=0.05)
        stamper.start()
        try:
            wait_for(lambda: stamper.states()[3].size > 0 and stamper.states()[1].tries > 2 and stamper.states()[2].tries > 2)
            states = stamper.states()
            assert [state.url for state in states] == urls
            assert "503" in states[1].error
            assert "cannot be reached" in states[2].error
            assert (states[0].size, states[1].size) == (0, 0)
            flaky.answer = tsa.answering(authority.stamp)
            wait_for(lambda: stamper.states()[1] == StampState(url=flaky.url, size=states[3].size, time=stamper.states()[1].time))
        finally:
            stamper.stop(seconds=0.1)  # nobody waits for the one that hangs
            stop_hanging.set()
    assert len(kept(home)) == 2


def test_a_false_answer_is_not_kept(home: Home, server: tsa.Running, authority: Authority) -> None:
    old: list[bytes] = []

    def the_same_again(query: bytes) -> bytes:
        old.append(authority.stamp(query))
        return old[0]

    server.answer = tsa.answering(the_same_again)
    layout = Layout(home.store)
    Stamper(layout, [server.url], seconds=60)._step(server.url)
    assert len(kept(home)) == 1
    grow(home, 99)
    stamper = Stamper(layout, [server.url], seconds=60)
    assert stamper._resume(server.url) > 0
    assert 0 < stamper._step(server.url) <= 5
    assert "nonce" in stamper.states()[0].error
    assert len(kept(home)) == 1


@pytest.mark.parametrize("roots", [True, False])
def test_a_token_that_was_spoiled_on_the_way_is_not_kept(home: Home, server: tsa.Running, authority: Authority, roots: bool) -> None:
    """A file of the store is written once: what is false now would be false for ever, to everybody who names the root."""

    def spoiled(query: bytes) -> bytes:
        token = authority.stamp(query)
        return token[:-1] + bytes([token[-1] ^ 1])

    server.answer = tsa.answering(spoiled)
    stamper = Stamper(Layout(home.store), [server.url], seconds=60, roots=authority.roots if roots else ())
    assert 0 < stamper._step(server.url) <= 5
    assert "signature is wrong" in stamper.states()[0].error
    assert kept(home) == []
    server.answer = tsa.answering(authority.stamp)
    assert stamper._step(server.url) == 60
    assert len(kept(home)) == 1


def test_a_token_of_an_authority_that_no_root_vouches_for_is_not_kept_where_roots_are_named(
    home: Home, server: tsa.Running, tmp_path: Path
) -> None:
    stamper = Stamper(Layout(home.store), [server.url], seconds=60, roots=make_authority(tmp_path / "other").roots)
    assert 0 < stamper._step(server.url) <= 5
    assert "vouches for" in stamper.states()[0].error
    assert kept(home) == []


def test_waits_double_up_to_the_interval(home: Home) -> None:
    stamper = Stamper(Layout(home.store), [NOBODY], seconds=60, jitter=lambda: 1.0)
    assert [stamper._step(NOBODY) for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    assert stamper.states()[0].tries == 6
    assert Stamper(Layout(home.store), [NOBODY], seconds=60, jitter=lambda: 0.0)._step(NOBODY) == 2.5


def test_a_restart_takes_up_where_it_ended(home: Home, server: tsa.Running) -> None:
    layout = Layout(home.store)
    first = Stamper(layout, [server.url], seconds=60)
    assert first._resume(server.url) == 0
    assert first._step(server.url) == 60
    (layout.timestamps / "1-00000000.checkpoint").write_bytes(b"junk")
    (layout.timestamps / "1-00000000.tsr").write_bytes(b"junk")
    (state,) = first.states()
    assert state.time is not None
    moment = state.time.timestamp()
    for now, wait in ((moment, 60), (moment + 45, 15), (moment + 100, 0), (moment - 100, 60)):
        again = Stamper(layout, [server.url, NOBODY], seconds=60, clock=lambda now=now: now)
        assert again._resume(server.url) == wait
        assert again._resume(NOBODY) == 0  # what another authority has stamped is not this one's
        assert again.states() == [state, StampState(url=NOBODY)]
    assert again._step(server.url) == 5  # nothing new
    assert len(server.queries) == 1


def test_stamps_that_cannot_be_listed_are_tried_again(home: Home, server: tsa.Running) -> None:
    layout = Layout(home.store)
    Stamper(layout, [server.url], seconds=60)._step(server.url)
    (pair,) = layout.timestamps.glob("*.tsr")
    pair.with_suffix(".checkpoint").unlink()
    pair.with_suffix(".checkpoint").mkdir()
    stamper = Stamper(layout, [server.url], seconds=60)
    assert 0 < stamper._resume(server.url) <= 5
    assert stamper.states()[0].error


def test_what_was_stamped_by_hand_is_not_stamped_again(home: Home, server: tsa.Running) -> None:
    stamper, other = (Stamper(Layout(home.store), [server.url], seconds=60) for _ in range(2))
    stamper._step(server.url)
    other._step(server.url)
    assert (len(server.queries), other.states()) == (1, stamper.states())


def test_an_address_that_is_none_is_refused_at_once(home: Home) -> None:
    with pytest.raises(MalformedError):
        Stamper(Layout(home.store), ["ftp://example.com/"], seconds=60)


def test_one_that_was_never_started_can_be_stopped(home: Home) -> None:
    Stamper(Layout(home.store), [NOBODY], seconds=60).stop()


def test_a_bug_ends_the_thread_loudly_and_nothing_else(home: Home, server: tsa.Running, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> float:
        raise RuntimeError("a clock that does not go")

    Stamper(Layout(home.store), [server.url], seconds=60)._step(server.url)
    stamper = Stamper(Layout(home.store), [server.url], seconds=60, clock=broken)
    stamper.start()
    wait_for(lambda: "this is a bug" in caplog.text)
    stamper.stop()
