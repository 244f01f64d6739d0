-- View `runs`: one row for each run. Documented in ANSWERS.md. Order: none.
CREATE VIEW runs AS
WITH acted AS (
    SELECT
        run_id,
        count(*) AS actions,
        count(*) FILTER (WHERE outcome = 'denied') AS denied,
        count(*) FILTER (WHERE approval IN ('approved', 'modified')) AS approvals
    FROM actions
    WHERE run_id IS NOT NULL
    GROUP BY run_id
),
changed AS (
    SELECT run_id, count(DISTINCT coalesce(action_id, '#' || index)) AS changes FROM changes WHERE run_id IS NOT NULL GROUP BY run_id
)
SELECT
    f.run_id,
    arg_min(f.agent, f.index) AS agent,
    arg_min(f.workflow, f.index) AS workflow,
    arg_min(f.owner, f.index) AS owner,
    min(f.time) AS started,
    max(coalesce(f.end_time, f.time)) AS last_seen,
    coalesce(any_value(a.actions), 0) AS actions,
    coalesce(any_value(c.changes), 0) AS changes,
    coalesce(any_value(a.denied), 0) AS denied,
    coalesce(any_value(a.approvals), 0) AS approvals,
    sum(f.cost_usd_micros)::BIGINT AS cost_usd_micros,
    coalesce(
        arg_max(f.outcome, (coalesce(f.end_time, f.time), f.index)) FILTER (WHERE f.kind = 'span' AND f.parent_span_id IS NULL),
        'unknown'
    ) AS outcome
FROM _facts AS f
LEFT JOIN acted AS a ON a.run_id = f.run_id
LEFT JOIN changed AS c ON c.run_id = f.run_id
WHERE f.run_id IS NOT NULL
GROUP BY f.run_id
