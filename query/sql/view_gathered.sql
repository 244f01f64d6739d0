-- Internal view `_gathered`: what the records say of each action, the statement to believe chosen among several.
-- Of several decisions, approvals or executions the best assured wins, then the most cautious, then the most complete,
-- then the earliest record. Other facts come from the record that ran, else from the earliest that has them.
-- asked: when somebody was asked, from a question's record or the start of the span that waited for the answer.
-- Output: run_id, action_id VARCHAR; ran, earliest, said, named, answered STRUCT (NULL where there is none); asked STRUCT
-- (time, index); showings BIGINT (how many different things were shown); the rest as in `actions`. Order: none.
CREATE VIEW _gathered AS
SELECT
    run_id,
    action_id,
    arg_min(
        {'result': result, 'watched': watched, 'time': time, 'received': received, 'index': index, 'sender': sender, 'service': service},
        (NOT watched, result = 'unknown', -coalesce(epoch_ns(coalesce(end_time, time)), 0), index)
    ) FILTER (WHERE ran) AS ran,
    arg_min({'time': time, 'received': received, 'index': index}, (coalesce(time, received), index)) AS earliest,
    arg_min(
        {'decision': decision, 'policy_id': policy_id, 'policy_version': policy_version, 'rule': rule, 'assurance': assurance, 'index': index},
        (
            assurance <> 'observed',
            CASE decision WHEN 'deny' THEN 0 WHEN 'ask' THEN 1 WHEN 'modify' THEN 2 WHEN 'allow' THEN 3 ELSE 4 END,
            (policy_id IS NULL)::INT + (policy_version IS NULL)::INT + (rule IS NULL)::INT,
            index
        )
    ) FILTER (WHERE decision IS NOT NULL) AS said,
    arg_min(
        {'policy_id': policy_id, 'policy_version': policy_version, 'rule': rule, 'index': index},
        ((policy_version IS NULL)::INT + (rule IS NULL)::INT, index)
    ) FILTER (WHERE policy_id IS NOT NULL) AS named,
    arg_min(
        {
            'approval': approval, 'approver': approver, 'source': approval_source, 'assurance': assurance, 'index': index,
            'scope': scope, 'shown': shown, 'shown_bytes': shown_bytes, 'sender': sender, 'service': service,
            'time': CASE WHEN ran THEN NULL WHEN kind = 'span' THEN coalesce(end_time, time) ELSE time END
        },
        (
            assurance <> 'observed',
            CASE approval WHEN 'denied' THEN 0 WHEN 'expired' THEN 1 WHEN 'modified' THEN 2 WHEN 'approved' THEN 3 ELSE 4 END,
            ran,
            (approver IS NULL)::INT + (approval_source IS NULL)::INT,
            index
        )
    ) FILTER (WHERE approval IS NOT NULL) AS answered,
    -- The moment something was put before a person says it best; a policy's `ask` is the next best.
    arg_min(
        {'time': time, 'index': index}, (event IS DISTINCT FROM 'trail.approval.requested', time, index)
    ) FILTER (
        WHERE NOT ran AND time IS NOT NULL AND (
            decision = 'ask' OR event IN ('trail.approval', 'trail.approval.requested') AND approval IS NULL
            OR approval IS NOT NULL AND kind = 'span' AND end_time IS NOT NULL
        )
    ) AS asked,
    count(DISTINCT shown) AS showings,
    arg_min(agent, (NOT ran, index)) AS agent,
    arg_min(workflow, (NOT ran, index)) AS workflow,
    arg_min(tool, (NOT ran, index)) AS tool,
    arg_min(resource, (NOT ran, index)) AS resource,
    arg_min(tier, (NOT ran, index)) AS tier,
    arg_min(change_kind, (NOT ran, index)) AS change_kind,
    arg_min(reversal, (NOT ran, index)) AS reversal,
    arg_min(reversal_ref, (NOT ran, index)) AS reversal_ref,
    arg_min(before_digest, (NOT ran, index)) AS before_digest,
    arg_min(after_digest, (NOT ran, index)) AS after_digest,
    arg_min(arguments, (NOT ran, index)) AS arguments,
    list_sort(list(DISTINCT sender)) AS senders,
    bool_or(coalesce(outcome = 'denied', false)) AS told_denied,
    bool_or(coalesce(outcome = 'expired', false)) AS told_expired,
    bool_or(coalesce(outcome = 'pending', false)) AS told_pending,
    -- `ask` is a question: what answers it does not contradict it.
    count(DISTINCT decision) FILTER (WHERE decision <> 'ask') > 1 OR count(DISTINCT approval) > 1 AS contradicted,
    list_sort(list(DISTINCT index)) AS records
FROM _spoken
GROUP BY run_id, action_id
