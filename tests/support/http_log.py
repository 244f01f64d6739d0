"""A client of a log over HTTP from c2sp.org/tlog-tiles alone: `hashlib`, `urllib`, and none of our code.

It does not look at signatures, for which the standard library has nothing; `tests/interop` does, with Go's `note`.
"""

from __future__ import annotations

import base64
import hashlib
from email.message import Message
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener


def ask(url: str, path: str, *, token: str | None = None, method: str = "GET") -> tuple[int, Message, bytes]:
    """Status, headers and body of one request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{url}/log/{path}", method=method, headers=headers)  # noqa: S310 - our own server
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as refused:
        with refused:
            return refused.code, refused.headers, refused.read()


def fetch(url: str, path: str, token: str | None = None) -> bytes:
    """The body of a 200."""
    status, _, body = ask(url, path, token=token)
    assert status == 200, (path, status, body)
    return body


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962 2.1, over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha(b"")
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return sha(b"\1" + mth(hashes[:k]) + mth(hashes[k:]))


def name(n: int, width: int) -> str:
    text, rest = f"{n % 1000:03d}", n // 1000
    while rest:
        text, rest = f"x{rest % 1000:03d}/{text}", rest // 1000
    return text if width == 256 else f"{text}.p/{width}"


def parts(count: int) -> list[tuple[int, int]]:
    """(n, width) of the tiles of a row of so many hashes."""
    return [(n, min(256, count - 256 * n)) for n in range(-(-count // 256))]


def row(url: str, level: int, count: int) -> list[bytes]:
    """All hashes of a tile level."""
    hashes = []
    for n, width in parts(count):
        tile = fetch(url, f"tile/{level}/{name(n, width)}")
        assert len(tile) == 32 * width
        hashes += [tile[at : at + 32] for at in range(0, len(tile), 32)]
    return hashes


def head(note: bytes) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint."""
    origin, size, root = note.decode().split("\n")[:3]
    return origin, int(size), base64.b64decode(root)


def verified_leaves(url: str, note: bytes) -> list[bytes]:
    """The leaf hashes under a checkpoint, after checking that all its tiles of all levels are there and give its root."""
    _, size, root = head(note)
    leaves = hashes = row(url, 0, size)
    assert mth(leaves) == root
    level = 0
    while len(hashes) >= 256:
        level += 1
        above = [mth(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        hashes = row(url, level, len(above))
        assert hashes == above
    return leaves


def verified_records(url: str, note: bytes, token: str | None = None) -> list[bytes]:
    """Every record under a checkpoint, each of them the leaf that the tree has."""
    records: list[bytes] = []
    for n, width in parts(head(note)[1]):
        bundle, at = fetch(url, f"tile/entries/{name(n, width)}", token), 0
        for _ in range(width):
            end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
            records.append(bundle[at + 2 : end])
            at = end
        assert at == len(bundle)
    assert [sha(b"\0" + record) for record in records] == verified_leaves(url, note)
    return records
