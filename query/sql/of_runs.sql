-- The records that name one of some runs themselves. Parameters: runs VARCHAR[].
-- Output: index BIGINT, trace_id, run_id VARCHAR. Order: index.
SELECT index, trace_id, run_id FROM _base WHERE run_id IN (SELECT unnest($runs)) ORDER BY index
