"""`trail info`: names, keys, paths and versions."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any, Final

import click

from ledger.errors import MissingKey
from ledger.keys import LastSigned, Pins, cache_dir, config_dir, default_key_path, slug
from ledger.layout import FORMAT_VERSION
from tui.exits import Exit
from tui.opening import open_store
from tui.output import emit, emit_json, one_line
from tui.running import running_path
from tui.verb import json_option, store_of, verb, vkey_option

_LIBRARIES: Final = ("agent-trail", "duckdb", "pyarrow", "cryptography", "opentelemetry-proto", "protobuf", "fastapi", "uvicorn", "textual")


@verb(
    "info",
    examples=[
        ("trail info", "which log is this, which key is believed, where does everything lie?"),
        ("trail info --vkey", "the public key that is believed, to be given to whoever shall verify"),
        ("trail info --json", "origin, size, root and vkey, for a program"),
    ],
    exits={Exit.FALSE: "the store is not what was signed", Exit.UNVERIFIABLE: "what this machine last signed cannot be read"},
)
@click.option("--vkey", "only_vkey", is_flag=True, help="Print the public key and nothing else.")
@vkey_option
@json_option
@click.pass_context
def command(context: click.Context, only_vkey: bool, vkey: str | None, as_json: bool) -> Exit:
    """Print the log's name, size and root, the public key that is believed, every path that is used, and the versions.

    The vkey is the one pinned here or given, never one found in the store: give it to whoever shall verify.
    """
    if only_vkey and as_json:
        raise click.UsageError("--vkey and --json exclude each other", context)
    path = store_of(context)
    store = open_store(path, vkey=vkey)
    reader = store.reader
    if only_vkey:
        if reader.vkey is None:
            raise MissingKey(f"no key is pinned for {reader.origin}", path=path, hint="name it with --key or TRAIL_VKEY")
        emit(reader.vkey)
        return store.exit
    found: dict[str, Any] = {
        "origin": reader.origin,
        "size": reader.size,
        "root": reader.root,
        "vkey": reader.vkey,
        "key": reader.key_status,
        "paths": {
            "store": str(path.resolve()),
            "signing_key": str(default_key_path(reader.origin)),
            "pins": str(Pins.default().path),
            "tokens": str(config_dir() / f"tokens-{slug(reader.origin)}.json"),
            "last_signed": str(LastSigned.default(reader.origin).path),
            "server": str(running_path(reader.origin)),
            "cache": str(cache_dir()),
        },
        "format": FORMAT_VERSION,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}},
    }
    if as_json:
        emit_json(found)
        return store.exit
    for name in ("origin", "size", "root", "vkey", "key", "format"):
        emit(f"{name:<12} {one_line(found[name]) or 'none pinned'}")
    for name, value in found["paths"].items():
        emit(f"{name.replace('_', ' '):<12} {one_line(value)}")
    emit("versions     " + ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version))
    return store.exit


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
