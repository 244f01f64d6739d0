-- The versions of policies that the store has seen. Parameters: policies VARCHAR[].
-- Output: policy_id, policy_version VARCHAR; first_seen TIMESTAMP_NS; index BIGINT (of the record that showed it first).
-- Order: policy_id, first_seen.
SELECT policy_id, policy_version, min(coalesce(time, received)) AS first_seen, arg_min(index, (coalesce(time, received), index)) AS index
FROM _base
WHERE policy_version IS NOT NULL AND policy_id IN (SELECT unnest($policies))
GROUP BY policy_id, policy_version
ORDER BY policy_id, first_seen
