"""Which action to show first: the one that most likely matters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from query.card_undo import IMPOSSIBLE
from query.card_who import LONGEST_READ_SECONDS, SHORTEST_LOOK_SECONDS, is_too_fast, seconds_to_answer
from query.store import Views

FLAGS: Final = ("ran_against_policy", "approved_too_fast", "dark", "irreversible")
"""What puts an action first, most important first; within each the newest comes first."""
MAX_MEASURED: Final = 500
"""How many quickly approved actions have the size of what was shown looked up in their records, the newest."""
_MEASURE: Final = re.compile(rb'\["(?:gen_ai\.tool\.call\.arguments|trail\.change\.diff)",\{"\$content":\{"bytes":(\d+),')
_Row = dict[str, Any]


def ranked(store: Views, actions: Sequence[_Row]) -> list[tuple[_Row, list[str]]]:
    """The actions in the order of the cards, each with its flags.

    Args:
        store: where records' bytes are read, to learn how much an approver was shown.
        actions: rows of `candidates`.
    """
    sizes = _shown(store, actions)
    flagged = [(action, flags(action, sizes.get(place))) for place, action in enumerate(actions)]
    return sorted(flagged, key=lambda pair: (_class(pair[1]), -_moment(pair[0]), -pair[0]["records"][-1]))


def flags(action: _Row, shown_bytes: int | None) -> list[str]:
    """The reasons to look at this action first."""
    ran = action["execution"] is not None
    unanswered = action["decision"] == "ask" and action["approval"] is None
    refused = action["outcome"] in ("denied", "expired")
    touched = action["change_kind"] is not None or action["tier"] in (
        "write",
        "execute",
        "destructive",
        "privileged",
    )
    found = {
        "ran_against_policy": ran and (unanswered or (refused and action["ran_result"] != "error")),
        "approved_too_fast": is_too_fast(action, shown_bytes),
        "dark": ran and touched and (action["agent"] is None or (action["decision"] is None and action["approval"] is None)),
        "irreversible": ran and action["reversal"] in IMPOSSIBLE,
    }
    return [name for name in FLAGS if found[name]]


def _class(found: Sequence[str]) -> int:
    return FLAGS.index(found[0]) if found else len(FLAGS)


def _moment(action: _Row) -> int:
    moment: int = action["time"] if action["time"] is not None else action["received"]
    return moment


def _shown(store: Views, actions: Sequence[_Row]) -> dict[int, int | None]:
    """How much was shown, by the action's place; looked up only where it decides."""
    sizes = {place: action["shown_bytes"] for place, action in enumerate(actions)}
    doubtful = [
        place
        for place, action in enumerate(actions)
        if action["shown_bytes"] is None
        and (seconds := seconds_to_answer(action)) is not None
        and SHORTEST_LOOK_SECONDS <= seconds < LONGEST_READ_SECONDS
    ][-MAX_MEASURED:]
    if not doubtful:
        return sizes
    wanted = sorted({index for place in doubtful for index in actions[place]["records"]})
    measured = {
        row["index"]: max((int(size) for size in _MEASURE.findall(row["record"])), default=None)
        for row in store.rows("record_bytes", indexes=wanted)
    }
    for place in doubtful:
        found = [size for index in actions[place]["records"] if (size := measured.get(index)) is not None]
        sizes[place] = max(found, default=None)
    return sizes
