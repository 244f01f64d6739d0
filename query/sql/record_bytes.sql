-- The bytes of some records. Parameters: indexes BIGINT[]. Output: index BIGINT, record BLOB. Order: index.
SELECT index, record FROM _base WHERE index IN (SELECT unnest($indexes)) ORDER BY index
