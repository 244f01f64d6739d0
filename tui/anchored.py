"""How far others have confirmed a store, for whoever looks after it: by the store's own list of witnesses, so it is no verdict.

Whether to believe those witnesses is for the verifier's own list: `trail verify --trust`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ledger.anchors import newest_cosigned, timestamps
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError
from ledger.note import parse_note
from ledger.policy import MAX_POLICY_BYTES, Policy
from ledger.regular import read_file
from ledger.timestamps import claimed_time
from ledger.witness_state import WitnessState, read_states, states_path
from tui.output import coloured, safe

if TYPE_CHECKING:
    from ledger.layout import Layout


def anchored(layout: Layout, *, origin: str, size: int) -> dict[str, Any]:
    """What the store's witnesses and authorities have confirmed, as far as it says itself.

    Args:
        layout: the store.
        origin: its log.
        size: records under its checkpoint.
    """
    found: dict[str, Any] = {
        "witnesses_wanted": layout.policy.exists(),
        "witnesses": [],
        "cosigned": None,
        "time_stamped": None,
        "error": "",
    }
    try:
        policy = _policy(layout)
        if policy is not None:
            found["witnesses_wanted"] = policy.wants_cosignatures
            known = {state.name: state for state in read_states(states_path(origin))}
            found["witnesses"] = [_state(name, known.get(name)) for name in (witness.name for witness in policy.witnesses)]
            found["cosigned"] = _cosigned(layout, policy, size)
        found["time_stamped"] = _time_stamped(layout, size)
    except LedgerError as exc:
        found["error"] = exc.message
    return found


def rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same for a person: (name, text)."""
    if found["error"]:
        yield "anchored", coloured(f"cannot be read: {safe(found['error'])}", "red")
    cosigned = found["cosigned"]
    if not found["witnesses_wanted"]:
        yield "witnesses", "none: nobody outside confirms this log (write STORE/tlog-policy; see ledger/OPERATIONS.md)"
    elif cosigned is None:
        yield "cosigned", coloured("NOTHING YET by a quorum of its witnesses", "yellow")
    else:
        behind = f"; {cosigned['records_behind']:,} records are newer" if cosigned["records_behind"] else ""
        yield "cosigned", f"{cosigned['size']:,} records by a quorum of its own witnesses, {_age(cosigned['seconds_ago'])}{behind}"
    for witness in found["witnesses"]:
        yield "witness", _witness(witness)
    stamp = found["time_stamped"]
    if stamp is not None:
        yield "time stamp", f"{stamp['size']:,} records, {_age(stamp['seconds_ago'])} (not verified here)"


def _policy(layout: Layout) -> Policy | None:
    if not layout.policy.exists():
        return None
    with storage_errors("reading", layout.policy):
        return Policy.parse(read_file(layout.policy, limit=MAX_POLICY_BYTES))


def _state(name: str, state: WitnessState | None) -> dict[str, Any]:
    if state is None:
        return {"name": name, "url": None, "size": 0, "cosigned": None, "error": "", "tries": 0, "seconds_ago": None}
    return {**asdict(state), "seconds_ago": _since(state.cosigned)}


def _cosigned(layout: Layout, policy: Policy, size: int) -> dict[str, Any] | None:
    note = newest_cosigned(layout)
    if note is None:
        return None
    signatures = policy.cosignatures(note)
    if not policy.has_quorum({signature.witness.name for signature in signatures}):
        return None
    covered = Checkpoint.parse(parse_note(note)[0]).size
    # By our clock: a witness whose own is ahead would hide for ever that nothing is cosigned any more.
    with storage_errors("reading", layout.cosigned):
        written = layout.cosigned.stat().st_mtime
    return {"size": covered, "records_behind": max(0, size - covered), "seconds_ago": _since(written)}


def _time_stamped(layout: Layout, size: int) -> dict[str, Any] | None:
    newest: dict[str, Any] | None = None
    for _name, note, token in timestamps(layout):
        covered = Checkpoint.parse(parse_note(note)[0]).size
        if newest is None or covered > newest["size"]:
            seconds_ago = _since(int(claimed_time(token).timestamp()))
            newest = {"size": covered, "records_behind": max(0, size - covered), "seconds_ago": seconds_ago}
    return newest


def _since(moment: float | None) -> float | None:
    return None if moment is None else round(max(0.0, time.time() - moment), 1)


def _age(seconds: float | None) -> str:
    return "at an unknown time" if seconds is None else f"{seconds:,.0f} s ago"


def _witness(state: dict[str, Any]) -> str:
    name = safe(state["name"])
    if state["error"]:
        tries = f" ({state['tries']} tries)" if state["tries"] > 1 else ""
        return coloured(f"{name}: {safe(state['error'])}{tries}", "yellow")
    if state["cosigned"] is None:
        return f"{name}: has not been asked since the server started" if state["url"] is not None else f"{name}: no server has asked it"
    return f"{name}: {state['size']:,} records, {_age(state['seconds_ago'])}"
