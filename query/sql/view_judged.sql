-- Internal view `_judged`: one row for each action, key (run_id, action_id), with the outcome that follows from what
-- was gathered. A refused action never shows ok: that it ran nevertheless is seen from `execution` and `ran_result`.
-- Output: the columns of `actions`; ran_index, said_index, named_index, answered_index BIGINT (the records that were
-- believed); ran_result, said_assurance, answered_assurance, scope, shown VARCHAR; shown_bytes BIGINT; asked TIMESTAMP_NS; asked_index BIGINT;
-- showings BIGINT; reversal_ref, before_digest, after_digest VARCHAR; senders VARCHAR[]. Order: none.
CREATE VIEW _judged AS
WITH doubted AS (
    SELECT DISTINCT s.run_id, s.action_id
    FROM _spoken AS s JOIN _twins AS t ON t.trace_id = s.trace_id AND t.span_id = s.span_id
    WHERE s.kind = 'span'
),
-- Whose action it is, where its own records do not say: the first agent and workflow that the run's records name.
crew AS (
    SELECT run_id AS run, arg_min(agent, index) AS agent, arg_min(workflow, index) AS workflow
    FROM _facts
    WHERE run_id IS NOT NULL
    GROUP BY run_id
),
judged AS (
    SELECT
        *,
        coalesce(ran.time, earliest.time) AS at,
        CASE WHEN ran IS NOT NULL THEN ran.received ELSE earliest.received END AS got,
        coalesce(said.decision = 'deny', false) OR coalesce(answered.approval = 'denied', false) OR told_denied AS refused,
        coalesce(answered.approval = 'expired', false) OR told_expired AS lapsed
    FROM _gathered
)
SELECT
    j.action_id,
    j.run_id,
    CASE WHEN j.run_id IS NOT NULL
        THEN row_number() OVER (PARTITION BY j.run_id ORDER BY j.at NULLS LAST, j.records[1])
    END AS step,
    j.at AS time,
    j.got AS received,
    coalesce(j.agent, c.agent) AS agent,
    coalesce(j.workflow, c.workflow) AS workflow,
    j.tool,
    j.resource,
    j.tier,
    CASE
        WHEN j.refused THEN 'denied'
        WHEN j.lapsed THEN 'expired'
        WHEN j.ran IS NOT NULL THEN j.ran.result
        WHEN j.told_pending OR j.said.decision = 'ask' AND j.answered IS NULL THEN 'pending'
        ELSE 'unknown'
    END AS outcome,
    j.change_kind,
    j.said.decision AS decision,
    coalesce(j.said.policy_id, j.named.policy_id) AS policy_id,
    CASE WHEN j.said.policy_version IS NULL AND (j.said.policy_id IS NULL OR j.said.policy_id = j.named.policy_id)
        THEN j.named.policy_version ELSE j.said.policy_version
    END AS policy_version,
    CASE WHEN j.said.rule IS NULL AND (j.said.policy_id IS NULL OR j.said.policy_id = j.named.policy_id)
        THEN j.named.rule ELSE j.said.rule
    END AS rule,
    j.answered.approval AS approval,
    j.answered.approver AS approver,
    j.answered.source AS approval_source,
    j.answered.time AS approval_time,
    CASE
        WHEN j.said IS NULL AND j.answered IS NULL THEN NULL
        WHEN coalesce(j.said.assurance, 'observed') = 'observed' AND coalesce(j.answered.assurance, 'observed') = 'observed'
            THEN 'observed'
        ELSE 'claimed'
    END AS assurance,
    CASE WHEN j.ran.watched THEN 'observed' WHEN j.ran IS NOT NULL THEN 'reported' END AS execution,
    j.arguments,
    j.reversal,
    j.contradicted OR d.action_id IS NOT NULL AS conflict,
    j.records,
    j.ran.index AS ran_index,
    j.ran.result AS ran_result,
    j.said.index AS said_index,
    j.said.assurance AS said_assurance,
    j.named.index AS named_index,
    j.answered.index AS answered_index,
    j.answered.assurance AS answered_assurance,
    j.answered.sender AS answered_sender,
    j.answered.service AS answered_service,
    j.ran.sender AS ran_sender,
    j.ran.service AS ran_service,
    j.answered.scope AS scope,
    j.answered.shown AS shown,
    j.answered.shown_bytes AS shown_bytes,
    j.asked.time AS asked,
    j.asked.index AS asked_index,
    j.showings,
    j.reversal_ref,
    j.before_digest,
    j.after_digest,
    j.senders
FROM judged AS j
LEFT JOIN doubted AS d ON d.action_id = j.action_id AND d.run_id IS NOT DISTINCT FROM j.run_id
LEFT JOIN crew AS c ON c.run = j.run_id
