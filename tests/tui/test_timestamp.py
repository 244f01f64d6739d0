"""`trail timestamp`, with real authorities on this machine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import tsa
from stores import ORIGIN, Home, request, send, set_settings, settle, small_store, wait_for
from trail_process import Ran, Server
from tsa import Authority, make_authority, needs_openssl

from ledger.anchors import timestamps
from ledger.checkpoint import open_checkpoint
from ledger.keys import LastSigned, config_dir, slug
from ledger.layout import Layout
from ledger.note import Verifier
from ledger.timestamps import load_roots, verify_token
from tui.exits import Exit

Call = Callable[..., Ran]
NOBODY = "http://127.0.0.1:9/tsr"

pytestmark = needs_openssl


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return small_store(tmp_path_factory.mktemp("made") / "home")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tsa") / "tsa", intermediate=True)


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return made.copy(tmp_path / "home")


@pytest.fixture
def stamp(trail: Call, home: Home) -> Call:
    """The command over the store, with its key."""
    return lambda *args: trail("timestamp", "--store", home.store, "--key", home.vkey, *args)


def stored(home: Home) -> list[tuple[str, bytes, bytes]]:
    return list(timestamps(Layout(home.store)))


def test_a_checkpoint_is_stamped_and_kept_in_the_store(stamp: Call, home: Home, authority: Authority) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        ran = stamp("--tsa", server.url, "--tsa-roots", authority.roots_file)
        assert ran.code == Exit.OK, ran.err
        ((name, note, token),) = stored(home)
        assert note == home.checkpoint
        assert verify_token(token, note, load_roots(authority.roots_file)).authority in ran.out
        assert name in ran.out
        assert "are stamped" in ran.err
        again = stamp("--tsa", server.url, "--tsa-roots", authority.roots_file, "--json")
        assert len(server.queries) == 1  # it has said so already
    assert stored(home) == [(name, note, token)]
    (row,) = again.json["timestamps"]
    assert (again.json["origin"], again.json["size"], again.code) == (ORIGIN, int(Path(name).name.split("-")[0]), Exit.OK)
    assert (row["url"], row["file"], row["verified"], row["error"]) == (server.url, name, True, None)
    assert row["time"] < row["no_later_than"]
    assert (row["serial"], row["policy"], row["authority"]) == ("2", tsa.POLICY, "O=Trail tests,CN=TSA")


def test_without_roots_it_says_that_nothing_is_verified(stamp: Call, home: Home, authority: Authority) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        ran = stamp("--tsa", server.url, "--json")
    assert ran.code == Exit.OK
    assert "NOT VERIFIED" in ran.err
    assert "--tsa-roots" in ran.err
    (row,) = ran.json["timestamps"]
    assert row["verified"] is False
    assert not {"authority", "serial"} & set(row)
    assert len(stored(home)) == 1


def test_roots_of_the_trust_file_are_the_default(stamp: Call, home: Home, authority: Authority) -> None:
    path = config_dir() / "trust" / f"{slug(ORIGIN)}.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f"keys = [{json.dumps(home.vkey)}]\ntsa_roots = [{json.dumps(str(authority.roots_file))}]\n")
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        ran = stamp("--tsa", server.url, "--json")
    assert [row["verified"] for row in ran.json["timestamps"]] == [True]
    assert "NOT VERIFIED" not in ran.err


def test_the_authorities_of_the_store_are_the_default(stamp: Call, home: Home, authority: Authority, tmp_path: Path) -> None:
    ran = stamp()
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "--tsa URL" in ran.err
    assert "timestamp_urls" in ran.err
    other = make_authority(tmp_path / "other", "Other")
    with tsa.serving(tsa.answering(authority.stamp)) as one, tsa.serving(tsa.answering(other.stamp)) as two:
        set_settings(home)
        settings = home.store / "trail.toml"
        settings.write_text(settings.read_text() + f"timestamp_urls = {json.dumps([one.url, two.url, NOBODY])}\n")
        ran = stamp("--json")
    assert ran.code == Exit.OK  # two have answered
    assert [row["url"] for row in ran.json["timestamps"]] == [one.url, two.url, NOBODY]
    assert [row["file"] is None for row in ran.json["timestamps"]] == [False, False, True]
    assert NOBODY in ran.err
    assert len(stored(home)) == 2


def test_a_file_elsewhere(stamp: Call, home: Home, authority: Authority, tmp_path: Path) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as one, tsa.serving(tsa.answering(authority.stamp)) as two:
        ran = stamp("--tsa", one.url, "--tsa", two.url, "--tsa-roots", authority.roots_file, "-o", tmp_path / "kept", "--json")
    assert ran.code == Exit.OK, ran.err
    assert stored(home) == []
    assert [Path(row["file"]).name for row in ran.json["timestamps"]] == ["kept", "kept-2"]
    for name in ("kept", "kept-2"):
        note = (tmp_path / f"{name}.checkpoint").read_bytes()
        assert note == home.checkpoint
        assert verify_token((tmp_path / f"{name}.tsr").read_bytes(), note, authority.roots)


def test_a_store_that_cannot_be_written_asks_nobody(stamp: Call, home: Home, authority: Authority) -> None:
    (home.store / "checkpoints" / "timestamps").write_bytes(b"a file where the directory goes")
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        ran = stamp("--tsa", server.url)
        assert (ran.code, ran.out, server.queries) == (Exit.STORAGE, "", [])
    assert "-o FILE" in ran.err


def test_a_token_that_is_false_is_not_kept(stamp: Call, home: Home, authority: Authority, tmp_path: Path) -> None:
    twin = make_authority(tmp_path / "twin")
    with tsa.serving(tsa.answering(twin.stamp)) as false, tsa.serving(tsa.answering(authority.stamp)) as true:
        ran = stamp("--tsa", false.url, "--tsa-roots", authority.roots_file)
        assert (ran.code, ran.out) == (Exit.FALSE, "")
        assert "FALSE" in ran.err
        assert stored(home) == []
        ran = stamp("--tsa", false.url, "--tsa", true.url, "--tsa-roots", authority.roots_file, "--json")
    assert ran.code == Exit.FALSE
    assert [row["verified"] for row in ran.json["timestamps"]] == [False, True]
    assert len(stored(home)) == 1


def test_a_token_in_the_store_that_has_become_another_is_false(stamp: Call, home: Home, authority: Authority) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        assert stamp("--tsa", server.url, "--tsa-roots", authority.roots_file).code == Exit.OK
        path = home.store / f"{stored(home)[0][0]}.tsr"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        ran = stamp("--tsa", server.url, "--tsa-roots", authority.roots_file)
    assert (ran.code, ran.out) == (Exit.FALSE, "")


def test_a_token_that_was_spoiled_on_the_way_is_not_kept_without_roots_either(stamp: Call, home: Home, authority: Authority) -> None:
    def spoiled(query: bytes) -> bytes:
        token = authority.stamp(query)
        return token[:-1] + bytes([token[-1] ^ 1])

    with tsa.serving(tsa.answering(spoiled)) as server:
        ran = stamp("--tsa", server.url)
        assert (ran.code, ran.out) == (Exit.FALSE, "")
        assert stored(home) == []
        server.answer = tsa.answering(authority.stamp)
        assert stamp("--tsa", server.url).code == Exit.OK
        path = home.store / f"{stored(home)[0][0]}.tsr"
        path.write_bytes(spoiled_copy := path.read_bytes()[:-1] + b"\0")
        again = stamp("--tsa", server.url)
    assert (again.code, again.out, path.read_bytes()) == (Exit.FALSE, "", spoiled_copy)


@pytest.mark.parametrize(("status", "later"), [(405, False), (503, True)])
def test_later_is_only_said_where_later_may_help(stamp: Call, status: int, later: bool) -> None:
    with tsa.serving(tsa.answering(lambda _: b"no", status=status)) as server:
        ran = stamp("--tsa", server.url)
    assert ran.code == Exit.STORAGE
    assert f"answered {status}" in ran.err
    assert ("again later" in ran.err) is later


def test_a_directory_that_is_not_there_is_named_and_nobody_asked(stamp: Call, authority: Authority, tmp_path: Path) -> None:
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        ran = stamp("--tsa", server.url, "-o", tmp_path / "nowhere" / "kept")
        assert (ran.code, ran.out, server.queries) == (Exit.STORAGE, "", [])
    assert "there is no directory" in ran.err
    assert "nowhere" in ran.err
    assert "mount" not in ran.err


@pytest.mark.parametrize("status", [200, 500])
def test_no_authority_answers(stamp: Call, home: Home, status: int) -> None:
    with tsa.serving(tsa.answering(lambda _: b"\x1b[2Jjunk", status=status)) as server:
        ran = stamp("--tsa", server.url, "--tsa", NOBODY)
    assert (ran.code, ran.out) == (Exit.STORAGE, "")
    assert server.url in ran.err
    assert NOBODY in ran.err
    assert "\x1b" not in ran.err
    assert stored(home) == []


@pytest.mark.parametrize("url", ["ftp://example.com/", "http://user:secret@example.com/", "x"])
def test_what_is_no_address_is_a_usage_error(stamp: Call, url: str) -> None:
    ran = stamp("--tsa", url)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "secret" not in ran.err


def test_roots_that_are_none(stamp: Call, tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_bytes(b"junk")
    assert stamp("--tsa", NOBODY, "--tsa-roots", tmp_path / "roots.pem").code == Exit.UNVERIFIABLE
    assert stamp("--tsa", NOBODY, "--tsa-roots", tmp_path / "none.pem").code == Exit.STORAGE


def test_a_store_that_nobody_has_pinned_is_not_stamped(trail: Call, home: Home) -> None:
    ran = trail("timestamp", "--store", home.store, "--tsa", NOBODY)
    assert (ran.code, ran.out) == (Exit.UNVERIFIABLE, "")
    assert "UNVERIFIABLE" in ran.err


def test_a_store_that_was_rolled_back_is_not_stamped(stamp: Call, home: Home, made: Home, authority: Authority, tmp_path: Path) -> None:
    ahead = made.copy(tmp_path / "ahead")
    with ahead.writing() as writer:
        send(writer, request(99))
        settle(writer)
    LastSigned.default(ORIGIN).write(ahead.checkpoint)
    with tsa.serving(tsa.answering(authority.stamp)) as server:
        ran = stamp("--tsa", server.url)
        assert (ran.code, ran.out, server.queries) == (Exit.FALSE, "", [])
        shutil.rmtree(home.store)
        shutil.copytree(ahead.store, home.store)
        assert stamp("--tsa", server.url).code == Exit.OK


def test_beside_a_writer(stamp: Call, home: Home, authority: Authority) -> None:
    with home.writing() as writer, tsa.serving(tsa.answering(authority.stamp)) as server:
        settle(writer)
        assert stamp("--tsa", server.url, "--tsa-roots", authority.roots_file).code == Exit.OK
    assert len(stored(home)) == 1


def test_a_server_stamps_by_itself_and_stops_at_once_beside_an_authority_that_hangs(
    trail: Call, serving: Callable[..., Server], authority: Authority, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    made = trail("--store", store, "init", "--origin", "example.com/stamped", "--json").json
    stop_hanging = threading.Event()
    with tsa.serving(tsa.answering(authority.stamp)) as true, tsa.serving(lambda _handler, _query: stop_hanging.wait(30)) as hanging:
        settings = store / "trail.toml"
        settings.write_text(settings.read_text() + f"timestamp_urls = {json.dumps([hanging.url, true.url])}\ntimestamp_seconds = 0.1\n")
        server = serving(store)
        wait_for(lambda: len(list(timestamps(Layout(store)))) > 0 and hanging.queries)
        assert server.stop() == 0, server.said
        stop_hanging.set()
    for _name, note, token in timestamps(Layout(store)):
        assert verify_token(token, note, authority.roots)
        assert open_checkpoint(note, Verifier.parse(made["vkey"]), "example.com/stamped").size > 0
    (tmp_path / "trust.toml").write_text(f"keys = [{json.dumps(made['vkey'])}]\ntsa_roots = [{json.dumps(str(authority.roots_file))}]\n")
    report = trail("verify", "--store", store, "--trust", tmp_path / "trust.toml", "--json")
    assert report.code == Exit.OK, report.out
    assert {row["authority"] for row in report.json["anchoring"]["timestamps"]} == {"O=Trail tests,CN=TSA"}


def test_a_server_with_an_address_that_is_none_does_not_start(trail: Call, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert trail("--store", store, "init").code == Exit.OK
    settings = store / "trail.toml"
    settings.write_text(settings.read_text() + 'timestamp_urls = ["ftp://example.com/"]\n')
    ran = trail("--store", store, "serve", "--http", "127.0.0.1:0")
    assert ran.code == Exit.UNVERIFIABLE
    assert "timestamp_urls" in ran.err
