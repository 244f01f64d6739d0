"""Who signs: a key in a file, with or without a passphrase, or a program. Three forms of key files, told apart by content.

- one line, `PRIVATE+KEY+<name>+<id>+<base64>` (`ledger.note.Signer`): the key itself;
- an OpenSSH private key of type ed25519, with a passphrase or without: `ssh-keygen -p -f FILE` changes it. Such a file holds no name;
- TOML that names a program, for a key in hardware or in a cloud:

      signer = "command"
      vkey = "example.com/agents+3f2a91c0+AZ..."
      command = ["/usr/local/bin/sign-with-token", "--slot", "9c"]

  It gets the text on its standard input and writes the 64 bytes of an Ed25519 signature (RFC 8032) to its standard output.

The ciphers of OpenSSH's format have no authentication of their own: somebody who may change an encrypted file can change the seed in it
unseen. So what comes out must be the key that the file's open part names.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import signal
import stat
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, load_ssh_private_key

from ledger.durable import storage_errors
from ledger.errors import BadSignature, MalformedError, StorageError
from ledger.note import KEY_BYTES, SIGNATURE_BYTES, NoteSignature, SignatureType, Signer, Verifier
from ledger.passphrase import read_passphrase

Form = Literal["plain", "openssh", "encrypted", "command"]

KDF_ROUNDS: Final = 64
"""Of bcrypt_pbkdf: about a second, once at every start; ssh-keygen takes 16 or 24."""
COMMAND_SECONDS: Final = 30.0
"""How long a program may take for one signature: tokens that want a touch are slow."""
MAX_FILE_BYTES: Final = 64 * 1024
_MAX_WHY_CHARS: Final = 200
_PLAIN: Final = b"PRIVATE+KEY+"
_OPENSSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
_OPENSSH_END: Final = b"-----END OPENSSH PRIVATE KEY-----"
_OPENSSH_MAGIC: Final = b"openssh-key-v1\0"
_ED25519: Final = b"ssh-ed25519"


class CheckpointSigner(Protocol):
    """What the log needs of its key; `ledger.note.Signer` is one."""

    @property
    def name(self) -> str:
        """The log's origin."""

    @property
    def verifier(self) -> Verifier:
        """The public key."""

    @property
    def vkey(self) -> str:
        """The public key as text."""

    def sign(self, text: str) -> str:
        """A signature line over the text, with its newline.

        Raises:
            StorageError: it cannot sign now.
        """


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """A program that signs; every signature of it is verified before it is used."""

    verifier: Verifier
    command: tuple[str, ...]
    """The program by its absolute path, and its arguments; no shell."""
    timeout: float = COMMAND_SECONDS
    """Seconds."""

    @property
    def name(self) -> str:
        """The log's origin."""
        return self.verifier.name

    @property
    def vkey(self) -> str:
        """The public key as text."""
        return self.verifier.vkey

    def sign(self, text: str) -> str:
        """A signature line over the text, with its newline.

        Raises:
            StorageError: the program does not run, takes too long, fails, or signs with another key.
        """
        signature = self._run(text.encode())
        try:
            self.verifier.verify(text, signature)
        except BadSignature as exc:
            raise self._failed(f"wrote {len(signature)} bytes that are no signature by {self.vkey}") from exc
        return NoteSignature(name=self.name, key_id=self.verifier.key_id, signature=signature).line()

    def _run(self, message: bytes) -> bytes:
        try:
            # A session of its own: Ctrl-C is for us, and what it has started is stopped with it.
            process = subprocess.Popen(  # noqa: S603 - what the owner of the key file has named
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as exc:
            raise self._failed(f"does not run: {exc.strerror}") from exc
        with process:
            try:
                out, err = process.communicate(message, timeout=self.timeout)
            except BaseException as exc:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(exc, subprocess.TimeoutExpired):
                    raise self._failed(f"has not signed within {self.timeout:g} s") from exc
                raise
        if process.returncode:
            said = err.decode("utf-8", "replace").strip().splitlines()
            raise self._failed(f"ended with {process.returncode}: {said[0][:_MAX_WHY_CHARS] if said else 'it said nothing'}")
        return out[: SIGNATURE_BYTES + 1]

    def _failed(self, why: str) -> StorageError:
        return StorageError(f"the signing program {self.command[0]} {why}", hint="see that the token or service that has the key is there")


@dataclass(frozen=True, slots=True)
class BothSigners:
    """Two keys that sign everything together: while a log goes from one to the other."""

    old: CheckpointSigner
    new: CheckpointSigner

    @property
    def name(self) -> str:
        """The log's origin."""
        return self.new.name

    @property
    def verifier(self) -> Verifier:
        """The new public key."""
        return self.new.verifier

    @property
    def vkey(self) -> str:
        """The new public key as text."""
        return self.new.vkey

    def sign(self, text: str) -> str:
        """A line by the old key and one by the new."""
        return self.old.sign(text) + self.new.sign(text)


def read_key_file(path: Path) -> bytes:
    """The bytes of a key file.

    Raises:
        StorageError: it cannot be read.
        MalformedError: it is far too long.
    """
    with storage_errors("reading", path), path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise MalformedError(f"{path} is too long for a key", path=path)
    return data


def form_of(data: bytes, path: Path) -> Form:
    """Which of the forms the key file at `path` has, by its bytes.

    Raises:
        MalformedError: an OpenSSH key that does not parse.
    """
    if data.startswith(_PLAIN):
        return "plain"
    if data.startswith(_OPENSSH):
        return "encrypted" if _open_part(data, path)[0] else "openssh"
    return "command"


def load_signer(path: Path, *, origin: str, passphrase: Callable[[Path], bytes] = read_passphrase) -> CheckpointSigner:
    """The signer in a key file.

    Args:
        path: the file.
        origin: the log's name: an OpenSSH key has none of its own.
        passphrase: asked for one if the file needs one.

    Raises:
        MalformedError: it is no key, the passphrase is wrong, or the key was changed.
        MissingKey: it needs a passphrase, and there is none.
        StorageError: it cannot be read, or others may write to a file that names a program.
    """
    data = read_key_file(path)
    match form_of(data, path):
        case "plain":
            return Signer.parse(data.decode("ascii", "replace").strip())
        case "command":
            return _command_signer(data, path)
        case form:
            return Signer(origin, _openssh_key(data, path, passphrase(path) if form == "encrypted" else None))


def vkey_in(path: Path, *, origin: str) -> str:
    """The public key of a key file, without a passphrase and without a signature: for lists, not for trust.

    Raises:
        MalformedError, StorageError: as `load_signer`.
    """
    data = read_key_file(path)
    match form_of(data, path):
        case "plain":
            return Signer.parse(data.decode("ascii", "replace").strip()).vkey
        case "command":
            return _command_signer(data, path).vkey
        case _:
            return Verifier(origin, _open_part(data, path)[1]).vkey


def new_signer(origin: str, passphrase: bytes | None) -> tuple[Signer, bytes]:
    """A new key, and the bytes of its file: with a passphrase an OpenSSH key, else the plain line.

    Raises:
        MalformedError: the origin is not a name.
    """
    key = Ed25519PrivateKey.generate()
    signer = Signer(origin, key)
    if passphrase is None:
        return signer, signer.encode().encode() + b"\n"
    encryption = PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(KDF_ROUNDS).build(passphrase)
    return signer, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, encryption)


def _openssh_key(data: bytes, path: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    # Causes are dropped here: they are about bytes of a secret.
    try:
        key = load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error):
        wrong = "the passphrase is wrong, or the file is damaged" if passphrase is not None else "it does not parse"
        raise MalformedError(
            f"the key at {path} cannot be read: {wrong}", path=path, hint="TRAIL_PASSPHRASE_FILE, or try again on a terminal"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise MalformedError(f"the key at {path} is not of type ed25519", path=path)
    # What the passphrase protects is not authenticated, see above.
    if key.public_key().public_bytes_raw() != _open_part(data, path)[1]:
        raise MalformedError(
            f"the key at {path} is not the one that the file says it is: the file was changed", path=path, hint="restore it from a copy"
        )
    return key


def _open_part(data: bytes, path: Path) -> tuple[bool, bytes]:
    """(Is it encrypted, the public key) of an OpenSSH private key, from what everybody can read in it (OpenSSH, PROTOCOL.key)."""
    body, end, _rest = data.removeprefix(_OPENSSH).partition(_OPENSSH_END)
    try:
        raw = binascii.a2b_base64(body)
        if not end or not raw.startswith(_OPENSSH_MAGIC):
            raise ValueError
        cipher, rest = _string(raw[len(_OPENSSH_MAGIC) :])
        _kdf, rest = _string(rest)
        _options, rest = _string(rest)
        public, _rest = _string(rest[4:])
        kind, public = _string(public)
        key, _rest = _string(public)
    except ValueError:
        raise MalformedError(f"the OpenSSH private key at {path} does not parse", path=path, hint="restore it from a copy") from None
    if kind != _ED25519 or len(key) != KEY_BYTES:
        raise MalformedError(f"the OpenSSH private key at {path} is not of type ed25519", path=path)
    return cipher != b"none", key


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string of RFC 4251 section 5, and what follows it."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < end:
        raise ValueError
    return data[4:end], data[end:]


def _command_signer(data: bytes, path: Path) -> CommandSigner:
    try:
        value: dict[str, Any] = tomllib.loads(data.decode())
        if set(value) != {"signer", "vkey", "command"} or value["signer"] != "command":
            raise ValueError
    except ValueError:  # not even TOML: it may be a damaged key, of which nothing is shown
        raise MalformedError(
            f"{path} is no signing key", path=path,
            hint="a line PRIVATE+KEY+..., an OpenSSH private key, or TOML with signer, vkey and command",
        ) from None  # fmt: skip
    command = value["command"]
    if not isinstance(command, list) or not command or not all(isinstance(part, str) and "\0" not in part for part in command):
        raise MalformedError(f"{path}: command is a list of texts: the program and its arguments", path=path)
    if not Path(command[0]).is_absolute():
        raise MalformedError(f"{path}: the program is named by its absolute path, not {command[0]!r}", path=path)
    verifier = Verifier.parse(str(value["vkey"]))
    if verifier.type is not SignatureType.ED25519:
        raise MalformedError(f"{path}: the vkey is of a witness, not of a log", path=path)
    with storage_errors("reading", path):
        found = path.stat()
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (0, os.getuid()):
        raise StorageError(
            f"others may write to {path}, which says what program is run", path=path, hint=f"make it yours: chmod go-w {path}"
        )
    return CommandSigner(verifier, tuple(command))
