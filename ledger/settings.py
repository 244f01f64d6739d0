"""`trail.toml`: what a store is called and its limits. Unknown keys are errors, so that a typing mistake is not a default.

The file is part of the store and is recorded in the log (`config` record) at every start and change.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from ledger.durable import storage_errors
from ledger.errors import MalformedError, StoreMissing, UnsupportedFormat
from ledger.layout import FORMAT_VERSION, Layout
from ledger.regular import read_file

MIB: Final = 1 << 20
_LARGEST: Final = 1 << 60
"""Of any number in a trail.toml: leaves out infinity and NaN, and what no clock or file could count."""
_URL: Final = re.compile(r"https?://[^\s/?#@]+(?:/[^\s#]*)?", re.ASCII)
"""Credentials have no place in a file that is recorded in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one store; the defaults suit a small server."""

    origin: str
    """The log's name in every checkpoint: a URL without its scheme, unique for ever."""
    segment_records: int = 250_000
    segment_bytes: int = 128 * MIB
    """Of journal; a segment is sealed at whichever of records, bytes and age comes first."""
    segment_age_seconds: float = 60.0
    compact_records: int = 1_000_000
    """Small segments are merged up to about this many records."""
    compact_fan_in: int = 8
    """This many neighbouring small segments are worth a merge."""
    compact_grace_seconds: float = 30.0
    """How long a file that was merged stays for readers that have it open."""
    checkpoint_seconds: float = 0.5
    heartbeat_seconds: float = 60.0
    journal_bytes: int = 4096 * MIB
    """Journal not yet sealed above which telemetry is refused with 503."""
    reserve_bytes: int = 256 * MIB
    """Disk space kept free: below it telemetry is refused with 503, so that a clean stop is still possible."""
    dedupe_hours: float = 24.0
    request_bytes: int = 64 * MIB
    """Largest request body, before and after decompression."""
    witness_seconds: float = 2.0
    """Checkpoints are submitted to the witnesses at most this often."""
    timestamp_urls: tuple[str, ...] = ()
    """Time-stamping authorities (RFC 3161) to ask."""
    timestamp_seconds: float = 3600.0
    """Time stamps are asked for this often."""

    @classmethod
    def parse(cls, text: str, *, path: Path) -> Self:
        """Read the text of a trail.toml.

        Raises:
            MalformedError: not TOML, an unknown key, a missing origin, or a value of the wrong type or sign.
            UnsupportedFormat: a store of a newer format.
        """
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise MalformedError(f"{path} is not TOML: {exc}", path=path) from exc
        version = values.pop("format", None)
        if version != FORMAT_VERSION:
            raise UnsupportedFormat(
                f"{path} says store format {version!r}; this program knows format {FORMAT_VERSION}",
                path=path,
                hint="use the version of trail that made this store, or a newer one",
            )
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key, value in values.items():
            values[key] = _checked(key, value, fields, path)
        if not values.get("origin"):
            raise MalformedError(f"{path} has no origin", path=path, hint='add: origin = "example.com/agents"')
        return cls(**values)

    @classmethod
    def load(cls, layout: Layout) -> tuple[Self, str]:
        """The settings of a store, and their text.

        Raises:
            StoreMissing: there is no trail.toml, so no store.
        """
        path = layout.settings
        if not path.exists():
            raise StoreMissing(
                f"there is no trail store at {layout.root}",
                path=layout.root,
                hint="make one with `trail init`, or name another with --store",
            )
        try:
            with storage_errors("reading", path):
                text = read_file(path, limit=MIB).decode()
        except UnicodeDecodeError as exc:
            raise MalformedError(f"{path} is not UTF-8: {exc}", path=path) from exc
        return cls.parse(text, path=path), text


def settings_text(origin: str) -> str:
    """The trail.toml of a new store."""
    return (
        f'# A trail store. Everything that may be set is in ledger/FORMAT.md, "trail.toml"; what is not set here has its default.\n'
        f'format = {FORMAT_VERSION}\norigin = "{origin}"\n'
    )


def _checked(key: str, value: Any, fields: dict[str, Any], path: Path) -> Any:
    """The value in the type of its field."""
    if key not in fields:
        known = ", ".join(sorted(fields))
        raise MalformedError(f"{path} has an unknown key {key!r}", path=path, hint=f"known keys: format, {known}")
    if key == "origin":
        if not isinstance(value, str) or any(c.isspace() or c == "+" for c in value):
            raise MalformedError(f"{path}: origin is a text without spaces and plus signs", path=path)
    elif key == "timestamp_urls":
        if not isinstance(value, list) or not all(isinstance(url, str) and _URL.fullmatch(url) for url in value):
            raise MalformedError(f"{path}: {key} is a list of http and https URLs, not {value!r}", path=path)
        return tuple(value)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LARGEST:
        raise MalformedError(f"{path}: {key} is a number above 0 and below {_LARGEST}, not {value!r}", path=path)
    elif fields[key].type == "int" and not isinstance(value, int):
        raise MalformedError(f"{path}: {key} is a whole number, not {value!r}", path=path)
    return value
