"""A running `trail serve`, spoken to in plain HTTP, and an account of what it acknowledged."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import json_format
from google.rpc import error_details_pb2  # noqa: F401 - the JSON reader must know the types of the details
from google.rpc.status_pb2 import Status
from trail_process import Ran, Server, run_trail

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
ITEMS = ("span", "log")
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Message
    body: bytes

    @property
    def kind(self) -> str:
        return self.headers.get_content_type()

    @property
    def failure(self) -> Status:
        """The body of a refusal, read as the Content-Type says."""
        return Status.FromString(self.body) if self.kind == PROTOBUF else json_format.Parse(self.body, Status())

    @property
    def receipt(self) -> range:
        start, _, end = self.headers["Trail-Receipt"].partition("-")
        return range(int(start), int(end))


def post(url: str, path: str, body: Any, kind: str | None = JSON, *, method: str = "POST", timeout: float = 60.0, **headers: str) -> Answer:
    """Send one request on a connection of its own; objects are sent as JSON, iterators in chunks."""
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()} | ({} if kind is None else {"Content-Type": kind})
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request(method, path, body, sent, encode_chunked=isinstance(body, Iterator))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def span(name: str, *attributes: Mapping[str, Any], **members: Any) -> dict[str, Any]:
    """A span in OTLP/JSON with ids of its own."""
    ids = {"traceId": f"{next(_NUMBERS):032x}", "spanId": f"{next(_NUMBERS):016x}"}
    return ids | {"name": name, "startTimeUnixNano": "1780000000000000000", "attributes": list(attributes)} | members


def text(key: str, value: str) -> dict[str, Any]:
    """An attribute that is a text."""
    return {"key": key, "value": {"stringValue": value}}


def traces(*spans: Mapping[str, Any], service: str | None = None) -> dict[str, Any]:
    """An export request with one resource and one scope."""
    resource = {} if service is None else {"resource": {"attributes": [text("service.name", service)]}}
    return {"resourceSpans": [{**resource, "scopeSpans": [{"spans": list(spans)}]}]}


def field_of(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field in wire format."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    groups = b""
    while value > 0x7F:
        groups, value = groups + bytes([value & 0x7F | 0x80]), value >> 7
    return groups + bytes([value])


def span_bytes(*fields: bytes) -> bytes:
    """A request in wire format around the fields of one span."""
    return field_of(1, field_of(2, field_of(2, b"".join(fields))))


@dataclass
class Recorder:
    """A store with its server, and what it must hold by now."""

    store: Path
    server: Server
    env: Mapping[str, str] | None = None
    acknowledged: dict[int, str | None] = field(default_factory=dict)
    """Index -> name of each item that a 200 was given for."""
    batches: int = 0
    quarantined: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """By status."""
    lying: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """Of a body in quarantine, by its file's name: its Content-Type, its length, a part of the reason."""

    def post(self, path: str, body: Any, kind: str | None = JSON, **more: Any) -> Answer:
        """Send anything; what the answer promises goes into the account."""
        answer = post(self.server.url, path, body, kind, **more)
        if "Trail-Receipt" in answer.headers and "Trail-Duplicate" not in answer.headers:
            self.batches += 1
            self.acknowledged.update(dict.fromkeys(answer.receipt))
        self.quarantined += answer.status == 400
        if answer.status not in (200, 400):
            self.refused[answer.status] += 1
        return answer

    def send(self, body: Any, *names: str, kind: str = JSON, path: str = "/v1/traces", **headers: str) -> Answer:
        """Send what has to be accepted: items of these names."""
        answer = self.post(path, body, kind, **headers)
        assert answer.status == 200, answer.failure
        assert answer.kind == kind
        assert int(answer.headers["Trail-Batch"]) == answer.receipt.stop
        assert len(answer.receipt) == len(names)
        self.acknowledged.update(zip(answer.receipt, names, strict=True))
        return answer

    def refuse(self, path: str, body: bytes, kind: str, why: str, **headers: str) -> Answer:
        """Send what cannot be decoded: it lies in quarantine byte by byte, for nobody else to read.

        Raises:
            AssertionError: otherwise.
        """
        before = set((self.store / "quarantine").iterdir())
        answer = self.post(path, body, kind, **headers)
        (new,) = set((self.store / "quarantine").iterdir()) - before
        assert new.read_bytes() == body
        assert new.stat().st_mode & 0o777 == 0o600
        self.lying[new.name] = kind, len(body), why
        return answer

    def cut(self, head: Sequence[str], body: bytes) -> None:
        """Send the beginning of a request and hang up."""
        address = urlsplit(self.server.url)
        assert address.hostname is not None
        with socket.create_connection((address.hostname, address.port or 80), timeout=10) as connection:
            connection.sendall("\r\n".join((*head, "", "")).encode() + body)

    def run(self, *args: object) -> Ran:
        return run_trail(*args, "--store", self.store, env=self.env)

    def sql(self, query: str, *args: object) -> list[dict[str, Any]]:
        """Rows of `trail sql`, the acknowledged and unsigned included."""
        ran = self.run("sql", query, "--json", "--tail", *args)
        assert ran.code == 0, ran.err
        rows: list[dict[str, Any]] = ran.json
        return rows

    def records(self, indexes: Iterable[int]) -> list[dict[str, Any]]:
        """Rows of `records`, with the record as text, in the order of their indexes."""
        listed = ", ".join(map(str, indexes))
        return self.sql(f"SELECT * REPLACE (decode(record) AS record) FROM records WHERE index IN ({listed}) ORDER BY index")  # noqa: S608

    def contents(self, indexes: Iterable[int]) -> list[dict[str, Any]]:
        """Rows of `contents` of these records."""
        return self.sql(f"SELECT * FROM contents WHERE index IN ({', '.join(map(str, indexes))})")  # noqa: S608 - numbers

    def require_exact(self) -> None:
        """The store holds what was acknowledged, what was quarantined, and no more.

        Raises:
            AssertionError: otherwise.
        """
        found = {row["kind"]: row["n"] for row in self.sql("SELECT kind, count(*) AS n FROM records GROUP BY kind")}
        assert sum(found.get(kind, 0) for kind in ITEMS) == len(self.acknowledged)
        assert (found.get("batch", 0), found.get("quarantine", 0)) == (self.batches, self.quarantined)
