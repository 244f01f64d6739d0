-- Internal view `_persons`: the name behind a pseudonym, while any record still keeps it.
-- Output: pseudonym VARCHAR ("p:" and 16 hex digits), name VARCHAR. Order: none.
CREATE VIEW _persons AS
SELECT 'p:' || left(lower(hex(keyed)), 16) AS pseudonym, arg_min(name, index) AS name
FROM _contents
WHERE name IS NOT NULL AND keyed IS NOT NULL
GROUP BY 1
