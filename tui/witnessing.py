"""The witnesses of a server: which ones its policy names, comparing with them before the start, and asking them while it runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledger.anchoring import Anchorer
from ledger.comparison import Account, compare_with_witnesses
from ledger.durable import storage_errors
from ledger.errors import MalformedError
from ledger.layout import Layout
from ledger.policy import MAX_POLICY_BYTES, Policy
from ledger.regular import read_file
from ledger.witness_client import WitnessClient
from tui.output import say, warn

if TYPE_CHECKING:
    from ledger.recovery import Recovered
    from ledger.trust import LogKeys
    from ledger.writer import StoreWriter

logger = logging.getLogger(__name__)

CONFIG_NAME: Final = "tlog-policy"
"""Of the record that holds the policy."""


class Witnessing:
    """What the policy of a store says, from the start of a server to its end; without a policy, nothing."""

    def __init__(self, layout: Layout) -> None:
        """Read the policy.

        Raises:
            MalformedError: it is not a policy, or a witness in it has an address that cannot be asked; names the line, or the witness.
            StorageError: it cannot be read.
        """
        self._layout = layout
        self.path = layout.policy
        data, self._seen = self._read()
        self._text = _shown(data)
        self.policy = self._parse(data) if data is not None else None
        self._anchorer: Anchorer | None = None
        self._writer: StoreWriter | None = None
        self._keys: LogKeys | None = None

    def compare(self, recovered: Recovered, keys: LogKeys) -> None:
        """Before anything is signed: does a witness know more of this log than the store has, or another history?

        Raises:
            NotAppendOnly: yes.
        """
        self._keys = keys
        if self.policy is not None:
            tree = recovered.state.tree
            account = Account.of_store(self._layout, keys, size=tree.size, root=tree.root())
            for why in compare_with_witnesses(self.policy, account):
                warn(why)

    def attach(self, writer: StoreWriter) -> None:
        """Record the policy, and begin to submit; the end of the writer is the end of this too."""
        self._writer = writer
        if self.policy is None or self._keys is None:
            return
        writer.record_config(CONFIG_NAME, self._text)
        if any(witness.url is not None for witness in self.policy.witnesses):
            self._anchorer = Anchorer(writer.log, self.policy, self._keys)
            writer.on_stopped.append(self._anchorer.finish)
            self._anchorer.start()

    def say(self) -> None:
        """Tell who is asked."""
        if self.policy is None or self._writer is None:
            return
        asked = [witness.name for witness in self.policy.witnesses if witness.url is not None]
        every = self._writer.settings.witness_seconds
        say(f"witnesses  {', '.join(asked) or 'none'} (quorum {self.policy.quorum}, every {every:g} s at most)")
        if not asked:
            warn(f"no witness in {self.path} has a URL: nobody is asked")
        ours = {key.verifier.vkey for key in self._keys.keys} if self._keys is not None else set()
        if self.policy.logs and not ours & {log.verifier.vkey for log in self.policy.logs}:
            warn(f"{self.path} is about other logs: it names none of the keys of this one")

    def record_change(self) -> None:
        """Record the policy if the file is another one than at the last look. It takes effect with the next start.

        Raises:
            LedgerError: it cannot be read, or the record could not be made durable.
        """
        if self._writer is None or self._version() == self._seen:
            return
        data, seen = self._read()
        text = _shown(data)
        if text != self._text:
            self._writer.record_config(CONFIG_NAME, text)
            logger.warning("%s was changed: it takes effect when the server is started again", self.path)
        self._text, self._seen = text, seen
        if data is not None:
            try:
                self._parse(data)
            except MalformedError as exc:
                logger.error("the server will not start with it: %s", exc)

    def _read(self) -> tuple[bytes | None, object]:
        """(The bytes of the file or None, which version it is); the version first, so that a change in between is seen the next time."""
        seen = self._version()
        with storage_errors("reading", self.path):
            try:
                return read_file(self.path, limit=MAX_POLICY_BYTES), seen
            except FileNotFoundError:
                return None, seen

    def _version(self) -> object:
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _parse(self, data: bytes) -> Policy:
        try:
            policy = Policy.parse(data)
            for witness in policy.witnesses:
                if witness.url is not None:
                    WitnessClient(witness.url)
        except MalformedError as exc:
            raise MalformedError(f"{self.path}: {exc.message}", path=self.path, index=exc.index, hint=exc.hint) from exc
        return policy


def open_witnessed(store: Path, *, command: str, key_path: Path | None) -> StoreWriter:
    """Open a store for writing as a server does: not on if a witness knows more, and with what is signed cosigned at the end.

    Raises:
        LedgerError: as `StoreWriter.open`, and what `Witnessing` refuses.
    """
    from ledger.writer import StoreWriter

    witnessing = Witnessing(Layout(store))
    writer = StoreWriter.open(store, command=command, key_path=key_path, before_signing=witnessing.compare)
    witnessing.attach(writer)
    return writer


def _shown(data: bytes | None) -> str:
    """The policy as a text that a record can hold; a removed one is empty."""
    return (data or b"").decode("utf-8", "backslashreplace")
