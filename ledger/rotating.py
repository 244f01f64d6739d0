"""Rotating the key of a log: from the old key to a new one, in steps of which each can be repeated.

1. The store is opened for writing, and every checkpoint from here on is signed by both keys.
2. The new key is written beside the old one (`<key>.next`). After a crash so far nothing has happened; the next attempt makes another key.
3. The intent is written (`<key>.rotating`, `ledger.key_intent`). From here on nobody signs with one of the keys alone: only this goes on.
4. The record is appended, if it is not in the log yet; a checkpoint that covers it is published.
5. The line for verifiers is written (`checkpoints/keys.jsonl`), if it is not there yet, and the store is closed.
6. The old key is kept as `<key>.retired-<key ID>`, the new one takes its place, the pins of this user follow, and the intent goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger import durable, merkle
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError, MalformedError, StorageError
from ledger.key_intent import Intent, require_current
from ledger.keys import KeyFile, LastSigned, Pins, default_key_path
from ledger.layout import Layout
from ledger.note import MAX_NOTE_BYTES, Verifier, parse_note
from ledger.passphrase import read_passphrase
from ledger.reader import StoreReader
from ledger.recovery import Recovered
from ledger.regular import read_file
from ledger.rotation import KIND, Rotation, RotationLine, read_lines, statement_text
from ledger.segment import read_batches
from ledger.settings import Settings
from ledger.signers import BothSigners, CheckpointSigner, form_of, load_signer, new_signer, read_key_file
from ledger.tree import tile_nodes
from ledger.trust import MAX_KEYS, LogKeys, TrustedKey
from ledger.writer import StoreWriter, keys_of

PUBLISH_SECONDS: Final = 60.0
Passphrase = Callable[[Path], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What the new key is to be."""

    source: Path | None = None
    """A key file of any form that is there already; None to make a key."""
    protected: bool | None = None
    """With a passphrase or without; None as the old key is. A source stays as it is."""
    choose: Passphrase = lambda path: read_passphrase(path, new=True)
    """Asked for the passphrase of a key that is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """A rotation that is done."""

    old: str
    """vkey."""
    new: str
    size: int
    """The old key is believed for checkpoints over at most this many records."""
    retired: Path
    resumed: bool
    """It was begun earlier."""


def rotate(
    root: Path,
    *,
    key_path: Path | None = None,
    new: NewKey | None = None,
    last_signed: LastSigned | None = None,
    pins: Pins | None = None,
    passphrase: Passphrase = read_passphrase,
    before_signing: Callable[[Recovered, LogKeys], None] = lambda _recovered, _keys: None,
    on_open: Callable[[StoreWriter], None] = lambda _writer: None,
) -> Rotated:
    """Rotate the key of a store that nobody else writes to, or finish a rotation that was begun.

    Args:
        root: the store.
        key_path: the present key; default by `default_key_path`.
        new: what the new key is to be; of no account when a rotation is finished.
        last_signed: the state outside the store.
        pins: the user's pins.
        passphrase: asked for those of key files that have one.
        before_signing: looks at what was recovered, with the keys of the log; what it raises refuses the rotation.
        on_open: called with the writer once it is open, before the record.

    Raises:
        StoreLocked: a server runs on it.
        LedgerError: a step failed; the same call goes on from there.
    """
    layout, pins = Layout(root), pins or Pins.default()
    settings, _text = Settings.load(layout)
    path = key_path or default_key_path(settings.origin)
    rotation = _Rotating(layout, settings.origin, path, last_signed, pins, passphrase, before_signing, on_open)
    intent = Intent.read(path)
    resumed = intent is not None
    if intent is None:
        intent, size = rotation.begin(new or NewKey())
    else:
        size = rotation.resume(intent)
    return rotation.finish(intent, size, resumed=resumed)


@dataclass(frozen=True, slots=True)
class _Rotating:
    """What all steps need."""

    layout: Layout
    origin: str
    path: Path
    """Of the key that is given up, and in the end of the new one."""
    last_signed: LastSigned | None
    pins: Pins
    passphrase: Passphrase
    before_signing: Callable[[Recovered, LogKeys], None]
    on_open: Callable[[StoreWriter], None]

    @property
    def next(self) -> Path:
        """The new key until it takes its place."""
        return self.path.with_name(self.path.name + ".next")

    def begin(self, wanted: NewKey) -> tuple[Intent, int]:
        """Steps 1 to 5 from the start; the size up to which the old key is believed."""
        key = KeyFile.load(self.path, origin=self.origin, passphrase=self.passphrase)
        require_current(self.layout, key)
        signer, data = self._new_key(wanted)
        if signer.verifier.public_key == key.signer.verifier.public_key:
            raise MalformedError("the new key is the present one", path=wanted.source, hint="make another one: trail key new")
        self._require_fresh(key, signer.vkey)
        writer = self._open(key, signer)
        try:
            # Under the lock: what was read before may have been rotated away by somebody who was quicker.
            require_current(self.layout, key)
            durable.replace(self.next, data, mode=0o600)
            text = statement_text(old=key.signer.verifier, new=signer.verifier, size=writer.log.size)
            intent = Intent(text, (key.signer.sign(text), signer.sign(text)))
            intent.write(self.path)
            return intent, self._record(writer, intent)
        finally:
            writer.close()

    def resume(self, intent: Intent) -> int:
        """Steps 4 and 5, as far as they are missing."""
        rotation = intent.rotation
        key = KeyFile.load(self.path, origin=self.origin, passphrase=self.passphrase)
        line = self._line(rotation)
        if key.signer.vkey == rotation.new.vkey:  # step 6 was begun
            if line is None:
                raise StorageError("the store has lost the line of the rotation", path=self.layout.key_rotations, hint="restore a backup")
            return line.index + 1
        if key.signer.vkey != rotation.old.vkey:
            raise MalformedError(
                f"a rotation from {rotation.old.vkey} was begun, and the key at {self.path} is {key.signer.vkey}",
                path=self.path, hint=f"put the key back; the rotation is in {Intent.path(self.path)}",
            )  # fmt: skip
        if not self.next.exists():
            raise StorageError(
                f"the new key of a rotation that was begun is not at {self.next}", path=self.next, hint="restore it from a backup"
            )
        signer = load_signer(self.next, origin=self.origin, passphrase=self.passphrase)
        if signer.vkey != rotation.new.vkey:
            raise MalformedError(
                f"a rotation to {rotation.new.vkey} was begun, and the key at {self.next} is {signer.vkey}", path=self.next,
                hint="restore the right one from a backup",
            )  # fmt: skip
        # Also if the line is there: whatever a crash has left is recovered now.
        writer = self._open(key, signer)
        try:
            return self._record(writer, intent)
        finally:
            writer.close()

    def finish(self, intent: Intent, size: int, *, resumed: bool) -> Rotated:
        """Step 6."""
        rotation = intent.rotation
        retired = self.path.with_name(f"{self.path.name}.retired-{rotation.old.key_id:08x}")
        if self.next.exists():
            if not retired.exists():
                # Before the new key takes its place: the old one is in `path` until then.
                durable.write_once(retired, read_key_file(self.path), mode=0o600)
            durable.replace(self.path, read_key_file(self.next), mode=0o600)
            durable.remove([self.next])
        self._pin(rotation, size)
        durable.remove([Intent.path(self.path)])
        return Rotated(old=rotation.old.vkey, new=rotation.new.vkey, size=size, retired=retired, resumed=resumed)

    def _new_key(self, wanted: NewKey) -> tuple[CheckpointSigner, bytes]:
        if wanted.source is not None:
            signer = load_signer(wanted.source, origin=self.origin, passphrase=self.passphrase)
            if signer.name != self.origin:
                raise MalformedError(
                    f"the key at {wanted.source} is for {signer.name}, not for {self.origin}", path=wanted.source,
                    hint=f"make one for this log: trail key new FILE --origin {self.origin}",
                )  # fmt: skip
            return signer, read_key_file(wanted.source)
        protected = wanted.protected
        if protected is None:
            protected = form_of(read_key_file(self.path), self.path) == "encrypted"
        return new_signer(self.origin, wanted.choose(self.next) if protected else None)

    def _require_fresh(self, key: KeyFile, new: str) -> None:
        """Refuse a key that the log has had, before anything says that it is to come: what was given up once signs nothing any more.

        Raises:
            MalformedError: the log has had it.
            StorageError: the log has had as many keys as a verifier believes.
        """
        had = {one.verifier.vkey for one in keys_of(self.layout, key, self.pins).keys}
        if len(had) >= MAX_KEYS:
            raise StorageError(
                f"the log has had {len(had)} keys, and no more of one log are believed", path=self.layout.key_rotations,
                hint="end this log, and go on in a new one that names its last checkpoint: trail init --continues",
            )  # fmt: skip
        for data in read_lines(self.layout):
            with contextlib.suppress(LedgerError):
                rotation = Rotation.parse(RotationLine.parse(data).record)
                had |= {rotation.old.vkey, rotation.new.vkey}
        if new in had or Verifier.parse(new).key_id in retired_keys(self.path):
            raise MalformedError(
                f"{new} was a key of this log before, and verifiers believe it only for what it signed then", path=self.path,
                hint="make another one: trail key rotate without --to, or trail key new",
            )  # fmt: skip

    def _open(self, key: KeyFile, signer: CheckpointSigner) -> StoreWriter:
        both = KeyFile(BothSigners(key.signer, signer), key.secret, key.path)
        writer = StoreWriter.open(
            self.layout.root,
            command="trail key rotate",
            last_signed=self.last_signed,
            pins=self.pins,
            key=both,
            before_signing=self.before_signing,
        )
        try:
            self.on_open(writer)
        except BaseException:
            writer.close()
            raise
        return writer

    def _record(self, writer: StoreWriter, intent: Intent) -> int:
        """Steps 4 and 5 but for closing; the size up to which the old key is believed."""
        rotation = intent.rotation
        line = self._line(rotation)
        if line is not None:
            return line.index + 1
        found = self._find(writer, rotation)
        if found is None:
            receipt = writer.append(KIND, intent.body(), facts={"name": "rotate"})
            found = receipt.index, receipt.record
        self._publish(writer, found[0] + 1)
        self._write_line(*found)
        return found[0] + 1

    def _publish(self, writer: StoreWriter, size: int) -> None:
        if not writer.log.wait_published(size, timeout=PUBLISH_SECONDS):
            why = f": {writer.log.fault.message}" if writer.log.fault is not None else ""
            raise StorageError(
                f"no checkpoint over {size} records was published{why}", path=self.layout.root, hint="trail key rotate again"
            )

    def _find(self, writer: StoreWriter, rotation: Rotation) -> tuple[int, bytes] | None:
        """The rotation's record, if an earlier attempt has appended it; it cannot lie before the size in the statement."""
        if writer.log.size <= rotation.size:
            return None
        self._publish(writer, writer.log.size)
        reader = StoreReader.open(self.layout.root, vkeys=[rotation.old.vkey, rotation.new.vkey])
        late = [segment for segment in reader.segments if segment.end > rotation.size]
        names = ["index", "kind", "record"]
        batches = [batch for path in reader.verified_files("records", late) for batch in read_batches(path, names=names)]
        batches += reader.tail().records.select(names).to_batches()
        for batch in batches:
            for place, kind in enumerate(batch.column("kind").to_pylist()):
                if kind == KIND:
                    record: bytes = batch.column("record")[place].as_py()
                    if _is(record, rotation):
                        return batch.column("index")[place].as_py(), record
        return None

    def _line(self, rotation: Rotation) -> RotationLine | None:
        """The line of the rotation; whatever else is in the file is not judged here."""
        for data in read_lines(self.layout):
            with contextlib.suppress(LedgerError):
                line = RotationLine.parse(data)
                if Rotation.parse(line.record).statement == rotation.statement:
                    return line
        return None

    def _write_line(self, index: int, record: bytes) -> None:
        with storage_errors("reading", self.layout.checkpoint):
            note = read_file(self.layout.checkpoint, limit=MAX_NOTE_BYTES)
        size = Checkpoint.parse(parse_note(note)[0]).size
        path = merkle.inclusion_path(index, size, tile_nodes(self.layout.root, size))
        durable.append_line(self.layout.key_rotations, RotationLine(index=index, record=record, checkpoint=note, path=tuple(path)).encode())

    def _pin(self, rotation: Rotation, size: int) -> None:
        """The old key up to the size, then the new one; other keys stay as they are pinned."""
        pinned = self.pins.key(self.origin)
        keys = LogKeys.of(*pinned.split()).keys if pinned else ()
        gone = {rotation.old.vkey, rotation.new.vkey}
        rest = [key.spec for key in keys if key.verifier.vkey not in gone]
        self.pins.add(" ".join([*rest, TrustedKey(rotation.old, size).spec, rotation.new.vkey]), store=self.layout.root)


def _is(record: bytes, rotation: Rotation) -> bool:
    try:
        return Rotation.parse(record).statement == rotation.statement
    except LedgerError:
        return False


def retired_keys(key: Path) -> dict[int, Path]:
    """The files of keys that were rotated away from this one, by key ID."""
    found = {}
    for path in sorted(key.parent.glob(f"{key.name}.retired-*")):
        name = path.name.rpartition("-")[2]
        if len(name) == 8 and all(character in "0123456789abcdef" for character in name):
            found[int(name, 16)] = path
    return found
