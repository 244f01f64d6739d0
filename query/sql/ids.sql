-- The records that carry an identifier: of an action, an approval, a decision, an incident, a span or a source that was read.
-- Parameters: id VARCHAR; most BIGINT. Output: index BIGINT, run_id, trace_id, action_id VARCHAR; context BOOLEAN (the
-- record read something of that id). Order: index, at most `most` rows.
SELECT
    index, run_id, trace_id, action_id,
    coalesce(list_contains(list_transform(contexts, lambda c: c.id), $id), false) AS context
FROM _base
WHERE action_id = $id OR approval_id = $id OR decision_id = $id OR incident = $id OR span_id = $id OR trace_id = $id OR run_id = $id
    OR list_contains(list_transform(contexts, lambda c: c.id), $id)
ORDER BY index
LIMIT $most
