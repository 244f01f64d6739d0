"""That a rotation of the key was begun: a file beside the signing key, from before the rotation's record until all is done.

While it is there nothing is signed with either key but by `trail key rotate`, which finishes what it finds: once the log says that the old
key was replaced, a signature by it alone would contradict the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from ledger import durable
from ledger.durable import storage_errors
from ledger.errors import MalformedError, StorageError
from ledger.keys import KeyFile
from ledger.layout import Layout
from ledger.rotation import Rotation, body_of, read_lines, replaced_by


@dataclass(frozen=True, slots=True)
class Intent:
    """A rotation that was begun."""

    statement: str
    """What both keys have signed, see `ledger.rotation`."""
    signatures: tuple[str, ...]

    @property
    def rotation(self) -> Rotation:
        """From which key to which, and at which size; the signatures are not looked at."""
        return Rotation.stated(self.statement)

    def body(self) -> dict[str, Any]:
        """The `key` member of the record."""
        return body_of(self.statement, self.signatures)

    @staticmethod
    def path(key: Path) -> Path:
        """Where it lies."""
        return key.with_name(key.name + ".rotating")

    @classmethod
    def read(cls, key: Path) -> Self | None:
        """The rotation that was begun with this key file; None if there is none.

        Raises:
            MalformedError: the file is damaged.
            StorageError: it cannot be read.
        """
        path = cls.path(key)
        if not path.exists():
            return None
        with storage_errors("reading", path):
            data = path.read_bytes()
        try:
            value = orjson.loads(data)
            intent = cls(value["statement"], tuple(value["signatures"]))
            intent.body()
        except (ValueError, KeyError, TypeError, AttributeError, MalformedError) as exc:
            raise MalformedError(
                f"{path} does not say which rotation was begun: {exc}", path=path,
                hint="keep it, and look in the log for a rotation: trail sql \"SELECT * FROM records WHERE kind = 'key'\"",
            ) from exc  # fmt: skip
        return intent

    def write(self, key: Path) -> None:
        """Put it beside the key, durably: before the record."""
        data = orjson.dumps({"statement": self.statement, "signatures": list(self.signatures)}, option=orjson.OPT_APPEND_NEWLINE)
        durable.replace(self.path(key), data, mode=0o600)


def require_current(layout: Layout, key: KeyFile) -> None:
    """Refuse to sign on with a key that was given up, or is about to be.

    Raises:
        StorageError: a rotation was begun and not finished, or the log has rotated to another key.
    """
    if Intent.path(key.path).exists():
        raise StorageError(
            f"a rotation of the key at {key.path} was begun and is not finished: nothing is signed before it is",
            path=Intent.path(key.path),
            hint="finish it: trail key rotate",
        )
    replaced = replaced_by(read_lines(layout), key.signer.vkey)
    if replaced is not None:
        raise StorageError(
            f"the key at {key.path} was replaced by {replaced[1]} in record {replaced[0]}: nothing is signed with it any more",
            path=key.path,
            index=replaced[0],
            hint="name the file of the present key: --key FILE, or TRAIL_KEY",
        )
