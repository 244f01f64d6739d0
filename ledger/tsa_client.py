"""Asking a time-stamping authority over HTTP (RFC 3161 3.4): one POST, by `ledger.bounded_http`.

Redirects are not followed: who answers is for the operator to name.
"""

from __future__ import annotations

from contextlib import closing
from http import HTTPStatus
from typing import Final

from ledger.bounded_http import Address, Client
from ledger.errors import StorageError

_QUERY_TYPE: Final = "application/timestamp-query"
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)


def post(url: str, query: bytes, *, timeout: float, limit: int) -> bytes:
    """What an authority answers to a TimeStampReq.

    Args:
        url: http or https.
        query: the request, DER.
        timeout: seconds for all of it, however slowly it comes.
        limit: bytes of the answer.

    Raises:
        MalformedError: the address is none.
        StorageError: nobody there, no whole answer in time, too much of it, or a status other than 200.
    """
    address = Address.parse(url)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    with closing(Client(address, timeout=timeout, limit=limit)) as client:
        answer = client.ask("POST", target, query, content_type=_QUERY_TYPE)
    if answer.status == HTTPStatus.OK:
        return answer.body
    if answer.status in _REDIRECTS:
        raise StorageError(
            f"{url} is elsewhere now: {answer.location!r}", path=url, hint="redirects are not followed: name the new address"
        )
    later = answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status in _SERVER_ERRORS
    hint = "try again later" if later else "is this the address of a time-stamping authority?"
    raise StorageError(f"{url} answered {answer.status} {answer.reason}", path=url, hint=hint)
