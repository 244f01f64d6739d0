-- The records of some traces, and the run each names itself. Parameters: traces VARCHAR[].
-- Output: index BIGINT, trace_id, run_id VARCHAR. Order: index.
SELECT index, trace_id, run_id FROM _base WHERE trace_id IN (SELECT unnest($traces)) ORDER BY index
