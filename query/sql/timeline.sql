-- Events in the order in which they happened. Parameters: since, until BIGINT (Unix ns, or NULL), run, agent, resource
-- VARCHAR (NULL: any; the resource whole or in part), after_time BIGINT and after_index BIGINT (the last row of the page
-- before, or NULL), most BIGINT.
-- Output: the columns selected. Order: time (else received), index.
SELECT
    index, time, received, kind, sender, event, name, run_id, action_id, agent, tool, resource, outcome, decision, policy_id,
    approval, approver, model
FROM _facts
WHERE ($since IS NULL OR coalesce(time, received) >= make_timestamp_ns($since))
    AND ($until IS NULL OR coalesce(time, received) < make_timestamp_ns($until))
    AND ($run IS NULL OR run_id = $run)
    AND ($agent IS NULL OR agent = $agent)
    AND ($resource IS NULL OR contains(resource, $resource))
    AND ($after_index IS NULL OR (coalesce(time, received), index) > (make_timestamp_ns($after_time), $after_index))
ORDER BY coalesce(time, received), index
LIMIT $most
