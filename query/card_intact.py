"""Is the evidence intact: what the reader verified, and a proof for every record on the card.

Integrity only, as of the checkpoint whose signature, seals and journal the reader verified when it opened the store.
Whether records are missing, and whether anyone outside holds a newer checkpoint, are other verdicts
(`trail verify`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ledger.columns import FACTS, TIME
from ledger.errors import LedgerError, VerificationError
from ledger.merkle import inclusion_path, leaf_hash, verify_inclusion
from ledger.record import parse_record
from ledger.tree import tile_nodes
from query.part import Part, part
from query.source import Source

_TIMES: Final = frozenset(name for name, kind in FACTS.items() if kind == TIME)
_Row = Mapping[str, Any]


class Prover:
    """Inclusion paths in one store's tree; the tiles it reads serve all cards of an answer."""

    def __init__(self, reader: Source) -> None:
        """Prove against the root that `reader` verified."""
        self.size = reader.size
        self.root = bytes.fromhex(reader.root)
        self.key_status = reader.key_status
        self._nodes = tile_nodes(reader.layout.root, reader.size)

    def verify(self, index: int, leaf: bytes) -> int:
        """Prove a leaf; the number of hashes that took.

        Raises:
            VerificationError: it is not the leaf at `index`.
            StorageError: a tile is missing or damaged.
        """
        path = inclusion_path(index, self.size, self._nodes)
        verify_inclusion(index=index, size=self.size, leaf=leaf, path=path, root=self.root)
        return len(path)


def intact(prover: Prover, records: Mapping[int, bytes], rows: Mapping[int, _Row]) -> Part:
    """Prove the card's records in the tree whose root the reader verified.

    Args:
        prover: of the store.
        records: the bytes the card rests on, by index.
        rows: the columns that were read of them; they must be what the bytes say.
    """
    proofs = [_prove(prover, index, data, rows.get(index)) for index, data in sorted(records.items())]
    false = [proof for proof in proofs if proof["proven"] is False]
    open_ones = [proof for proof in proofs if proof["proven"] is None]
    named: Part = {"proofs": proofs, "key": prover.key_status}
    if false:
        text = f"NO: record {false[0]['index']}: {false[0]['why']}"
        return part("answered", text, list(records), verdict="failed", **named)
    proven = sum(1 for proof in proofs if proof["proven"])
    text = f"{proven} of {len(proofs)} records proven in the tree of {prover.size:,} records"
    why = []
    if prover.key_status != "pinned":
        why.append(f"nobody says whose log this is (key {prover.key_status}): pin its key with --key or TRAIL_VKEY")
    why += [f"record {proof['index']}: {proof['why']}" for proof in open_ones[:1]]
    if why or not proofs:
        text = f"not known: {text}"
        return part(
            "partly",
            text,
            list(records),
            "; ".join(why) or "no record was read",
            verdict="unverifiable",
            **named,
        )
    return part("answered", f"yes: {text}, checkpoint verified", list(records), verdict="verified", **named)


def _prove(prover: Prover, index: int, data: bytes, row: _Row | None) -> dict[str, Any]:
    """One proof: `proven` True, False (it is not what was logged) or None (it cannot be told yet)."""
    leaf = leaf_hash(data)
    entry: dict[str, Any] = {"index": index, "leaf": leaf.hex(), "proven": None}
    if index >= prover.size:
        return entry | {"why": "acknowledged and not yet under a checkpoint: ask again in a second"}
    try:
        hashes = prover.verify(index, leaf)
    except VerificationError as exc:
        return entry | {"proven": False, "why": exc.message}
    except LedgerError as exc:
        return entry | {"why": f"no proof could be made: {exc.message}"}
    if row is not None and (wrong := _differing(row, data)) is not None:
        return entry | {"proven": False, "why": f"the column {wrong} does not say what the record says"}
    return entry | {"proven": True, "hashes": hashes}


def _differing(row: _Row, data: bytes) -> str | None:
    """The first column that is no projection of the record's bytes; run_id is left out, which the views inherit."""
    facts = parse_record(data).get("facts", {})
    for name in FACTS:
        if name == "run_id" and "run_id" not in facts:
            continue
        said = facts.get(name)
        said = int(said) if name in _TIMES and said is not None else said
        if row.get(name) != said:
            return name
    return None
