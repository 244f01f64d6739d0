"""The week, in order: fifteen runs over six days, one of them a drill, the incident in the last hour."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from . import incident
from .emitter import Emitter
from .telling import SECOND
from .week import CHAPTERS

HOUR: Final = 3600 * SECOND


@dataclass(frozen=True)
class Played:
    """What was sent, and where the incident is in it."""

    spans: int
    """Spans the endpoint accepted."""
    logs: int
    """Log records the endpoint accepted."""
    run_ids: tuple[str, ...]
    """In the order they began."""
    incident_run_id: str
    incident_resource: str
    """The file to ask about."""
    incident_action_id: str
    incident_at_unix_ns: int
    refund_run_ids: tuple[str, ...]
    """The runs that paid above the old limit."""


def tell(endpoint: str, *, now_unix_ns: int, headers: Mapping[str, str] | None, seed: int) -> Played:
    """Send the whole story to an OTLP/HTTP endpoint, run by run; the same arguments send the same bytes.

    Raises:
        NotDeliveredError: the endpoint did not take everything.
    """
    # The time is part of the seed: a story told again later is another story, not a forged copy of the first.
    dice = random.Random(f"{seed} {now_unix_ns}")  # noqa: S311 - ids of a demonstration, not secrets
    emitter = Emitter(endpoint, headers=headers, ids=dice)
    try:
        runs: list[str] = []
        for hours, chapter in CHAPTERS:
            runs += [run.id for run in chapter(emitter, now_unix_ns - int(hours * HOUR), dice)]
            emitter.send()
        found = incident.tell(emitter, now=now_unix_ns, dice=dice)
    finally:
        emitter.close()
    return Played(
        spans=emitter.spans,
        logs=emitter.logs,
        run_ids=(*runs, found.run_id, *found.refund_run_ids, found.mail_run_id),
        incident_run_id=found.run_id,
        incident_resource=found.resource,
        incident_action_id=found.action_id,
        incident_at_unix_ns=found.at,
        refund_run_ids=found.refund_run_ids,
    )
