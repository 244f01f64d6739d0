-- Internal view `_texts`: the kept values of contents, one for each record and field (the first in document order).
-- Output: index BIGINT, field VARCHAR, text VARCHAR. Order: none.
CREATE VIEW _texts AS
SELECT index, field, arg_min(decode(value), ordinal) AS text
FROM _contents
WHERE value IS NOT NULL AND type IN ('s', 'j')
GROUP BY index, field
