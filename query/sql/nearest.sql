-- When a resource was last spoken of before a window, and first after it.
-- Parameters: resource VARCHAR (whole, end or part), since, until BIGINT (Unix ns).
-- Output: before, after TIMESTAMP_NS, one row. Order: none.
SELECT
    max(time) FILTER (WHERE time < make_timestamp_ns($since)) AS before,
    min(time) FILTER (WHERE time >= make_timestamp_ns($until)) AS after
FROM _base
WHERE contains(resource, $resource) AND action_id IS NOT NULL
