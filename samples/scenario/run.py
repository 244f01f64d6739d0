"""What an agent does in a run: tool calls, and what policies and people said about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Status, StatusCode

from .telling import Telling, compact, message
from .tools import Action, Policy, Tool
from .workspace import digest


@dataclass(frozen=True)
class Question:
    """A request for approval, as it was put to a person."""

    id: str
    action: Action
    shown: str


class Run(Telling):
    """One execution of one agent, with its actions."""

    def action(self, tool: Tool, resource: str, **arguments: Any) -> Action:
        """A tool call with its id, not yet made."""
        return Action(f"call_{self.dice.getrandbits(48):012x}", tool, compact(arguments), resource)

    def decide(self, action: Action, policy: Policy, rule: str, decision: str, *obligations: str) -> None:
        """A policy engine's decision on an action."""
        self.spend(4, 20)
        self.log(
            "trail.policy.decision",
            f"{policy.id} version {policy.version}: {decision} {action.tool.name} on {action.resource}",
            {
                **_about(action),
                "trail.policy.id": policy.id,
                "trail.policy.version": policy.version,
                "trail.policy.rule": rule,
                "trail.policy.decision": decision,
                "trail.policy.decision.id": f"dec_{self.dice.getrandbits(48):012x}",
                "trail.policy.engine": policy.engine,
                "trail.policy.obligations": obligations,
            },
        )

    def ask(self, action: Action) -> Question:
        """Put the action's arguments before a person."""
        self.spend(100, 300)
        question = self._question(action)
        size = len(question.shown.encode())
        self.log(
            "trail.approval.requested",
            f"asked for approval of {action.tool.name} on {action.resource}, {size} bytes shown",
            {
                **_about(action),
                "trail.approval.id": question.id,
                "trail.approval.subject.digest": digest(question.shown),
                "trail.approval.shown.bytes": size,
            },
        )
        return question

    def answer(self, question: Question, decision: str, *, after: float, by: str | None = None, reason: str = "") -> None:
        """The answer, `after` seconds later; without `by` nobody gave it: a rule did, or the time ran out."""
        self.wait(after)
        attributes = {
            **_about(question.action),
            "trail.approval.id": question.id,
            "trail.approval.decision": decision,
            "trail.approval.source": "human" if by else "rule",
            "trail.approval.scope": "once",
            "trail.approval.subject.digest": digest(question.shown),
        }
        if by:
            attributes["trail.approval.approver.id"] = by
        if reason:
            attributes["trail.approval.reason"] = reason
        self.log("trail.approval", f"{decision} by {by or 'rule'}: {question.action.tool.name}", attributes)

    def waive(self, action: Action, reason: str) -> None:
        """Nobody was asked, because a rule says that nobody has to be."""
        self.answer(self._question(action), "not_required", after=0, reason=reason)

    def perform(self, action: Action, result: Mapping[str, Any], *, failed: str = "", **attributes: str | list[str]) -> None:
        """Make the call, or show that it was stopped: `failed` is then its `error.type`.

        Keyword arguments are further attributes, with `__` for a dot and `trail.` before them.
        """
        self.spend(20, 60)
        facts: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": action.tool.name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.description": action.tool.description,
            "gen_ai.tool.call.arguments": action.arguments,
            "gen_ai.tool.call.result": compact(result),
            "trail.action.tier": action.tool.tier,
            "trail.capability": self.agent.capability,
            "trail.owner.id": self.agent.owner,
            "trail.prompt.version": self.agent.prompt_version,
            "trail.context.ids": list(self.contexts),
            **_about(action),
            **self.person,
        }
        if not failed:
            facts["trail.reversal.kind"] = action.tool.reversal
            if action.tool.change_kind:
                facts["trail.change.kind"] = action.tool.change_kind
                facts["trail.provenance.mode"] = "authored"
        facts |= {f"trail.{name.replace('__', '.')}": value for name, value in attributes.items()}
        span = self.start(f"execute_tool {action.tool.name}", self.inside, facts)
        action.span = span.get_span_context()
        self.spend(60, 900)
        if failed:
            span.set_attribute("error.type", failed)
            span.set_status(Status(StatusCode.ERROR, str(result.get("error", failed))))
        span.end(self.now)
        part = {"type": "tool_call_response", "id": action.id, "response": dict(result)}
        self.messages.append(message("tool", part))

    def evaluate(self, name: str, score: float, label: str, response: str, explanation: str) -> None:
        """What an evaluation made of one answer of the model."""
        self.spend(200, 900)
        self.log(
            "gen_ai.evaluation.result",
            f"{name}: {label}",
            {
                "gen_ai.evaluation.name": name,
                "gen_ai.evaluation.score.value": score,
                "gen_ai.evaluation.score.label": label,
                "gen_ai.evaluation.explanation": explanation,
                "gen_ai.response.id": response,
            },
        )

    def _question(self, action: Action) -> Question:
        return Question(f"apr_{self.dice.getrandbits(48):012x}", action, action.arguments)


def _about(action: Action) -> dict[str, Any]:
    return {
        "gen_ai.tool.call.id": action.id,
        "trail.action.id": action.id,
        "trail.resource": action.resource,
        "gen_ai.tool.name": action.tool.name,
    }
