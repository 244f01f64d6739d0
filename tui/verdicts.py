"""The three verdicts of `verify` for a person."""

from __future__ import annotations

from typing import Any, Final

from tui.exits import Exit
from tui.output import coloured, safe

_SHOWN: Final = 20
"""Failures listed for a person; `--json` has them all."""
_COLOURS: Final = {"verified": "green", "failed": "red", "unverifiable": "yellow"}


def text_of(value: dict[str, Any], not_judged: list[str], unmet: dict[str, Exit]) -> str:
    """The report for a person.

    Args:
        value: `Report.as_json`.
        not_judged: what lies in the store and is no part of it.
        unmet: what was required and is not so.
    """
    integrity, completeness, anchoring = value["integrity"], value["completeness"], value["anchoring"]
    contents = integrity["contents"]
    lines = [
        f"{_loud(value['verdict'])}  {safe(value['origin'])}  {value['size']:,} records  root {value['root'] or '(none)'}",
        "",
        f"integrity     {integrity['verdict']}{_of_what_was_read(value)}: "
        + f"{integrity['records']:,} records, {integrity['segments']} segments; contents "
        + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in contents.items()),
        f"completeness  {completeness['verdict'].replace('_', ' ')}{_counters(value)}",
        f"anchoring     {coloured(anchoring['verdict'].upper(), 'bold')}{_anchored(value)}",
        *(f"              {line}" for line in _anchors(anchoring)),
        f"key           {value['key']}",
    ]
    failures = [*integrity["failures"], *anchoring["failures"], *completeness["failures"]]
    more = len(failures) - _SHOWN + integrity["failures_not_listed"]
    rotations = value["rotations"]
    lines += [""] if failures or rotations["followed"] or rotations["refused"] else []
    # First: where a change of the key is not believed, everything else may follow from that.
    lines += [f"  KEY NOT FOLLOWED  {safe(text)}" for text in rotations["refused"]]
    lines += [f"  KEY  {safe(text)}" for text in rotations["followed"]]
    lines += [f"  FALSE  {_failure(failure)}" for failure in failures[:_SHOWN]]
    lines += [f"  and {more:,} more (--json lists up to a thousand)"] if more > 0 else []
    lines += [f"  NOT CHECKED  {safe(text)}" for text in [*integrity["not_checked"], *anchoring["not_checked"]][:_SHOWN]]
    lines += [f"  NOT JUDGED  {safe(text)}" for text in not_judged[:_SHOWN]]
    lines += [f"  REQUIRED  {text}" for text in unmet]
    if value["key"] == "unpinned":
        lines.append("  No key is pinned for this log: name the one you were given with --key VKEY or TRAIL_VKEY.")
    return "\n".join(lines)


def _loud(verdict: str) -> str:
    return coloured(verdict.upper(), "bold", _COLOURS[verdict])


def _failure(failure: dict[str, Any]) -> str:
    where = [str(failure["file"])] if failure["file"] is not None else []
    # Of another history the number is how far the two agree, or where the store ends; of anything else it is the record.
    before = {"rollback": "from record", "fork": "up to record"}.get(failure["what"], "record")
    where += [f"{before} {failure['index']}"] if failure["index"] is not None else []
    return safe(f"{failure['what']}: {', '.join(where)}{': ' if where else ''}{failure['why']}")


def _counters(value: dict[str, Any]) -> str:
    completeness = value["completeness"]
    if not value["integrity"]["records"]:
        return ": no record was read"
    if completeness["verdict"] == "not_checkable":
        return ": no sender counts its records, so nothing missing could be noticed"
    without = completeness["without_counters"]
    count = len(without) if isinstance(without, list) else without
    return f" among records with counters; {count} without" if count else ""


def _of_what_was_read(value: dict[str, Any]) -> str:
    """A partial run that found nothing false says so, and that it is no verdict."""
    integrity = value["integrity"]
    clean = integrity["verdict"] == "unverifiable" and value["key"] == "pinned" and value["size"]
    return ", nothing false in what was read" if clean else ""


def _anchored(value: dict[str, Any]) -> str:
    anchoring = value["anchoring"]
    if anchoring["verdict"] == "failed":
        return ": what others signed contradicts this store, or is forged"
    if anchoring["verdict"] == "anchored":
        beyond = value["size"] - anchoring["to"]
        rest = f"; {beyond:,} newer records are confirmed by nobody outside yet" if beyond else ", which is all of it"
        return f": a quorum of your witnesses has cosigned the first {anchoring['to']:,} records{rest}"
    if not value["integrity"]["records"]:
        return ": nothing was compared"
    return ": nobody you named has confirmed this state; whoever holds the key could rewrite it all. Keep a `trail checkpoint` elsewhere."


def _anchors(anchoring: dict[str, Any]) -> list[str]:
    """Who confirmed how much, and when."""
    lines = [f"witness {safe(w['name'])}: {w['size']:,} records at {w['time']}" for w in anchoring["witnesses"][:_SHOWN]]
    stamps = anchoring["timestamps"]
    if stamps:
        newest = max(stamps, key=lambda stamp: (stamp["size"], stamp["time"]))
        count = f" (the newest of {len(stamps)})" if len(stamps) > 1 else ""
        authority = safe(newest["authority"] or "an authority")
        lines.append(f"time stamp by {authority}: {newest['size']:,} records no later than {newest['time']}{count}")
    return lines
