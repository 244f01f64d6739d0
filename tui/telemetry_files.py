"""Telemetry that lies in files, as request bodies: protobuf, OTLP/JSON, and the Collector's JSON lines; plain, gzip or zstd.

Decides only where a body begins and ends. What it says is decided where it is received.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import orjson
import zstandard

_LINES: Final = (".jsonl", ".ndjson")
_JSON: Final = (".json", *_LINES)
_PROTOBUF: Final = (".pb", ".bin", ".binpb", ".otlp")
_COMPRESSED: Final = (".gz", ".zst")
KNOWN: Final = "FILE.json, FILE.jsonl or FILE.pb, each also with .gz or .zst"


@dataclass(frozen=True, slots=True)
class Body:
    """One request."""

    place: str
    """File, and line where it is one of several."""
    data: bytes
    is_json: bool
    why: str = ""
    """Why it is known to be unreadable; empty otherwise."""


def is_known(path: Path) -> bool:
    """Does the name say what is in it?"""
    return _inner_suffix(path) in (*_JSON, *_PROTOBUF)


def bodies(path: Path, *, limit: int) -> Iterator[Body]:
    """The requests of one file, one at a time.

    Args:
        path: a file whose name `is_known`.
        limit: the bytes that one body may have, decompressed.

    Raises:
        OSError: it cannot be read.
    """
    as_json = _inner_suffix(path) in _JSON
    with path.open("rb") as raw:
        stream = _decompressed(path, raw)
        try:
            if as_json:
                yield from _json(path, stream, limit)
            else:
                yield _whole(path, stream, limit, start=b"", as_json=False)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as exc:
            yield Body(str(path), b"", as_json, f"the compressed file is damaged or cut: {exc}")


def _json(path: Path, stream: IO[bytes], limit: int) -> Iterator[Body]:
    """Lines, if each is a document of its own; else one document."""
    first = stream.readline(limit + 1)
    if _inner_suffix(path) not in _LINES and not _is_document(first):
        body = _whole(path, stream, limit, start=first, as_json=True)
        if body.why or _is_document(body.data) or not _has_lines(body.data):
            yield body
            return
        stream, first = io.BytesIO(body.data), b""
    number = 0
    line = first or stream.readline(limit + 1)
    while line:
        number += 1
        if len(line) > limit:
            yield Body(f"{path}:{number}", b"", True, f"the line is longer than {limit} bytes")
            while line and not line.endswith(b"\n"):
                line = stream.readline(limit + 1)
        elif line.strip():
            yield Body(f"{path}:{number}", line.strip(), True)
        line = stream.readline(limit + 1)


def _whole(path: Path, stream: IO[bytes], limit: int, *, start: bytes, as_json: bool) -> Body:
    data = start + stream.read(max(0, limit + 1 - len(start)))
    if len(data) > limit:
        return Body(str(path), b"", as_json, f"it is larger than {limit} bytes (request_bytes in trail.toml)")
    return Body(str(path), data, as_json)


def _is_document(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _has_lines(data: bytes) -> bool:
    """Several lines that begin as documents do: a file of lines whose first is damaged."""
    return sum(line.startswith(b"{") for line in data.splitlines()) > 1


def _inner_suffix(path: Path) -> str:
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def _decompressed(path: Path, raw: IO[bytes]) -> IO[bytes]:
    match path.suffix.lower():
        case ".gz":
            return cast(IO[bytes], gzip.GzipFile(fileobj=raw))  # it reads like one; typeshed does not say so
        case ".zst":
            return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
        case _:
            return raw
