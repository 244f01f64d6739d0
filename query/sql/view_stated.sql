-- Internal view `_stated`: `_facts` with the assurance of what each record states.
-- observed: the sender was authenticated as approver or policy, and emitted nothing in this run but approvals,
-- the questions they answer, and decisions; claimed: everything else. A record that belongs to no run is claimed.
-- Output: the columns of `_facts`, assurance VARCHAR. Order: none.
CREATE VIEW _stated AS
WITH senders AS (
    SELECT
        run_id AS run,
        sender AS party,
        -- Never NULL: bool_and would pass over a record without an event, as if the sender had not sent it.
        bool_and(
            coalesce(role IN ('approver', 'policy'), false)
            AND (approval IS NOT NULL OR decision IS NOT NULL OR coalesce(event = 'trail.approval.requested', false))
        ) AS apart
    FROM _facts
    WHERE run_id IS NOT NULL AND sender IS NOT NULL
    GROUP BY run_id, sender
)
SELECT f.*, CASE WHEN s.apart THEN 'observed' ELSE 'claimed' END AS assurance
FROM _facts AS f LEFT JOIN senders AS s ON s.run = f.run_id AND s.party = f.sender
