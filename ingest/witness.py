"""A witness over HTTP (c2sp.org/tlog-witness): what is submitted to it, and what monitors read.

    POST <prefix>/add-checkpoint            a checkpoint and its consistency proof; the answer is a cosignature
    GET  <prefix>/<hash>/checkpoint         the newest checkpoint cosigned for a log; hash = hex SHA-256 of its origin
    GET  <prefix>/                          who this is, for the operator

Nobody needs a token: a request is believed for the log's own signature on it, and what can be read is public by nature. So everything
is bounded instead: the body, the time it takes, all bodies together, and the threads that judge them. What is decided is none of this
module's business (`ledger.witness`).
"""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final, TypeVar

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ingest.bodies import Budget, Lease, Overloaded, TooLarge
from ledger.errors import LedgerError, StorageError
from ledger.witness import TEXT_TYPE, WitnessStore
from ledger.witness_protocol import MAX_BODY_BYTES

logger = logging.getLogger(__name__)

BODY_SECONDS: Final = 10.0
"""For a body to arrive; it is a few hundred bytes."""
IN_FLIGHT_BYTES: Final = 32 << 20
"""All bodies held at once."""
THREADS: Final = 4
"""Of the witness's own, so that whoever floods it does not take the threads of the server that it is mounted in."""

T = TypeVar("T")


class TooSlow(LedgerError):
    """A body did not arrive in time (HTTP 408)."""


def create_witness_router(witness: WitnessStore, prefix: str = "", *, body_seconds: float = BODY_SECONDS) -> APIRouter:
    """The routes of a witness, to be mounted in any application.

    Args:
        witness: What judges and keeps.
        prefix: Of the paths, such as `/witness`; without a slash at its end.
        body_seconds: How long a request's body may take.
    """
    router = APIRouter(prefix=prefix)
    serving = _Serving(witness, body_seconds)
    router.add_api_route("/add-checkpoint", serving.add_checkpoint, methods=["POST"])
    router.add_api_route("/{origin_hash}/checkpoint", serving.latest, methods=["GET", "HEAD"])
    router.add_api_route("/", serving.about, methods=["GET", "HEAD"])
    return router


def create_witness_app(witness: WitnessStore) -> FastAPI:
    """A server that is a witness and nothing else."""
    app = FastAPI(title="trail witness", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(create_witness_router(witness))
    app.add_exception_handler(HTTPException, _no_such_route)
    return app


class _Serving:
    """The endpoints."""

    def __init__(self, witness: WitnessStore, body_seconds: float) -> None:
        self._witness = witness
        self._body_seconds = body_seconds
        self._budget = Budget(IN_FLIGHT_BYTES)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="witness")

    async def add_checkpoint(self, request: Request) -> Response:
        """Judge a checkpoint; the answers are those of the protocol, and 408, 413 and 503."""
        try:
            with self._budget.lease() as lease:
                body = await self._read(request, lease)
                answer = await self._in_thread(lambda: self._witness.add_checkpoint(body))
            # As a header, because of a media type Starlette makes "text/x.tlog.size; charset=utf-8", and the protocol wants it bare.
            return Response(answer.body, answer.status, headers={"Content-Type": answer.content_type})
        except asyncio.CancelledError:  # the server stops and waits no longer; what was cosigned is kept, and the client asks again
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the witness is stopping")
        except ClientDisconnect:
            return _text(HTTPStatus.BAD_REQUEST, "the body ended early")  # to nobody
        except TooSlow as exc:  # the rest of that body is not worth waiting for
            return _text(HTTPStatus.REQUEST_TIMEOUT, exc.message, {"Connection": "close"})
        except TooLarge as exc:
            return _text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, exc.message)
        except Overloaded as exc:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, exc.message, {"Retry-After": str(exc.retry_after)})
        except Exception as exc:  # the last line: an error of ours must not look like a judgement of theirs
            way = "".join(traceback.format_tb(exc.__traceback__))
            logger.error("not cosigned, answered 503: unexpected %s\n%s", type(exc).__name__, way)
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the witness failed unexpectedly")

    async def latest(self, origin_hash: str) -> Response:
        """Give the newest checkpoint of a log, with the log's signature and the cosignature."""
        try:
            note = await self._in_thread(lambda: self._witness.latest(origin_hash))
        except StorageError as exc:
            logger.error("a state was not shown, answered 503: %s (%s)", exc, exc.hint)
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the witness cannot use its own state")
        if note is None:
            return _text(HTTPStatus.NOT_FOUND, "this witness has cosigned nothing for that log")
        # A stale answer could hide the very checkpoint that somebody is here to compare with.
        return Response(note, media_type=TEXT_TYPE, headers={"Cache-Control": "no-cache"})

    async def about(self) -> Response:
        """Say which witness this is."""
        cosigner = self._witness.cosigner
        lines = [
            f"This is the witness {cosigner.name} (c2sp.org/tlog-witness).",
            f"It cosigns with {cosigner.vkey}",
            "A key that is read here proves nothing: whoever could change this page could change the key. Get it from the operator.",
        ]
        return Response("\n".join([*lines, ""]), media_type=TEXT_TYPE)

    async def _read(self, request: Request, lease: Lease) -> bytes:
        too_large = f"the body is larger than {MAX_BODY_BYTES} bytes"
        declared = request.headers.get("content-length", "")  # absent where the body is chunked
        if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
            raise TooLarge(too_large)
        body = io.BytesIO()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    if body.tell() + len(chunk) > MAX_BODY_BYTES:
                        raise TooLarge(too_large)
                    lease.take(len(chunk))
                    body.write(chunk)
        except TimeoutError as exc:
            raise TooSlow(f"the body did not arrive within {self._body_seconds:g} seconds") from exc
        return body.getvalue()

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Judging reads and syncs files; other requests go on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


async def _no_such_route(request: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _text(exc.status_code, "this path takes another method", dict(exc.headers or {}))
    return _text(exc.status_code, "there is no such path; a checkpoint goes by POST to /add-checkpoint")


def _text(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return Response(f"{why}\n", status, headers=headers, media_type=TEXT_TYPE)
