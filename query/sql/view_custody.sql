-- View `custody`: one row for each recorded act of looking or handing over. Documented in ANSWERS.md. Order: none.
CREATE VIEW custody AS
SELECT
    index,
    time,
    json_extract_string(decode(record), '$.custody.who') AS who,
    json_extract_string(decode(record), '$.custody.what') AS what,
    json_extract_string(decode(record), '$.custody.why') AS why
FROM _base
WHERE kind = 'custody'
