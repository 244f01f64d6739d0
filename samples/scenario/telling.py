"""The plain part of telling a run: its root span, its clock, what was looked up and what the model said.

A run has a clock of its own that each step moves forward, so steps follow each other as they are written.
Names are those of the OpenTelemetry GenAI conventions where they have one, `trail.*` where they have none.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, set_span_in_context

from .agents import PROVIDER, USD_MICROS_PER_INPUT_TOKEN, USD_MICROS_PER_OUTPUT_TOKEN, Agent
from .emitter import Emitter
from .people import Customer
from .texts import Document
from .tools import Action

SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000
_CHARACTERS_PER_TOKEN: Final = 4


class Telling:
    """One execution of one agent, from its root span to its end."""

    def __init__(
        self,
        emitter: Emitter,
        agent: Agent,
        *,
        workflow: str,
        at: int,
        dice: random.Random,
        customer: Customer | None = None,
        cause: SpanContext | None = None,
    ) -> None:
        """Begin at `at` (Unix nanoseconds); `cause` is the span of another run that handed the case over."""
        self.agent, self.workflow, self.now = agent, workflow, at
        self.handed_over: SpanContext | None = None
        """The span that gave the case to another agent, once one did."""
        self.id = f"{agent.name}-{dice.getrandbits(24):06x}"
        self.dice = dice
        self._instruments = emitter.service(agent.resource)
        self.common = {
            "gen_ai.conversation.id": self.id,
            "gen_ai.agent.name": agent.name,
            "trail.workflow": workflow,
        }
        self.person = {"user.id": customer.id, "user.email": customer.email} if customer else {}
        self.messages: list[dict[str, Any]] = []
        self.contexts: list[str] = []
        self._root = self.start(
            f"invoke_agent {agent.name}",
            Context(),
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.agent.version": agent.version,
                "session.id": self.id,
                "trail.owner.id": agent.owner,
                "trail.capability": agent.capability,
                "trail.prompt.version": agent.prompt_version,
                **self.person,
            },
            links=[Link(cause, {"gen_ai.operation.name": "hand_off"})] if cause else [],
        )

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += int(seconds * SECOND)

    def retrieve(self, source: str, query: str, documents: Sequence[tuple[Document, float]]) -> None:
        """Look something up; the documents join what the model is shown next."""
        span = self.start(
            f"retrieval {source}",
            self.inside,
            {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.data_source.id": source,
                "gen_ai.retrieval.query.text": query,
                "gen_ai.retrieval.documents": compact([{"id": doc.id, "score": score} for doc, score in documents]),
            },
        )
        self.spend(40, 220)
        span.end(self.now)
        self.contexts += [doc.id for doc, _ in documents]
        found = "\n\n".join(f"[{doc.id}, {doc.origin}]\n{doc.text}" for doc, _ in documents)
        self.messages.append(message("user", {"type": "text", "content": f"From {source}:\n{found}"}))

    def think(self, says: str, *calls: Action, mode: str = "suggested") -> str:
        """One call of the model, answering with text and perhaps tool calls. Returns the response id."""
        response = f"resp_{self.dice.getrandbits(48):012x}"
        answer = message(
            "assistant",
            {"type": "text", "content": says},
            *(
                {
                    "type": "tool_call",
                    "id": call.id,
                    "name": call.tool.name,
                    "arguments": json.loads(call.arguments),
                }
                for call in calls
            ),
        )
        instructions = compact([{"type": "text", "content": self.agent.instructions}])
        asked, answered = compact(self.messages), compact([answer])
        tokens_in = (len(instructions) + len(asked)) // _CHARACTERS_PER_TOKEN
        tokens_out = len(answered) // _CHARACTERS_PER_TOKEN
        span = self.start(
            f"chat {self.agent.model}",
            self.inside,
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.request.model": self.agent.model,
                "gen_ai.response.model": self.agent.model,
                "gen_ai.response.id": response,
                "gen_ai.response.finish_reasons": ["tool_calls" if calls else "stop"],
                "gen_ai.system_instructions": instructions,
                "gen_ai.input.messages": asked,
                "gen_ai.output.messages": answered,
                "gen_ai.usage.input_tokens": tokens_in,
                "gen_ai.usage.output_tokens": tokens_out,
                "trail.cost.usd_micros": tokens_in * USD_MICROS_PER_INPUT_TOKEN + tokens_out * USD_MICROS_PER_OUTPUT_TOKEN,
                "trail.prompt.version": self.agent.prompt_version,
                "trail.provenance.mode": mode,
            },
            kind=SpanKind.CLIENT,
        )
        self.spend(600, 2400)
        span.end(self.now)
        self.messages.append(answer)
        return response

    def log(self, event: str, body: str, attributes: Mapping[str, Any]) -> None:
        """One event of this run, now."""
        self._instruments.logger.emit(
            timestamp=self.now,
            observed_timestamp=self.now + _MILLISECOND,
            context=self.inside,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=body,
            attributes={**self.common, **attributes},
            event_name=event,
        )

    def end(self) -> None:
        """The run is over."""
        self.spend(5, 20)
        self._root.end(self.now)

    @property
    def inside(self) -> Context:
        """The context of things that happen within the run."""
        return set_span_in_context(self._root, Context())

    def start(
        self,
        name: str,
        parent: Context,
        attributes: Mapping[str, Any],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> Span:
        """Begin a span now."""
        facts = {**self.common, **attributes}
        return self._instruments.tracer.start_span(name, parent, kind=kind, attributes=facts, links=links, start_time=self.now)

    def spend(self, at_least: int, at_most: int) -> None:
        """Let between so many milliseconds pass."""
        self.now += self.dice.randint(at_least, at_most) * _MILLISECOND


def message(role: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the shape of `gen_ai.input.messages`."""
    return {"role": role, "parts": list(parts)}


def compact(value: Any) -> str:
    """JSON without white space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
