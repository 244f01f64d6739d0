"""Opening a store to ask it something: the pinned key, and whether the store is still what this machine signed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.errors import MalformedError, StoreMissing, VerificationError
from ledger.keys import LastSigned, Pins, config_dir, slug
from ledger.layout import Layout
from ledger.settings import Settings
from tui.exits import Exit
from tui.output import shout

if TYPE_CHECKING:
    from ledger.reader import StoreReader
    from ledger.trust import Trust
    from tui.signed import Signed


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store opened for reading, and what is to be said about all its answers."""

    reader: StoreReader
    signed: Signed

    @property
    def exit(self) -> Exit:
        """What a command that only asked comes to: a store that contradicts what was signed is false, whatever it answers."""
        if self.signed.is_false:
            return Exit.FALSE
        return Exit.UNVERIFIABLE if self.signed.state == "unreadable" else Exit.OK

    def judged(self, card: dict[str, Any]) -> dict[str, Any]:
        """A card whose *intact* also says what the reader cannot know: that the whole store is an older or another one."""
        if not self.signed.is_false:
            return card
        return card | {"intact": card["intact"] | {"status": "answered", "verdict": "failed", "text": f"NO: {self.signed.why}"}}


def origin_of(path: Path) -> str:
    """The log of a store.

    Raises:
        VerificationError: there is no store, and this machine knows of one that was here: it was deleted or moved away.
        StoreMissing, UnsupportedFormat, MalformedError: there is none to read.
    """
    try:
        return Settings.load(Layout(path))[0].origin
    except StoreMissing:
        from ledger.writer import require_not_gone

        require_not_gone(path, Pins.default())
        raise


def trust_of(origin: str, named: Path | None) -> Trust:
    """What the user believes of a log: the trust file that was named, else the one of the configuration directory, else nothing yet.

    Raises:
        MalformedError, StorageError: it cannot be read.
    """
    from ledger.trust import Trust

    path = named or config_dir() / "trust" / f"{slug(origin)}.toml"
    if named is None and not path.exists():
        return Trust()
    return Trust.load(path, origin=origin)


def believed(origin: str, store: Path | None, *, vkey: str | None = None, trust_file: Path | None = None) -> Trust:
    """What is believed of a log, before its rotations are followed: the same for every verb.

    The keys are those of the first of these that names any:

    1. `--key`;
    2. the trust file that was named (`--trust`);
    3. `TRAIL_VKEY`;
    4. the pins, which `trail init` and `trail key rotate` keep;
    5. the trust file of the configuration directory.

    4 and 5 are both what this user once settled, and neither shall outlive the other: an end (`VKEY@<=SIZE`) that the trust file sets to
    a pinned key holds. Witnesses and authorities of time are always the trust file's, the named one or that of the configuration directory.

    Args:
        origin: the log.
        store: where it lies, None if there is only a proof of it.
        vkey: what `--key` said, with spaces between several.
        trust_file: what `--trust` said.

    Raises:
        VerificationError: the keys named, or the trust file, are for another log; or none is named and the path is known to hold another.
        MalformedError, StorageError: something of this cannot be read.
    """
    from ledger.reader import pinned_keys
    from ledger.trust import Trust

    trust = trust_of(origin, trust_file)
    stated = trust.keys if trust_file is not None else None
    given = vkey.split() if vkey is not None else [*stated.specs] if stated is not None else None
    keys = pinned_keys(origin, store, vkeys=given)
    if keys is not None and trust.keys is not None and given is None and not os.environ.get("TRAIL_VKEY"):
        keys = keys.ended_by(trust.keys)
    return Trust(keys or trust.keys, trust.policy, trust.tsa_roots)


def open_store(path: Path, *, vkey: str | None = None, trust_file: Path | None = None) -> OpenStore:
    """Open a store for reading, with what is `believed` of its log and the rotations of its key that the user's witnesses confirm.

    Raises:
        LedgerError: as `StoreReader.open`.
    """
    from ledger.fsck_keys import kept_in
    from ledger.fsck_tree import moved_on
    from ledger.reader import StoreReader
    from ledger.rotation import read_lines
    from tui.signed import compare

    # Before the store's own checkpoint: the writer goes the other way round, so what is read here is never ahead of a live store.
    origin = origin_of(path)
    note = LastSigned.default(origin).read()
    trust = believed(origin, path, vkey=vkey, trust_file=trust_file)
    layout = Layout(path)
    if layout.key_rotations.exists():
        from ledger.believed import follow_rotations

        trust, _followed = follow_rotations(layout, trust)
    reader = StoreReader.open(path, vkeys=trust.keys.specs if trust.keys is not None else None)
    signed = compare(reader, note)
    if reader.keys is not None and not signed.is_false:
        # A store in which true rotations of the key lie must have what the checkpoints beside them cover.
        published = kept_in(read_lines(layout), reader.keys, size=reader.size, moved_on=lambda checkpoint: moved_on(layout, checkpoint))
        signed = next((found for found in (compare(reader, kept) for _where, kept in published) if found.is_false), signed)
    return OpenStore(reader, signed)


def open_to_ask(path: Path, *, vkey: str | None = None) -> OpenStore:
    """Open a store and say loudly what its answers cannot be trusted for."""
    store = open_store(path, vkey=vkey)
    if store.signed.is_false:
        shout("THE STORE IS NOT WHAT WAS SIGNED", f"{store.signed.why}. Run trail verify.")
    elif store.signed.state == "unreadable":
        shout("UNVERIFIABLE", f"{store.signed.why}, so nothing says whether the store is whole. Restore that file, or compare a kept one.")
    elif store.reader.key_status != "pinned":
        shout(
            "UNVERIFIABLE",
            f"no key is pinned for {store.reader.origin}, so nothing says who wrote this. "
            "Name the key you were given: --key VKEY, or TRAIL_VKEY.",
        )
    return store


def open_to_prove(path: Path, *, vkey: str | None = None) -> OpenStore:
    """Open a store to hand out a proof or a checkpoint of it.

    Raises:
        VerificationError: it contradicts what was signed, and its proofs would be of that.
        MalformedError: whether it does cannot be told.
    """
    store = open_to_ask(path, vkey=vkey)
    if store.signed.is_false:
        raise VerificationError(f"the store is not what this machine signed: {store.signed.why}", hint="run trail verify")
    if store.signed.state == "unreadable":
        raise MalformedError(store.signed.why, hint="restore that file, or compare the store with a checkpoint kept elsewhere")
    return store
