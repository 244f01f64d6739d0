"""Opening a store to ask it something: the pinned key, and whether the store is still what this machine signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.errors import VerificationError
from ledger.keys import LastSigned
from ledger.layout import Layout
from ledger.settings import Settings
from tui.exits import Exit
from tui.output import shout

if TYPE_CHECKING:
    from ledger.reader import StoreReader
    from tui.signed import Signed


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store opened for reading, and what is to be said about all its answers."""

    reader: StoreReader
    signed: Signed

    @property
    def exit(self) -> Exit:
        """What a command that only asked comes to: a store that contradicts what was signed is false, whatever it answers."""
        return Exit.FALSE if self.signed.is_false else Exit.OK

    def judged(self, card: dict[str, Any]) -> dict[str, Any]:
        """A card whose *intact* also says what the reader cannot know: that the whole store is an older or another one."""
        if not self.signed.is_false:
            return card
        return card | {"intact": card["intact"] | {"status": "answered", "verdict": "failed", "text": f"NO: {self.signed.why}"}}


def open_store(path: Path, *, vkey: str | None = None) -> OpenStore:
    """Open a store for reading.

    Raises:
        LedgerError: as `StoreReader.open`.
    """
    from ledger.reader import StoreReader
    from tui.signed import compare

    settings, _text = Settings.load(Layout(path))
    # Before the store's own checkpoint: the writer goes the other way round, so what is read here is never ahead of a live store.
    note = LastSigned.default(settings.origin).read()
    reader = StoreReader.open(path, vkeys=[vkey] if vkey is not None else None)
    return OpenStore(reader, compare(reader, note))


def open_to_ask(path: Path, *, vkey: str | None = None) -> OpenStore:
    """Open a store and say loudly what its answers cannot be trusted for."""
    store = open_store(path, vkey=vkey)
    if store.signed.is_false:
        shout("THE STORE IS NOT WHAT WAS SIGNED", f"{store.signed.why}. Run trail verify.")
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
    """
    store = open_to_ask(path, vkey=vkey)
    if store.signed.is_false:
        raise VerificationError(f"the store is not what this machine signed: {store.signed.why}", hint="run trail verify")
    return store
