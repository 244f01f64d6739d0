"""Opening a store for writing, and closing it: lock, recovery, the log and its sealer, the first and the last record.

`create` makes a store, `StoreWriter.open` takes it over. One writer a store; everything it appends goes through `ledger.log`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ledger import durable
from ledger.durable import WriterLock
from ledger.errors import MalformedError, StorageError
from ledger.keys import KeyFile, LastSigned, Pins, default_key_path
from ledger.layout import FORMAT_VERSION, Layout
from ledger.log import Log
from ledger.note import Verifier
from ledger.recovery import Recovered, recover
from ledger.sealer import Sealer
from ledger.settings import Settings, settings_text
from ledger.submission import OwnReceipt

logger = logging.getLogger(__name__)

CONFIG_CHARS: Final = 8_000
"""Of one `config` record: escaped and in UTF-8 even the worst text of this length fits a record."""


def create(root: Path, *, origin: str, key_path: Path | None = None, pins: Pins | None = None) -> KeyFile:
    """Make an empty store with a new key, and pin that key for this user.

    Raises:
        StorageError: a store or a key is already there.
        MalformedError: the origin is not a name.
    """
    layout = Layout(root)
    if layout.settings.exists():
        raise StorageError(f"there is already a store at {root}", path=root, hint="use it as it is, or name another place with --store")
    text = settings_text(origin)
    if Settings.parse(text, path=layout.settings).origin != origin:
        raise MalformedError(f"the origin {origin!r} is not a plain name", hint="use letters, digits, dots, slashes and dashes")
    for directory in layout.directories():
        # Prompts and persons lie in it: whom to let read is the operator's decision, not a default.
        durable.make_dirs(directory, mode=0o700)
    key = KeyFile.create(key_path or default_key_path(origin), origin=origin)
    # Last: a directory with a trail.toml is a store.
    durable.write_once(layout.settings, text.encode())
    (pins or Pins.default()).add(key.signer.vkey, store=root)
    return key


class StoreWriter:
    """A store open for writing."""

    def __init__(self, layout: Layout, settings: Settings, key: KeyFile, lock: WriterLock, log: Log, sealer: Sealer) -> None:
        """Use `open`."""
        self.layout = layout
        self.settings = settings
        self.key = key
        self.log = log
        self.sealer = sealer
        self._lock = lock
        self._configs: dict[str, str] = {}

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        command: str,
        key_path: Path | None = None,
        last_signed: LastSigned | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> StoreWriter:
        """Lock, recover, start the log, and record the start.

        Args:
            root: the store.
            command: what to call the holder of the lock.
            key_path: the signing key; default by `default_key_path`.
            last_signed: the state outside the store; default by `LastSigned.default`.
            clock: Unix nanoseconds.
            monotonic: seconds.
            random: nonces.

        Raises:
            StorageError: no store, another writer, a missing key, or a history that must not be signed on.
        """
        layout = Layout(root)
        settings, text = Settings.load(layout)
        key = KeyFile.load(key_path or default_key_path(settings.origin), origin=settings.origin)
        lock = WriterLock(layout.lock, command=command)
        try:
            for directory in layout.directories():
                durable.make_dirs(directory)
            head = last_signed or LastSigned.default(settings.origin)
            recovered = recover(layout, settings, Verifier.parse(key.signer.vkey), head, now=clock())
            sealer = Sealer(layout, settings, recovered.seals, monotonic=monotonic)
            log = Log(layout, settings, key, head, recovered.state, clock=clock, monotonic=monotonic, random=random, on_segment=sealer.add)
            writer = cls(layout, settings, key, lock, log, sealer)
        except BaseException:
            lock.release()
            raise
        log.start()
        sealer.start(log)
        try:
            writer._record_start(recovered, text, command)
        except BaseException:
            # The threads first: without the lock they would be a second writer.
            writer._release()
            raise
        return writer

    def record_config(self, name: str, text: str) -> None:
        """Append a `config` record if this text differs from the one recorded last: facts are judged under the configuration in force.

        A long text becomes a counted series of records, each with the digest of the whole.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self._configs.get(name) == digest:
            return
        pieces = [text[at : at + CONFIG_CHARS] for at in range(0, len(text), CONFIG_CHARS)] or [""]
        for part, piece in enumerate(pieces, 1):
            series = {"part": part, "parts": len(pieces)} if len(pieces) > 1 else {}
            self.append("config", {"name": name, "digest": digest, "text": piece, **series}, facts={"name": name})
        self._configs[name] = digest

    def append(self, kind: str, body: Mapping[str, Any], *, facts: Mapping[str, Any] | None = None, **who: Any) -> OwnReceipt:
        """Append one record of our own and wait until it is durable.

        Raises:
            StorageError: it could not be made durable.
        """
        return self.log.append_own(kind, body, facts=facts, **who).result()

    def close(self) -> None:
        """Record the stop, seal everything, publish, release the lock. Also after a fault: what cannot be sealed stays in the journal."""
        try:
            try:
                self.append("lifecycle", {"event": "stop"}, facts={"name": "stop"})
            except StorageError as exc:
                logger.error("the stop was not recorded: %s", exc)
            self.log.rotate()
            # The rotation is done by the writer thread; the sealer must see the job before it is told to finish.
            with contextlib.suppress(StorageError):  # the log has stopped already
                self.log.settle()
        finally:
            self._release()

    def _release(self) -> None:
        try:
            self.sealer.drain()
            self.log.stop()
        finally:
            self._lock.release()

    def _record_start(self, recovered: Recovered, text: str, command: str) -> None:
        found = recovered.found
        event = "start" if found.nothing else "recovery"
        self.append(
            "lifecycle",
            {"event": event, "format": FORMAT_VERSION, "command": command, "size": recovered.state.tree.size, **found.body()},
            facts={"name": event},
        )
        self.record_config("trail.toml", text)
