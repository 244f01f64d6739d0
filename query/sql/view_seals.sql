-- View `seals`: one row for each seal in the log. Documented in ANSWERS.md. Order: none.
CREATE VIEW seals AS
SELECT
    index,
    json_extract_string(decode(record), '$.seal.file') AS file,
    json_extract_string(decode(record), '$.seal.start')::BIGINT AS start,
    json_extract_string(decode(record), '$.seal.end')::BIGINT AS "end",
    json_extract_string(decode(record), '$.seal.sha256') AS sha256,
    json_extract_string(decode(record), '$.seal.supersedes[*]') AS supersedes
FROM _base
WHERE kind = 'seal'
