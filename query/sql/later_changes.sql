-- Changes that were made to some resources from a time on. Parameters: resources VARCHAR[], since BIGINT (Unix ns),
-- most BIGINT. Output: resource VARCHAR, time TIMESTAMP_NS, index BIGINT, action_id VARCHAR. Order: time, index.
SELECT resource, time, index, action_id
FROM _base
WHERE change_kind IS NOT NULL
    AND kind IN ('span', 'log')
    AND coalesce(outcome, 'unknown') IN ('ok', 'unknown')
    AND approval IS DISTINCT FROM 'denied' AND decision IS DISTINCT FROM 'deny'
    AND time >= make_timestamp_ns($since)
    AND resource IN (SELECT unnest($resources))
ORDER BY time, index
LIMIT $most
