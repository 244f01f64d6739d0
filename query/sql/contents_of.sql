-- All contents of one record. Parameters: record BIGINT.
-- Output: index BIGINT, ordinal INTEGER, field, type VARCHAR, salt, value BLOB, bytes BIGINT, name VARCHAR, keyed BLOB.
-- Order: ordinal.
SELECT index, ordinal, field, type, salt, value, octet_length(value) AS bytes, name, keyed
FROM _contents
WHERE index = $record
ORDER BY ordinal
