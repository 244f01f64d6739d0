-- View `evaluations`: one row for each record that states the result of an evaluation. Documented in ANSWERS.md.
-- Order: none.
CREATE VIEW evaluations AS
SELECT index, time, run_id, evaluation AS name, score, label, workflow
FROM _facts
WHERE evaluation IS NOT NULL
