-- Some records, without their bytes. Found by narrow statements before: a scan that filters by one column and returns
-- all of them decodes all of them. Parameters: indexes BIGINT[].
-- Output: the columns of a records file, `record` empty. Order: index.
SELECT * REPLACE (''::BLOB AS record) FROM _base WHERE index IN (SELECT unnest($indexes)) ORDER BY index
