-- The actions a question asks for, with what the card needs of them beyond `actions`.
-- Parameters: since, until BIGINT (Unix ns, or NULL; the action's time, else when it was received); record BIGINT, runs,
-- resources VARCHAR[], agent, approver, policy, sender VARCHAR (each NULL: any).
-- Output: the columns of `_judged`. Order: time, then first record.
SELECT *
FROM _judged
WHERE ($since IS NULL OR coalesce(time, received) >= make_timestamp_ns($since))
    AND ($until IS NULL OR coalesce(time, received) < make_timestamp_ns($until))
    AND ($record IS NULL OR list_contains(records, $record))
    AND ($runs IS NULL OR run_id IS NULL OR run_id IN (SELECT unnest($runs)))
    AND ($resources IS NULL OR resource IN (SELECT unnest($resources)))
    AND ($agent IS NULL OR agent = $agent)
    AND ($approver IS NULL OR approver = $approver)
    AND ($policy IS NULL OR policy_id = $policy)
    AND ($sender IS NULL OR list_contains(senders, $sender))
ORDER BY coalesce(time, received), records[1]
