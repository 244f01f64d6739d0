"""The file the incident changes: its text before and after, their digests, and the difference.

The two texts lie in `samples/workspace/`, so that anyone can apply the recorded diff and compare the digests.
"""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "workspace"


def digest(text: str) -> str:
    """`sha256:` and the hex SHA-256 of the text's UTF-8 bytes."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True)
class Change:
    """One file, before and after."""

    path: str
    before: str
    after: str

    @property
    def diff(self) -> str:
        """The unified diff (`diff -u`, three lines of context) that turns `before` into `after`."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            fromfile=f"a/{self.path}",
            tofile=f"b/{self.path}",
        )
        return "".join(lines)


def refund_limit_change() -> Change:
    """`config/refunds.yaml`, as it was and with the limit for `issue_refund` raised from 25 to 250 USD."""
    return Change(
        path="config/refunds.yaml",
        before=(FOLDER / "refunds.before.yaml").read_text(encoding="utf-8"),
        after=(FOLDER / "refunds.after.yaml").read_text(encoding="utf-8"),
    )
