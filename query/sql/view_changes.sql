-- View `changes`: one row for each record that reports a change. A change that was asked for and did not run is none.
-- Documented in ANSWERS.md. Order: none.
CREATE VIEW changes AS
SELECT
    f.index, f.time, f.run_id, f.action_id, f.agent, f.resource, f.change_kind, f.before_digest AS before, f.after_digest AS after,
    t.text AS diff, a.approver, coalesce(a.policy_id, f.policy_id) AS policy_id, f.reversal
FROM _facts AS f
LEFT JOIN actions AS a ON a.action_id = f.action_id AND a.run_id IS NOT DISTINCT FROM f.run_id
LEFT JOIN _texts AS t ON t.index = f.index AND t.field = 'trail.change.diff'
WHERE (f.change_kind IS NOT NULL OR f.before_digest IS NOT NULL OR f.after_digest IS NOT NULL)
    AND (a.action_id IS NULL OR a.execution IS NOT NULL OR a.outcome NOT IN ('denied', 'expired', 'pending'))
