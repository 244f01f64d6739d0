"""The load of the benchmarks: OTLP trace requests of an agent's working day, reproducible from a seed.

512 spans a request, about 2.9 KB and 17 attributes a span: agents, chats, tool calls, retrievals. Prose is drawn from a skewed
vocabulary with identifiers mixed in, so that it compresses about as text does (gzip 3.2 to 1).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SPANS_A_REQUEST = 512
TOOLS = ("search_orders", "get_customer", "issue_refund", "send_email", "run_sql", "read_file", "write_file", "create_ticket")
AGENTS = ("support-triage", "claims-adjuster", "kyc-reviewer", "code-reviewer")
SERVICES = ("agent-gateway", "claims-agents", "risk-agents", "dev-agents")
MODELS = ("gpt-4.1-2025-04-14", "claude-sonnet-4-5", "gemini-2.5-pro")
SYLLABLES = ("ka", "lo", "mi", "ter", "son", "pre", "con", "ble", "ation", "ing", "ist", "val", "und", "per", "ment", "ver", "tra", "gen")


@dataclass
class Day:
    """A generator of requests; `start_ns` is the time of the first span, `step_ns` the time between traces."""

    seed: int
    start_ns: int
    step_ns: int = 60_000_000

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        made = {"".join(self.rng.choices(SYLLABLES, k=self.rng.randint(1, 4))) for _ in range(6000)}
        self.words = sorted(made)
        self.rng.shuffle(self.words)
        total = 0.0
        self.weights = []
        for i in range(len(self.words)):
            total += 1 / (i + 3) ** 0.95
            self.weights.append(total)
        self.pending: list[tuple[str, Span]] = []
        self.traces = 0

    def request(self) -> bytes:
        """The next request, serialised."""
        while len(self.pending) < SPANS_A_REQUEST:
            self.pending += self.trace()
        taken, self.pending = self.pending[:SPANS_A_REQUEST], self.pending[SPANS_A_REQUEST:]
        request = ExportTraceServiceRequest()
        scopes = {}
        for service, span in taken:
            if service not in scopes:
                resource = request.resource_spans.add()
                fields = {
                    "service.name": service,
                    "service.version": "3.2.1",
                    "service.instance.id": f"{service}-7f9c",
                    "telemetry.sdk.name": "opentelemetry",
                    "telemetry.sdk.language": "python",
                    "host.name": "node-04",
                }
                _attributes(resource.resource, fields)
                scope = resource.scope_spans.add()
                scope.scope.name, scope.scope.version = "bench.agents", "0.1"
                scopes[service] = scope
            scopes[service].spans.append(span)
        return request.SerializeToString()

    def trace(self) -> list[tuple[str, Span]]:
        rng = self.rng
        trace_id = rng.randbytes(16)
        root_id = rng.randbytes(8)
        service, agent = rng.choice(SERVICES), rng.choice(AGENTS)
        at = start = self.start_ns + self.traces * self.step_ns
        self.traces += 1
        common = {
            "gen_ai.conversation.id": f"conv_{rng.randbytes(12).hex()}",
            "gen_ai.agent.name": agent,
            "gen_ai.agent.id": f"asst_{agent}",
            "user.id": f"user-{rng.randrange(4000):05d}",
            "deployment.environment.name": "production",
            "tenant.id": f"t-{rng.randrange(20):02d}",
            "agent.version": f"2026.{rng.randint(1, 11)}.0",
            "session.id": rng.randbytes(8).hex(),
        }
        spans = []
        for kind in ["chat", *rng.choices(("chat", "tool", "retrieval"), weights=(48, 40, 12), k=11)]:
            duration = rng.randrange(10**6, 4 * 10**9)
            name, fields = getattr(self, f"_{kind}")()
            span = Span(
                trace_id=trace_id,
                span_id=rng.randbytes(8),
                parent_span_id=root_id,
                name=name,
                kind=Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=at,
                end_time_unix_nano=at + duration,
            )
            _attributes(span, common | fields)
            spans.append((service, span))
            at += duration
        root = Span(trace_id=trace_id, span_id=root_id, name=f"invoke_agent {agent}", start_time_unix_nano=start, end_time_unix_nano=at)
        fields = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.input.messages": self._messages(700),
            "gen_ai.output.messages": self._messages(700),
        }
        _attributes(root, common | fields | {"gen_ai.system_instructions": "Follow policy; ask for approval before any refund."})
        return [*spans, (service, root)]

    def _chat(self) -> tuple[str, dict[str, object]]:
        model = self.rng.choice(MODELS)
        return f"chat {model}", {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.response.id": f"resp_{self.rng.randbytes(12).hex()}",
            "gen_ai.request.temperature": 0.2,
            "gen_ai.request.max_tokens": 4096,
            "gen_ai.usage.input_tokens": self.rng.randrange(200, 9000),
            "gen_ai.usage.output_tokens": self.rng.randrange(10, 1200),
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.input.messages": self._messages(self._size(450, 3500)),
            "gen_ai.output.messages": self._messages(self._size(450, 3500)),
        }

    def _tool(self) -> tuple[str, dict[str, object]]:
        tool = self.rng.choice(TOOLS)
        return f"execute_tool {tool}", {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": f"call_{self.rng.randbytes(12).hex()}",
            "trail.resource": f"orders/{self.rng.randrange(100_000)}",
            "gen_ai.tool.call.arguments": self._object(self._size(200, 1500)),
            "gen_ai.tool.call.result": self._object(self._size(200, 1500)),
        }

    def _retrieval(self) -> tuple[str, dict[str, object]]:
        documents = [
            {"id": f"doc-{self.rng.randrange(10**5):05d}", "score": self.rng.random(), "snippet": self._text(120)} for _ in range(4)
        ]
        return "retrieval kb", {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": f"kb-{self.rng.randrange(12):02d}",
            "server.address": "kb.internal",
            "gen_ai.retrieval.query.text": self._text(120),
            "gen_ai.retrieval.documents": json.dumps(documents),
            "server.port": 5432,
        }

    def _size(self, low: int, high: int) -> int:
        return int(low * (high / low) ** self.rng.random())

    def _messages(self, size: int) -> str:
        return json.dumps([{"role": "user", "parts": [{"type": "text", "content": self._text(size)}]}])

    def _object(self, size: int) -> str:
        value: dict[str, object] = {}
        while len(json.dumps(value)) < size:
            value[f"{self.rng.choice(self.words)}_{len(value)}"] = self.rng.choice(
                (self.rng.randrange(10**7), self._text(80), self.rng.randbytes(16).hex())
            )
        return json.dumps(value)

    def _text(self, size: int) -> str:
        words = []
        length = 0
        while length < size:
            word = (
                f"ORD-{self.rng.randrange(10**6):06d}"
                if self.rng.random() < 0.05
                else self.rng.choices(self.words, cum_weights=self.weights)[0]
            )
            words.append(word)
            length += len(word) + 1
        return " ".join(words)


def _attributes(target, values: dict[str, object]) -> None:  # a Resource or a Span
    for key, value in values.items():
        pair = target.attributes.add(key=key)
        match value:
            case str():
                pair.value.string_value = value
            case int():
                pair.value.int_value = value
            case float():
                pair.value.double_value = value
            case list():
                for item in value:
                    pair.value.array_value.values.add(string_value=item)
