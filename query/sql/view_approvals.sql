-- View `approvals`: one row for each record that states an approval or its refusal. Documented in ANSWERS.md.
-- Order: none.
CREATE VIEW approvals AS
SELECT
    s.index, s.time, s.received, s.run_id, s.action_id, s.approval AS decision, s.approval_source AS source, s.approver, s.scope,
    t.text AS reason, s.shown, s.assurance
FROM _stated AS s LEFT JOIN _texts AS t ON t.index = s.index AND t.field = 'trail.approval.reason'
WHERE s.approval IS NOT NULL
