"""`trail verify --witness` notices a witness that was restored from a backup: it shows less than it has cosigned."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from stores import request, send
from trail_process import Ran, Recorded
from witness_servers import RealWitness, policy_text, served

from ledger.anchors import write_cosigned
from ledger.layout import Layout
from ledger.merkle import consistency_path
from ledger.tree import tile_nodes
from ledger.witness_client import Conflict, Cosigned, submit
from ledger.witness_protocol import AddCheckpoint
from ledger.writer import StoreWriter
from tui.exits import Exit

Call = Callable[..., Ran]


def cosigned(store: Path, url: str) -> bytes:
    """The store's checkpoint with the cosignature of a witness."""
    note = (store / "checkpoint").read_bytes()
    size = int(note.split(b"\n")[1])
    answer = submit(url, AddCheckpoint(old=0, proof=(), note=note))
    if isinstance(answer, Conflict):
        proof = tuple(consistency_path(answer.size, size, tile_nodes(store, size)))
        answer = submit(url, AddCheckpoint(old=answer.size, proof=proof, note=note))
    assert isinstance(answer, Cosigned), answer
    return note + answer.lines.encode()


def test_a_witness_that_forgot_is_named(trail: Call, recorded: Recorded, tmp_path: Path) -> None:
    first = RealWitness(tmp_path / "w", "witness.example/w", recorded.vkey)
    with served(first):
        cosigned(recorded.store, first.url)
    shutil.copytree(tmp_path / "w", tmp_path / "backup")
    writer = StoreWriter.open(recorded.store, command="trail serve", key_path=recorded.key)
    send(writer, request(7))
    writer.close()
    first.start()
    with served(first):
        note = cosigned(recorded.store, first.url)
    write_cosigned(Layout(recorded.store), note)
    shutil.rmtree(tmp_path / "w")
    (tmp_path / "backup").rename(tmp_path / "w")
    trust = tmp_path / "trust.toml"
    trust.write_text(f'keys = ["{recorded.vkey}"]\npolicy_text = """\n{policy_text(first.line)}"""\n')
    first.start()
    with served(first):
        ran = trail("verify", "--store", recorded.store, "--trust", trust, "--witness", first.url)
    assert ran.code == Exit.OK, ran
    assert "NOT CHECKED" in ran.out
    assert "forgot" in ran.out
