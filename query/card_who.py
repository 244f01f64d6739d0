"""Who approved it: who, how, when, what they were shown, and whether that is what ran."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from query.evidence import ARGUMENTS, DIFF, Evidence
from query.part import CONTRADICTED, Part, part
from query.rows import NANOSECONDS, duration, iso
from query.values import parsed

READING_BYTES_PER_SECOND: Final = 50
"""About 500 words a minute, twice what people read at: who approves faster than this has not read it."""
SHORTEST_LOOK_SECONDS: Final = 3
"""Nobody reads and judges anything in less, however short it is."""
LONGEST_READ_SECONDS: Final = 120
"""What took longer is taken for read, however much it was: people skim, and are interrupted."""
_EMIT: Final = (
    "emit a trail.approval event with trail.action.id, trail.approval.decision, trail.approval.approver.id, "
    "trail.approval.source and trail.approval.subject.digest, from the approval system and not from the agent"
)
_NAMES: Final = {
    "human": "a person",
    "rule": "a rule",
    "hook": "a hook",
    "classifier": "a classifier",
    "sandbox": "a sandbox",
}


def seconds_to_answer(action: dict[str, Any]) -> float | None:
    """Seconds from the question to its answer; None where one of the two times is not recorded."""
    if action["asked"] is None or action["approval_time"] is None:
        return None
    passed: int = action["approval_time"] - action["asked"]
    return passed / NANOSECONDS if passed >= 0 else None


def is_too_fast(action: dict[str, Any], size_bytes: int | None) -> bool:
    """Whether a person said yes faster than they can have read what they were shown.

    Args:
        action: a row of `candidates`.
        size_bytes: how much was shown; None where that is not known.
    """
    seconds = seconds_to_answer(action)
    if seconds is None or action["approval"] not in ("approved", "modified"):
        return False
    if action["approval_source"] not in ("human", "unknown", None):
        return False
    needed = min(LONGEST_READ_SECONDS, (size_bytes or 0) / READING_BYTES_PER_SECOND)
    return seconds < max(SHORTEST_LOOK_SECONDS, needed)


def shown_bytes(evidence: Evidence) -> int | None:
    """How much the approver was shown: as recorded, else as much as the arguments and the difference are."""
    if evidence.action["shown_bytes"] is not None:
        size: int = evidence.action["shown_bytes"]
        return size
    sizes = [value.size_bytes for value in (evidence.value(ARGUMENTS), evidence.value(DIFF)) if value is not None]
    return max(sizes, default=None)


def who(evidence: Evidence) -> Part:
    """The approval, its age, and whether what was shown is what ran."""
    action = evidence.action
    same, compared = _shown_against_ran(evidence)
    seconds = seconds_to_answer(action)
    named: Part = {
        "approver": action["approver"],
        "decision": action["approval"],
        "source": action["approval_source"],
        "time": action["approval_time"],
        "assurance": action["answered_assurance"],
        "requester": evidence.requester,
        "asked": action["asked"],
        "seconds": seconds,
        "scope": action["scope"],
        "shown": action["shown"],
        "shown_bytes": shown_bytes(evidence),
        "shown_is_ran": same,
        "too_fast": is_too_fast(action, shown_bytes(evidence)),
    }
    records = [action["answered_index"], action["asked_index"]]
    if action["approval"] is None:
        return _unanswered(evidence, named)
    if action["approval"] == "not_required":
        text = f"no approval was required, says {_origin(action)}"
        return part("answered", text, records, **named)
    notes = [*_timing(evidence, seconds), *_persons(evidence), compared, CONTRADICTED if action["conflict"] else ""]
    text = ", ".join(filter(None, [_deed(action), *notes, _assured(action)]))
    missing = [
        name
        for name, absent in (
            (
                "trail.approval.approver.id",
                action["approver"] is None and action["approval_source"] in (None, "human", "unknown"),
            ),
            ("trail.approval.source", action["approval_source"] in (None, "unknown")),
            (
                "trail.approval.subject.digest",
                same is None and action["shown"] is None and action["approval"] != "denied",
            ),
            ("the time of the approval in an event of its own", action["approval_time"] is None),
        )
        if absent
    ]
    if missing:
        return part("partly", text, records, f"not recorded: emit {', '.join(missing)}", **named)
    return part("answered", text, records, **named)


def _unanswered(evidence: Evidence, named: dict[str, Any]) -> Part:
    action = evidence.action
    if action["decision"] == "ask" and action["execution"] is None:
        asked = f" since {iso(action['asked'])}" if action["asked"] is not None else ""
        text = f"nobody has answered yet; asked{asked}"
        return part("partly", text, [action["said_index"]], f"no approval was recorded: {_EMIT}", **named)
    if action["decision"] == "ask":
        text = "the policy demanded an approval and none is recorded; it ran all the same"
        return part("unknown", text, [action["said_index"]], f"no approval was recorded: {_EMIT}", **named)
    text = "no approval was recorded; that is not the same as none being needed"
    return part("unknown", text, [], _EMIT, **named)


def _deed(action: dict[str, Any]) -> str:
    verb = {"approved": "approved it", "denied": "refused it", "modified": "approved it with changes"}.get(action["approval"])
    person = action["approver"] or _NAMES.get(action["approval_source"] or "", "somebody unnamed")
    if verb is None:
        return f"the approval expired unanswered ({person} was asked)" if action["approver"] else "the approval expired unanswered"
    how = f" ({action['approval_source']})" if action["approver"] and action["approval_source"] else ""
    return f"{person}{how} {verb}"


def _timing(evidence: Evidence, seconds: float | None) -> list[str]:
    action, size = evidence.action, shown_bytes(evidence)
    notes = []
    if seconds is not None:
        of = f" {size:,} bytes" if size is not None else " it"
        hurried = "FASTER THAN IT CAN BE READ: " if is_too_fast(action, size) else ""
        notes.append(f"{hurried}{duration(round(seconds * NANOSECONDS))} after being shown{of}")
    if action["approval_time"] is not None and action["execution"] is not None and action["time"] is not None:
        age = action["time"] - action["approval_time"]
        notes.append(f"AFTER IT RAN, by {duration(age)}" if age < 0 else f"{duration(age)} before it ran")
    return notes


def _persons(evidence: Evidence) -> list[str]:
    approver, requester = evidence.action["approver"], evidence.requester
    if approver is None or requester is None:
        return []
    if requester.startswith("p:"):
        return ["whether they asked for it themselves cannot be told: the requester's name is not kept"]
    if approver.strip().casefold() == requester.strip().casefold():
        return ["WHO IS ALSO THE REQUESTER"]
    return [f"not the requester ({requester})"]


def _shown_against_ran(evidence: Evidence) -> tuple[bool | None, str]:
    """Whether the digest of what was shown is that of what ran; None where it cannot be compared."""
    action = evidence.action
    if action["showings"] > 1:
        return False, "SHOWN IS NOT WHAT RAN: records name different digests"
    if action["shown"] is None:
        return None, "" if action["approval"] in (None, "not_required") else "what was shown is not recorded"
    if action["execution"] is None:
        return None, ""
    ran = "ran" if action["execution"] == "observed" else "reported"
    digests = _digests(evidence)
    wanted = _bare(action["shown"])
    if wanted in digests:
        return True, f"shown = {ran} ({digests[wanted]})"
    if not digests:
        return None, "shown against ran cannot be compared: neither arguments nor difference are kept"
    return (
        False,
        f"SHOWN IS NOT WHAT RAN: its digest matches none of {', '.join(sorted(set(digests.values())))} as {ran}",
    )


def _digests(evidence: Evidence) -> dict[str, str]:
    """SHA-256 of what ran, in the forms in which an approval system may have digested it, to what each is of."""
    found: dict[str, str] = {}
    for key, name in ((ARGUMENTS, "the arguments"), (DIFF, "the difference")):
        value = evidence.value(key)
        if value is None or value.text is None:
            continue
        forms = [value.text.encode()]
        structure = parsed(value.text)
        if not isinstance(structure, str):
            forms.append(orjson.dumps(structure, option=orjson.OPT_SORT_KEYS))
        for form in forms:
            found[hashlib.sha256(form).hexdigest()] = name
    after = evidence.action["after_digest"]
    if after is not None:
        found[_bare(after)] = "the result"
    return found


def _bare(digest: str) -> str:
    return digest.lower().removeprefix("sha256:").removeprefix("sha-256:")


def _assured(action: dict[str, Any]) -> str:
    if action["answered_assurance"] == "observed":
        return "observed: reported by the approval system"
    return f"claimed by {_origin(action)}"


def _origin(action: dict[str, Any]) -> str:
    """Whose word the approval is, as far as the server could tell."""
    if action["answered_assurance"] == "observed":
        return "the approval system"
    same = (action["answered_sender"], action["answered_service"]) == (action["ran_sender"], action["ran_service"])
    if same or (action["ran_index"] is None and action["answered_service"] is None):
        return "the agent's own telemetry"
    service = action["answered_service"] or "a service that gave no name"
    return f"{service} (sender {action['answered_sender']}), which did not run it"
