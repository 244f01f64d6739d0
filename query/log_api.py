"""The log over HTTP, as c2sp.org/tlog-tiles wants it, so that tools nobody here wrote can audit it.

    GET /log/checkpoint                       the signed tree head
    GET /log/tile/<L>/<N>[.p/<W>]             hash tiles
    GET /log/tile/entries/<N>[.p/<W>]         entry bundles: whole records

Checkpoint and hash tiles are public: every record has a nonce, so a hash tells nothing. Whole records need `authorize` to name a reader,
and leave a `custody` record.

**Without tokens** (`local_only`) the server is for this machine, and so is all of this: a request whose Host names no loopback address is
misdirected (421). It is a page in somebody's browser whose name was made to resolve to this machine, or comes by a proxy that publishes the
server under another name without having been told to.

**Which checkpoint.** Where the store has witnesses (a `tlog-policy` with a quorum), the newest one that met the quorum; without
witnesses, or before the first quorum, the newest one signed. What stands at this address is what strangers keep and compare: if it always
bears the cosignatures, the log cannot show one of them a history that the witnesses have not seen, and a verifier with a witness policy
can use what it fetched. The price is that `/log` stands still while the witnesses cannot be reached, which is what it should look like
from outside. Tiles are served up to the newest checkpoint, which is never smaller.

**What is never done.** Nothing below `tile/` is listed; a path is parsed, refused unless it is exactly what tlog-tiles writes, and built
anew from its numbers. A tile that a published size has and the disk has not is an error of ours (500), never a 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

from fastapi import APIRouter, Request, Response

from ledger.checkpoint import Checkpoint
from ledger.durable import storage_errors
from ledger.entry_bundles import EntryReader
from ledger.errors import CorruptSegment, LedgerError, MalformedError, StorageError
from ledger.fsck_leaves import read_hashes
from ledger.layout import Layout
from ledger.merkle import HASH_SIZE
from ledger.note import MAX_NOTE_BYTES, parse_note
from ledger.policy import MAX_POLICY_BYTES, Policy
from ledger.regular import read_file
from ledger.tiles import TILE_WIDTH, parse_bundle_path, parse_tile_path, tile_path, tile_width
from query.custody import Looks

logger = logging.getLogger(__name__)

T = TypeVar("T")
PREFIX: Final = "/log/"
_ENTRIES: Final = "tile/entries/"
_YEAR: Final = "max-age=31536000, immutable"
_TILE_THREADS: Final = 2
_NO_SUCH_PATH: Final = "the log has no such path; it has checkpoint, tile/<L>/<N>[.p/<W>] and tile/entries/<N>[.p/<W>]"
_NOT_HERE: Final = "without tokens this log answers to a loopback address in Host only; a proxy has to send it, or the server needs tokens"


class UnknownReader(LedgerError):
    """Nobody, or nobody we know, asks for whole records (HTTP 401)."""


class ReaderRefused(LedgerError):
    """A reader that we know, and that may not have whole records (HTTP 403)."""


class _NotThere(Exception):
    """The log has no such thing (HTTP 404)."""


def create_log_router(store: Path, *, authorize: Callable[[str | None], str], looks: Looks, local_only: bool) -> APIRouter:
    """The routes below `/log/`.

    Args:
        store: the directory of the store; nothing in it is opened for writing.
        authorize: from the Authorization header to the name of the reader of whole records; raises `UnknownReader` or `ReaderRefused`,
            or `StorageError` if it cannot tell.
        looks: told what is read before it leaves.
        local_only: answer only those who have asked for a loopback name or address.
    """
    api = _LogApi(store, authorize, looks, local_only=local_only)
    router = APIRouter()
    router.add_api_route(PREFIX + "{path:path}", api.answer, methods=["GET", "HEAD"], response_class=Response)
    return router


class _LogApi:
    """Answers requests: disk and hashing in threads of its own, so that receiving telemetry never waits for a reader."""

    def __init__(self, store: Path, authorize: Callable[[str | None], str], looks: Looks, *, local_only: bool) -> None:
        self._local_only = local_only
        self._published = Published(Layout(store))
        self._entries = EntryReader(Layout(store))
        self._authorize = authorize
        self._looks = looks
        self._tile_threads = ThreadPoolExecutor(_TILE_THREADS, thread_name_prefix="trail-log-tiles")
        # One: its reader holds one place in one file, and whoever copies the whole log must not take more than a core from the rest.
        self._entry_thread = ThreadPoolExecutor(1, thread_name_prefix="trail-log-entries")

    async def answer(self, request: Request) -> Response:
        """Serve one path below the prefix, or say why not."""
        if self._local_only and not _is_loopback(request.headers.get("host", "")):
            return _refusal(HTTPStatus.MISDIRECTED_REQUEST, _NOT_HERE)
        try:
            return await self._serve(request)
        except _NotThere as exc:
            return _refusal(HTTPStatus.NOT_FOUND, str(exc))
        except LedgerError as exc:
            return _failure(exc)

    async def _serve(self, request: Request) -> Response:
        path = _path_of(request)
        if path == "checkpoint":
            return _text(await self._run(self._tile_threads, self._published.checkpoint), cache="no-cache")
        if path.startswith(_ENTRIES):
            n, width = _parsed(parse_bundle_path, path)
            reader = self._authorize(request.headers.get("authorization"))
            look = request.method != "HEAD"
            data = await self._run(self._entry_thread, lambda: self._read_bundle(reader, n, width, look=look))
            # Private: a shared cache would give them to whoever asks next.
            return _octets(data, cache=f"private, {_YEAR}")
        level, n, width = _parsed(parse_tile_path, path)
        data = await self._run(self._tile_threads, lambda: self._published.tile(level, n, width))
        return _octets(data, cache=f"public, {_YEAR}")

    def _read_bundle(self, reader: str, n: int, width: int, *, look: bool) -> bytes:
        size = self._published.size()
        _require(0, n, width, size)
        data = self._entries.bundle(n, width, size)
        if look:
            self._looks.note(reader, n * TILE_WIDTH, n * TILE_WIDTH + width)
        return data

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


class Published:
    """What of a store anybody may see: its published checkpoint, and the hash tiles of every size up to the newest one."""

    def __init__(self, layout: Layout) -> None:
        """Open nothing yet."""
        self._layout = layout

    def checkpoint(self) -> bytes:
        """The checkpoint to show, a whole note (see the module's text for which).

        Raises:
            StorageError, MalformedError: it cannot be read.
        """
        # In this order: the cosigned one is never newer than the newest, however the two are replaced between our looks.
        cosigned = self._read_note(self._layout.cosigned) if self._witnesses_wanted() else None
        note, newest = self._newest()
        if cosigned is not None:
            with contextlib.suppress(MalformedError):
                head = _head_of(cosigned)
                # A greater one is left over from before the store was put back to an older state; its tiles are not there.
                if head.origin == newest.origin and head.size <= newest.size:
                    return cosigned
        return note

    def size(self) -> int:
        """How many records the newest checkpoint covers.

        Raises:
            StorageError, MalformedError: it cannot be read.
        """
        return self._newest()[1].size

    def tile(self, level: int, n: int, width: int) -> bytes:
        """A hash tile of some published size, cut from a wider one if need be.

        Raises:
            CorruptSegment: a published size has it, and the disk has not.
            StorageError, MalformedError: the checkpoint cannot be read.
        """
        _require(level, n, width, self.size())
        # Twice, because partial tiles go as soon as the full one stands, which may be between our two looks.
        for _ in range(2):
            data = read_hashes(self._layout.root, level, n, width)
            if data is not None and len(data) == width * HASH_SIZE:
                return data
        name = tile_path(level, n, width)
        raise CorruptSegment(f"{name} is missing or short", path=name, hint="run trail verify")

    def _newest(self) -> tuple[bytes, Checkpoint]:
        note = self._read_note(self._layout.checkpoint)
        if note is None:
            raise _NotThere("nothing is published yet")
        return note, _head_of(note)

    def _witnesses_wanted(self) -> bool:
        path = self._layout.policy
        if not path.exists():
            return False
        try:
            with storage_errors("reading", path):
                return Policy.parse(read_file(path, limit=MAX_POLICY_BYTES)).wants_cosignatures
        except LedgerError as exc:
            # While somebody edits it, the log must not show what it never showed before.
            logger.error("the witness policy cannot be read, cosigned checkpoints go on being shown: %s", exc)
            return True

    def _read_note(self, path: Path) -> bytes | None:
        if not path.exists():
            return None
        with storage_errors("reading", path):
            return read_file(path, limit=MAX_NOTE_BYTES)


def _head_of(note: bytes) -> Checkpoint:
    """Size and root as they stand there: whose signature it bears is for the reader to check, who has the key from elsewhere."""
    text, _signatures = parse_note(note)
    return Checkpoint.parse(text)


def _require(level: int, n: int, width: int, size: int) -> None:
    there = tile_width(level, n, size)
    if width > there:
        raise _NotThere(f"at size {size} this tile has a width of {there}")


def _path_of(request: Request) -> str:
    """The path below the prefix as it was sent: decoding it first would give one tile many names, and a cache would keep them all."""
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    if not raw.isascii() or not raw.startswith(PREFIX.encode()):
        raise _NotThere(_NO_SUCH_PATH)
    return str(raw[len(PREFIX) :], "ascii")


def _is_loopback(host: str) -> bool:
    """`localhost`, or an address of this machine only; with or without a port (RFC 9110, 7.2)."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _parsed(parse: Callable[[str], T], path: str) -> T:
    try:
        return parse(path)
    except MalformedError as exc:
        raise _NotThere(_NO_SUCH_PATH) from exc


def _octets(data: bytes, *, cache: str) -> Response:
    return Response(data, headers=_headers(cache), media_type="application/octet-stream")


def _text(data: bytes, *, cache: str) -> Response:
    return Response(data, headers=_headers(cache), media_type="text/plain")


def _headers(cache: str) -> dict[str, str]:
    # Records hold what strangers wrote: no browser may guess that it is a page.
    return {"Cache-Control": cache, "X-Content-Type-Options": "nosniff"}


def _refusal(status: HTTPStatus, why: str, **headers: str) -> Response:
    # Not to be kept by a cache: what is not there now may be there in a second.
    return Response(f"{why}\n", status, headers=_headers("no-store") | headers, media_type="text/plain")


def _failure(exc: LedgerError) -> Response:
    match exc:
        case UnknownReader():
            return _refusal(HTTPStatus.UNAUTHORIZED, exc.message, **{"WWW-Authenticate": "Bearer"})
        case ReaderRefused():
            return _refusal(HTTPStatus.FORBIDDEN, exc.message)
        case StorageError() if not isinstance(exc, CorruptSegment):
            logger.error("the log cannot be read, answered 503: %s (%s)", exc, exc.hint)
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the store cannot be read just now", **{"Retry-After": "2"})
        case _:
            logger.error("the log is not what was signed, answered 500: %s (%s)", exc, exc.hint)
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"not served, because the store is damaged here: {exc.message}")
