-- Runs, the latest first. Parameters: since, until BIGINT (Unix ns, or NULL: a run that was active in the window), agent
-- VARCHAR (or NULL), active_since BIGINT (Unix ns; or NULL; only runs without an outcome and seen since then), most BIGINT.
-- Output: the columns of `runs`. Order: last_seen descending, run_id.
SELECT run_id, agent, workflow, owner, started, last_seen, actions, changes, denied, approvals, cost_usd_micros, outcome
FROM runs
WHERE ($since IS NULL OR last_seen >= make_timestamp_ns($since))
    AND ($until IS NULL OR started < make_timestamp_ns($until))
    AND ($agent IS NULL OR agent = $agent)
    AND ($active_since IS NULL OR outcome = 'unknown' AND last_seen >= make_timestamp_ns($active_since))
ORDER BY last_seen DESC NULLS LAST, run_id
LIMIT $most
