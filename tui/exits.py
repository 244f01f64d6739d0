"""The exit codes of `trail`, and which error ends in which one. A pipeline reads these and nothing else."""

from __future__ import annotations

from enum import IntEnum

from ledger.errors import CorruptSegment, LedgerError, MalformedError, StorageError, UnsupportedFormat, VerificationError
from query.errors import QueryError


class Exit(IntEnum):
    """What a run of `trail` came to."""

    OK = 0
    """Done; of `verify`: verified."""
    FALSE = 1
    """The evidence is false, or a required control is not met."""
    USAGE = 2
    """The command line, or the question, cannot be meant like this."""
    UNVERIFIABLE = 3
    """Nothing could be decided: unreadable input, a newer format, no pinned key, or nothing to compare."""
    STORAGE = 4
    """Our own disk, key, lock or network failed; nothing is said about the evidence."""
    INTERRUPTED = 130
    """Ctrl-C."""


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FALSE: "the evidence is false",
    Exit.USAGE: "the command line cannot be meant like this",
    Exit.UNVERIFIABLE: "input unreadable, a newer format, or nothing to compare",
    Exit.STORAGE: "storage or I/O failed",
    Exit.INTERRUPTED: "interrupted",
}
"""For `--help`; a verb says more exactly what its own codes mean."""


def exit_of(error: BaseException) -> Exit:
    """The code of an error that ends a command."""
    match error:
        case VerificationError() | CorruptSegment():
            # A sealed file that does not match, parse or exist is false, not merely unreadable.
            return Exit.FALSE
        case QueryError():
            return Exit.USAGE
        case MalformedError() | UnsupportedFormat():
            return Exit.UNVERIFIABLE
        case StorageError() | LedgerError() | OSError():
            return Exit.STORAGE
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case _:
            return Exit.STORAGE
