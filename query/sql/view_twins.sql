-- Internal view `_twins`: spans of which there are two copies that differ in more than when they were received.
-- Which one is true cannot be told from the copies, so both are kept and both are shown.
-- Output: trace_id, span_id VARCHAR; run_id VARCHAR; sender VARCHAR (of the first copy); first, last BIGINT (indexes);
-- copies BIGINT. Order: none.
CREATE VIEW _twins AS
WITH twice AS (
    SELECT trace_id, span_id
    FROM _base
    WHERE kind = 'span' AND trace_id IS NOT NULL AND span_id IS NOT NULL
    GROUP BY trace_id, span_id
    HAVING count(*) > 1
)
SELECT
    f.trace_id,
    f.span_id,
    arg_min(f.run_id, f.index) AS run_id,
    arg_min(f.sender, f.index) AS sender,
    min(f.index) AS first,
    max(f.index) AS last,
    count(*) AS copies
FROM _facts AS f JOIN twice AS t ON t.trace_id = f.trace_id AND t.span_id = f.span_id
WHERE f.kind = 'span'
GROUP BY f.trace_id, f.span_id
HAVING count(DISTINCT regexp_replace(regexp_replace(decode(f.record), '"received":"[0-9]+",?', ''), '"nonce":"[0-9a-f]+",?', '')) > 1
