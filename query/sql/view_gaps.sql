-- View `gaps`: one row for each thing that is known to be missing or to contradict itself. Documented in ANSWERS.md.
-- Order: none.
CREATE VIEW gaps AS
WITH counted AS (
    SELECT run_id, sender, sequence, lag(sequence) OVER (PARTITION BY run_id, sender, service ORDER BY sequence) AS previous
    FROM _facts
    WHERE sequence IS NOT NULL
),
orphans AS (
    SELECT f.index, f.run_id, f.sender, f.parent_span_id
    FROM _facts AS f
    LEFT JOIN (SELECT DISTINCT trace_id, span_id FROM _base WHERE kind = 'span') AS p
        ON p.trace_id = f.trace_id AND p.span_id = f.parent_span_id
    WHERE f.kind = 'span' AND f.parent_span_id IS NOT NULL AND p.span_id IS NULL
),
dropped AS (
    SELECT
        index, run_id, sender,
        list_sum(list_transform(regexp_extract_all(decode(record), '"dropped_[a-z]+_count":"?([0-9]+)', 1), lambda n: n::BIGINT))::BIGINT AS lost
    FROM _facts
    WHERE kind IN ('span', 'log') AND contains(decode(record), '"dropped_')
)
SELECT
    'sequence' AS kind, run_id, sender, previous + 1 AS "from", sequence - 1 AS "to",
    (sequence - previous - 1) || ' of the numbers this sender counts by did not arrive' AS why
FROM counted
WHERE sequence > previous + 1
UNION ALL
SELECT 'orphan', run_id, sender, index, index, 'the parent span ' || parent_span_id || ' is not in the store' FROM orphans
UNION ALL
SELECT 'dropped', run_id, sender, index, index, lost || ' attributes, events or links were dropped before sending'
FROM dropped
WHERE lost > 0
UNION ALL
SELECT 'conflict', run_id, sender, first, last, copies || ' different copies of the span ' || span_id FROM _twins
UNION ALL
SELECT 'conflict', run_id, NULL, records[1], records[-1], 'different decisions or approvals are stated for the action ' || action_id
FROM _gathered
WHERE contradicted
