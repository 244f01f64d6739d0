"""Who may send to a server, and who may read whole records from it: the token file, at its start and while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui.output import warn

if TYPE_CHECKING:
    from ingest.auth import LiveTokens
    from ingest.pipeline import Pipeline
    from ledger.writer import StoreWriter


class Senders:
    """The token file: in use if a token in it is valid at the start, and recorded (without digests) whenever it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            LedgerError: it is damaged or open to others.
        """
        from ingest.auth import TokenFile

        self.path = path
        now = time.time_ns()
        tokens = TokenFile.load(path).tokens
        self.in_use = any(token.revoked is None and (token.expires is None or token.expires > now) for token in tokens)
        if tokens and not self.in_use:
            warn(f"none of the {len(tokens)} tokens in {path} is valid any more: whoever is on this machine may send")
        self._writer: StoreWriter | None = None
        self._seen: object = None

    def attach(self, writer: StoreWriter) -> None:
        """Record the senders as they are now."""
        self._writer = writer
        self.record_change()

    def record_change(self) -> None:
        """Record the senders if the file is another one than at the last look.

        Raises:
            LedgerError: it is damaged, or the record could not be made durable.
        """
        from ingest.auth import TokenFile

        version = self._version()
        if self._writer is None or version == self._seen:
            return
        tokens: list[dict[str, Any]] = [
            {
                "name": token.name,
                "role": token.role.value,
                "services": list(token.services),
                "expires": None if token.expires is None else str(token.expires),
                "revoked": None if token.revoked is None else str(token.revoked),
            }
            for token in TokenFile.load(self.path).tokens
        ]
        self._writer.record_config("senders", json.dumps({"in_use": self.in_use, "tokens": tokens}, indent=1))
        self._seen = version

    def _version(self) -> object:
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns


def auditors(tokens: LiveTokens | None, pipeline: Pipeline) -> Callable[[str | None], str]:
    """Who may read whole records over HTTP: tokens with the role of an auditor, and nobody where no tokens are in use.

    Not even whoever is on this machine then: what comes through a proxy, or from a page in a browser, comes from this machine as well, and
    the owner of the store has its directory. A refusal leaves a trace.
    """
    from ingest.auth import LOOPBACK, Forbidden, Role, Unauthenticated, require
    from ingest.http import UNAUTHENTICATED
    from query.log_api import ReaderRefused, UnknownReader

    def authorize(header: str | None) -> str:
        if tokens is None:
            why = "whole records want a token of role auditor, and no tokens are in use"
            pipeline.refuse(status=403, why=why, sender_name=LOOPBACK.name)
            raise ReaderRefused(f"{why}: make a token of role auditor (trail token add NAME --role auditor), and start the server again")
        name = UNAUTHENTICATED
        try:
            sender = tokens.authenticate(header, time.time_ns())
            name = sender.name
            require(sender, {Role.AUDITOR, Role.ADMIN})
        except Unauthenticated as exc:
            pipeline.refuse(status=401, why=str(exc), sender_name=name)
            raise UnknownReader(exc.message) from exc
        except Forbidden as exc:
            pipeline.refuse(status=403, why=str(exc), sender_name=name)
            raise ReaderRefused(exc.message) from exc
        return name

    return authorize
