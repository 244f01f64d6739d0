"""`trail verify --proof`: one record and its proof, without any store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.errors import MalformedError, VerificationError
from ledger.merkle import leaf_hash, verify_inclusion
from ledger.proof import MAX_PROOF_BYTES, Proof
from tui.exits import Exit
from tui.output import safe

if TYPE_CHECKING:
    from ledger.trust import Trust


def check_proof(proof_file: Path, record_file: Path, trust: Trust) -> dict[str, Any]:
    """What a proof is worth to somebody with a key: `verdict`, and who has cosigned the checkpoint in it.

    Raises:
        MalformedError: a file cannot be read, or is no proof.
    """
    proof = Proof.parse(_read(proof_file, MAX_PROOF_BYTES))
    record = _read(record_file, 1 << 20)
    found: dict[str, Any] = {
        "index": proof.index,
        "leaf": leaf_hash(record).hex(),
        "key": "pinned" if trust.keys is not None else "unpinned",
        "verdict": "unverifiable",
        "why": "no key is given: name the log's with --key or --trust",
        "size": None,
        "anchoring": {"verdict": "unanchored", "witnesses": []},
    }
    if trust.keys is None:
        return found
    try:
        checkpoint = trust.keys.open(proof.checkpoint)
        verify_inclusion(index=proof.index, size=checkpoint.size, leaf=leaf_hash(record), path=proof.path, root=checkpoint.root)
        cosignatures = trust.policy.cosignatures(proof.checkpoint) if trust.policy is not None else ()
    except (VerificationError, MalformedError) as exc:  # malformed: the path does not fit index and size, so it is of something else
        return found | {"verdict": "failed", "why": exc.message}
    names = {cosignature.witness.name for cosignature in cosignatures}
    anchored = trust.policy is not None and trust.policy.has_quorum(names)
    witnesses = [{"name": item.witness.name, "time": item.timestamp} for item in cosignatures]
    anchoring = {"verdict": "anchored" if anchored else "unanchored", "witnesses": witnesses}
    return found | {"verdict": "verified", "why": "", "size": checkpoint.size, "anchoring": anchoring}


def proof_text(found: dict[str, Any]) -> str:
    """The same for a person."""
    if found["verdict"] != "verified":
        return f"{found['verdict'].upper()}  record {found['index']}: {safe(found['why'])}"
    names = ", ".join(safe(witness["name"]) for witness in found["anchoring"]["witnesses"])
    quorum = found["anchoring"]["verdict"] == "anchored"
    anchored = f"cosigned by {names}, a quorum of your witnesses" if quorum else "no quorum of witnesses you named has cosigned it"
    return f"VERIFIED  record {found['index']} is under the log's checkpoint over {found['size']:,} records; {anchored}"


def proof_exit(found: dict[str, Any]) -> Exit:
    """What it comes to."""
    return {"verified": Exit.OK, "failed": Exit.FALSE, "unverifiable": Exit.UNVERIFIABLE}[found["verdict"]]


def proof_origin(proof_file: Path) -> str:
    """The log that a proof says it is of: whose key to look for, and no more than that.

    Raises:
        MalformedError: it cannot be read, or is no proof.
    """
    from ledger.checkpoint import Checkpoint
    from ledger.note import parse_note

    return Checkpoint.parse(parse_note(Proof.parse(_read(proof_file, MAX_PROOF_BYTES)).checkpoint)[0]).origin


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise MalformedError(f"{path} cannot be read: {exc.strerror}", path=path) from exc
    if len(data) > limit:
        raise MalformedError(f"{path} has more than {limit} bytes", path=path)
    return data
