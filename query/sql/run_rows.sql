-- Every record of some runs, in the order in which things happened. Parameters: runs, actions
-- VARCHAR[] (the records of these actions that belong to no run).
-- Output: the columns of a records file with the inherited run, without the bytes. Order: run, time, index.
SELECT * EXCLUDE (record)
FROM _facts
WHERE run_id IN (SELECT unnest($runs)) OR run_id IS NULL AND action_id IN (SELECT unnest($actions))
ORDER BY run_id, coalesce(time, received), index
