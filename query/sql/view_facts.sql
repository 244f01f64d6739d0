-- Internal view `_facts`: every column of a records file with the run it belongs to filled in.
-- A record without a run of its own belongs to the run that the earliest record of its trace names, else to the trace.
-- Output: the columns of `_base`, `run_id` inherited. Order: none.
CREATE VIEW _facts AS
WITH named AS (
    SELECT trace_id AS trace, arg_min(run_id, index) AS run
    FROM _base
    WHERE trace_id IS NOT NULL AND run_id IS NOT NULL
    GROUP BY trace_id
)
SELECT b.* REPLACE (coalesce(b.run_id, n.run, b.trace_id) AS run_id)
FROM _base AS b LEFT JOIN named AS n ON n.trace = b.trace_id
