"""Signed notes, c2sp.org/signed-note v1.0.0, with Ed25519 signatures and cosignatures.

A note is text, a blank line, and one signature line or more, each an em dash, a space, a key's name, a space,
and base64 of the 4-byte key ID and the signature. What the text means is not known here; the text is returned
only once a signature over it has been verified.

Parsing is strict: decode, encode again, compare. A note that opens is byte for byte what a writer following
the specification would have written, so two readers cannot see two different things in it.

Two signature types are supported, each with a key ID of its own so one cannot pass for the other: 0x01,
Ed25519 over the text, and 0x04, a witness's Ed25519 cosignature over a time and the text
(c2sp.org/tlog-cosignature).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import BadSignature, MalformedError

MAX_NOTE_BYTES = 1_000_000
"""The largest note read; golang.org/x/mod/sumdb/note has the same limit."""

MAX_SIGNATURES = 64
"""The most signature lines read; the specification asks for at least 16."""

KEY_BYTES = 32
"""Bytes of an Ed25519 public key, and of the seed of a private one (RFC 8032 5.1.5)."""

SIGNATURE_BYTES = 64
"""Bytes of an Ed25519 signature (RFC 8032 5.1.6)."""

MAX_TIMESTAMP = (1 << 63) - 1
"""The largest time of a cosignature, in seconds since the epoch."""

_KEY_ID_BYTES = 4
_TIMESTAMP_BYTES = 8
_DASH = "\N{EM DASH} "
_PRIVATE = "PRIVATE+KEY+"

# The field of edwards25519 and its constant d (RFC 8032 5.1), and the y of the two points of order 8 that
# have positive y in the list at c2sp.org/CCTV/ed25519; the points of small order have y in {0, 1, -1, Y8,
# -Y8}.
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_Y8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


class SignatureType(IntEnum):
    """The signature types of c2sp.org/signed-note that are supported here."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line of a note."""

    name: str
    key_id: int
    """Unsigned 32 bits; names, together with `name`, the key and the algorithm."""
    signature: bytes
    """What follows the key ID: 64 bytes for Ed25519, 8 more before them for a cosignature."""
    timestamp: int | None = None
    """Seconds since the epoch; only of a verified cosignature."""

    def line(self) -> str:
        """The signature line, with its newline."""
        blob = self.key_id.to_bytes(_KEY_ID_BYTES, "big") + self.signature
        return f"{_DASH}{self.name} {encode_base64(blob)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note of which at least one signature has been verified."""

    text: str
    """What was signed, ending in a newline."""
    verified: tuple[NoteSignature, ...]
    """One signature for each known key that signed, in the order of the note."""
    unverified: tuple[NoteSignature, ...]
    """The signatures of keys that are not known; they say nothing."""


class Verifier:
    """A public key under a name: what a vkey string says."""

    __slots__ = ("_public", "key_id", "name", "public_key", "type")

    def __init__(self, name: str, public_key: bytes, kind: SignatureType = SignatureType.ED25519) -> None:
        """Take a 32-byte Ed25519 public key.

        A key of small order is refused, because signatures under it can be made without any private key, and
        so is one that is not the canonical encoding of a point (RFC 8032 5.1.3). Go and OpenSSL would accept
        both.

        Raises:
            MalformedError: The name or the key is none.
        """
        _require_name(name)
        _require_point(public_key)
        self.name = name
        self.public_key = public_key
        self.type = kind
        self.key_id = _key_id(name, kind, public_key)
        self._public = Ed25519PublicKey.from_public_bytes(public_key)

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """The verifier that `<name>+<8 hex digits>+<base64(type || key)>` names.

        Raises:
            MalformedError: It does not parse, its key ID is not that of its key, or its type is not
                supported.
        """
        # Base64 has a plus of its own, a name has none: the first two separate.
        name, _, rest = vkey.partition("+")
        _, _, encoded = rest.partition("+")
        kind, key = _decode_key(encoded)
        verifier = cls(name, key, kind)
        if verifier.vkey != vkey:
            raise MalformedError("the verifier key is not canonical or its key ID is wrong", expected=verifier.vkey)
        return verifier

    @property
    def vkey(self) -> str:
        """The string form, the inverse of `parse`."""
        encoded = encode_base64(bytes([self.type]) + self.public_key)
        return f"{self.name}+{self.key_id:08x}+{encoded}"

    def verify(self, text: str, signature: bytes) -> int | None:
        """Check a signature over the text of a note (what follows the key ID in its line).

        Returns:
            The time of a cosignature in seconds since the epoch, None for a plain signature.

        Raises:
            BadSignature: It is not this key's signature over this text.
        """
        time = None
        message = text.encode()
        raw = signature
        if self.type is SignatureType.COSIGNATURE:
            time = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
            raw = signature[_TIMESTAMP_BYTES:]
            message = _cosigned_message(text, time)
        if len(raw) != SIGNATURE_BYTES or (time is not None and time > MAX_TIMESTAMP):
            raise BadSignature(f"not the form of a signature by {self.name}", actual=signature)
        try:
            self._public.verify(raw, message)
        except InvalidSignature as exc:
            raise BadSignature(f"the signature by {self.name} is wrong", actual=signature) from exc
        return time


class Signer:
    """An Ed25519 private key under a name."""

    __slots__ = ("_private", "_public_key", "name", "verifier")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        """Take a private key; the verifier of its plain signatures is `verifier`.

        Raises:
            MalformedError: The name is none.
        """
        self._private = private_key
        self._public_key = private_key.public_key().public_bytes_raw()
        self.name = name
        self.verifier = Verifier(name, self._public_key)

    @classmethod
    def generate(cls, name: str) -> Signer:
        """A new key from the operating system's randomness."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, encoded: str) -> Signer:
        """The signer that `PRIVATE+KEY+<name>+<8 hex digits>+<base64(0x01 || seed)>` names.

        The form is that of golang.org/x/mod/sumdb/note; the key ID is the one of the public key.

        Raises:
            MalformedError: It does not parse; the message and the evidence never hold any part of the key.
        """
        if not encoded.startswith(_PRIVATE):
            raise MalformedError(f"a private key starts with {_PRIVATE}")
        name, _, rest = encoded.removeprefix(_PRIVATE).partition("+")
        _, _, tail = rest.partition("+")
        # The cause is dropped: an error about base64 could carry the secret into a log.
        try:
            kind, seed = _decode_key(tail)
        except MalformedError:
            raise MalformedError("the private key does not parse") from None
        if kind is not SignatureType.ED25519:
            raise MalformedError("the private key is not an Ed25519 key", actual=int(kind))
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(seed))
        if signer.encode() != encoded:
            raise MalformedError("the private key is not canonical or its key ID is wrong")
        return signer

    def encode(self) -> str:
        """The string form, the inverse of `parse`. It is the secret itself."""
        seed = encode_base64(bytes([SignatureType.ED25519]) + self._private.private_bytes_raw())
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id:08x}+{seed}"

    @property
    def vkey(self) -> str:
        """The verifier key of this key's plain signatures."""
        return self.verifier.vkey

    @property
    def cosigner(self) -> Verifier:
        """The verifier of this key's cosignatures: of another type, and so with another key ID."""
        return Verifier(self.name, self._public_key, SignatureType.COSIGNATURE)

    def sign(self, text: str) -> str:
        """A signature line over the text, with its newline."""
        signature = self._private.sign(text.encode())
        return NoteSignature(name=self.name, key_id=self.verifier.key_id, signature=signature).line()

    def cosign(self, text: str, timestamp: int) -> str:
        """A cosignature/v1 line over the text of a checkpoint, with its newline.

        `timestamp` is the time of signing in seconds since the epoch: that the tree is the largest this key
        saw by then. A key that cosigns should sign nothing else, and belong to one cosigner only
        (c2sp.org/tlog-cosignature).

        Raises:
            MalformedError: The time is out of range.
        """
        if not 0 <= timestamp <= MAX_TIMESTAMP:
            raise MalformedError(f"{timestamp} is not a time", actual=timestamp)
        signature = self._private.sign(_cosigned_message(text, timestamp))
        blob = timestamp.to_bytes(_TIMESTAMP_BYTES, "big") + signature
        return NoteSignature(name=self.name, key_id=self.cosigner.key_id, signature=blob).line()


class TextSigner(Protocol):
    """Whatever signs the text of a note; `Signer` is one, others are in `ledger.signers`."""

    def sign(self, text: str) -> str:
        """One signature line over the text or several, each with its newline."""


def sign(text: str, signers: Iterable[TextSigner]) -> bytes:
    """A signed note over the text, which ends in a newline.

    Raises:
        MalformedError: The text cannot be a note's, or there is no signer.
    """
    require_text(text)
    data = (text + "\n" + "".join([signer.sign(text) for signer in signers])).encode()
    # A text that does not end in a newline could run into the signatures and come back as another text.
    if parse_note(data)[0] != text:
        raise MalformedError("not the text of a note", actual=text)
    return data


def parse_note(data: bytes) -> tuple[str, list[NoteSignature]]:
    """The text and the signature lines of a note, with NOTHING VERIFIED: to believe one, use `open_note`.

    Raises:
        MalformedError: It is not a note, or exceeds a limit.
    """
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedError(f"a note of {len(data)} bytes is too large", expected=MAX_NOTE_BYTES, actual=len(data))
    try:
        whole = data.decode()
    except UnicodeDecodeError as exc:
        raise MalformedError("the note is not UTF-8") from exc
    require_text(whole)
    # The last empty line separates: the text may have empty lines, the signatures cannot.
    split = whole.rfind("\n\n")
    text, lines = whole[: split + 1], whole[split + 2 :]
    if split < 0 or not lines.endswith("\n"):
        raise MalformedError("the note has no signature lines, or its last one does not end")
    # Counted before they are decoded, so a flood of lines costs nothing.
    if (count := lines.count("\n")) > MAX_SIGNATURES:
        raise MalformedError(f"a note with {count} signatures", expected=MAX_SIGNATURES, actual=count)
    return text, [_parse_line(line) for line in lines[:-1].split("\n")]


def open_note(data: bytes, verifiers: Sequence[Verifier]) -> Note:
    """Parse a note and verify every signature on it that is by one of these keys.

    A key is known by name *and* key ID together; a line by any other key is ignored, whatever its name. A key
    that signed twice counts once, but each of its lines must be right.

    Raises:
        MalformedError: It is not a note, or two of the verifiers have the same name and key ID.
        BadSignature: A known key's signature is wrong, or none of the keys has signed.
    """
    known: dict[tuple[str, int], Verifier] = {}
    for verifier in verifiers:
        first = known.setdefault((verifier.name, verifier.key_id), verifier)
        if first.vkey != verifier.vkey:
            raise MalformedError(f"two keys share the name and key ID {verifier.name}+{verifier.key_id:08x}")
    text, signatures = parse_note(data)
    verified: dict[tuple[str, int], NoteSignature] = {}
    unverified: dict[NoteSignature, None] = {}
    for line in signatures:
        key = (line.name, line.key_id)
        signer = known.get(key)
        if signer is None:
            unverified.setdefault(line)
            continue
        timestamp = signer.verify(text, line.signature)
        verified.setdefault(
            key,
            NoteSignature(name=line.name, key_id=line.key_id, signature=line.signature, timestamp=timestamp),
        )
    if not verified:
        raise BadSignature(
            "no known key has signed the note",
            hint="check that the public key given is the one of this log",
            expected=[verifier.vkey for verifier in verifiers],
            actual=[f"{line.name}+{line.key_id:08x}" for line in signatures],
        )
    return Note(text=text, verified=tuple(verified.values()), unverified=tuple(unverified))


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """The inverse of `encode_base64`, accepting only what it writes.

    `b64decode` alone accepts non-zero bits in the padding (and without `validate` any junk), so several
    strings would name the same bytes.

    Raises:
        MalformedError: It is not base64, or not its canonical form.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedError("not base64", actual=text) from exc
    if encode_base64(data) != text:
        raise MalformedError("base64 is not canonical", actual=text)
    return data


def require_text(text: str) -> None:
    """Refuse what no note may contain (c2sp.org/signed-note, Format): control characters except newlines.

    Raises:
        MalformedError: There is one, or the text has no UTF-8 form.
    """
    if any(character < " " and character != "\n" for character in set(text)):
        raise MalformedError("a control character in a note")
    if any("\ud800" <= character <= "\udfff" for character in set(text)):
        raise MalformedError("a surrogate in a note")


def _parse_line(line: str) -> NoteSignature:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise MalformedError("not a signature line", actual=line)
    _require_name(name)
    blob = decode_base64(encoded)
    if len(blob) <= _KEY_ID_BYTES:
        raise MalformedError("a signature line without a signature", actual=line)
    return NoteSignature(name=name, key_id=int.from_bytes(blob[:_KEY_ID_BYTES], "big"), signature=blob[_KEY_ID_BYTES:])


def _decode_key(encoded: str) -> tuple[SignatureType, bytes]:
    """The type and the 32 bytes of base64(type || key)."""
    blob = decode_base64(encoded)
    if len(blob) != 1 + KEY_BYTES:
        raise MalformedError("not the length of a key", expected=1 + KEY_BYTES, actual=len(blob))
    try:
        return SignatureType(blob[0]), blob[1:]
    except ValueError as exc:
        raise MalformedError(f"signature type 0x{blob[0]:02x} is not supported", actual=blob[0]) from exc


def _key_id(name: str, kind: SignatureType, public_key: bytes) -> int:
    digest = sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()
    return int.from_bytes(digest[:_KEY_ID_BYTES], "big")


def _cosigned_message(text: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def _require_name(name: str) -> None:
    """A key name is not empty and has no Unicode space and no plus."""
    require_text(name)
    if not name or "+" in name or any(character.isspace() for character in name):
        raise MalformedError("not the name of a key", actual=name)


def _require_point(public_key: bytes) -> None:
    """Refuse what is not the canonical encoding of a curve point of large order (RFC 8032 5.1.3)."""
    if len(public_key) != KEY_BYTES:
        raise MalformedError(f"a public key has {KEY_BYTES} bytes", expected=KEY_BYTES, actual=len(public_key))
    # The top bit is the sign of x. It is free for every y left after this: x is zero only where y is 1 or -1.
    y = int.from_bytes(public_key, "little") & ((1 << 255) - 1)
    if y >= _P or y in _SMALL_ORDER_Y:
        raise MalformedError("the public key is not canonical or has small order", actual=public_key)
    # x^2 = (y^2 - 1) / (d y^2 + 1) must have a root. Times the denominator squared it has one just the same,
    # and no division is needed.
    square = (y * y - 1) * (_D * y * y + 1) % _P
    if pow(square, (_P - 1) // 2, _P) != 1:
        raise MalformedError("the public key is not a point of the curve", actual=public_key)
