"""The errors of the ledger, in families that say who is at fault.

    LedgerError
        MalformedError          bytes do not parse: the input is at fault
        VerificationError       bytes parse, and what they claim is false
            RootMismatch        a computed root or leaf differs from the claimed one
            BadSignature        no signature, or a wrong one, under a key that is known
            NotAppendOnly       a later tree does not extend an earlier one
            RecordAltered       a record or content differs from what the log commits to
        StorageError            our own disk is wrong, missing or full
            CorruptSegment, StoreLocked, UnsupportedFormat, StoreMissing, ReadOnlyStore, DiskFull, MissingKey,
            WitnessUnreachable
        InvariantError          an internal impossibility: a bug of ours

"False" and "could not be checked" never share a family: `VerificationError` is evidence against the log,
`StorageError` is not.

Evidence travels as attributes (`expected`, `actual`, `index`, `path`), never only inside the message, and
`hint` says what an operator can do. The classes are ordinary ones: a frozen dataclass exception breaks inside
`contextlib.contextmanager`, which must be able to set `__traceback__`.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Anything the ledger refuses or fails at; the root of every error that leaves the package."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        expected: object = None,
        actual: object = None,
        index: int | None = None,
        path: object = None,
    ) -> None:
        """Keep the message and whatever evidence the raiser has.

        Args:
            message: One line for a person, without the evidence values unless they are short.
            hint: What the operator can do about it; empty when there is nothing to say.
            expected: The value that would have been right.
            actual: The value that was found.
            index: The record index concerned, from 0.
            path: The file concerned, a string or a path object; kept as a string, so it can be printed as
                JSON.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.expected = expected
        self.actual = actual
        self.index = index
        self.path = None if path is None else str(path)


class MalformedError(LedgerError):
    """Bytes from outside do not parse, or an argument lies outside what its format allows."""


class VerificationError(LedgerError):
    """The bytes parse and the claim they make is false."""


class RootMismatch(VerificationError):
    """A root recomputed from evidence is not the root that was claimed; both are attached."""


class BadSignature(VerificationError):
    """A known key's signature is wrong, or no known key has signed at all."""


class NotAppendOnly(VerificationError):
    """Two signed tree heads cannot belong to one append-only log."""


class RecordAltered(VerificationError):
    """A record, a content or a file differs from what the log commits to."""


class StorageError(LedgerError):
    """Our own disk is wrong: nothing is said about whether the log is true."""


class CorruptSegment(StorageError):
    """A stored file cannot be read as the format it should be."""


class StoreLocked(StorageError):
    """Another process holds the store's write lock."""


class UnsupportedFormat(StorageError):
    """The store or a file in it was written by a newer version than this one."""


class StoreMissing(StorageError):
    """There is no store at the path given."""


class ReadOnlyStore(StorageError):
    """A write was asked of a store that was opened for reading."""


class DiskFull(StorageError):
    """The disk, or the reserve kept on it, has no room for the write."""


class MissingKey(StorageError):
    """A signing key is needed and is not where it was looked for."""


class WitnessUnreachable(StorageError):
    """A witness could not be asked, or has not cosigned: nothing is said about the log."""


class InvariantError(LedgerError):
    """Something that cannot happen has happened: a bug in the ledger, never the input's fault."""
