"""Where keys, pins and the last-signed state lie: outside the store, by path, never by value.

- the signing key: `--key`, `TRAIL_KEY`, else the user's configuration directory; mode 0600; its forms are in `ledger.signers`;
- beside it the secret of the store's pseudonyms and duplicate keys (`<key>.secret`), as plain text whatever form the key has, and the same
  after a rotation of the key: it signs nothing, and another one would make other pseudonyms of the same persons;
- pins: which public key a reader believes for a log (`pins.json` in the configuration directory);
- the last signed checkpoint: `TRAIL_STATE`, else the user's state directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import platformdirs

from ledger import durable
from ledger.durable import storage_errors
from ledger.errors import MalformedError, MissingKey, StorageError, VerificationError
from ledger.passphrase import read_passphrase
from ledger.signers import CheckpointSigner, load_signer, new_signer
from ledger.trust import LogKeys

SECRET_BYTES: Final = 32
_APP: Final = "trail"


def config_dir() -> Path:
    """The user's configuration directory for trail."""
    return Path(platformdirs.user_config_dir(_APP))


def state_dir() -> Path:
    """`TRAIL_STATE`, else the user's state directory for trail."""
    return Path(os.environ.get("TRAIL_STATE") or platformdirs.user_state_dir(_APP))


def cache_dir() -> Path:
    """The user's cache directory for trail: what a reader remembers of files it checked."""
    return Path(platformdirs.user_cache_dir(_APP))


def slug(origin: str) -> str:
    """A file name for an origin: readable, and unique by a digest."""
    readable = "".join(c if c.isalnum() or c in ".-" else "_" for c in origin)[:60]
    return f"{readable}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"


def default_key_path(origin: str) -> Path:
    """`TRAIL_KEY`, else the key's place in the configuration directory."""
    chosen = os.environ.get("TRAIL_KEY")
    return Path(chosen) if chosen else config_dir() / "keys" / f"{slug(origin)}.key"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A signing key and the secret beside it."""

    signer: CheckpointSigner
    secret: bytes
    path: Path

    @classmethod
    def create(cls, path: Path, *, origin: str) -> Self:
        """Make a new key and secret.

        Raises:
            StorageError: a key is already there; it is never replaced.
        """
        if path.exists():
            raise StorageError(f"there is already a key at {path}", path=path, hint="name another place with --key")
        durable.make_dirs(path.parent, mode=0o700)
        signer, data = new_signer(origin, None)
        secret = secrets.token_bytes(SECRET_BYTES)
        durable.write_once(_secret_path(path), secret.hex().encode() + b"\n", mode=0o600)
        durable.write_once(path, data, mode=0o600)
        return cls(signer, secret, path)

    @classmethod
    def load(cls, path: Path, *, origin: str, passphrase: Callable[[Path], bytes] = read_passphrase) -> Self:
        """Read a key.

        Args:
            path: its file.
            origin: the log it must sign for.
            passphrase: asked for one if the file needs one.

        Raises:
            MissingKey: no key there, no passphrase for it, or no secret beside it.
            MalformedError: not a key, a key of another log, a wrong passphrase, or a secret of another size.
        """
        if not path.exists():
            raise MissingKey(
                f"the signing key of {origin} is not at {path}",
                path=path,
                hint="name it with --key or TRAIL_KEY; without it the store can be read and verified, but not written",
            )
        signer = load_signer(path, origin=origin, passphrase=passphrase)
        if signer.name != origin:
            raise MalformedError(
                f"the key at {path} signs for {signer.name}, not for {origin}", path=path, hint="name the right key with --key"
            )
        return cls(signer, _read_secret(_secret_path(path)), path)


def _secret_path(path: Path) -> Path:
    return path.with_name(path.name + ".secret")


def _read_secret(path: Path) -> bytes:
    if not path.exists():
        raise MissingKey(
            f"the secret that makes the store's pseudonyms and recognises repeated requests is not at {path}",
            path=path,
            hint="restore it from the backup of the keys: with another one, earlier pseudonyms and duplicates can no longer be matched",
        )
    with storage_errors("reading", path):
        try:
            secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
        except ValueError as exc:
            raise MalformedError(f"{path} is not hexadecimal", path=path) from exc
    if len(secret) != SECRET_BYTES:
        raise MalformedError(f"{path} has {len(secret)} bytes, not {SECRET_BYTES}", path=path)
    return secret


@dataclass(frozen=True, slots=True)
class Pins:
    """The public keys this user believes, by origin; and which origin a store's path is known to have."""

    path: Path

    @classmethod
    def default(cls) -> Self:
        """The pins in the configuration directory."""
        return cls(config_dir() / "pins.json")

    def add(self, specs: str, *, store: Path) -> None:
        """Pin the keys of a log, in the place of those pinned before, and the log for that path.

        Args:
            specs: one or more of what `ledger.trust.TrustedKey` reads, with spaces between.
            store: where the log's store lies.

        Raises:
            MalformedError: not verifier keys of one log.
        """
        keys = LogKeys.of(*specs.split())
        origin = keys.origin
        pins = self._read()
        pins["keys"][origin] = " ".join(keys.specs)
        pins["stores"][str(store.resolve())] = origin
        durable.make_dirs(self.path.parent, mode=0o700)
        durable.replace(self.path, json.dumps(pins, indent=1, sort_keys=True).encode() + b"\n", mode=0o600)

    def key(self, origin: str) -> str | None:
        """The pinned keys of a log, as `ledger.trust.TrustedKey` reads them, with spaces between; None when there is none."""
        return self._read()["keys"].get(origin)

    def origin_at(self, store: Path) -> str | None:
        """Which log was pinned for this path, or None: another one there now is a replaced store."""
        return self._read()["stores"].get(str(store.resolve()))

    def require_not_replaced(self, store: Path, origin: str) -> None:
        """Refuse a path that is pinned for another log than the one that is there now.

        Raises:
            VerificationError: it is.
        """
        known = self.origin_at(store)
        if known not in (None, origin):
            raise VerificationError(
                f"{store} held the log {known}, and now holds {origin}: the store was replaced", expected=known, actual=origin, path=store,
                hint="find out who replaced it, and keep it as evidence; to read it, name its key with --key",
            )  # fmt: skip

    def _read(self) -> dict[str, dict[str, str]]:
        if not self.path.exists():
            return {"keys": {}, "stores": {}}
        with storage_errors("reading", self.path):
            try:
                value = json.loads(self.path.read_bytes())
                pins = {"keys": dict(value["keys"]), "stores": dict(value["stores"])}
                if not all(isinstance(text, str) for part in pins.values() for text in part.values()):
                    raise ValueError("a pin is a text")
                return pins
            except (ValueError, KeyError, TypeError) as exc:
                raise MalformedError(f"{self.path} is not a pin file: {exc}", path=self.path, hint="restore it, or pin keys again") from exc


@dataclass(frozen=True, slots=True)
class LastSigned:
    """The last signed checkpoint, kept outside the store so that a restored backup is noticed."""

    path: Path

    @classmethod
    def default(cls, origin: str) -> Self:
        """The place for one log."""
        return cls(state_dir() / f"{slug(origin)}.checkpoint")

    def read(self) -> bytes | None:
        """The signed note, or None if this machine never signed for the log."""
        if not self.path.exists():
            return None
        with storage_errors("reading", self.path):
            return self.path.read_bytes()

    def write(self, note: bytes) -> None:
        """Remember before publishing: after a crash the log must not sign anything that contradicts it."""
        durable.make_dirs(self.path.parent, mode=0o700)
        durable.replace(self.path, note, mode=0o600)
