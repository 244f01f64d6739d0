"""Tokens: who a sender is, and what its role lets it do.

OTLP has no authentication of its own; the convention is `Authorization: Bearer <token>` (RFC 6750), which
every exporter can send through OTEL_EXPORTER_OTLP_HEADERS. The token file holds SHA-256 digests and never a
token: a token is 256 random bits, so a plain digest cannot be searched for it. Whether a sender may speak for
a service is judged where services are known.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import orjson

from ledger import durable
from ledger.errors import LedgerError, MalformedError, StorageError, UnsupportedFormat

VERSION = 1
PREFIX = "trail_"
"""Tells a leaked token from other text; secret scanners look for such prefixes."""
SECRET_BYTES = 32
FILE_MODE = 0o600
FILE_BYTES_MAX = 4 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
RESERVED_NAMES = {"import", "loopback", "trail", "unauthenticated"}
"""What records call a sender without a token, and ourselves."""
BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/-]{1,512}=*)", re.IGNORECASE | re.ASCII)


class Role(StrEnum):
    """What a token is for."""

    EMITTER = "emitter"
    APPROVER = "approver"
    POLICY = "policy"
    READER = "reader"
    AUDITOR = "auditor"
    ADMIN = "admin"


TELEMETRY_ROLES = frozenset({Role.EMITTER, Role.APPROVER, Role.POLICY, Role.ADMIN})
"""Who may send telemetry: those who act, approve or decide, and not those who only read."""


class Unauthenticated(LedgerError):
    """No token, or none that counts (HTTP 401)."""


class Forbidden(LedgerError):
    """A good token whose role or services do not cover the request (HTTP 403)."""


@dataclass(frozen=True, slots=True)
class Sender:
    """The party that a record came from."""

    name: str
    role: Role | None
    """None where nobody was authenticated."""
    services: tuple[str, ...]
    """The values of `service.name` it may speak for; empty for any."""


LOOPBACK = Sender("loopback", None, ())
"""Whoever reaches a server that listens on this machine only and has no tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One entry of the token file; times are Unix nanoseconds."""

    name: str
    role: Role
    services: tuple[str, ...]
    sha256: str
    """Of the whole token, its prefix included; 64 lower-case hexadecimal digits."""
    created: int
    expires: int | None = None
    revoked: int | None = None


class Authenticator(Protocol):
    """Turns the Authorization header of a request into its sender."""

    def authenticate(self, header: str | None, now: int) -> Sender:
        """See `TokenFile.authenticate`."""


class TokenFile:
    """The tokens of a server, as one version of the file has them."""

    def __init__(self, path: Path, tokens: tuple[Token, ...] = ()) -> None:
        """Hold these tokens; `load` reads them."""
        self.path = path
        self.tokens = tokens

    @classmethod
    def load(cls, path: Path) -> TokenFile:
        """Read a token file; one that does not exist has no tokens yet.

        Raises:
            StorageError: it cannot be read, or others than its owner can.
            MalformedError: it is not a token file.
            UnsupportedFormat: a newer version wrote it.
        """
        with durable.storage_errors("reading", path):
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                return cls(path)
            if mode & 0o077:
                hint = f"chmod 600 {path}, and renew the tokens if others may have seen them"
                raise StorageError(f"{path} is open to other users", path=path, hint=hint)
            data = path.read_bytes()
        if len(data) > FILE_BYTES_MAX:
            raise MalformedError(f"{path} is too large to be a token file", path=path)
        return cls(path, _parse(data, path))

    def add(self, name: str, role: Role, services: Collection[str] = (), expires: int | None = None, *, now: int) -> str:
        """Make a token and write the file.

        Args:
            name: What its records will call the sender; one that is not revoked must not have it already.
            role: What it is for.
            services: The values of `service.name` it may speak for; none for any.
            expires: When it ends, Unix nanoseconds.
            now: The time, Unix nanoseconds.

        Returns:
            The token: the only time it is seen.

        Raises:
            MalformedError: a name or service that cannot be used.
            StorageError: the file could not be written.
        """
        if not NAME.fullmatch(name) or name in RESERVED_NAMES:
            hint = "up to 64 letters, digits and . _ @ -, and not " + " or ".join(sorted(RESERVED_NAMES))
            raise MalformedError(f"{name!r} cannot name a token", hint=hint)
        if any(token.name == name and token.revoked is None for token in self.tokens):
            raise MalformedError(f"there is a token named {name} already", hint=f"trail token revoke {name}")
        if not all(services):
            raise MalformedError("a service name is empty", hint="leave the services out to allow any")
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        token = Token(
            name=name,
            role=Role(role),
            services=tuple(services),
            sha256=_digest(secret),
            created=now,
            expires=expires,
        )
        self._write((*self.tokens, token))
        return secret

    def revoke(self, name: str, *, now: int) -> None:
        """Mark a token as no longer valid and write the file; its entry stays.

        Raises:
            MalformedError: no valid token has that name.
            StorageError: the file could not be written.
        """
        if not any(token.name == name and token.revoked is None for token in self.tokens):
            raise MalformedError(f"there is no valid token named {name}", hint="trail token list")
        self._write(tuple(replace(token, revoked=now) if token.name == name and token.revoked is None else token for token in self.tokens))

    def authenticate(self, header: str | None, now: int) -> Sender:
        """Find the sender.

        Compares with every token, in constant time each, so the time taken says nothing about which one was
        close.

        Args:
            header: The value of the Authorization header, None when there is none.
            now: The time, Unix nanoseconds.

        Raises:
            Unauthenticated: no token, not a known one, or one that has expired or was revoked.
        """
        if header is None:
            raise Unauthenticated("This server wants a token: send the header Authorization: Bearer <token>.")
        match = BEARER.fullmatch(header.strip())
        if match is None:
            raise Unauthenticated("The Authorization header is not of the form Bearer <token>.")
        digest = _digest(match[1])
        found = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        if found is None:
            raise Unauthenticated("This server does not know the token.")
        if found.revoked is not None:
            raise Unauthenticated(f"The token {found.name} was revoked.")
        if found.expires is not None and now >= found.expires:
            raise Unauthenticated(f"The token {found.name} has expired.")
        return Sender(found.name, found.role, found.services)

    def _write(self, tokens: tuple[Token, ...]) -> None:
        entries = [_entry(token) for token in tokens]
        data = orjson.dumps({"version": VERSION, "tokens": entries}, option=orjson.OPT_INDENT_2)
        durable.make_dirs(self.path.parent, mode=0o700)
        durable.replace(self.path, data + b"\n", mode=FILE_MODE)
        self.tokens = tokens


class LiveTokens:
    """The token file of a running server: read again when it changes, so a revocation needs no restart."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            LedgerError: as `TokenFile.load`.
        """
        self._path = path
        self._seen = self._version()
        self._file = TokenFile.load(path)

    def authenticate(self, header: str | None, now: int) -> Sender:
        """Find the sender in the file as it is now.

        Raises:
            Unauthenticated: as `TokenFile.authenticate`.
            StorageError: the file has become unreadable. Nobody is let in by an old copy: a revocation may be
                in the new one.
        """
        version = self._version()
        if version != self._seen:
            try:
                self._file = TokenFile.load(self._path)
            except MalformedError as exc:
                raise StorageError(f"the token file is damaged: {exc}", path=self._path, hint=exc.hint) from exc
            self._seen = version
        return self._file.authenticate(header, now)

    def _version(self) -> tuple[int, ...]:
        try:
            stat = self._path.stat()
        except OSError:  # load says what is wrong with it
            return ()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode


def require(sender: Sender, roles: Collection[Role]) -> None:
    """Check the role; a sender on loopback, where there are no tokens, has every role.

    Raises:
        Forbidden: the role is not one of these.
    """
    if sender.role is not None and sender.role not in roles:
        wanted = ", ".join(sorted(roles))
        raise Forbidden(f"The token {sender.name} has the role {sender.role}; this needs one of {wanted}.")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# --------------------------------------------------------------------------------------------------- the file


def _entry(token: Token) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": token.name,
        "role": token.role,
        "services": list(token.services),
        "sha256": token.sha256,
        "created": _text_of(token.created),
    }
    for key, time in (("expires", token.expires), ("revoked", token.revoked)):
        if time is not None:
            entry[key] = _text_of(time)
    return entry


def _parse(data: bytes, path: Path) -> tuple[Token, ...]:
    try:
        file = orjson.loads(data)
        version = file.get("version", VERSION)
        if version != VERSION:
            raise UnsupportedFormat(f"{path} is of version {version}", path=path, hint="use a newer trail")
        return tuple(_token(**entry) for entry in file["tokens"])
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise MalformedError(f"{path} is not a token file: {exc}", path=path, hint="restore it from a copy") from exc


def _token(
    *,
    name: str,
    role: str,
    services: Any,
    sha256: str,
    created: str,
    expires: str | None = None,
    revoked: str | None = None,
) -> Token:
    """Check one entry; an unknown key is an error, because it may be a restriction that we do not know."""
    if not NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise ValueError(f"{name!r} cannot name a token")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"the sha256 of {name} is not 64 hexadecimal digits")
    if not isinstance(services, list) or not all(isinstance(service, str) and service for service in services):
        raise ValueError(f"the services of {name} are not a list of names")
    return Token(
        name=name,
        role=Role(role),
        services=tuple(services),
        sha256=sha256,
        created=_time_of(created),
        expires=None if expires is None else _time_of(expires),
        revoked=None if revoked is None else _time_of(revoked),
    )


def _text_of(unix_nano: int) -> str:
    """RFC 3339 in UTC, whole seconds: the file is read by people."""
    return datetime.fromtimestamp(unix_nano // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time_of(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time has no zone")
    return int(moment.timestamp()) * 10**9
