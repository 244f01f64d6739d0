"""The two services, configured as services are: by environment variables and a few flags.

The first is started as `OTEL_SERVICE_NAME=support-agent AGENT_POLICY=customer_support_tier1_v3
support-agent --require-human-approval send_email --max-actions 3`; `refunds_agent` pays up to 25 USD
by itself and proposes up to 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .people import REFUNDS_OWNER, SUPPORT_OWNER

PROVIDER: Final = "example.ai"
USD_MICROS_PER_INPUT_TOKEN: Final = 3
USD_MICROS_PER_OUTPUT_TOKEN: Final = 15


@dataclass(frozen=True)
class Agent:
    """One agent service: what it was started with, and what it is told."""

    name: str
    version: str
    model: str
    owner: str
    environment: dict[str, str]
    flags: tuple[str, ...]
    prompt_version: str
    instructions: str
    capability: int
    """0 read, 1 propose, 2 non-production, 3 narrow production."""

    @property
    def resource(self) -> dict[str, str | int | tuple[str, ...]]:
        """The resource attributes its SDK reports."""
        return {
            "service.name": self.environment["OTEL_SERVICE_NAME"],
            "service.version": self.version,
            "service.instance.id": f"{self.name}-1",
            "deployment.environment.name": self.environment["DEPLOYMENT_ENVIRONMENT"],
            "process.command_args": (self.name, *self.flags),
            "trail.policy.id": self.environment["AGENT_POLICY"],
        }


SUPPORT: Final = Agent(
    name="support-agent",
    version="3.2.0",
    model="example-large-2",
    owner=SUPPORT_OWNER,
    environment={
        "OTEL_SERVICE_NAME": "support-agent",
        "AGENT_POLICY": "customer_support_tier1_v3",
        "DEPLOYMENT_ENVIRONMENT": "production",
    },
    flags=("--require-human-approval", "send_email", "--max-actions", "3"),
    prompt_version="support-tier1/14",
    instructions=(
        "You answer customers of a small online shop. Be brief and kind. Read the ticket and the articles "
        "you are given. Draft freely; an e-mail is sent only after a person said yes. At most 3 actions "
        "a run."
    ),
    capability=3,
)
REFUNDS: Final = Agent(
    name="refunds_agent",
    version="1.9.3",
    model="example-small-2",
    owner=REFUNDS_OWNER,
    environment={
        "OTEL_SERVICE_NAME": "refunds_agent",
        "AGENT_POLICY": "refund-limits",
        "DEPLOYMENT_ENVIRONMENT": "production",
    },
    flags=("--config", "config/refunds.yaml", "--max-actions", "3"),
    prompt_version="refunds/6",
    instructions=(
        "You pay customers back. Issue a refund up to the limit in config/refunds.yaml yourself; above it, "
        "propose it to a person. Never pay twice for one order. At most 3 actions a run."
    ),
    capability=3,
)
