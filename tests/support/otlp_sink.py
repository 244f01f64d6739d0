"""A pipeline that records what it is handed, and one request to an application in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from google.protobuf import json_format
from google.rpc.status_pb2 import Status

from ingest.otlp import Encoding, Signal, Undecodable, count, parse
from ledger.errors import StorageError

PAYLOADS = Path(__file__).parents[1] / "payloads"
TRACES = (PAYLOADS / "claude_code_traces.pb").read_bytes()
PROTOBUF, JSON = "application/x-protobuf", "application/json"
NOW = 1_795_163_338 * 10**9


@dataclass(frozen=True)
class Kept:
    start: int
    end: int
    batch: int
    duplicate: bool
    kept: int
    not_kept: int


@dataclass
class Sink:
    """Records what it is handed. It decodes, as every pipeline does, and keeps no metrics."""

    accepted: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    fault: BaseException | None = None
    wait: asyncio.Event | None = None

    async def accept(self, *, signal: Signal, body: bytes, encoding: Encoding, **rest: Any) -> Kept:
        if self.wait is not None:
            await self.wait.wait()
        if self.fault is not None:
            raise self.fault
        try:
            items = count(parse(signal, body, encoding).message)
        except Undecodable as exc:
            await self.quarantine(body=body, why=exc.why, **rest)
            raise
        duplicate = any(body == earlier["body"] for earlier in self.accepted)
        self.accepted.append({"signal": signal, "body": body, "encoding": encoding, **rest})
        kept = 0 if signal is Signal.METRICS else items
        return Kept(10, 11 + kept, 10, duplicate, kept, items - kept)

    async def quarantine(self, *, body: bytes, why: str, **rest: Any) -> str:
        if isinstance(self.fault, StorageError):
            raise self.fault
        self.quarantined.append({"body": body, "why": why, **rest})
        return "q"

    def refuse(self, *, status: int, why: str, sender_name: str) -> None:
        self.refused.append((status, why, sender_name))


Send = Callable[..., httpx.Response]


def sender_to(app: FastAPI) -> Send:
    """A function that makes one request to the application."""

    def send(
        path: str = "/v1/traces",
        content: Any = TRACES,
        *,
        method: str = "POST",
        kind: str = PROTOBUF,
        **headers: str,
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind:
            named["Content-Type"] = kind

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://trail") as client:
                return await client.request(method, path, content=content, headers=named)

        return asyncio.run(once())

    return send


def failure(response: httpx.Response, kind: str = PROTOBUF) -> Status:
    """The Status of an error response, checked to be in the encoding expected."""
    assert response.status_code >= 400
    assert response.headers["content-type"] == kind
    if kind == PROTOBUF:
        return Status.FromString(response.content)
    status: Status = json_format.Parse(response.content, Status())
    assert status.message
    return status
