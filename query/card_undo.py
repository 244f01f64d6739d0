"""How to undo it: exactly, by a compensating action, or not at all."""

from __future__ import annotations

from typing import Final

from query.diffs import reverse
from query.evidence import DIFF, Evidence
from query.part import Part, part

IMPOSSIBLE: Final = frozenset({"impossible", "none", "irreversible"})
"""The values of trail.reversal.kind that declare an action final."""
_EMIT: Final = "emit trail.change.diff, or trail.reversal.kind (exact, compensating, impossible) and trail.reversal.ref"


def undo(evidence: Evidence) -> Part:
    """The way back, as far as it was recorded; nothing here carries it out."""
    action = evidence.action
    diff = evidence.value(DIFF)
    records = [action["ran_index"] if action["ran_index"] is not None else action["records"][0]]
    later: Part = {"later_changes": [{"record": row["index"], "time": row["time"]} for row in evidence.later]}
    if action["execution"] is None and action["outcome"] in ("denied", "expired", "pending"):
        return part("answered", "nothing to undo: it did not run", action["records"], kind="exact", plan=None, **later)
    if action["change_kind"] is None and action["tier"] == "read":
        return part("answered", "nothing to undo: it only read", records, kind="exact", plan=None, **later)
    if action["reversal"] in IMPOSSIBLE:
        text = "it was declared final: it CANNOT be undone"
        return part("answered", text, records, kind="impossible", plan=None, **later)
    plan = reverse(diff.text) if diff is not None and diff.text is not None else None
    records += [diff.index] if diff is not None else []
    if plan is not None:
        text = f"apply the recorded difference in reverse{_precondition(evidence)}"
        return part("answered", text, records, kind="exact", plan=plan, **later)
    reference = action["reversal_ref"]
    if action["reversal"] is not None and reference is not None:
        kind = "exact" if action["reversal"] == "exact" else "compensating"
        text = f"{'restore with' if kind == 'exact' else 'compensate with'} {reference}{_precondition(evidence)}"
        return part("answered", text, records, kind=kind, plan=reference, **later)
    if action["reversal"] is not None:
        kind = "exact" if action["reversal"] == "exact" else "compensating"
        text = f"it was declared {action['reversal']}; how is not recorded"
        return part("partly", text, records, "emit trail.reversal.ref", kind=kind, plan=None, **later)
    if diff is not None:
        lost = diff.why or "it is no unified diff"
        return part(
            "unknown",
            "not known",
            records,
            f"the difference cannot be reversed: {lost}; {_EMIT}",
            kind="unknown",
            plan=None,
            **later,
        )
    if action["before_digest"] is not None:
        why = f"the state before is known by its digest only ({action['before_digest']}); {_EMIT}"
        return part(
            "partly",
            "restore the state with the recorded digest from a backup",
            records,
            why,
            kind="unknown",
            plan=None,
            **later,
        )
    return part(
        "unknown",
        "not known",
        records,
        f"neither a difference nor a reversal was recorded: {_EMIT}",
        kind="unknown",
        plan=None,
        **later,
    )


def _precondition(evidence: Evidence) -> str:
    """What has to hold before the plan is carried out."""
    after = evidence.action["after_digest"]
    notes = f"; only while the present state has the digest {after}" if after is not None else ""
    if evidence.later:
        first = evidence.later[0]["index"]
        count = len(evidence.later)
        notes += f"; {count} LATER CHANGE{'S' if count > 1 else ''} of the same resource, from record {first}"
    return notes
