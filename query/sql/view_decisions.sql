-- View `decisions`: one row for each record that states a policy decision. Documented in ANSWERS.md. Order: none.
CREATE VIEW decisions AS
SELECT
    s.index, s.time, s.run_id, s.action_id, s.policy_id, s.policy_version, s.rule, s.decision, s.engine, t.text AS input, s.assurance
FROM _stated AS s LEFT JOIN _texts AS t ON t.index = s.index AND t.field = 'trail.policy.input'
WHERE s.decision IS NOT NULL
