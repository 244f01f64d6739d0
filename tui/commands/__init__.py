"""One module a verb, imported when the verb is called; each has `command`.

What takes long to load (DuckDB, pyarrow, the server) is imported inside the functions that need it, so that `--help` and a wrong
command line answer at once. Only `serve`, `import_`, `demo` and `approve` may import `ingest`.
"""

__all__: list[str] = []
