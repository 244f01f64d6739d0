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
from ledger.checkpoint import Checkpoint
from ledger.continuation import Continued, get_continued, put_continued
from ledger.durable import WriterLock
from ledger.errors import LedgerError, MalformedError, StorageError, VerificationError
from ledger.key_intent import require_current
from ledger.keys import KeyFile, LastSigned, Pins, default_key_path
from ledger.layout import FORMAT_VERSION, Layout
from ledger.log import Log
from ledger.note import parse_note
from ledger.recovery import Recovered, recover
from ledger.rotation import follow, read_lines
from ledger.sealer import Sealer
from ledger.settings import Settings, settings_text
from ledger.signers import BothSigners
from ledger.submission import OwnReceipt
from ledger.trust import LogKeys

logger = logging.getLogger(__name__)

CONFIG_CHARS: Final = 8_000
"""Of one `config` record: escaped and in UTF-8 even the worst text of this length fits a record."""


def create(
    root: Path, *, origin: str, key_path: Path | None = None, pins: Pins | None = None, continues: Continued | None = None
) -> KeyFile:
    """Make an empty store with a new key, and pin that key for this user.

    Args:
        root: where.
        origin: the log's name.
        key_path: where the key goes; default by `default_key_path`.
        pins: the user's pins.
        continues: the last checkpoint of the log that this one goes on from, for its first record.

    Raises:
        StorageError: a store or a key is already there.
        VerificationError: a log of which something was signed lay there and is gone.
        MalformedError: the origin is not a name.
    """
    layout, pins = Layout(root), pins or Pins.default()
    if layout.settings.exists():
        raise StorageError(f"there is already a store at {root}", path=root, hint="use it as it is, or name another place with --store")
    require_not_gone(root, pins, continues)
    if continues is not None and continues.checkpoint.origin == origin:
        raise MalformedError(f"the log that {origin} goes on from has the same name", hint="two histories of one name would be a fork")
    text = settings_text(origin)
    if Settings.parse(text, path=layout.settings).origin != origin:
        raise MalformedError(f"the origin {origin!r} is not a plain name", hint="use letters, digits, dots, slashes and dashes")
    for directory in layout.directories():
        # Prompts and persons lie in it: whom to let read is the operator's decision, not a default.
        durable.make_dirs(directory, mode=0o700)
    key = KeyFile.create(key_path or default_key_path(origin), origin=origin)
    put_continued(layout, continues)
    # Last: a directory with a trail.toml is a store.
    durable.write_once(layout.settings, text.encode())
    pins.add(key.signer.vkey, store=root)
    return key


def require_not_gone(root: Path, pins: Pins, continues: Continued | None = None) -> None:
    """Refuse a new log at the place of one that is gone: an emptied store must not be greeted as a new one.

    Raises:
        VerificationError: this machine has signed for the log that lay there, and `continues` is not of that log.
    """
    known = pins.origin_at(root)
    if known is None or (continues is not None and continues.checkpoint.origin == known):
        return
    state = LastSigned.default(known)
    note = state.read()
    if note is None:
        return
    try:
        signed = f"{Checkpoint.parse(parse_note(note)[0]).size} records of it were signed"
    except MalformedError:
        signed = "a checkpoint of it was signed that cannot be read any more"
    raise VerificationError(
        f"the log {known} lay at {root} and is gone: {signed}, as {state.path} says",
        expected=known,
        path=root,
        hint=f"restore a backup; or go on in a new log that names the old one: trail init --continues {state.path}",
    )


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
        self.on_stopped: list[Callable[[], None]] = []
        """Run at the end, after the last checkpoint is published and while the store is still locked."""
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
        before_signing: Callable[[Recovered, LogKeys], None] | None = None,
        pins: Pins | None = None,
        key: KeyFile | None = None,
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
            before_signing: looks at what was recovered, with the keys believed of it, before anything is appended or signed; what it raises
                refuses the start.
            pins: the user's pins, for keys that the log had before, and for which log lies at this path.
            key: two keys at once, while the log goes from one to the other (`ledger.rotating`); nothing is asked of them here.

        Raises:
            StorageError: no store, another writer, a missing key, or a history that must not be signed on.
            VerificationError: the path is pinned for another log: a key file without a name in it would sign for whatever lies there.
        """
        layout, pins = Layout(root), pins or Pins.default()
        settings, text = Settings.load(layout)
        pins.require_not_replaced(root, settings.origin)
        rotating = key is not None
        key = key or KeyFile.load(key_path or default_key_path(settings.origin), origin=settings.origin)
        lock = WriterLock(layout.lock, command=command)
        try:
            if not rotating:
                # Under the lock: a rotation that ended a moment ago has left its traces.
                require_current(layout, key)
            for directory in layout.directories():
                durable.make_dirs(directory)
            head = last_signed or LastSigned.default(settings.origin)
            keys = keys_of(layout, key, pins)
            recovered = recover(layout, settings, keys, head, now=clock())
            if before_signing is not None:
                before_signing(recovered, keys)
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
            except LedgerError as exc:
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
            for call in self.on_stopped:
                call()
        finally:
            self._lock.release()

    def _record_start(self, recovered: Recovered, text: str, command: str) -> None:
        found = recovered.found
        event = "start" if found.nothing else "recovery"
        size = recovered.state.tree.size
        continued = get_continued(self.layout)
        before = {"continues": continued.body()} if continued is not None and not size else {}
        self.append(
            "lifecycle",
            {"event": event, "format": FORMAT_VERSION, "command": command, "size": size, **before, **found.body()},
            facts={"name": event},
        )
        if continued is not None:
            put_continued(self.layout, None)
        self.record_config("trail.toml", text)


def keys_of(layout: Layout, key: KeyFile, pins: Pins) -> LogKeys:
    """The keys that a writer believes of what its log has signed: its own; those before it, on its word; and ended ones that are pinned."""
    signer = key.signer
    both = (signer.old, signer.new) if isinstance(signer, BothSigners) else (signer,)
    followed = follow(read_lines(layout), LogKeys.of(*(one.vkey for one in both)), None).keys
    known = {one.verifier.vkey for one in followed.keys}
    pinned = LogKeys.of(*(pins.key(signer.name) or signer.vkey).split()).keys
    return LogKeys((*(one for one in pinned if one.until is not None and one.verifier.vkey not in known), *followed.keys))
