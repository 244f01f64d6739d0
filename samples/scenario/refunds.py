"""The ordinary work of `refunds_agent`, and the drill of its kill switch."""

from __future__ import annotations

import random
from typing import Final

from opentelemetry.trace import SpanContext

from .agents import REFUNDS
from .emitter import Emitter
from .people import ON_CALL, REFUNDS_OWNER, Customer
from .run import Run
from .texts import KB_REFUNDS, Document
from .tools import CANCEL_REFUND, ISSUE_REFUND, PROPOSE_REFUND, Action, Policy
from .workspace import digest, refund_limit_change

WORKFLOW: Final = "refunds_agent"
CONFIG: Final = "config/refunds.yaml"
KILL_SWITCH: Final = "kill-switch/refunds_agent"
DRILL: Final = "drill-2031"
WITHIN: Final = {"2": "issue_refund.configured_limit", "3": "issue_refund.max_amount"}
"""The rule that lets a small refund pass, by the version of refund-limits."""


def settings(text: str) -> Document:
    """The limits in a text of `config/refunds.yaml`, under an id that names exactly this text."""
    start = text.index("actions:")
    shown = text[start : text.index("\n\n", start)]
    return Document(f"{CONFIG}@{digest(text)[:19]}", "internal", shown)


class RefundRun(Run):
    """A run of `refunds_agent` about one ticket."""

    def __init__(
        self,
        emitter: Emitter,
        *,
        at: int,
        dice: random.Random,
        ticket: Document,
        customer: Customer,
        cause: SpanContext | None = None,
        config: str = "",
    ) -> None:
        """Begin, and read the ticket, the article about refunds and the limits (`config` if they changed)."""
        super().__init__(emitter, REFUNDS, workflow=WORKFLOW, at=at, dice=dice, customer=customer, cause=cause)
        self.customer = customer
        self.retrieve("tickets", ticket.id, [(ticket, 1.0), (KB_REFUNDS, 0.81)])
        self.retrieve("workspace", CONFIG, [(settings(config or refund_limit_change().before), 1.0)])

    def refund(self, tool: str, refund: str, order: str, usd: float, reason: str) -> Action:
        """The wish to refund `usd`, as the model words it."""
        action = self.action(
            PROPOSE_REFUND if tool == "propose_refund" else ISSUE_REFUND,
            f"refund/{refund}",
            refund=refund,
            order=order,
            amount_usd=usd,
            reason=reason,
            customer_tenure_days=self.customer.tenure_days,
        )
        self.think(f"{reason.replace('_', ' ')}: {usd:.2f} USD for order {order}.", action)
        return action


def issue(
    emitter: Emitter,
    *,
    at: int,
    dice: random.Random,
    ticket: Document,
    customer: Customer,
    policy: Policy,
    refund: str,
    order: str,
    usd: float,
    reason: str,
    cause: SpanContext | None = None,
    config: str = "",
) -> Run:
    """A refund that the agent pays by itself."""
    run = RefundRun(emitter, at=at, dice=dice, ticket=ticket, customer=customer, cause=cause, config=config)
    action = run.refund("issue_refund", refund, order, usd, reason)
    run.decide(action, policy, WITHIN[policy.version], "allow")
    run.perform(
        action,
        {"status": "paid", "refund": refund, "amount_usd": usd},
        reversal__ref=f"cancel_refund {refund}",
    )
    response = run.think(f"{usd:.2f} USD are on their way.")
    run.evaluate("reason_matches_ticket", 0.95, "pass", response, f"the ticket supports {reason}")
    run.end()
    return run


def propose(
    emitter: Emitter,
    *,
    at: int,
    dice: random.Random,
    ticket: Document,
    customer: Customer,
    policy: Policy,
    refund: str,
    order: str,
    usd: float,
    paid: float,
    too_much_to_issue: bool = False,
) -> Run:
    """A refund that a person decides on, who may change the sum.

    With `too_much_to_issue` the agent first tries to pay it without asking.
    """
    run = RefundRun(emitter, at=at, dice=dice, ticket=ticket, customer=customer)
    if too_much_to_issue:
        denied = run.refund("issue_refund", refund, order, usd, "wrong_item")
        run.decide(denied, policy, WITHIN[policy.version], "deny")
        run.perform(denied, {"error": "denied by refund-limits: above 25 USD"}, failed="policy_denied")
    action = run.refund("propose_refund", refund, order, usd, "wrong_item" if too_much_to_issue else "damaged")
    run.decide(action, policy, "propose_refund.requires_human_approval", "ask", "human_approval")
    question = run.ask(action)
    if paid == usd:
        run.answer(question, "approved", after=214, by=REFUNDS_OWNER, reason="photo and order line agree")
    else:
        run.answer(
            question,
            "modified",
            after=371,
            by=REFUNDS_OWNER,
            reason=f"{paid:.2f}: shipping was paid back before",
        )
        action.arguments = action.arguments.replace(f'"amount_usd":{usd}', f'"amount_usd":{paid}')
    run.perform(
        action,
        {"status": "paid", "refund": refund, "amount_usd": paid},
        reversal__ref=f"cancel_refund {refund}",
    )
    run.think(f"A person agreed to {paid:.2f} USD.")
    run.end()
    return run


def pay_twice_and_cancel(emitter: Emitter, *, at: int, dice: random.Random, ticket: Document, customer: Customer, policy: Policy) -> Run:
    """The gateway answers too late, the agent pays again, sees two payments and takes one back."""
    run = RefundRun(emitter, at=at, dice=dice, ticket=ticket, customer=customer)
    first = run.refund("issue_refund", "RF-2188", "88120", 24.0, "duplicate_charge")
    run.decide(first, policy, WITHIN[policy.version], "allow")
    run.perform(first, {"error": "gateway-eu did not answer within 8 s"}, failed="timeout")
    second = run.refund("issue_refund", "RF-2189", "88120", 24.0, "duplicate_charge")
    run.decide(second, policy, WITHIN[policy.version], "allow")
    run.perform(second, {"status": "paid", "refund": "RF-2189"}, reversal__ref="cancel_refund RF-2189")
    cancel = run.action(CANCEL_REFUND, "refund/RF-2188", refund="RF-2188", reason="paid twice after a timeout")
    run.think("Both payments went through. I take the first one back.", cancel)
    run.decide(cancel, policy, "cancel_refund.always", "allow")
    run.perform(
        cancel,
        {"status": "cancelled"},
        reversal__of=first.id,
        reversal__ref="issue_refund again, as a new refund",
    )
    run.end()
    return run


def drill(emitter: Emitter, *, at: int, dice: random.Random, ticket: Document, customer: Customer, policy: Policy) -> Run:
    """A person stops the agent in the middle of a run, sees that it stopped, and lets it go on working."""
    run = RefundRun(emitter, at=at, dice=dice, ticket=ticket, customer=customer)
    _move_switch(run, moved="running", to="stopped")
    run.wait(6)
    action = run.refund("issue_refund", "RF-2140", "87001", 4.9, "late_delivery")
    run.decide(action, policy, "kill_switch", "deny")
    run.perform(action, {"error": "stopped by kill-switch/refunds_agent"}, failed="policy_denied")
    run.wait(95)
    _move_switch(run, moved="stopped", to="running", result="passed")
    run.end()
    return run


def _move_switch(run: Run, *, moved: str, to: str, result: str = "") -> None:
    outcome = {"trail.drill.result": result} if result else {}
    run.log(
        "trail.control.changed",
        f"{KILL_SWITCH}: {moved} to {to} by {ON_CALL}, {DRILL}",
        {
            "audit.actor.id": ON_CALL,
            "audit.actor.type": "user",
            "audit.action": "UPDATE",
            "audit.target.id": KILL_SWITCH,
            "audit.outcome": "success",
            "trail.resource": KILL_SWITCH,
            "trail.control.from": moved,
            "trail.control.to": to,
            "trail.drill.id": DRILL,
            **outcome,
        },
    )
