-- Internal view `_spoken`: one row for each record that speaks of an action, and what kind of statement it makes.
-- refuses: the record itself states a refusal. ran: it reports an execution: an outcome ok or error, or the span of a
-- tool that does not say; never a record that refuses, and never a mere statement of an approval or a decision.
-- Output: columns of `_stated`; refuses, ran BOOLEAN; result VARCHAR (ok | error | unknown, of a record that ran);
-- watched BOOLEAN (a sender other than the agent reports it); arguments VARCHAR (while kept). Order: none.
CREATE VIEW _spoken AS
WITH marked AS (
    SELECT
        *,
        coalesce(decision = 'deny', false) OR coalesce(approval IN ('denied', 'expired'), false)
            OR coalesce(outcome IN ('denied', 'expired'), false) AS refuses,
        coalesce(event IN ('trail.approval', 'trail.policy.decision'), false)
            OR (approval IS NOT NULL OR decision IS NOT NULL) AND tool IS NULL AND change_kind IS NULL AS statement
    FROM _stated
    WHERE action_id IS NOT NULL
)
SELECT
    m.* EXCLUDE (statement),
    NOT m.refuses AND NOT m.statement AND m.kind IN ('span', 'log') AND (
        coalesce(m.outcome IN ('ok', 'error'), false)
        OR m.kind = 'span' AND m.tool IS NOT NULL AND coalesce(m.outcome, 'unknown') = 'unknown'
    ) AS ran,
    CASE WHEN m.outcome IN ('ok', 'error') THEN m.outcome ELSE 'unknown' END AS result,
    coalesce(m.role IN ('approver', 'policy'), false) AS watched,
    t.text AS arguments
FROM marked AS m LEFT JOIN _texts AS t ON t.index = m.index AND t.field = 'gen_ai.tool.call.arguments'
