"""What a verifier believes, all of it from outside the store: the log's keys and up to which size each, witnesses, authorities of time.

A key may be trusted up to a size only (`VKEY@<=SIZE`): that ends the trust in a key that was replaced or stolen, without ending the trust
in what it signed before. A store never says which key to believe.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from ledger.checkpoint import Checkpoint, parse_decimal
from ledger.durable import storage_errors
from ledger.errors import BadSignature, MalformedError, VerificationError
from ledger.note import Verifier, open_note

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from ledger.policy import Policy

_UNTIL: Final = "@<="
MAX_KEYS: Final = 64
"""Of one log; a log that changes its key every month has as many after five years."""
_TOO_MANY: Final = "to verify, leave out the oldest ones; to rotate it once more, continue the log in a new one: trail init --continues"
_NO_KEY: Final = "name one: VKEY, or VKEY@<=SIZE"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key of a log, and how far it is believed."""

    verifier: Verifier
    until: int | None = None
    """It is believed for checkpoints over at most this many records; None for any."""

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Read `VKEY` or `VKEY@<=SIZE`.

        Raises:
            MalformedError: it is neither.
        """
        vkey, mark, size = spec.rpartition(_UNTIL)
        if not mark:
            return cls(Verifier.parse(spec))
        return cls(Verifier.parse(vkey), parse_decimal(size))

    @property
    def spec(self) -> str:
        """The inverse of `parse`."""
        return self.verifier.vkey if self.until is None else f"{self.verifier.vkey}{_UNTIL}{self.until}"


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The keys believed for one log."""

    keys: tuple[TrustedKey, ...]

    def __post_init__(self) -> None:
        """Check that they are keys of one log.

        Raises:
            MalformedError: there is none, there are too many, or they are of several logs.
        """
        if not 0 < len(self.keys) <= MAX_KEYS:
            raise MalformedError(f"a log has 1 to {MAX_KEYS} keys, not {len(self.keys)}", hint=_TOO_MANY if self.keys else _NO_KEY)
        if len({key.verifier.name for key in self.keys}) > 1:
            raise MalformedError("the keys are of several logs", actual=[key.verifier.name for key in self.keys])

    @classmethod
    def of(cls, *keys: str | Verifier) -> Self:
        """The keys of these specifications, or these verifiers without a limit.

        Raises:
            MalformedError: one of them is no key.
        """
        return cls(tuple(TrustedKey(key) if isinstance(key, Verifier) else TrustedKey.parse(key) for key in keys))

    @property
    def origin(self) -> str:
        """The name of the log."""
        return self.keys[0].verifier.name

    @property
    def specs(self) -> tuple[str, ...]:
        """The keys as `of` reads them."""
        return tuple(key.spec for key in self.keys)

    def until(self, verifier: Verifier) -> int | None:
        """Up to how many records a key is believed: the widest of what is said of it; None for any, also if nothing is said."""
        ends = [key.until for key in self.keys if key.verifier.vkey == verifier.vkey]
        return max((end for end in ends if end is not None), default=None) if None not in ends else None

    def ended_by(self, other: Self) -> Self:
        """These keys, each believed no further than `other` says of it; keys that only `other` has are left out."""
        ends = [(key.verifier, [end for end in (key.until, other.until(key.verifier)) if end is not None]) for key in self.keys]
        return type(self)(tuple(TrustedKey(verifier, min(sooner, default=None)) for verifier, sooner in ends))

    def open(self, note: bytes) -> Checkpoint:
        """The checkpoint in a note that one of the keys has signed and is believed for.

        Signatures of witnesses on it are not looked at.

        Raises:
            MalformedError: it is not a note, or its text is not a checkpoint.
            BadSignature: none of the keys has signed it, or only one that is not believed for a tree of this size.
            VerificationError: it is of another log; it must not be taken for this one's.
        """
        opened = open_note(note, tuple({key.verifier.vkey: key.verifier for key in self.keys}.values()))
        checkpoint = Checkpoint.parse(opened.text)
        if checkpoint.origin != self.origin:
            raise VerificationError("the checkpoint of another log", expected=self.origin, actual=checkpoint.origin)
        signed = {(signature.name, signature.key_id) for signature in opened.verified}
        used = [key for key in self.keys if (key.verifier.name, key.verifier.key_id) in signed]
        if all(key.until is not None and checkpoint.size > key.until for key in used):
            until = max(key.until for key in used if key.until is not None)
            raise BadSignature(
                f"it covers {checkpoint.size} records, and the key that signed it is believed up to {until} only",
                expected=until,
                actual=checkpoint.size,
                hint="whoever signed it has a key that was replaced or given up",
            )
        return checkpoint


@dataclass(frozen=True, slots=True)
class Trust:
    """Everything that a verifier brings along."""

    keys: LogKeys | None = None
    policy: Policy | None = None
    """Witnesses and their quorum (C2SP tlog-policy); None when the verifier knows no witness."""
    tsa_roots: tuple[Certificate, ...] = ()
    """Roots of time-stamping authorities (RFC 3161)."""

    @classmethod
    def load(cls, path: Path, *, origin: str | None = None) -> Self:
        """Read a trust file.

        TOML with `keys` (a list of `VKEY` or `VKEY@<=SIZE`), `policy` (a tlog-policy file) or `policy_text` (the same as text),
        and `tsa_roots` (a list of PEM files). Files are named relative to the trust file. A key in a `log` line of the policy counts too,
        if `keys` does not name it: there is no way to say in a policy how far it is believed, so it must not widen what `keys` says.

        Args:
            path: the trust file.
            origin: the log in question where `keys` names none; a policy may have `log` lines of others, whose keys are left out.

        Raises:
            MalformedError: it, or a file it names, does not parse; unknown members are errors.
            VerificationError: it is about other logs only.
            StorageError: a file cannot be read.
        """
        from ledger.policy import Policy
        from ledger.timestamps import load_roots

        try:
            with storage_errors("reading", path):
                value = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise MalformedError(f"{path} is no trust file: {exc}", path=path) from exc
        for name, member in value.items():
            _check(name, member, path)
        text = value.get("policy_text")
        if "policy" in value:
            place = path.parent / value["policy"]
            with storage_errors("reading", place):
                text = place.read_text("utf-8", errors="surrogateescape")  # to a policy, bytes beyond ASCII are opaque
        policy = Policy.parse(text) if text is not None else None
        roots = tuple(root for name in value.get("tsa_roots", []) for root in load_roots(path.parent / name))
        keys = _keys(LogKeys.of(*value["keys"]) if value.get("keys") else None, policy, origin)
        if keys is not None and origin is not None and keys.origin != origin:
            raise VerificationError(
                f"{path} is about the log {keys.origin}, and the log in question is {origin}", path=path, hint="name the right one"
            )
        return cls(keys, policy, roots)


def _keys(stated: LogKeys | None, policy: Policy | None, origin: str | None) -> LogKeys | None:
    """The keys of `keys`, and those of the policy's `log` lines that are of the same log, or of the one in question."""
    logs = [log.verifier for log in policy.logs] if policy is not None else []
    about = stated.origin if stated is not None else origin
    of_it = [verifier for verifier in logs if verifier.name == about] if about is not None else logs
    named = {key.verifier.vkey for key in stated.keys} if stated is not None else set()
    more = [TrustedKey(verifier) for verifier in of_it if verifier.vkey not in named]
    if stated is None and not more:
        # Of other logs only: said as it is for `keys`, and not taken for a trust file without any key.
        return LogKeys.of(logs[0]) if logs else None
    return LogKeys((*(stated.keys if stated is not None else ()), *more))


def _check(name: str, value: Any, path: Path) -> None:
    match name:
        case "policy" | "policy_text":
            good = isinstance(value, str)
        case "keys" | "tsa_roots":
            good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        case _:
            raise MalformedError(f"{path} has an unknown member {name!r}", path=path, hint="known: keys, policy, policy_text, tsa_roots")
    if not good:
        raise MalformedError(f"{path}: {name} is not of the right type", path=path, hint="texts; keys and tsa_roots are lists of texts")
