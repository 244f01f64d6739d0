"""The tools the two agents have, calls of them, and the policies that judge those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from opentelemetry.trace import SpanContext

Tier = Literal["read", "propose", "write", "execute", "destructive", "privileged"]
Reversal = Literal["exact", "compensating", "impossible"]


@dataclass(frozen=True)
class Tool:
    """One tool, with what using it means."""

    name: str
    description: str
    tier: Tier
    reversal: Reversal
    change_kind: str | None = None
    """What using it does to its resource, if it changes one."""


DRAFT_REPLY: Final = Tool("draft_reply", "Write a draft into the ticket; nobody outside sees it.", "propose", "exact")
SEND_EMAIL: Final = Tool("send_email", "Send an e-mail to the customer.", "execute", "impossible")
SEND_MACRO: Final = Tool("send_macro", "Send a text the owner has written.", "execute", "impossible")
HAND_OFF: Final = Tool("hand_off", "Give the case to another agent.", "execute", "compensating")
EDIT_FILE: Final = Tool("edit_file", "Replace a file of the workspace with the given content.", "privileged", "exact", "config")
UPDATE_ARTICLE: Final = Tool("update_article", "Change an article of the knowledge base.", "write", "exact", "update")
ISSUE_REFUND: Final = Tool("issue_refund", "Pay money back through the payment gateway.", "execute", "compensating", "create")
PROPOSE_REFUND: Final = Tool(
    "propose_refund",
    "Propose a refund to a person, and pay it once approved.",
    "execute",
    "compensating",
    "create",
)
CANCEL_REFUND: Final = Tool("cancel_refund", "Cancel a refund that the gateway has not settled.", "execute", "compensating", "update")


@dataclass(frozen=True)
class Policy:
    """A policy as one engine has it loaded."""

    id: str
    version: str
    engine: str


SUPPORT_TIER1: Final = Policy("customer_support_tier1_v3", "3", "opa@support-1")
LIMITS_V2: Final = Policy("refund-limits", "2", "opa@edge-1")
LIMITS_V3: Final = Policy("refund-limits", "3", "opa@edge-1")
LIMITS_V2_STALE: Final = Policy("refund-limits", "2", "opa@edge-2")
"""The second engine never loaded version 3, and nobody noticed: for days it was asked nothing."""


@dataclass
class Action:
    """A tool call an agent wants to make: what `decide`, `ask` and `perform` speak of."""

    id: str
    tool: Tool
    arguments: str
    """JSON, exactly as it is shown to people and given to the tool."""
    resource: str
    span: SpanContext | None = None
    """Where it was performed, once it was."""
