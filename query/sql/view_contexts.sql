-- View `contexts`: one row for each source an agent read from, with the content that holds it where there is exactly one
-- such field. Documented in ANSWERS.md. Order: none.
CREATE VIEW contexts AS
WITH held AS (
    SELECT index, any_value(commitment) AS commitment
    FROM contents
    WHERE field IN ('gen_ai.retrieval.documents', 'gen_ai.memory.records')
    GROUP BY index
    HAVING count(*) = 1
),
read AS (SELECT index, time, run_id, action_id, unnest(contexts) AS context FROM _facts WHERE contexts IS NOT NULL)
SELECT r.index, r.time, r.run_id, r.action_id, r.context.source AS source, r.context.id AS id, h.commitment
FROM read AS r LEFT JOIN held AS h ON h.index = r.index
