"""The terminal: the `trail` command and the full-screen app.

It renders what `query` and `ledger` return, and computes nothing of its own.

    cli        the entry point, which assembles the command
    commands   one module a verb; only serve, import, demo, token and approve may import `ingest`

`SCREENS.md` documents what is shown. Names are imported from the module that defines them, so that
`trail verify` loads no server.
"""

__all__: list[str] = []
