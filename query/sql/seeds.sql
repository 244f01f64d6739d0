-- The records with which a question's search begins: those that carry the one thing it asks for.
-- Parameters: since, until BIGINT (Unix ns, half-open; records without a time count by when they were received);
-- first_since, first_until BIGINT (the part of that window to prefer);
-- record BIGINT, resource, approver, policy, agent, sender VARCHAR (NULL: not asked for); most BIGINT.
-- Output: index BIGINT, run_id, trace_id, action_id, resource VARCHAR; class INTEGER (0 the whole resource, 1 its end at
-- a boundary, 2 a part). Order: the preferred part of the window, then newest first; at most `most` rows.
WITH timed AS (
    SELECT index, time, run_id, trace_id, action_id, resource, agent, approver, policy_id, sender
    FROM _base
    WHERE time >= make_timestamp_ns($since) AND time < make_timestamp_ns($until)
    UNION ALL
    SELECT index, received AS time, run_id, trace_id, action_id, resource, agent, approver, policy_id, sender
    FROM _base
    WHERE time IS NULL AND received >= make_timestamp_ns($since) AND received < make_timestamp_ns($until)
),
hits AS (
    SELECT
        *,
        CASE
            WHEN resource = $resource THEN 0
            WHEN ends_with(resource, '/' || ltrim($resource, '/')) OR ends_with(resource, ':' || $resource) THEN 1
            ELSE 2
        END AS class
    FROM timed
    WHERE action_id IS NOT NULL
        AND ($record IS NULL OR index = $record)
        AND ($resource IS NULL OR contains(resource, $resource))
        AND ($approver IS NULL OR approver = $approver)
        AND ($policy IS NULL OR policy_id = $policy)
        AND ($agent IS NULL OR agent = $agent)
        AND ($sender IS NULL OR sender = $sender)
)
SELECT index, run_id, trace_id, action_id, resource, class
FROM hits
WHERE $resource IS NULL OR class = (SELECT min(class) FROM hits)
ORDER BY time >= make_timestamp_ns($first_since) AND time < make_timestamp_ns($first_until) DESC, time DESC, index DESC
LIMIT $most
