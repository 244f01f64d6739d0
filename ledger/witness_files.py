"""What a witness keeps, all in one directory: its key, the logs it knows, the last checkpoint of each, and the forks it was offered.

    DIR/key                        the private key, mode 0600: it exists only together with the state that it answers for
    DIR/vkey                       the cosignature key that others put into their policies
    DIR/logs                       `log` lines of c2sp.org/tlog-policy: for whom it cosigns; read again when it changes
    DIR/lock                       held by the one process that cosigns
    DIR/<sha256 of origin>/origin       which log this is; written after its first checkpoint, so that a lost one is noticed
    DIR/<sha256 of origin>/checkpoint   the newest one cosigned: the log's signatures and ours
    DIR/<sha256 of origin>/forks/<size>-<root>.fork       JSON: two notes the log signed that cannot both be true
    DIR/<sha256 of origin>/forks/<size>-<root>.unproven   JSON: a note the log signed, which came without the proof that it extends ours

A witness promises never to have cosigned two histories, and this directory is its only memory of what it cosigned. So nothing here
starts over: what is damaged is refused, and a directory restored from a backup must not cosign again (make a new witness instead).
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ledger import durable
from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.errors import LedgerError, MalformedError, MissingKey, StorageError, StoreMissing
from ledger.note import Signer, Verifier, encode_base64, open_note
from ledger.policy import Policy, PolicyLog, parse_logs
from ledger.witness_protocol import origin_path

MAX_FORKS: Final = 256
"""Proofs of a fork kept for one log. Only the holder of the log's key can make them, and one is enough."""
MAX_UNPROVEN: Final = 64
"""Unproven ones kept for one log. Anybody can send a true checkpoint with a false proof, so they have no room to spare for these."""
LOGS_HEADER: Final = "# The logs that this witness cosigns for, one a line: log VKEY. Read again when it changes.\n"

_HIDDEN: Final = 0o600

Kind = Literal["fork", "unproven"]


@dataclass(frozen=True, slots=True)
class Kept:
    """The state of one log: the newest checkpoint that this witness cosigned for it."""

    note: bytes
    """With the log's verified signatures and our cosignature."""
    checkpoint: Checkpoint
    timestamp: int
    """Of the cosignature, Unix seconds."""


@dataclass(frozen=True, slots=True)
class OriginFiles:
    """Where one log's state lies."""

    directory: Path

    @property
    def checkpoint(self) -> Path:
        """The newest cosigned checkpoint."""
        return self.directory / "checkpoint"

    @property
    def origin(self) -> Path:
        """The log's name, and the sign that there was a checkpoint."""
        return self.directory / "origin"

    @property
    def forks(self) -> Path:
        """The evidence."""
        return self.directory / "forks"

    def read(self, cosigner: Verifier) -> Kept | None:
        """The state, None if this witness never cosigned for the log.

        Raises:
            StorageError: it is lost, unreadable, of another log, or not cosigned by this key: what was cosigned is then not known, and
                cosigning anything more could be the second history.
        """
        note = self.note()
        if note is None:
            return None
        try:
            opened = open_note(note, [cosigner])
            checkpoint = Checkpoint.parse(opened.text)
            if origin_path(checkpoint.origin) != self.directory.name:
                raise MalformedError(f"it is of the log {checkpoint.origin}")
        except LedgerError as exc:
            raise StorageError(
                f"the state {self.checkpoint} is not what this witness wrote: {exc.message}",
                path=self.checkpoint,
                hint="this witness no longer knows what it cosigned for this log: retire it, and make a new one with a new key",
            ) from exc
        return Kept(note, checkpoint, opened.verified[0].timestamp or 0)

    def note(self) -> bytes | None:
        """The state's note as it lies there.

        Raises:
            StorageError: it cannot be read, or there was one and it is gone.
        """
        with storage_errors("reading", self.checkpoint):
            try:
                return self.checkpoint.read_bytes()
            except FileNotFoundError as exc:
                if not self.origin.exists():
                    return None
                raise StorageError(
                    f"the state {self.checkpoint} is gone",
                    path=self.checkpoint,
                    hint="this witness no longer knows what it cosigned for this log: retire it, and make a new one with a new key",
                ) from exc

    def write(self, note: bytes, origin: str) -> None:
        """Make a new state durable.

        Raises:
            StorageError: it may or may not be there now.
        """
        durable.make_dirs(self.directory, mode=0o700)
        durable.replace(self.checkpoint, note, mode=_HIDDEN)
        if not self.origin.exists():
            durable.write_once(self.origin, origin.encode() + b"\n", mode=_HIDDEN)

    def evidence(self, kind: Kind) -> list[Path]:
        """The files of a kind, in the order of their names."""
        return sorted(self.forks.glob(f"*.{kind}"))

    def keep_evidence(
        self, kind: Kind, checkpoint: Checkpoint, *, offered: bytes, cosigned: bytes, proof: Sequence[bytes] = ()
    ) -> Path | None:
        """Keep a checkpoint that contradicts the state, under its size and root; None if it was kept before or there is no room.

        Raises:
            StorageError: it could not be written.
        """
        path = self.forks / f"{checkpoint.size}-{checkpoint.root.hex()}.{kind}"
        if path.exists() or len(self.evidence(kind)) >= (MAX_FORKS if kind == "fork" else MAX_UNPROVEN):
            return None
        value = {"kind": kind, "offered": offered.decode(), "cosigned": cosigned.decode(), "proof": [encode_base64(item) for item in proof]}
        durable.make_dirs(self.forks, mode=0o700)
        durable.write_once(path, json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n", mode=_HIDDEN)
        return path

    def offered(self, path: Path) -> bytes:
        """The offered note in a file of evidence.

        Raises:
            StorageError: the file is damaged.
        """
        with storage_errors("reading", path):
            try:
                return str(json.loads(path.read_bytes())["offered"]).encode()
            except (ValueError, KeyError, TypeError) as exc:
                raise StorageError(f"{path} is damaged: {exc}", path=path) from exc


@dataclass(frozen=True, slots=True)
class WitnessFiles:
    """Where everything of a witness lies."""

    directory: Path

    @property
    def key(self) -> Path:
        """The private key."""
        return self.directory / "key"

    @property
    def vkey(self) -> Path:
        """The public one."""
        return self.directory / "vkey"

    @property
    def logs(self) -> Path:
        """The logs it knows."""
        return self.directory / "logs"

    @property
    def lock(self) -> Path:
        """Of the process that cosigns."""
        return self.directory / "lock"

    def of(self, origin_hash: str) -> OriginFiles:
        """The state of a log, by `origin_path` of its origin."""
        return OriginFiles(self.directory / origin_hash)

    def states(self) -> Iterator[OriginFiles]:
        """The states of all logs that it ever cosigned for, known now or not."""
        for path in sorted(self.directory.iterdir()):
            if len(path.name) == 64 and path.is_dir():
                yield OriginFiles(path)

    def make(self, name: str) -> Verifier:
        """Make a new witness with a new key; its cosignature key.

        There is no way to bring a key along: what an old key has cosigned is known only to the directory that it lies in.

        Raises:
            MalformedError: not a name for a key.
            StorageError: something is there already.
        """
        signer = Signer.generate(name)
        Policy.parse(policy_line(signer.cosigner) + f"\nquorum {name}\n")
        if self.key.exists():
            raise StorageError(f"there is a witness in {self.directory} already", path=self.key, hint="trail witness show")
        if self.directory.exists() and any(self.directory.iterdir()):
            raise StorageError(
                f"{self.directory} is not empty, and has no key",
                path=self.directory,
                hint="a witness that lost its key or its state is retired: make a new one in a directory of its own",
            )
        durable.make_dirs(self.directory, mode=0o700)
        with storage_errors("closing to others", self.directory):
            self.directory.chmod(0o700)  # it may have been there, empty
        durable.write_once(self.logs, LOGS_HEADER.encode(), mode=_HIDDEN)
        durable.write_once(self.vkey, signer.cosigner.vkey.encode() + b"\n", mode=_HIDDEN)
        durable.write_once(self.key, signer.encode().encode() + b"\n", mode=_HIDDEN)  # last: with it the witness exists
        return signer.cosigner

    def load_signer(self) -> Signer:
        """The key.

        Raises:
            StoreMissing: there is no witness.
            MissingKey, StorageError: its key is gone, open to others, or another one than the state is of.
        """
        if not self.key.exists():
            if self.vkey.exists():
                raise MissingKey(f"the key of this witness is not at {self.key}", path=self.key, hint="retire it, and make a new one")
            raise StoreMissing(
                f"there is no witness in {self.directory}", path=self.directory, hint="trail witness init --dir DIR --name NAME"
            )
        with storage_errors("reading", self.key):
            if stat.S_IMODE(self.key.stat().st_mode) & 0o077:
                raise StorageError(f"{self.key} can be read by others", path=self.key, hint=f"chmod 600 {self.key}")
            text = self.key.read_text(encoding="ascii", errors="replace")
        signer = Signer.parse(text.strip())
        if signer.cosigner.vkey != self.load_vkey().vkey:
            raise StorageError(
                f"the key in {self.directory} is not the one its state was cosigned with",
                path=self.key,
                hint="put the witness's own key back",
            )
        return signer

    def load_vkey(self) -> Verifier:
        """The cosignature key, for whoever only looks.

        Raises:
            StoreMissing: there is no witness.
            MalformedError: the file is damaged.
        """
        if not self.vkey.exists():
            raise StoreMissing(
                f"there is no witness in {self.directory}", path=self.directory, hint="trail witness init --dir DIR --name NAME"
            )
        with storage_errors("reading", self.vkey):
            return Verifier.parse(self.vkey.read_text(encoding="utf-8", errors="replace").strip())

    def load_logs(self) -> tuple[PolicyLog, ...]:
        """The logs that it cosigns for.

        Raises:
            MalformedError: the file has a line that is not a log's.
            StorageError: it cannot be read. That it is gone is an error too: it would mean no log at all.
        """
        with storage_errors("reading", self.logs):
            data = self.logs.read_bytes()
        return _parse_logs(data, self.logs)

    def add_log(self, vkey: str) -> list[str]:
        """Cosign for a log from now on, and from its next checkpoint in a running witness; one that is known stays as it is.

        Returns:
            All keys of that log, the ones known before first.

        Raises:
            MalformedError: not a log's key, or the same public key under another name.
            StorageError: the file could not be read or written.
        """
        origin = Verifier.parse(vkey).name
        changing = durable.WriterLock(self.directory / "logs.lock", command="trail witness add-log")
        try:
            known = [log.verifier.vkey for log in self.load_logs()]
            if vkey not in known:
                data = self.logs.read_bytes()
                whole = data + (b"" if data.endswith(b"\n") or not data else b"\n") + f"log {vkey}\n".encode()
                _parse_logs(whole, self.logs)
                durable.replace(self.logs, whole, mode=_HIDDEN)
                known.append(vkey)
        finally:
            changing.release()
        return [key for key in known if Verifier.parse(key).name == origin]


def policy_line(verifier: Verifier, url: str = "") -> str:
    """The line by which others take this witness into their policy."""
    return " ".join(["witness", verifier.name, verifier.vkey, *([url] if url else [])])


def _parse_logs(data: bytes, path: Path) -> tuple[PolicyLog, ...]:
    try:
        return parse_logs(data)
    except MalformedError as exc:
        raise MalformedError(f"{path}, {exc.message}", path=path, hint=exc.hint, index=exc.index) from exc
