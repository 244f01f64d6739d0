"""`trail prove`: a proof of one record that needs neither us nor the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ledger.errors import InvariantError, MalformedError
from tui.exits import Exit
from tui.opening import open_to_prove
from tui.output import emit_bytes, emit_json, say
from tui.verb import Checked, json_option, store_of, verb, vkey_option

if TYPE_CHECKING:
    from ledger.reader import StoreReader

_MAX_RECEIPT: Final = 200_000
"""Records of one request; the server takes fewer."""


def _receipt(text: str) -> tuple[int, int]:
    from ledger.checkpoint import parse_decimal

    start, _dash, end = text.partition("-")
    found = parse_decimal(start), parse_decimal(end)
    if not 0 < found[1] - found[0] <= _MAX_RECEIPT:
        raise MalformedError(f"{text!r} is no receipt with records in it", hint="it is what the header Trail-Receipt said: START-END")
    return found


@verb(
    "prove",
    examples=[
        ("trail prove 189 -o 189.tlog-proof && trail show 189 --raw > 189.json", "the proof and the record it is about"),
        ("trail prove --receipt 187-190 -o proofs", "of each record of a request, by the Trail-Receipt that its sender got"),
        ("trail prove 189 --json", "its parts, for a program"),
    ],
    exits={Exit.FALSE: "the evidence is false: there is no proof", Exit.UNVERIFIABLE: "no checkpoint covers such a record"},
)
@click.argument("index", metavar="[N]", type=click.IntRange(0), required=False)
@click.option(
    "--receipt",
    metavar="START-END",
    type=Checked("receipt", _receipt),
    help="Prove every record of a request; needs -o DIR for the proofs.",
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Where to write it.  [default: stdout]")
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context, index: int | None, receipt: tuple[int, int] | None, output: Path | None, vkey: str | None, as_json: bool
) -> Exit:
    """Write a proof that record N is in the log: C2SP tlog-proof, a text file that any verifier of transparency logs can check.

    It holds the path of hashes from the record to the root, and the checkpoint in which the log's key signed that root: the newest one that
    witnesses have cosigned, where one covers the record. Whoever has the record's bytes (trail show N --raw), the proof and the public key
    needs nothing else: trail verify --proof FILE --record FILE --key VKEY.
    """
    if (index is None) == (receipt is None):
        raise click.UsageError("name a record, or a receipt with --receipt", context)
    if receipt is not None and (output is None or as_json):
        raise click.UsageError("the proofs of a receipt are files: name their directory with -o", context)
    store = open_to_prove(store_of(context), vkey=vkey)
    if store.reader.key_status != "pinned":
        # A proof under a checkpoint that nobody has checked would pass for one that somebody has.
        return Exit.UNVERIFIABLE
    if receipt is not None and output is not None:
        _write_all(store.reader, receipt, output)
        return store.exit
    if index is None:
        raise InvariantError("a record or a receipt was named")
    # A checkpoint that witnesses have cosigned is worth more to a stranger; without one it is the newest.
    proof = store.reader.prove(index, cosigned=True)
    if output is not None:
        from ledger import durable

        durable.replace(output, proof)
        say(f"wrote {output}")
    if as_json:
        emit_json(_parts(proof, store.reader.record(index)))
    elif output is None:
        emit_bytes(proof)
    return store.exit


def _write_all(reader: StoreReader, receipt: tuple[int, int], directory: Path) -> None:
    """A proof and the record's bytes for each record of a request."""
    from ledger import durable

    # All of them before the first is written: half a receipt proves nothing.
    proofs = [(index, reader.prove(index, cosigned=True), reader.record(index)) for index in range(*receipt)]
    durable.make_dirs(directory)
    for index, proof, record in proofs:
        durable.replace(directory / f"{index}.tlog-proof", proof)
        durable.replace(directory / f"{index}.json", record)
    say(f"wrote {len(proofs)} proofs and their records to {directory}")


def _parts(data: bytes, record: bytes) -> dict[str, object]:
    from ledger.checkpoint import Checkpoint
    from ledger.merkle import leaf_hash
    from ledger.note import parse_note
    from ledger.proof import Proof

    proof = Proof.parse(data)
    checkpoint = Checkpoint.parse(parse_note(proof.checkpoint)[0])
    return {
        "index": proof.index,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "leaf": leaf_hash(record).hex(),
        "path": [node.hex() for node in proof.path],
        "checkpoint": proof.checkpoint.decode(),
        "proof": data.decode(),
    }
