-- View `policies`: one row for each policy text in the log. Documented in ANSWERS.md. Order: none.
CREATE VIEW policies AS
SELECT
    index, time, policy_id, policy_version AS version, json_extract_string(decode(record), '$.policy.digest') AS digest
FROM _facts
WHERE kind = 'policy'
