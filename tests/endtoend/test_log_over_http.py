"""`/log` of a running server, audited over plain HTTP by a client that is none of ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from http_log import ask, fetch, head, name, parts, verified_leaves, verified_records
from load import Load
from log_server import eventually, fill, new_store, new_tokens, sealed
from raw_otlp import post, span, traces
from trail_process import Ran, Server, run_trail
from witness_servers import RealWitness, policy_of, policy_text, served

Serve = Callable[..., Server]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    new_store(tmp_path / "store", origin="example.com/over-http", segment_records=700, checkpoint_seconds=0.05)
    return tmp_path / "store"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, home_of: Callable[[Path], dict[str, str]]) -> Iterator[str]:
    """A server with a few records, for what does not change it."""
    place = tmp_path_factory.mktemp("one")
    new_store(place / "store", origin="example.com/one", env=home_of(place))
    server = Server(place / "store", env=home_of(place))
    try:
        fill(server.url, 3)
        yield server.url
    finally:
        server.kill()


def custody(store: Path) -> list[dict[str, object]]:
    query = "SELECT decode(record) AS record FROM records WHERE kind = 'custody' ORDER BY index"
    ran: Ran = run_trail("sql", query, "--json", "--tail", "--store", store)
    assert ran.code == 0, ran.err
    return [json.loads(row["record"])["custody"] for row in ran.json]


def test_a_stranger_verifies_the_whole_log(store: Path, serving: Serve) -> None:
    token = new_tokens(store, "emitter", "auditor")
    server = serving(store)
    size = fill(server.url, 20, token=token["emitter"])
    # Sealed files and the journal behind them: both are read, and a bundle may begin in one and end in the other.
    eventually(lambda: sealed(store) >= 2)
    note = fetch(server.url, "checkpoint")
    records = verified_records(server.url, note, token["auditor"])
    assert len(records) == head(note)[1] >= size > 2 * 256
    kinds = [json.loads(record)["kind"] for record in records]
    assert kinds[0] == "lifecycle"
    assert kinds.count("span") == 2000

    # The looking is itself in the log: once at the first look, and once at the end for the rest of that minute.
    assert server.stop() == 0
    looked = custody(store)
    assert [(one["who"], one["what"], one["from"], one["to"], one["records"]) for one in looked] == [
        ("my-auditor", "entries", 0, 256, 256),
        ("my-auditor", "entries", 256, len(records), len(records) - 256),
    ]
    assert run_trail("verify", "--store", store).code == 0


def test_every_checkpoint_has_its_tiles_at_once_and_for_ever(store: Path, serving: Serve) -> None:
    token = new_tokens(store, "emitter", "auditor")
    server = serving(store)
    load = Load(2, token=token["emitter"])
    seen: dict[int, bytes] = {}
    load.start(server.url)
    try:
        while max(seen, default=0) < 1500:
            note = fetch(server.url, "checkpoint")
            if (size := head(note)[1]) not in seen:
                verified_leaves(server.url, note)
                seen[size] = note
                n, width = parts(size)[-1]
                assert ask(server.url, f"tile/entries/{name(n, width)}", token=token["auditor"])[0] == 200
    finally:
        load.stop()
    newest = verified_leaves(server.url, fetch(server.url, "checkpoint"))
    for note in seen.values():
        leaves = verified_leaves(server.url, note)
        assert newest[: len(leaves)] == leaves
    # Of the sizes seen, those whose last tile is full now were answered from the full one.
    assert any(size % 256 and not (store / f"tile/0/{name(size // 256, 256)}.p").exists() for size in seen)
    assert verified_records(server.url, fetch(server.url, "checkpoint"), token["auditor"])


def test_whole_records_are_for_auditors_and_hashes_for_everybody(store: Path, serving: Serve) -> None:
    token = new_tokens(store, "emitter", "reader", "auditor", "admin")
    server = serving(store)
    fill(server.url, 3, token=token["emitter"])
    note = fetch(server.url, "checkpoint")
    assert verified_leaves(server.url, note)

    for status, shown in ((401, None), (401, "trail_" + "x" * 43), (403, token["emitter"]), (403, token["reader"])):
        got, headers, body = ask(server.url, "tile/entries/000", token=shown)
        assert (got, headers["WWW-Authenticate"]) == (status, "Bearer" if status == 401 else None)
        assert b"span" not in body
    assert len(verified_records(server.url, note, token["auditor"])) == head(note)[1]
    assert ask(server.url, "tile/entries/000", token=token["admin"])[0] == 200

    assert server.stop() == 0
    assert {one["who"] for one in custody(store)} == {"my-auditor", "my-admin"}
    query = "SELECT name, sender FROM records WHERE kind = 'refusal' AND sender <> 'trail'"
    refused = {(row["name"], row["sender"]) for row in run_trail("sql", query, "--json", "--store", store).json}
    assert refused == {("401", "unauthenticated"), ("403", "my-emitter"), ("403", "my-reader")}


def test_without_tokens_nobody_gets_whole_records_and_no_stranger_anything(store: Path, serving: Serve) -> None:
    """Not even this machine's own address is a proof that the owner asks: a proxy and a page in a browser have it too."""
    server = serving(store)
    fill(server.url, 3)
    for shown in (None, "trail_" + "x" * 43):
        status, headers, body = ask(server.url, "tile/entries/000.p/1", token=shown)
        assert (status, headers.get_content_type()) == (403, "text/plain")
        assert b"make a token of role auditor" in body
    for path in ("checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"):
        rebound = post(server.url, f"/log/{path}", b"", None, method="GET", Host="rebound.example.com")
        assert (rebound.status, rebound.kind, rebound.body[:15]) == (421, "text/plain", b"without tokens ")
    port = server.url.rpartition(":")[2]
    assert post(server.url, "/log/checkpoint", b"", None, method="GET", Host=f"localhost:{port}").status == 200

    assert server.stop() == 0
    assert custody(store) == []
    query = "SELECT name, sender FROM records WHERE kind = 'refusal'"
    assert {(row["name"], row["sender"]) for row in run_trail("sql", query, "--json", "--store", store).json} == {("403", "loopback")}


def test_with_witnesses_a_stranger_sees_only_what_they_have_cosigned(tmp_path: Path, serving: Serve) -> None:
    store = tmp_path / "store"
    vkey = new_store(store, origin="example.com/cosigned", checkpoint_seconds=0.05, witness_seconds=0.05)
    witness = RealWitness(tmp_path / "witness", "example.org/w1", vkey)
    with served(witness):
        (store / "tlog-policy").write_text(policy_text(witness.line))
        token = new_tokens(store, "emitter", "auditor")
        server = serving(store)
        fill(server.url, 4, token=token["emitter"])
        eventually(lambda: "— example.org/w1 ".encode() in fetch(server.url, "checkpoint"))
        witness.stop()

        # Without its witness the log goes on growing, and shows nothing more.
        newest = store / "checkpoint"
        before = head(newest.read_bytes())[1]
        for _ in range(4):
            sent = post(server.url, "/v1/traces", traces(*(span("work") for _ in range(100))), Authorization=f"Bearer {token['emitter']}")
            assert sent.status == 200
        eventually(lambda: head(newest.read_bytes())[1] > before + 400)
        shown = fetch(server.url, "checkpoint")
        assert head(shown)[1] <= before
        assert len(policy_of(witness.line).cosignatures(shown)) == 1
        assert len(verified_records(server.url, shown, token["auditor"])) == head(shown)[1]
        assert verified_leaves(server.url, newest.read_bytes())

        witness.start()
        eventually(lambda: head(fetch(server.url, "checkpoint"))[1] > before + 400)


def test_a_changed_tile_is_not_served_as_records(store: Path, serving: Serve) -> None:
    token = new_tokens(store, "emitter", "auditor")
    server = serving(store)
    fill(server.url, 8, token=token["emitter"])
    tile = store / "tile/0/001"
    held = tile.read_bytes()
    tile.write_bytes(bytes([held[0] ^ 1]) + held[1:])
    status, _, body = ask(server.url, "tile/entries/001", token=token["auditor"])
    assert (status, body) == (500, b"not served, because the store is damaged here: record 256 is not the one that tile/0 commits to\n")
    assert ask(server.url, "tile/entries/000", token=token["auditor"])[0] == 200
    tile.unlink()
    assert ask(server.url, "tile/0/001")[0] == 500
    tile.write_bytes(held)
    assert ask(server.url, "tile/entries/001", token=token["auditor"])[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/log/tile/0/000", 200),
        ("/log/tile/0/000?x=1", 200),
        ("/log/tile/0/%30%30%30", 404),
        ("/log/tile/0/000%2ep/1", 404),
        ("/%6cog/checkpoint", 404),
        ("/log/../log/checkpoint", 404),
        ("/log/tile/0/../../../trail.toml", 404),
        ("/log/tile/0/..%2f..%2f..%2ftrail.toml", 404),
        ("/log//checkpoint", 404),
        ("//log/checkpoint", 404),
        ("/log", 404),
    ],
)
def test_paths_as_they_are_on_the_wire(one: str, path: str, status: int) -> None:
    # Not with urllib or curl, which tidy a path before they send it.
    assert post(one, path, b"", None, method="GET").status == status
