"""`trail prove`: a proof of one record that needs neither us nor the store."""

from __future__ import annotations

from pathlib import Path

import click

from tui.exits import Exit
from tui.opening import open_to_prove
from tui.output import emit_bytes, emit_json, say
from tui.verb import json_option, store_of, verb, vkey_option


@verb(
    "prove",
    examples=[
        ("trail prove 189 -o 189.tlog-proof && trail show 189 --raw > 189.json", "the proof and the record it is about"),
        ("trail prove 189 --json", "its parts, for a program"),
    ],
    exits={Exit.FALSE: "the evidence is false: there is no proof", Exit.UNVERIFIABLE: "no checkpoint covers such a record"},
)
@click.argument("index", metavar="N", type=click.IntRange(0))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it.  [default: stdout]"
)
@vkey_option
@json_option
@click.pass_context
def command(context: click.Context, index: int, output: Path | None, vkey: str | None, as_json: bool) -> Exit:
    """Write a proof that record N is in the log: C2SP tlog-proof, a text file that any verifier of transparency logs can check.

    It holds the path of hashes from the record to the root, and the checkpoint in which the log's key signed that root. Whoever has the
    record's bytes (trail show N --raw), the proof and the public key needs nothing else.
    """
    store = open_to_prove(store_of(context), vkey=vkey)
    if store.reader.key_status != "pinned":
        # A proof under a checkpoint that nobody has checked would pass for one that somebody has.
        return Exit.UNVERIFIABLE
    proof = store.reader.prove(index)
    if output is not None:
        from ledger import durable

        durable.replace(output, proof)
        say(f"wrote {output}")
    if as_json:
        emit_json(_parts(proof, store.reader.record(index)) | {"size": store.reader.size, "root": store.reader.root})
    elif output is None:
        emit_bytes(proof)
    return store.exit


def _parts(data: bytes, record: bytes) -> dict[str, object]:
    from ledger.merkle import leaf_hash
    from ledger.proof import Proof

    proof = Proof.parse(data)
    return {
        "index": proof.index,
        "leaf": leaf_hash(record).hex(),
        "path": [node.hex() for node in proof.path],
        "checkpoint": proof.checkpoint.decode(),
        "proof": data.decode(),
    }
