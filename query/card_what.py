"""What changed."""

from __future__ import annotations

from query.diffs import changed_lines, size
from query.evidence import ARGUMENTS, DIFF, Evidence
from query.part import CONTRADICTED, Part, part

_QUOTED: int = 60
_QUOTED_PAIRS: int = 2
"""How much of a changed line is quoted in the one-line text, in characters."""
_EMIT = "emit trail.change.kind and trail.change.diff on the tool's span"


def what(evidence: Evidence) -> Part:
    """The action, the change it made, and the difference while it is kept."""
    action = evidence.action
    diff, arguments = evidence.value(DIFF), evidence.value(ARGUMENTS)
    named: Part = {
        "resource": action["resource"],
        "tool": action["tool"],
        "change_kind": action["change_kind"],
        "diff": diff.text if diff is not None else None,
        "outcome": action["outcome"],
        "before": action["before_digest"],
        "after": action["after_digest"],
        "arguments": arguments.text if arguments is not None else None,
    }
    records = [action["ran_index"] if action["ran_index"] is not None else action["records"][0]]
    records += [value.index for value in (diff, arguments) if value is not None]
    subject = f"{action['tool'] or 'an action'} on {action['resource'] or 'an unnamed resource'}"
    if action["execution"] is None and action["outcome"] in ("denied", "expired", "pending"):
        return part(
            "answered",
            f"{subject} did not run ({action['outcome']}): nothing changed",
            action["records"],
            **named,
        )
    by = f" by {action['agent']}" if action["agent"] else ""
    ending = f"{by}, {_outcome(evidence)}" + (f", {CONTRADICTED}" if action["conflict"] else "")
    if diff is not None and diff.text is not None:
        text = f"{subject}: {action['change_kind'] or 'change'} {size(diff.text)}{_quote(diff.text)}{ending}"
        return part("answered", text, records, **named)
    if action["change_kind"] is None and action["tier"] == "read":
        return part("answered", f"{subject}: a read, nothing changed{ending}", records, **named)
    if action["change_kind"] is not None or action["before_digest"] or action["after_digest"]:
        text = f"{subject}: {action['change_kind'] or 'changed'}{ending}"
        why = f"the difference cannot be shown: {diff.why}" if diff is not None else f"no difference was recorded: {_EMIT}"
        return part("partly", text, records, why, **named)
    if action["tool"] is None and action["resource"] is None:
        why = f"no record names a tool or a resource: emit gen_ai.tool.name and trail.resource, and {_EMIT}"
        return part("unknown", f"an action{ending}", records, why, **named)
    return part(
        "partly",
        f"{subject}{ending}",
        records,
        f"whether it changed anything was not recorded: {_EMIT}",
        **named,
    )


def _outcome(evidence: Evidence) -> str:
    action = evidence.action
    if action["outcome"] in ("denied", "expired") and action["execution"] is not None:
        return f"{action['outcome']} AND YET IT RAN ({action['execution']}: {action['ran_result']})"
    return f"{action['outcome']} ({action['execution']})" if action["execution"] else str(action["outcome"])


def _quote(diff: str) -> str:
    """The first changed lines before and after, as pairs where there are as many of each; how many more there are is said."""
    added, removed = ([line.strip() for line in lines if line.strip()] for lines in changed_lines(diff))
    if len(added) == len(removed):
        pairs = [f'"{_short(old)}" became "{_short(new)}"' for old, new in zip(removed, added, strict=True)]
    else:
        pairs = [f'removed "{_short(line)}"' for line in removed] + [f'added "{_short(line)}"' for line in added]
    if not pairs:
        return ""
    more = f", and {len(pairs) - _QUOTED_PAIRS} more" if len(pairs) > _QUOTED_PAIRS else ""
    return ", " + ", ".join(pairs[:_QUOTED_PAIRS]) + more


def _short(line: str) -> str:
    return line if len(line) <= _QUOTED else line[: _QUOTED - 1] + "…"
