"""Rotations of a log's key for tests: done, interrupted at a chosen call, killed; and what must hold afterwards."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crashes import Disk
from stores import ORIGIN, Home, all_records

from ledger import merkle
from ledger.checkpoint import open_checkpoint
from ledger.fsck_keys import check_keys
from ledger.key_intent import Intent
from ledger.keys import KeyFile
from ledger.layout import Layout
from ledger.note import Signer, parse_note
from ledger.policy import Policy
from ledger.record import parse_record
from ledger.rotating import Rotated, retired_keys, rotate
from ledger.rotation import Rotation, RotationLine, read_lines
from ledger.tree import tile_nodes
from ledger.trust import LogKeys, Trust


def turn(home: Home, **arguments: Any) -> Rotated:
    """Rotate the key of a test's log."""
    return rotate(home.store, key_path=home.key, last_signed=home.state, pins=home.pins, **arguments)


def turn_over(base: Path, disk: Disk) -> None:
    """`turn` over a disk that breaks."""
    disk.install()
    try:
        turn(Home(base))
    finally:
        disk.remove()


def turn_and_die(base: Path, disk: Disk, *, timeout: float = 60.0) -> int | None:
    """`turn_over` in a process of its own; its exit code (-9: killed)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rotations"])
    process = context.Process(target=turn_over, args=(base, disk))
    process.start()
    process.join(timeout)
    code = process.exitcode
    process.kill()
    process.join()
    process.close()
    return code


def lines_of(home: Home) -> list[RotationLine]:
    """The lines for verifiers, read."""
    return [RotationLine.parse(line) for line in read_lines(Layout(home.store))]


def rotations_in(home: Home) -> list[tuple[int, Rotation]]:
    """The rotations among the records."""
    records = enumerate(all_records(home))
    return [(index, Rotation.parse(record)) for index, record in records if parse_record(record)["kind"] == "key"]


def require_turned(home: Home, oldest: str) -> list[str]:
    """Everything about the rotations of a log is whole, from this key on; the keys in order.

    Raises:
        AssertionError: something is not.
    """
    found = rotations_in(home)
    lines = lines_of(home)
    assert [(line.index, Rotation.parse(line.record).statement) for line in lines] == [(at, one.statement) for at, one in found]
    assert found
    vkeys = [oldest, *(one.new.vkey for _index, one in found)]
    assert [one.old.vkey for _index, one in found] == vkeys[:-1]
    assert KeyFile.load(home.key, origin=ORIGIN).signer.vkey == vkeys[-1]
    assert home.pins.key(ORIGIN) == " ".join([*(f"{vkey}@<={at + 1}" for vkey, (at, _one) in zip(vkeys, found, strict=False)), vkeys[-1]])
    retired = {Signer.parse(path.read_text().strip()).vkey for path in retired_keys(home.key).values()}
    assert retired == set(vkeys[:-1])
    assert not Intent.path(home.key).exists()
    assert not home.key.with_name(home.key.name + ".next").exists()
    nodes = tile_nodes(home.store, (size := home.read().size))
    records = [(index, record) for index, record in enumerate(all_records(home)) if parse_record(record)["kind"] == "key"]
    failures = check_keys(
        records, read_lines(Layout(home.store)), origin=ORIGIN, size=size, root_at=lambda at: merkle.root_from(at, nodes)
    )  # fmt: skip
    assert failures == []
    for line, (_at, one) in zip(lines, found, strict=True):
        for verifier in (one.old, one.new):  # a witness that knows one of them can cosign it
            assert open_checkpoint(line.checkpoint, verifier).size > line.index
    report = home.verify(verifier=None, trust=Trust(keys=LogKeys.of(*str(home.pins.key(ORIGIN)).split())))
    assert report.verdict == "verified", report.as_json()
    return vkeys


def witnesses(*names: str) -> tuple[list[Signer], Policy]:
    """So many witnesses, and the policy of somebody who wants all of them."""
    signers = [Signer.generate(f"{name}.example") for name in names]
    known = "".join(f"witness {name} {signer.cosigner.vkey}\n" for name, signer in zip(names, signers, strict=True))
    return signers, Policy.parse(f"{known}group g all {' '.join(names)}\nquorum g\n")


def cosigned(note: bytes, signers: Sequence[Signer], *, time: int = 1_700_000_000) -> bytes:
    """The note with cosignatures."""
    text, _lines = parse_note(note)
    return note + "".join(signer.cosign(text, time) for signer in signers).encode()
