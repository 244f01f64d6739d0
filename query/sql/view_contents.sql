-- View `contents`: one row for each value that a record commits to. The marks are read out of the records' bytes, so a
-- value whose row is gone is still listed; those of a record that was too large go on in the subtrees that it moved out of
-- itself. Documented in ANSWERS.md. Order: none.
CREATE VIEW contents AS
WITH written AS (
    SELECT
        index,
        regexp_extract_all(decode(record), '"\$content":\{"bytes":[0-9]+,"commitment":"[0-9a-f]{64}"(?:,"rule":"[^"\\]*")?,"type":"[a-z0-9]+"\}') AS marks
    FROM _base
    WHERE contains(decode(record), '"$content":{')
),
moved AS (
    SELECT
        c.index,
        any_value(len(w.marks)) AS before,
        flatten(list(
            regexp_extract_all(decode(c.value), '"\$content":\{"bytes":[0-9]+,"commitment":"[0-9a-f]{64}"(?:,"rule":"[^"\\]*")?,"type":"[a-z0-9]+"\}')
            ORDER BY c.ordinal
        )) AS marks
    FROM _contents AS c JOIN written AS w ON w.index = c.index AND c.ordinal < len(w.marks)
    WHERE c.type = 't'
    GROUP BY c.index
),
marks AS (
    SELECT index, unnest(marks) AS mark, generate_subscripts(marks, 1) - 1 AS ordinal FROM written
    UNION ALL
    SELECT index, unnest(marks), before + generate_subscripts(marks, 1) - 1 FROM moved
)
SELECT
    regexp_extract(m.mark, '"commitment":"([0-9a-f]{64})"', 1) AS commitment,
    m.index,
    c.field,
    regexp_extract(m.mark, '"bytes":([0-9]+)', 1)::BIGINT AS bytes,
    CASE
        WHEN contains(m.mark, ',"rule":"') THEN 'never_kept'
        WHEN NOT (SELECT opened FROM _contents_opened) THEN NULL
        WHEN c.index IS NULL THEN 'missing'
        WHEN coalesce(c.value, encode(c.name)) IS NULL THEN 'erased'
        WHEN sha256('trail-content/1\x00'::BLOB || c.salt || coalesce(c.value, encode(c.name)))
            = regexp_extract(m.mark, '"commitment":"([0-9a-f]{64})"', 1) THEN 'matching'
        ELSE 'missing'
    END AS state
FROM marks AS m LEFT JOIN _contents AS c ON c.index = m.index AND c.ordinal = m.ordinal
