-- View `records`: one row for each record. Documented in ANSWERS.md. Order: none.
CREATE VIEW records AS
SELECT
    f.index, f.kind, f.time, f.received, f.sender, f.vocabulary, f.service, f.environment, f.run_id, f.trace_id, f.span_id,
    f.parent_span_id, f.agent, f.agent_version, f.workflow, f.owner, coalesce(p.name, f.requester) AS requester, f.event, f.name,
    f.action_id, f.tool, f.resource, f.outcome, f.model, f.input_tokens, f.output_tokens, f.cost_usd_micros, f.record
FROM _facts AS f LEFT JOIN _persons AS p ON p.pseudonym = f.requester
