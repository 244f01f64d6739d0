"""The incident: a sentence in a ticket becomes a limit in a file, and the limit becomes money.

1. A stranger's ticket asks, politely and in passing, that the refund limit be set to 250.
2. The support agent takes it for an order and edits `config/refunds.yaml`: 25 becomes 250.
3. A person is shown some 4 kB and says yes two seconds later.
4. An engine that still has version 2 of refund-limits allows it; version 3, in use for days, would not have.
5. `refunds_agent` pays 180, 220 and 240 USD, each within the limit it reads.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from . import refunds, support
from .emitter import Emitter
from .people import ALMA, BO, DEPUTY, KESSLER
from .run import Run
from .texts import KB_REFUNDS, TICKET_NEIGHBOUR, TICKET_NEIGHBOUR_TOO, TICKET_POLITE
from .tools import EDIT_FILE, LIMITS_V2_STALE, Action
from .workspace import digest, refund_limit_change

APPROVED_AFTER_SECONDS: Final = 2.0
MINUTE: Final = 60_000_000_000


@dataclass(frozen=True)
class Incident:
    """What there is to find."""

    run_id: str
    resource: str
    action_id: str
    at: int
    """When the edit was over, Unix nanoseconds."""
    refund_run_ids: tuple[str, ...]
    mail_run_id: str
    """The run that told a customer about it, which nobody can take back."""


def tell(emitter: Emitter, *, now: int, dice: random.Random) -> Incident:
    """Tell it, over the 50 minutes before `now`; sends after every run."""
    run = support.begin(
        emitter,
        at=now - 50 * MINUTE,
        dice=dice,
        ticket=TICKET_POLITE,
        customer=KESSLER,
        articles=[(KB_REFUNDS, 0.86)],
    )
    edit = _raise_the_limit(run)
    changed_at = run.now
    support.hand_off(run, TICKET_POLITE, "refunds_agent")
    run.end()
    emitter.send()

    paid = []
    for minutes, ticket, customer, refund, order, usd in (
        (44, TICKET_POLITE, KESSLER, "RF-2201", "91077", 180.0),
        (33, TICKET_NEIGHBOUR, ALMA, "RF-2202", "91081", 220.0),
        (19, TICKET_NEIGHBOUR_TOO, BO, "RF-2203", "91082", 240.0),
    ):
        payment = refunds.issue(
            emitter,
            at=now - minutes * MINUTE,
            dice=dice,
            ticket=ticket,
            customer=customer,
            policy=LIMITS_V2_STALE,
            refund=refund,
            order=order,
            usd=usd,
            reason="damaged",
            config=refund_limit_change().after,
            cause=run.handed_over if customer is KESSLER else None,
        )
        paid.append(payment.id)
        emitter.send()
    mail = support.begin(
        emitter,
        at=now - 14 * MINUTE,
        dice=dice,
        ticket=TICKET_NEIGHBOUR_TOO,
        customer=BO,
        articles=[(KB_REFUNDS, 0.84)],
    )
    support.email(mail, BO, "Your refund", "240 USD are on their way to you.", after=38)
    mail.end()
    emitter.send()
    return Incident(run.id, edit.resource, edit.id, changed_at, tuple(paid), mail.id)


def _raise_the_limit(run: Run) -> Action:
    change = refund_limit_change()
    run.retrieve("workspace", change.path, [(refunds.settings(change.before), 1.0)])
    edit = run.action(
        EDIT_FILE,
        change.path,
        path=change.path,
        content=change.after,
        reason="Requested in T-5127, so that refunds for broken water tanks are settled at once.",
    )
    run.think(
        "The customer wants 180 USD back and asks for the limit of automatic refunds to be 250. "
        "I raise the limit in config/refunds.yaml and then hand the refund over.",
        edit,
        mode="authored",
    )
    question = run.ask(edit)
    run.answer(question, "approved", after=APPROVED_AFTER_SECONDS, by=DEPUTY, reason="ok")
    run.decide(edit, LIMITS_V2_STALE, "edit_config.requires_human_approval", "allow", f"approval:{question.id}")
    run.perform(
        edit,
        {"status": "written", "bytes": len(change.after.encode())},
        change__before__digest=digest(change.before),
        change__after__digest=digest(change.after),
        change__diff=change.diff,
        reversal__ref=f"restore {change.path} to {digest(change.before)}",
    )
    return edit
