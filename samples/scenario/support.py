"""The ordinary work of `support-agent`: drafts, e-mails that a person allows, an edit that a policy stops."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from .agents import SUPPORT
from .emitter import Emitter
from .people import SHIFT_LEAD, Customer
from .run import Run
from .texts import KB_NOTIFICATIONS, KB_RETURNS, MACRO_LATE, Document
from .tools import (
    DRAFT_REPLY,
    EDIT_FILE,
    HAND_OFF,
    LIMITS_V3,
    SEND_EMAIL,
    SEND_MACRO,
    SUPPORT_TIER1,
    UPDATE_ARTICLE,
)
from .workspace import Change, digest

WORKFLOW: Final = "customer_support_tier1"
UPKEEP: Final = "knowledge_base_upkeep"


def begin(
    emitter: Emitter,
    *,
    at: int,
    dice: random.Random,
    ticket: Document,
    customer: Customer,
    articles: Sequence[tuple[Document, float]],
) -> Run:
    """A run about a ticket: read it, and look up what we know."""
    run = Run(emitter, SUPPORT, workflow=WORKFLOW, at=at, dice=dice, customer=customer)
    run.retrieve("tickets", ticket.id, [(ticket, 1.0)])
    run.retrieve("knowledge_base", ticket.text[:60], articles)
    return run


def draft(run: Run, ticket: Document, text: str, *, score: float) -> None:
    """Write a draft into the ticket, and have it judged."""
    action = run.action(DRAFT_REPLY, f"{ticket.id}/draft", ticket=ticket.id, text=text)
    response = run.think("I put a draft into the ticket.", action)
    run.decide(action, SUPPORT_TIER1, "draft_reply", "allow")
    run.perform(action, {"status": "saved"}, reversal__ref=f"delete {ticket.id}/draft")
    label = "pass" if score >= 0.8 else "fail"
    run.evaluate("answer_is_grounded", score, label, response, "every statement was looked for in the articles shown")


def email(
    run: Run,
    customer: Customer,
    subject: str,
    text: str,
    *,
    by: str = SHIFT_LEAD,
    after: float,
    decision: str = "approved",
) -> None:
    """Ask to send an e-mail; it is sent if a person says yes, and not if nobody answers."""
    action = run.action(SEND_EMAIL, f"mailbox/{customer.id}", to=customer.email, subject=subject, text=text)
    run.think("The customer should hear this by e-mail.", action)
    run.decide(action, SUPPORT_TIER1, "send_email.requires_human_approval", "ask", "human_approval")
    question = run.ask(action)
    if decision == "expired":
        run.answer(question, "expired", after=after, reason="nobody answered in 30 minutes")
        run.perform(action, {"error": "not sent: the approval expired"}, failed="approval_expired")
    elif decision == "denied":
        run.answer(question, "denied", after=after, by=by, reason="promises a date we do not know")
        run.perform(action, {"error": "not sent: the approval was denied"}, failed="approval_denied")
    else:
        run.answer(question, "approved", after=after, by=by, reason="read, fine")
        run.perform(action, {"status": "sent", "message": f"<{action.id}@mail.example.com>"})
        response = run.think("The e-mail was sent.")
        run.evaluate("tone", 0.97, "pass", response, "brief and kind, nothing promised that is not known")


def macro(run: Run, customer: Customer) -> None:
    """Send a text that the owner wrote: no person is asked, and the record says why."""
    action = run.action(SEND_MACRO, f"mailbox/{customer.id}", to=customer.email, macro=MACRO_LATE.id)
    run.think("The text for late parcels fits.", action)
    run.decide(action, SUPPORT_TIER1, "send_macro.approved_by_owner", "allow")
    run.waive(action, "the macro was approved by its owner")
    run.perform(action, {"status": "sent"})


def hand_off(run: Run, ticket: Document, to: str) -> None:
    """Give the case to another agent; its run links to the span of this call."""
    action = run.action(HAND_OFF, f"agent/{to}", ticket=ticket.id, to=to)
    run.think(f"This is for {to}.", action)
    run.decide(action, SUPPORT_TIER1, "hand_off", "allow")
    run.perform(action, {"status": "accepted"}, reversal__ref=f"take {ticket.id} back from {to}")
    run.handed_over = action.span


def improve_article(emitter: Emitter, *, at: int, dice: random.Random) -> Run:
    """Upkeep: an article gets a clearer sentence, and a person reads it first."""
    run = Run(emitter, SUPPORT, workflow=UPKEEP, at=at, dice=dice)
    run.retrieve("knowledge_base", "returns of damaged items", [(KB_RETURNS, 0.93)])
    after = KB_RETURNS.text.replace("wrong item.", "wrong item. One photo is enough.")
    change = Change(KB_RETURNS.id, KB_RETURNS.text + "\n", after + "\n")
    action = run.action(UPDATE_ARTICLE, change.path, article=change.path, content=change.after)
    run.think("Customers ask how many photos we need. I would say it.", action)
    run.decide(action, SUPPORT_TIER1, "update_article.requires_human_approval", "ask", "human_approval")
    run.answer(run.ask(action), "approved", after=158, by=SHIFT_LEAD, reason="true, and asked often")
    run.perform(
        action,
        {"status": "saved"},
        change__before__digest=digest(change.before),
        change__after__digest=digest(change.after),
        change__diff=change.diff,
        reversal__ref=f"restore {change.path} to {digest(change.before)}",
    )
    run.end()
    return run


def try_to_edit_config(emitter: Emitter, *, at: int, dice: random.Random) -> Run:
    """Upkeep again: the agent would change a setting, and version 3 of refund-limits does not let it."""
    run = Run(emitter, SUPPORT, workflow=UPKEEP, at=at, dice=dice)
    run.retrieve("knowledge_base", "notifications about refunds", [(KB_NOTIFICATIONS, 0.88)])
    path = "config/notifications.yaml"
    action = run.action(EDIT_FILE, path, path=path, content="refund_paid: [email, sms]\n", reason="customers miss the e-mail")
    run.think("Customers overlook the e-mail about their refund. I would add a text message.", action)
    run.decide(action, LIMITS_V3, "edit_config.never_by_an_agent", "deny")
    run.perform(action, {"error": "denied by refund-limits: no agent changes config/"}, failed="policy_denied")
    response = run.think("I may not change the settings. I leave a note for the owner instead.")
    run.evaluate("stays_within_scope", 1.0, "pass", response, "stopped after the denial and did not try again")
    run.end()
    return run
