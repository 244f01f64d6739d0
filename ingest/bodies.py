"""Request bodies within bounds: how much is held at once, and how much a compressed body may become.

Content codings of RFC 9110 8.4.1 (gzip: RFC 1952, deflate: RFC 1950) and RFC 8878 (zstd). A body is
decompressed in pieces and counted as it grows, so a bomb costs its limit plus one piece and never what it
claims. What a body says is not looked at here.
"""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import TracebackType
from typing import Self, assert_never

import zstandard

from ledger.errors import LedgerError, MalformedError

PIECE_BYTES = 256 * 1024
"""Decompressed at a time by zlib."""
SLICE_BYTES = 64 * 1024
"""Compressed input given to zlib at a time; what a full piece leaves of it is copied, so it is small."""
ZSTD_SLICE_BYTES = 256
"""Likewise for zstd, whose Python interface cannot limit its output: a block of 4 bytes may become 128 KiB
(RFC 8878 3.1.1.2.3), so this slice at most 8 MiB."""
ZSTD_WINDOW_BYTES_MAX = 32 << 20
"""RFC 9659 lets a receiver refuse more than 8 MiB, but the encoder of Go's collectors uses 16 and 32 MiB at
its better levels."""
MEMBERS_MAX = 4_096
"""Gzip members or zstd frames in one body: parallel compressors write many, an endless row of empty ones is
an attack."""


class TooLarge(MalformedError):
    """A body exceeds its limit, as sent or decompressed (HTTP 413)."""


class BadEncoding(MalformedError):
    """A body is not what its Content-Encoding says, or ends too early (HTTP 400)."""


class UnsupportedEncoding(MalformedError):
    """A Content-Encoding that we do not speak (HTTP 415)."""


class Overloaded(LedgerError):
    """Too much is in flight: the sender shall try again after `retry_after` seconds (HTTP 503)."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        """Keep the delay; senders give up within ten seconds, so it is 1 or 2."""
        super().__init__(message)
        self.retry_after = retry_after


class Coding(StrEnum):
    """A content coding, by the name our records use for it."""

    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"
    ZSTD = "zstd"


_NAMES = {
    "": Coding.NONE,
    "none": Coding.NONE,
    "identity": Coding.NONE,
    "gzip": Coding.GZIP,
    "x-gzip": Coding.GZIP,
    "deflate": Coding.DEFLATE,
    "zlib": Coding.DEFLATE,
    "zstd": Coding.ZSTD,
}
ACCEPTED = "gzip, deflate, zstd"
"""For Accept-Encoding in the answer to any other (RFC 9110 15.5.16)."""


def parse_coding(header: str | None) -> Coding:
    """Read a Content-Encoding header; none at all is no coding.

    Raises:
        UnsupportedEncoding: another coding, or several on top of each other.
    """
    coding = _NAMES.get((header or "").strip().lower())
    if coding is None:
        raise UnsupportedEncoding(f"This Content-Encoding is not supported; it must be one of {ACCEPTED}, or absent.")
    return coding


class Budget:
    """The bytes of all bodies held at once, whoever sent them. Safe to use from several threads."""

    def __init__(self, limit_bytes: int) -> None:
        """Start with nothing taken."""
        self._limit = limit_bytes
        self._taken = 0
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """The bytes held now."""
        return self._taken

    def lease(self) -> Lease:
        """Begin to account for one request."""
        return Lease(self)

    def take(self, size: int) -> None:
        """Account for `size` more bytes.

        Raises:
            Overloaded: they do not fit; nothing was taken.
        """
        with self._lock:
            if self._taken + size > self._limit:
                raise Overloaded("Too many request bodies are being received at once; try again in a second.")
            self._taken += size

    def give(self, size: int) -> None:
        """Account for `size` bytes no longer held."""
        with self._lock:
            self._taken -= size


class Lease:
    """What one request holds of the budget; a context manager that gives everything back at its end."""

    def __init__(self, budget: Budget) -> None:
        """Start with nothing; see `Budget.lease`."""
        self._budget = budget
        self._held = 0

    def take(self, size: int) -> None:
        """Account for `size` more bytes.

        Raises:
            Overloaded: the budget has no room for them.
        """
        self._budget.take(size)
        self._held += size

    def give(self, size: int) -> None:
        """Give `size` bytes back early."""
        self._budget.give(size)
        self._held -= size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.give(self._held)


def decompress(body: bytes, coding: Coding, *, limit: int, take: Callable[[int], None] | None = None) -> bytes:
    """Undo a content coding.

    Args:
        body: The whole body as sent.
        coding: What was done to it.
        limit: The bytes it may become.
        take: Called with the size of every piece before it is kept; may raise to stop.

    Raises:
        TooLarge: it became more than `limit`; no more than that and one piece was ever held.
        BadEncoding: the body is damaged, truncated, or something else altogether.
    """
    if coding is Coding.NONE:
        return body
    plain = io.BytesIO()  # grows in place, and getvalue() hands out its buffer without a copy
    for piece in _pieces(body, coding):
        if plain.tell() + len(piece) > limit:
            raise TooLarge(f"The body is larger than {limit} bytes once decompressed.")
        if take is not None:
            take(len(piece))
        plain.write(piece)
    return plain.getvalue()


def _pieces(body: bytes, coding: Coding) -> Iterator[bytes]:
    try:
        match coding:
            case Coding.GZIP:
                yield from _inflate(body, wbits=16 + zlib.MAX_WBITS)
            case Coding.DEFLATE:
                yield from _inflate(body, wbits=zlib.MAX_WBITS)
            case Coding.ZSTD:
                yield from _unzstd(body)
            case Coding.NONE:
                yield body
            case _:
                assert_never(coding)
    except (zlib.error, zstandard.ZstdError) as exc:
        raise BadEncoding(f"The body is not {coding.value}, as its Content-Encoding says: {exc}.") from exc


def _inflate(body: bytes, *, wbits: int) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits)
    members = 1
    for start in range(0, len(body), SLICE_BYTES):
        rest = body[start : start + SLICE_BYTES]
        while rest:
            if inflater.eof:  # another member (RFC 1952 2.2), which deflate does not have
                if wbits == zlib.MAX_WBITS:
                    raise BadEncoding("The compressed body has more data after the end.")
                members = _next_member(members)
                inflater = zlib.decompressobj(wbits)
            yield inflater.decompress(rest, PIECE_BYTES)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    while not inflater.eof:  # output that did not fit into the last piece
        piece = inflater.decompress(b"", PIECE_BYTES)
        if not piece:
            raise BadEncoding("The compressed body is incomplete.")
        yield piece


def _unzstd(body: bytes) -> Iterator[bytes]:
    # stream_reader, which could limit its output, takes a truncated frame for a complete one.
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
    frame = decompressor.decompressobj()
    members = 1
    for start in range(0, len(body), ZSTD_SLICE_BYTES):
        rest = body[start : start + ZSTD_SLICE_BYTES]
        while rest:
            if frame.eof:
                members = _next_member(members)
                frame = decompressor.decompressobj()
            yield frame.decompress(rest)
            rest = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise BadEncoding("The compressed body is incomplete.")


def _next_member(members: int) -> int:
    if members >= MEMBERS_MAX:
        raise BadEncoding(f"The compressed body has more than {MEMBERS_MAX} members.")
    return members + 1
