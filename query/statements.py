"""The SQL of this package, one statement a file in `query/sql/`, read once."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Final

VIEWS: Final = (
    "records", "actions", "changes", "approvals", "decisions", "contexts", "runs", "evaluations", "policies", "contents", "gaps",
    "seals", "custody",
)  # fmt: skip
"""The views of the data contract, in its order (`ANSWERS.md`)."""

DEFINITIONS: Final = (
    "view_facts", "view_texts", "view_persons", "view_stated", "view_twins", "view_spoken", "view_gathered", "view_judged", "view_actions",
    "view_records", "view_changes", "view_approvals", "view_decisions", "view_contents", "view_contexts", "view_runs",
    "view_evaluations", "view_policies", "view_gaps", "view_seals", "view_custody",
)  # fmt: skip
"""The statements that define views over `_base` and `_contents`, each after those it reads."""


@functools.cache
def statement(name: str) -> str:
    """The text of `query/sql/<name>.sql`."""
    return resources.files("query").joinpath("sql", f"{name}.sql").read_text("utf-8")
