"""The submitting side of c2sp.org/tlog-witness: asking a witness for its cosignature, and for the newest checkpoint it knows.

A witness is a stranger. Its answer is read up to a bound and within a time for all of it (`ledger.bounded_http`), and nothing it says is
believed here: whoever asks verifies the signatures. Plain http is good enough: a cosignature is no secret, and a forged one is recognised.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ledger import bounded_http
from ledger.bounded_http import Address, Client
from ledger.checkpoint import parse_decimal
from ledger.errors import MalformedError, StorageError, WitnessUnreachable
from ledger.witness_protocol import SIZE_TYPE, AddCheckpoint, origin_path

TIMEOUT_SECONDS: Final = 10.0
"""For the whole of one request, connecting and a slow answer included."""
MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_TEXT: Final = 200
"""Characters of a refusal that are kept."""
_URL_HINT: Final = "http://HOST:PORT/PREFIX or https://HOST/PREFIX, without credentials and query"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """200: the witness has taken the checkpoint."""

    lines: str
    """Its signature lines as it sent them, not verified."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """409: the witness knows another size than the one that was named."""

    size: int
    """The one it says that it knows."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Any other answer."""

    status: int
    text: str
    """The beginning of what it said, of a stranger's choosing."""


Answer = Cosigned | Conflict | Refused


class WitnessClient:
    """A connection to one witness, kept open between requests. For one thread at a time; only `close` may come from another."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        """Connect later, with the first request.

        Args:
            url: the prefix that `/add-checkpoint` is put behind.
            timeout: seconds for each request as a whole.

        Raises:
            MalformedError: not an http or https URL that stands for a host.
        """
        self.url = url.rstrip("/")
        self._http = Client(_address(self.url), timeout=timeout, limit=MAX_ANSWER_BYTES)

    def submit(self, request: AddCheckpoint) -> Answer:
        """Ask for a cosignature.

        Raises:
            WitnessUnreachable: there was no answer.
        """
        answer = self._ask("POST", "/add-checkpoint", request.encode())
        text = answer.body.decode("utf-8", "replace")
        if answer.status == HTTPStatus.OK:
            return Cosigned(text)
        if answer.status == HTTPStatus.CONFLICT and answer.content_type == SIZE_TYPE:
            with contextlib.suppress(MalformedError):  # one without a size is a refusal like any other
                return Conflict(parse_decimal(text.removesuffix("\n")))
        return Refused(answer.status, " ".join(text[:_MAX_TEXT].split()))

    def newest(self, origin: str) -> bytes | None:
        """The newest checkpoint of a log that the witness knows, unverified; None if it knows none.

        Raises:
            WitnessUnreachable: there was no answer, or another one.
        """
        answer = self._ask("GET", f"/{origin_path(origin)}/checkpoint")
        match answer.status:
            case HTTPStatus.OK:
                return answer.body
            case HTTPStatus.NOT_FOUND:
                return None
            case status:
                raise WitnessUnreachable(f"{self.url} answers {status} when asked for its newest checkpoint", path=self.url)

    def close(self) -> None:
        """Close the connection; a request in progress fails. Another request would connect again."""
        self._http.close()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bounded_http.Answer:
        try:
            return self._http.ask(method, self._http.address.path + path, body, content_type="text/plain; charset=utf-8")
        except StorageError as exc:
            raise WitnessUnreachable(exc.message, path=self.url, hint=exc.hint) from exc


def submit(url: str, request: AddCheckpoint, *, timeout: float = TIMEOUT_SECONDS) -> Answer:
    """`WitnessClient.submit` on a connection of its own."""
    with contextlib.closing(WitnessClient(url, timeout=timeout)) as client:
        return client.submit(request)


def newest(url: str, origin: str, *, timeout: float = TIMEOUT_SECONDS) -> bytes | None:
    """`WitnessClient.newest` on a connection of its own."""
    with contextlib.closing(WitnessClient(url, timeout=timeout)) as client:
        return client.newest(origin)


def _address(url: str) -> Address:
    try:
        address = Address.parse(url)
    except MalformedError as exc:
        raise MalformedError(f"that is not the URL of a witness: {exc.message}", hint=_URL_HINT) from exc
    if address.query:
        raise MalformedError(f"{url!r} is not the URL of a witness: there is a query in it", hint=_URL_HINT, actual=url)
    return address
