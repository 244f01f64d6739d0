"""Which policy allowed it, in which version, and whether that was the newest known."""

from __future__ import annotations

import re
from typing import Any, Final

from query.evidence import Evidence
from query.part import CONTRADICTED, Part, part
from query.rows import duration

_EMIT: Final = (
    "emit a trail.policy.decision event with trail.action.id, trail.policy.id, trail.policy.version, trail.policy.rule and "
    "trail.policy.decision, or send the policy engine's decision log"
)
_VERBS: Final = {
    "allow": "allowed it",
    "deny": "DENIED it",
    "ask": "asked for approval",
    "modify": "allowed it with changes",
    "log_only": "only logged it",
}
_DIGITS: Final = re.compile(r"(\d+)")


def policy(evidence: Evidence) -> Part:
    """The policy decision, and a newer version of that policy that the store had already seen."""
    action = evidence.action
    index = action["said_index"] if action["said_index"] is not None else action["named_index"]
    newer = newer_version(evidence)
    named: Part = {
        "id": action["policy_id"],
        "version": action["policy_version"],
        "rule": action["rule"],
        "decision": action["decision"],
        "assurance": action["said_assurance"],
        "engine": evidence.own_facts(index).get("engine"),
        "newer": newer,
    }
    if action["decision"] is None and action["policy_id"] is None:
        return part("unknown", "no policy decision was recorded", [], _EMIT, **named)
    version = f" {_versioned(action['policy_version'])}" if action["policy_version"] is not None else ""
    subject = f"{action['policy_id'] or 'an unnamed policy'}{version}"
    notes = _notes(evidence, newer)
    records = [index, newer["record"] if newer is not None else None]
    if action["decision"] is None:
        why = f"{subject} was in use and its decision is not recorded: {_EMIT}"
        return part(
            "partly",
            ", ".join([f"{subject} was in use; what it decided is unknown", *notes]),
            records,
            why,
            **named,
        )
    rule = f", rule {action['rule']}," if action["rule"] is not None else ""
    origin = "observed" if action["said_assurance"] == "observed" else "claimed"
    text = ", ".join([f"{subject}{rule} {_VERBS.get(action['decision'], action['decision'])}", *notes, origin])
    missing = [
        name
        for name, value in (
            ("trail.policy.id", action["policy_id"]),
            ("trail.policy.version", action["policy_version"]),
        )
        if value is None
    ]
    if missing:
        return part("partly", text, records, f"not recorded: emit {' and '.join(missing)}", **named)
    return part("answered", text, records, **named)


def newer_version(evidence: Evidence) -> dict[str, Any] | None:
    """The newest version of the action's policy that the store had seen when it decided, if it is another one.

    Versions that differ in their numbers only are compared by them; others by which was seen first.
    """
    action = evidence.action
    decided = evidence.own_facts(action["said_index"]).get("time") or action["time"]
    if action["policy_version"] is None or decided is None:
        return None
    own = action["policy_version"]
    first = next((row["first_seen"] for row in evidence.versions if row["policy_version"] == own), decided)
    by = action["said_index"]
    seen = [
        row
        for row in evidence.versions
        if (by is None or row["index"] < by) and row["first_seen"] <= decided and _is_newer(row, own, first)
    ]
    if not seen:
        return None
    newest = seen[0]
    for row in seen[1:]:
        if _is_newer(row, newest["policy_version"], newest["first_seen"]):
            newest = row
    return {
        "version": newest["policy_version"],
        "first_seen": newest["first_seen"],
        "record": newest["index"],
        "seconds": (decided - newest["first_seen"]) / 1e9,
    }


def _is_newer(row: dict[str, Any], version: str, first_seen: int) -> bool:
    if row["policy_version"] == version:
        return False
    ours, theirs = _DIGITS.split(version), _DIGITS.split(row["policy_version"])
    if ours[::2] == theirs[::2] and len(ours) > 1:
        return [int(number) for number in theirs[1::2]] > [int(number) for number in ours[1::2]]
    return bool(row["first_seen"] > first_seen)


def _notes(evidence: Evidence, newer: dict[str, Any] | None) -> list[str]:
    action = evidence.action
    notes = []
    if newer is not None:
        ago = duration(round(newer["seconds"] * 1e9))
        notes.append(f"AN OLDER VERSION: {_versioned(newer['version'])} had been seen {ago} earlier (record {newer['record']})")
    if action["execution"] is not None and action["decision"] == "deny":
        notes.append("AND YET IT RAN")
    if action["execution"] is not None and action["decision"] == "ask" and action["approval"] is None:
        notes.append("AND IT RAN WITHOUT ONE")
    if action["conflict"]:
        notes.append(CONTRADICTED)
    return notes


def _versioned(version: str) -> str:
    return f"version {version}" if version[:1].isdigit() else version
