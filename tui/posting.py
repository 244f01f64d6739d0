"""Sending request bodies to a running server, as an exporter does: POST, and again when it says to."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ledger.errors import StorageError

_TIMEOUT_SECONDS: Final = 60.0
_TRIES: Final = 20
_LONGEST_WAIT_SECONDS: Final = 5.0
_AGAIN: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to one body."""

    records: int
    """Kept for it, now or (a duplicate) before."""
    duplicate: bool
    refused: str
    """Why it was not kept; empty if it was."""
    quarantined: bool = False


class Poster:
    """One connection to one server."""

    def __init__(self, url: str, *, token: str | None) -> None:
        """`url` is the base, `token` what it wants of a sender."""
        parts = urlsplit(url)
        self._url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}

    def post(self, signal: str, body: bytes, *, media_type: str) -> Answer:
        """Send one body; waits and sends again while the server says to.

        Raises:
            StorageError: the server is gone, stays overloaded, or does not take anything from us.
        """
        for _ in range(_TRIES):
            try:
                self._connection.request("POST", f"/v1/{signal}", body, {"Content-Type": media_type, **self._headers})
                response = self._connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as exc:
                self._connection.close()
                raise StorageError(
                    f"the server at {self._url} does not answer: {exc}", hint="see trail status and the server's log"
                ) from exc
            if response.status in _AGAIN:
                time.sleep(min(float(response.headers.get("Retry-After") or 1), _LONGEST_WAIT_SECONDS))
                continue
            return self._answer(response, text)
        raise StorageError(f"the server at {self._url} took nothing in {_TRIES} tries", hint="see its log: its disk may be full")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _answer(self, response: http.client.HTTPResponse, text: bytes) -> Answer:
        match response.status:
            case 200:
                start, _, end = (response.headers.get("Trail-Receipt") or "0-0").partition("-")
                return Answer(int(end) - int(start), response.headers.get("Trail-Duplicate") == "1", "")
            case 400 | 413 | 415:
                return Answer(0, False, _message(text) or f"status {response.status}", response.status == 400)
            case 401 | 403:
                raise StorageError(
                    f"the server at {self._url} does not take this sender: {_message(text)}",
                    hint="name a file with an emitter's token: --token-file FILE, or set TRAIL_TOKEN",
                )
            case _:
                raise StorageError(f"the server at {self._url} answered {response.status}: {_message(text)}", hint="is it trail?")


def _message(text: bytes) -> str:
    """The message of a google.rpc.Status; in protobuf, whatever of it is readable."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return "".join(c for c in text.decode("utf-8", "replace") if c.isprintable() and c != "\ufffd")[:300].strip()
