"""What somebody outside holds of a store, where no attacker reaches it: a kept checkpoint, the last-signed state, a witness of its own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stores import Home

from ledger import merkle
from ledger.checkpoint import Checkpoint
from ledger.keys import LastSigned
from ledger.note import Verifier, parse_note
from ledger.policy import Policy
from ledger.tree import tile_nodes
from ledger.trust import LogKeys, Trust
from ledger.witness import Answer, WitnessStore
from ledger.witness_files import WitnessFiles, policy_line
from ledger.witness_protocol import AddCheckpoint, origin_path

NOW = 1_790_000_000
"""The witnesses' clock, Unix seconds."""
OUTSIDE: tuple[str, ...] = ("a kept checkpoint", "the last-signed state", "a witness")
"""The ways of `kept_outside`."""


@dataclass(frozen=True)
class Witness:
    """A witness in a directory of its own, that knows one log."""

    files: WitnessFiles
    verifier: Verifier
    """Its cosignature key."""
    origin: str

    @classmethod
    def make(cls, home: Home, place: Path, *, name: str = "witness.example/w") -> Witness:
        """A new one for the log of this home."""
        files = WitnessFiles(place)
        verifier = files.make(name)
        files.add_log(home.vkey)
        return cls(files, verifier, home.verifier.name)

    @property
    def policy_text(self) -> str:
        """A policy that asks for this witness alone."""
        return f"{policy_line(self.verifier)}\nquorum {self.verifier.name}\n"

    def trust(self, home: Home) -> Trust:
        """What a verifier believes who knows the log's key and this witness."""
        return Trust(LogKeys.of(home.vkey), Policy.parse(self.policy_text))

    @property
    def latest(self) -> bytes | None:
        """The newest checkpoint that it cosigned, as it shows it to anybody."""
        return self._asked(lambda store: store.latest(origin_path(self.origin)))

    @property
    def evidence(self) -> list[Path]:
        """The forks that it was offered and keeps."""
        return self.files.of(origin_path(self.origin)).evidence("fork")

    def see(self, home: Home, *, old: int | None = None) -> Answer:
        """Submit the store's checkpoint as a server does, with the proof that it extends the one the witness knows.

        Args:
            home: the store.
            old: the size to prove from; None for the one the witness knows.
        """
        newest = self.latest
        if old is None:
            old = 0 if newest is None else Checkpoint.parse(parse_note(newest)[0]).size
        size = Checkpoint.parse(parse_note(home.checkpoint)[0]).size
        path = merkle.consistency_path(old, size, tile_nodes(home.store, size)) if 0 < old < size else []
        body = AddCheckpoint(old=old, proof=tuple(path), note=home.checkpoint).encode()
        return self._asked(lambda store: store.add_checkpoint(body))

    def _asked(self, question: Any) -> Any:
        store = WitnessStore.open(self.files.directory, clock=lambda: NOW)
        try:
            return question(store)
        finally:
            store.close()


def kept_outside(held: str, home: Home, place: Path) -> dict[str, Any]:
    """Take something of a store outside, as it is now: the arguments of `Home.verify` that compare with it, and with nothing else.

    Args:
        held: one of `OUTSIDE`.
        home: the store as somebody outside sees it.
        place: a new directory for it.
    """
    match held:
        case "a kept checkpoint":
            return {"last_signed": None, "against": [home.checkpoint]}
        case "the last-signed state":
            place.mkdir()
            shutil.copy(home.state.path, place / "last")
            return {"last_signed": LastSigned(place / "last")}
        case _:
            witness = Witness.make(home, place)
            assert witness.see(home).status == 200
            return {"last_signed": None, "trust": witness.trust(home), "witnessed": [("the witness", witness.latest)]}
