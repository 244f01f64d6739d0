-- View `actions`: one row for each action, key (run_id, action_id). Documented in ANSWERS.md. Order: none.
CREATE VIEW actions AS
SELECT
    action_id, run_id, step, time, received, agent, workflow, tool, resource, tier, outcome, change_kind, decision, policy_id,
    policy_version, rule, approval, approver, approval_source, approval_time, assurance, execution, arguments, reversal, conflict,
    records
FROM _judged
