"""What can be asked of `ask`, checked before anything is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from query.errors import QueryError

DEFAULT_CARDS: Final = 20
MAX_CARDS: Final = 1_000
MIN_TIME: Final = -(2**63) + 2
MAX_TIME: Final = 2**63 - 2
"""The ends of TIMESTAMP_NS that are not infinities."""
Match = Literal["whole", "end", "part", "id", "none"]
"""How the resource of a question was found: as it stands, as an end at a path boundary, as a part, as an identifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question; every part that is given narrows the answer. None means not asked for."""

    resource: str | None = None
    """A whole resource, its end, a part of it, or an identifier (an action, approval, decision, ticket, trace, ...)."""
    run: str | None = None
    record: int | None = None
    """An index: the actions this record speaks of."""
    agent: str | None = None
    approver: str | None = None
    policy: str | None = None
    """A policy's id."""
    sender: str | None = None
    since: int | None = None
    """Unix nanoseconds, inclusive."""
    until: int | None = None
    """Unix nanoseconds, exclusive."""
    limit: int = DEFAULT_CARDS
    """The most cards."""

    def __post_init__(self) -> None:
        """Refuse what cannot have been meant.

        Raises:
            QueryError: an empty text (an unset variable is no filter), a negative index, an empty window, a bad limit.
        """
        for name in ("resource", "run", "agent", "approver", "policy", "sender"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise QueryError(f"{name} is empty", hint=f"leave {name} out to ask for any")
        if self.record is not None and self.record < 0:
            raise QueryError(f"there is no record {self.record}", hint="records are counted from 0")
        for bound in (self.since, self.until):
            if bound is not None and not MIN_TIME <= bound <= MAX_TIME:
                raise QueryError("a time lies outside what a store can hold", hint="the years 1678 to 2262")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise QueryError("the window is empty: it ends before it begins", hint="swap since and until")
        if not 1 <= self.limit <= MAX_CARDS:
            raise QueryError(f"the limit is from 1 to {MAX_CARDS}", actual=self.limit)
