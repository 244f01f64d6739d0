"""Read-only answers over verified segments.

Imports `ledger` only, which alone decides whether a record is authentic.

    store     the confined DuckDB and its views, over verified files
    sandbox   user SQL: one SELECT over the views, with limits
    sql       the statements and views, one a file
    answers   the card: what, who, policy, saw, undo, intact
    log_api   `/log` over HTTP: checkpoint, hash tiles, entry bundles
    custody   who read whole records over it, as records of the log

`ANSWERS.md` documents the views and the answers. Names are imported from the module that defines them.
"""

__all__: list[str] = []
