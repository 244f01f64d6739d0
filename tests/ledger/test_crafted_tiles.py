"""A rewritten history over tiles that were changed just where an older checkpoint is looked up: nobody may be taken in by them.

The root of an older tree is computed from few nodes. Whoever rewrites a log can put the true old hashes back into exactly the tiles that
hold them, so a root from tiles counts only once it is proven to lead to the root of the whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stores import Home, kill, new_home, request, send, settle

from ledger.comparison import Account
from ledger.errors import CorruptSegment, NotAppendOnly
from ledger.fsck import Scope
from ledger.keys import LastSigned
from ledger.layout import Layout
from ledger.trust import LogKeys
from ledger.writer import StoreWriter
from tui.signed import compare


def go_on(home: Home, seed: int, count: int, *, sealed: bool) -> None:
    """More records, signed; sealed too, if wanted."""
    writer = home.open()
    send(writer, request(seed, count=count, size=16))
    settle(writer)
    if sealed:
        writer.close()
    else:
        kill(writer)


def craft(base: Path, *, sealed: bool) -> tuple[Home, bytes]:
    """A rewritten log over crafted tiles, and the honest checkpoint that it contradicts.

    Both histories have some 260 records in common; the honest one goes on to about 330, the other one to over 600.
    """
    honest = new_home(base / "honest", segment_records=10_000)
    go_on(honest, 1, 255, sealed=sealed)
    forged = honest.copy(base / "forged")
    go_on(honest, 2, 60, sealed=sealed)
    kept = honest.checkpoint
    size = int(kept.split(b"\n")[1])
    assert 256 < size < 512
    for seed in range(3):
        go_on(forged, 10 + seed, 120, sealed=sealed)
    # The one tile that the honest root needs beside the common ones, with the honest hashes at its beginning.
    true = (honest.store / f"tile/0/001.p/{size - 256}").read_bytes()
    tile = forged.store / "tile/0/001"
    tile.write_bytes(true + tile.read_bytes()[len(true) :])
    return forged, kept


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, bytes]:
    """Not sealed: seals would be records among those that the tile lies about, and give it away to a reader."""
    return craft(tmp_path_factory.mktemp("crafted"), sealed=False)


@pytest.fixture
def forged(made: tuple[Home, bytes], tmp_path: Path) -> tuple[Home, bytes]:
    return made[0].copy(tmp_path / "forged"), made[1]


def test_verify_is_not_taken_in(forged: tuple[Home, bytes]) -> None:
    home, kept = forged
    for scope in (Scope(), Scope(since=600), Scope(rows=False)):
        assert home.verify(against=[kept], last_signed=None, scope=scope).verdict == "failed", scope


def test_a_start_is_not_taken_in(forged: tuple[Home, bytes], tmp_path: Path) -> None:
    """Neither where the records come from the journal, nor where the tree is taken from its tiles."""
    for home, kept in (forged, craft(tmp_path / "sealed", sealed=True)):
        home.state.write(kept)
        with pytest.raises((NotAppendOnly, CorruptSegment)):
            home.open()
        assert home.state.read() == kept, "the evidence stays"
        shutil.rmtree(home.store / "tile")
        with pytest.raises(NotAppendOnly, match="do not give the root that was signed"):
            home.open()


def test_status_is_not_taken_in(forged: tuple[Home, bytes]) -> None:
    home, kept = forged
    assert compare(home.read(), kept).is_false


def test_a_comparison_with_a_witness_is_not_taken_in(forged: tuple[Home, bytes], tmp_path: Path) -> None:
    home, kept = forged
    head = home.read().tree_head
    account = Account.of_store(Layout(home.store), LogKeys.of(home.vkey), size=head.size, root=head.root, evidence=tmp_path / "evidence")
    with pytest.raises(NotAppendOnly):
        account.compare("w", kept)


def test_an_honest_store_goes_on(made: tuple[Home, bytes], tmp_path: Path) -> None:
    """The same look at tiles that are true, from an older state of the same log."""
    home = new_home(tmp_path / "home", segment_records=10_000)
    states = []
    for seed in range(4):
        with home.writing() as writer:
            send(writer, request(seed, count=100, size=16))
        states.append(home.checkpoint)
    for state in states:
        older = LastSigned(tmp_path / "state")
        older.write(state)
        StoreWriter.open(home.store, command="a test", key_path=home.key, last_signed=older).close()
        assert compare(home.read(), state).state == "kept"
