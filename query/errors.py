"""The errors of the query package: a question that cannot be asked like this, never a statement about the evidence.

What is wrong with the store itself stays an error of `ledger` (`VerificationError`, `StorageError`).
"""

from __future__ import annotations

from ledger.errors import LedgerError


class QueryError(LedgerError):
    """A question or a statement of the user cannot be answered as it stands; `hint` says what to do instead."""


class RefusedStatement(QueryError):
    """A user's SQL is not one plain SELECT over the views."""


class QueryTimeout(QueryError):
    """A statement was stopped because it ran longer than it may."""
