-- Contents of some records: the fields asked for, every person's name, and moved subtrees, in which more of them may be.
-- Parameters: indexes BIGINT[], fields VARCHAR[], most BIGINT (a longer value is left out and only measured).
-- Output: index BIGINT, ordinal INTEGER, field, type VARCHAR, salt, value BLOB, bytes BIGINT, name VARCHAR, keyed BLOB.
-- Order: index, ordinal.
SELECT
    index, ordinal, field, type, salt,
    CASE WHEN octet_length(value) <= $most THEN value END AS value,
    octet_length(value) AS bytes,
    name, keyed
FROM _contents
WHERE index IN (SELECT unnest($indexes)) AND (name IS NOT NULL OR type = 't' OR field IN (SELECT unnest($fields)))
ORDER BY index, ordinal
