-- The records that speak of some actions and belong to no run and no trace. Parameters: actions VARCHAR[].
-- Output: index BIGINT. Order: index.
SELECT index FROM _base WHERE action_id IN (SELECT unnest($actions)) AND run_id IS NULL AND trace_id IS NULL ORDER BY index
