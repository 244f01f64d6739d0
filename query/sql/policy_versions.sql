-- The versions of policies that decided something, or were put into the store. Parameters: policies VARCHAR[].
-- "Seen" is the order of receipt, which no sender can choose; the time is that of the record that showed the version first.
-- Output: policy_id, policy_version VARCHAR; first_seen TIMESTAMP_NS; index BIGINT (of the record that showed it first).
-- Order: policy_id, index.
SELECT policy_id, policy_version, arg_min(coalesce(time, received), index) AS first_seen, min(index) AS index
FROM _base
WHERE policy_version IS NOT NULL AND (decision IS NOT NULL OR kind = 'policy') AND policy_id IN (SELECT unnest($policies))
GROUP BY policy_id, policy_version
ORDER BY policy_id, index
