"""`trail sql`: any other question, as one SELECT over the views."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import click

from tui.exits import Exit
from tui.opening import open_to_ask
from tui.output import emit, emit_json, emit_table, say
from tui.verb import json_option, store_of, tail_option, verb, vkey_option


@verb(
    "sql",
    examples=[
        ('trail sql "SELECT tool, count(*) AS calls FROM actions GROUP BY tool ORDER BY calls DESC"', "which tools were used"),
        ('trail sql "SELECT * FROM changes WHERE approver IS NULL" --json', "changes without an approver, for a program"),
        ('trail sql "DESCRIBE actions"', "the columns of a view"),
    ],
    exits={Exit.FALSE: "the evidence is false", Exit.USAGE: "not one plain SELECT over the views, or it does not parse"},
)
@click.argument("query", metavar="QUERY")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--limit", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True, help="The most rows.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=60, show_default=True, help="How long it may run.")
@tail_option
@vkey_option
@json_option
@click.pass_context
def command(
    context: click.Context, query: str, as_csv: bool, limit: int, seconds: float, tail: bool, vkey: str | None, as_json: bool
) -> Exit:
    """Run one SELECT (DuckDB's SQL) over the verified records; nothing can be written, and nothing else can be read.

    The views: records, actions, changes, approvals, decisions, contexts, runs, evaluations, policies, contents, gaps, seals, custody.
    Times are UTC; a BLOB is printed as hex, and decode(record) makes it text.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    from query.sandbox import limit_memory, row_limit, run_user_sql
    from query.store import open_views
    from tui.tabular import plain_rows

    store = open_to_ask(store_of(context), vkey=vkey)
    limit_memory()
    with open_views(store.reader, tail=tail) as views:
        table = run_user_sql(views, query, max_rows=limit, seconds=seconds)
    rows = plain_rows(table)
    if as_json:
        emit_json(rows)
    elif as_csv:
        emit(_csv(list(rows[0]) if rows else table.column_names, rows))
    else:
        names = list(rows[0]) if rows else table.column_names
        numbers = frozenset(name for name in names if rows and all(isinstance(row[name], int | float | None) for row in rows))
        emit_table(names, [list(row.values()) for row in rows], right=numbers)
    if (cut := row_limit(table)) is not None:
        say(f"the first {cut:,} rows are shown; --limit shows more")
    return store.exit


def _csv(names: list[str], rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value for value in row.values()])
    return text.getvalue().removesuffix("\n")
