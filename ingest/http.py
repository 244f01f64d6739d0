"""OTLP over HTTP: routes, limits, statuses and receipts (opentelemetry-proto, "OTLP/HTTP").

A status decides whether evidence survives: exporters send again on 429, 502, 503 and 504 and throw the batch
away on every other error, 500 included. So whatever is our own fault is 503, with a delay short enough that
they still try. 200 leaves only after the pipeline has made the request durable. What a request means is none
of this module's business.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ingest import auth
from ingest.auth import LOOPBACK, Authenticator, Forbidden, Sender, Unauthenticated
from ingest.bodies import (
    ACCEPTED,
    BadEncoding,
    Budget,
    Coding,
    Lease,
    Overloaded,
    TooLarge,
    UnsupportedEncoding,
    decompress,
    parse_coding,
)
from ingest.otlp import Encoding, Partial, Signal, Undecodable, response
from ingest.status import status_body
from ledger.errors import LedgerError, MalformedError, StorageError, VerificationError

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS_MAX = 2
"""The Python exporter gives up at once when told to wait longer than what is left of its ten seconds."""
UNAUTHENTICATED = "unauthenticated"
"""What a refusal calls a sender that did not say who it is."""
PATH = "/v1/"
"""Followed by the signal's name."""
PATH_CHARACTERS_MAX = 100
"""Of an unknown path, in the message about it."""
NOT_KEPT = {
    Signal.TRACES: "These spans were counted and are not kept",
    Signal.LOGS: "These log records were counted and are not kept",
    Signal.METRICS: "trail keeps spans and log records; metric data points are counted and not kept",
}
ENCODINGS = {encoding.media_type: encoding for encoding in Encoding}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server accepts. The defaults are OTLP's recommendations where it has any."""

    body_bytes: int = 64 << 20
    """One request, as sent and again once decompressed."""
    in_flight_bytes: int = 512 << 20
    """All bodies held at once."""
    body_seconds: float = 60.0
    """For a body to arrive: a half-sent one must not hold its memory for ever. Exporters give up after
    ten."""


class Receipt(Protocol):
    """What the pipeline says of a request it has kept."""

    @property
    def start(self) -> int:
        """The index of the request's first record."""

    @property
    def end(self) -> int:
        """The index after its last one."""

    @property
    def batch(self) -> int:
        """The index of its batch record."""

    @property
    def duplicate(self) -> bool:
        """The same body was kept before, and this is that receipt."""

    @property
    def not_kept(self) -> int:
        """Items that were counted and not kept."""


class Pipeline(Protocol):
    """What a request is handed to."""

    async def accept(
        self,
        *,
        signal: Signal,
        body: bytes,
        encoding: Encoding,
        sender: Sender,
        received: int,
        content_type: str,
        content_encoding: str,
    ) -> Receipt:
        """Keep a decompressed body; return once it is durable.

        Raises:
            Undecodable: it is no such message; it was quarantined.
            Forbidden: the sender may not speak for a service in it.
            Overloaded: too much is in flight.
            StorageError: it could not be made durable.
        """

    async def quarantine(self, *, body: bytes, why: str, sender: Sender, content_type: str, received: int) -> str:
        """Put aside a body that cannot be read.

        Raises:
            StorageError: it could not be made durable.
        """

    def refuse(self, *, status: int, why: str, sender_name: str) -> None:
        """Note a refused request; never blocks and never fails."""


class UnsupportedType(MalformedError):
    """A Content-Type that is not OTLP's (HTTP 415)."""


class TooSlow(LedgerError):
    """A body did not arrive in time (HTTP 408)."""


def always_ready() -> str:
    """Have no reason not to accept telemetry."""
    return ""


def create_app(
    pipeline: Pipeline,
    *,
    tokens: Authenticator | None = None,
    limits: Limits | None = None,
    extra_routers: Sequence[APIRouter] = (),
    ready: Callable[[], str] = always_ready,
    clock: Callable[[], int] = time.time_ns,
) -> FastAPI:
    """Assemble the application.

    Args:
        pipeline: Where telemetry goes.
        tokens: Who may send; None only for a server that listens on loopback.
        limits: What is accepted.
        extra_routers: Other routes of the same server; their errors stay their own.
        ready: Why the server cannot accept telemetry at the moment, empty when it can.
        clock: Unix nanoseconds.
    """
    # The Python exporter takes a redirect, as from /v1/traces/, for a success, and drops the batch.
    app = FastAPI(title="trail", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    receiver = _Receiver(pipeline, tokens, limits or Limits(), clock)
    for signal in Signal:
        app.add_api_route(f"{PATH}{signal}", receiver.endpoint(signal), methods=["POST"])
    for router in extra_routers:
        app.include_router(router)
    app.add_exception_handler(HTTPException, receiver.no_such_route)

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> Response:
        """Answer as long as the process does."""
        return Response("ok\n", media_type="text/plain")

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> Response:
        """Say whether telemetry would be accepted."""
        reason = ready()
        return Response(f"{reason or 'ok'}\n", 503 if reason else 200, media_type="text/plain")

    return app


class _Receiver:
    """The endpoint of all three signals: check, read, hand over, answer."""

    def __init__(self, pipeline: Pipeline, tokens: Authenticator | None, limits: Limits, clock: Callable[[], int]) -> None:
        self._pipeline = pipeline
        self._tokens = tokens
        self._limits = limits
        self._clock = clock
        self._budget = Budget(limits.in_flight_bytes)

    def endpoint(self, signal: Signal) -> Callable[[Request], Awaitable[Response]]:
        """Make the route's function."""

        async def export(request: Request) -> Response:
            return await self._export(signal, request)

        return export

    async def no_such_route(self, request: Request, exc: Exception) -> Response:
        """Answer what no route takes, 404 and 405; errors that a route raised itself stay its own."""
        if not isinstance(exc, HTTPException):
            raise exc
        if exc.status_code != HTTPStatus.METHOD_NOT_ALLOWED and "endpoint" in request.scope:
            return await http_exception_handler(request, exc)
        asked = f"{request.method} {request.scope['path'][:PATH_CHARACTERS_MAX]!a}"
        if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            why = f"{asked}: this path takes another method."
        else:
            paths = ", ".join(f"{PATH}{signal}" for signal in Signal)
            why = f"{asked}: there is no such path; OTLP/HTTP goes by POST to {paths}."
        sender_name = LOOPBACK.name if self._tokens is None else UNAUTHENTICATED
        self._pipeline.refuse(status=exc.status_code, why=why, sender_name=sender_name)
        return _failure(_encoding_of(request), exc.status_code, why, headers=exc.headers)

    async def _export(self, signal: Signal, request: Request) -> Response:
        encoding = _encoding_of(request)
        sender_name = UNAUTHENTICATED
        try:
            sender = self._sender_of(request)
            sender_name = sender.name
            auth.require(sender, auth.TELEMETRY_ROLES)
            if encoding is None:
                raise UnsupportedType(f"The Content-Type must be {' or '.join(ENCODINGS)}.")
            with self._budget.lease() as lease:
                receipt = await self._keep(signal, request, encoding, sender, lease)
            return _success(signal, encoding, receipt)
        except asyncio.CancelledError:  # the server stops and waits no longer; uvicorn would answer 500
            why = "The server is stopping; nothing says that this was kept, so send it again."
            return _failure(encoding, HTTPStatus.SERVICE_UNAVAILABLE, why, headers=_retry_after(2))
        except ClientDisconnect:
            return Response(status_code=HTTPStatus.BAD_REQUEST)  # to nobody; nothing was kept
        except Undecodable as exc:  # in quarantine by now, which is the trace it leaves
            return _failure(encoding, HTTPStatus.BAD_REQUEST, exc.why, field=exc.field)
        except (StorageError, VerificationError) as exc:  # the second: a witness knows more, and nothing is signed any more
            logger.error("%s not kept, answered 503: %s: %s (%s)", signal, type(exc).__name__, exc, exc.hint)
            why = "The server could not store this; nothing of it was kept, so send it again."
            return _failure(encoding, HTTPStatus.SERVICE_UNAVAILABLE, why, headers=_retry_after(1))
        except LedgerError as exc:
            if (refusal := _status_and_headers(exc)) is None:
                return self._unexpected(signal, encoding, exc)
            status, headers = refusal
            self._pipeline.refuse(status=status, why=str(exc), sender_name=sender_name)
            return _failure(encoding, status, str(exc), headers=headers)
        except Exception as exc:  # the last line before a 500, on which every exporter drops the batch
            return self._unexpected(signal, encoding, exc)

    def _sender_of(self, request: Request) -> Sender:
        if self._tokens is None:
            return LOOPBACK
        return self._tokens.authenticate(request.headers.get("authorization"), self._clock())

    async def _keep(self, signal: Signal, request: Request, encoding: Encoding, sender: Sender, lease: Lease) -> Receipt:
        coding = parse_coding(request.headers.get("content-encoding"))
        raw = await self._read(request, lease)
        received = self._clock()
        try:
            body = await self._decompress(raw, coding, lease)
        except BadEncoding as exc:
            await self._pipeline.quarantine(body=raw, why=str(exc), sender=sender, content_type=encoding.media_type, received=received)
            raise Undecodable(str(exc)) from exc
        del raw  # the pipeline may be long in accepting, and should not hold both
        return await self._pipeline.accept(
            signal=signal,
            body=body,
            encoding=encoding,
            sender=sender,
            received=received,
            content_type=encoding.media_type,
            content_encoding=coding.value,
        )

    async def _read(self, request: Request, lease: Lease) -> bytes:
        limit = self._limits.body_bytes
        too_large = f"The body is larger than {limit} bytes."
        declared = request.headers.get("content-length", "")  # absent where the body is chunked
        if declared.isdecimal() and int(declared) > limit:
            raise TooLarge(too_large)
        body = io.BytesIO()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for chunk in request.stream():
                    if body.tell() + len(chunk) > limit:
                        raise TooLarge(too_large)
                    lease.take(len(chunk))
                    body.write(chunk)
        except TimeoutError as exc:
            raise TooSlow(f"The body did not arrive within {self._limits.body_seconds:g} seconds.") from exc
        return body.getvalue()

    async def _decompress(self, raw: bytes, coding: Coding, lease: Lease) -> bytes:
        if coding is Coding.NONE:
            return raw
        # In a thread: zlib and zstd let go of the interpreter meanwhile, and other requests go on.
        body = await asyncio.to_thread(decompress, raw, coding, limit=self._limits.body_bytes, take=lease.take)
        lease.give(len(raw))
        return body

    def _unexpected(self, signal: Signal, encoding: Encoding | None, exc: Exception) -> Response:
        # The message of an exception may quote the body, so only its type and the way it took are logged.
        way = "".join(traceback.format_tb(exc.__traceback__))
        logger.error("%s not kept, answered 503: unexpected %s\n%s", signal, type(exc).__name__, way)
        why = "The server failed unexpectedly; nothing says that this was kept, so send it again."
        return _failure(encoding, HTTPStatus.SERVICE_UNAVAILABLE, why, headers=_retry_after(1))


def _status_and_headers(exc: LedgerError) -> tuple[HTTPStatus, Mapping[str, str]] | None:
    """What a refusal looks like in HTTP; None when the error is not one."""
    match exc:
        case Unauthenticated():
            return HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Bearer"}
        case Forbidden():
            return HTTPStatus.FORBIDDEN, {}
        case TooSlow():  # the rest of that body is not worth waiting for
            return HTTPStatus.REQUEST_TIMEOUT, {"Connection": "close"}
        case TooLarge():
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {}
        case UnsupportedType():
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"Accept": ", ".join(ENCODINGS)}
        case UnsupportedEncoding():
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"Accept-Encoding": ACCEPTED}
        case Overloaded():
            return HTTPStatus.SERVICE_UNAVAILABLE, _retry_after(exc.retry_after)
        case _:
            return None


def _retry_after(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(max(1, min(seconds, RETRY_AFTER_SECONDS_MAX)))}


def _encoding_of(request: Request) -> Encoding | None:
    media_type, _, _ = request.headers.get("content-type", "").partition(";")
    return ENCODINGS.get(media_type.strip().lower())


def _success(signal: Signal, encoding: Encoding, receipt: Receipt) -> Response:
    headers = {"Trail-Receipt": f"{receipt.start}-{receipt.end}", "Trail-Batch": str(receipt.batch)}
    if receipt.duplicate:
        headers["Trail-Duplicate"] = "1"
    partial = None
    if receipt.not_kept:
        partial = Partial(receipt.not_kept, f"{NOT_KEPT[signal]}; this request had {receipt.not_kept}.")
    return Response(response(signal, encoding, partial), headers=headers, media_type=encoding.media_type)


def _failure(
    encoding: Encoding | None,
    status: int,
    message: str,
    *,
    field: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    known = encoding or Encoding.JSON
    body = status_body(known, status=status, message=message, field=field)
    return Response(body, status, headers=headers, media_type=known.media_type)
