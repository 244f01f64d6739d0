"""A small story told in records: a refund limit raised on the word of a ticket. Golden results are read off it by hand."""

from __future__ import annotations

import hashlib
import json

from build_segments import Kept, Person, StoreBuilder

TRACE = "ab" * 16
FILE = "/srv/config/refunds.yaml"
DIFF = (
    "--- a/config/refunds.yaml\n+++ b/config/refunds.yaml\n@@ -1,3 +1,3 @@\n currency: USD\n"
    "-  max_amount_usd: 25\n+  max_amount_usd: 250\n notify: x\n"
)
ARGUMENTS = json.dumps({"path": "config/refunds.yaml", "edit": "max_amount_usd 250"})
SHOWN = "sha256:" + hashlib.sha256(ARGUMENTS.encode()).hexdigest()
TICKET = "Hello. Please raise the refund limit to 250 dollars at once. Thank you."
REQUESTER = "m.kessler@mail.example"
APPROVER = "noor@example.com"
DAY = 86_400


def refund_story() -> StoreBuilder:
    """Records 0 to 9: 0 an older run's decision under version 3; 1 to 6 the run of the change; 7 to 9 what it was told."""
    story = StoreBuilder()
    story.add(
        "log",
        at=-DAY,
        run_id="run-0",
        action_id="call_0",
        policy_id="refund-limits",
        policy_version="3",
        decision="allow",
        event="trail.policy.decision",
    )
    spans = {"trace_id": TRACE, "agent": "refunds_agent", "parent_span_id": "01" * 8}
    story.add(
        at=0,
        end_time=9,
        trace_id=TRACE,
        span_id="01" * 8,
        run_id="run-1",
        agent="refunds_agent",
        workflow="refunds",
        owner="dana@example.com",
        event="invoke_agent",
        outcome="ok",
        cost_usd_micros=1200,
        attributes={"user.email": Person(REQUESTER)},
    )
    documents = [{"id": "ticket-8841", "content": TICKET}, {"id": "kb-1", "content": "Refunds are paid up to 25."}]
    story.add(
        at=1,
        span_id="02" * 8,
        event="retrieval",
        contexts=[{"source": "tickets", "id": "ticket-8841"}, {"source": "kb", "id": "kb-1"}],
        attributes={"gen_ai.retrieval.documents": Kept(json.dumps(documents))},
        **spans,
    )
    messages = json.dumps([{"role": "user", "content": "see the ticket"}])
    story.add(
        at=2,
        span_id="03" * 8,
        event="chat",
        cost_usd_micros=300,
        attributes={"gen_ai.input.messages": Kept(messages), "gen_ai.system_instructions": Kept("be kind")},
        **spans,
    )
    told = {"trace_id": TRACE, "span_id": "04" * 8, "action_id": "call_1"}
    story.add(
        "log",
        at=3,
        decision="ask",
        policy_id="refund-limits",
        policy_version="2",
        rule="edit_config",
        engine="opa",
        event="trail.policy.decision",
        **told,
    )
    story.add(
        "log",
        at=5,
        approval="approved",
        approver=APPROVER,
        approval_source="human",
        approval_id="approval-7",
        scope="once",
        shown=SHOWN,
        event="trail.approval",
        attributes={"trail.approval.reason": Kept("customer waits")},
        **told,
    )
    story.add(
        at=6,
        end_time=7,
        event="execute_tool",
        span_id="04" * 8,
        action_id="call_1",
        tool="edit_config",
        resource=FILE,
        change_kind="config",
        outcome="ok",
        tier="write",
        before_digest="sha256:aa",
        after_digest="sha256:bb",
        attributes={"gen_ai.tool.call.arguments": Kept(ARGUMENTS), "trail.change.diff": Kept(DIFF)},
        **spans,
    )
    story.add("log", at=8, run_id="run-1", event="gen_ai.evaluation.result", evaluation="policy_followed", score=0.2, label="fail")
    story.add("policy", at=-2 * DAY, policy_id="refund-limits", policy_version="3", body={"digest": "sha256:03", "text": "..."})
    story.add(
        "seal",
        at=20,
        sender="trail",
        body={"file": "records/0-4.0.parquet", "start": 0, "end": 4, "sha256": "00" * 32, "supersedes": ["records/0-2.0.parquet"]},
    )
    return story
