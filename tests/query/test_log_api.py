"""`/log` in process, over a real store: names, widths, headers, which checkpoint, who may read, and what reading leaves behind."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from fastapi import FastAPI
from stores import ORIGIN, Home, all_records, kill, new_home, request, seal, send, settle

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.errors import DiskFull, StorageError
from ledger.layout import Layout
from ledger.merkle import leaf_hash, leaf_hashes
from ledger.note import Signer
from ledger.tiles import TileBuilder, decode_bundle, tile_path, tile_width, tiles_of
from query.custody import Looks
from query.log_api import Published, ReaderRefused, UnknownReader, create_log_router

IMMUTABLE = "max-age=31536000, immutable"


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Served:
    """The application over a store, asked without a socket: paths arrive as they are written here."""

    home: Home
    looked: list[Mapping[str, Any]] = field(default_factory=list)
    record: Callable[[Mapping[str, Any]], object] | None = None
    seconds: float = 1e9
    local_only: bool = False

    def __post_init__(self) -> None:
        self.looks = Looks(self.record or self.looked.append, why="a test", seconds=self.seconds)
        self.app = FastAPI(openapi_url=None)
        router = create_log_router(self.home.store, authorize=self.authorize, looks=self.looks, local_only=self.local_only)
        self.app.include_router(router)

    def authorize(self, header: str | None) -> str:
        match header:
            case None:
                raise UnknownReader("say who you are")
            case "broken":
                raise StorageError("the token file cannot be read")
            case "reader":
                raise ReaderRefused("not you")
        return header

    def get(self, path: str, who: str | None = "ann", *, method: str = "GET", host: str | None = None) -> Answer:
        raw = path.encode()
        headers = {b"authorization": who, b"host": host}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": b"",
            "headers": [(name, value.encode()) for name, value in headers.items() if value is not None],
        }
        answer = Answer()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def reply(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode().title(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message["body"]

        asyncio.run(self.app(scope, receive, reply))
        return answer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Six hundred records and more: two full bundles, a partial one; sealed up to the middle of the second."""
    home = new_home(tmp_path_factory.mktemp("whole") / "log", segment_records=100_000)
    writer = home.open()
    for seed in range(15):
        send(writer, request(seed, count=20, contents=False))
        settle(writer)
    seal(writer)
    for seed in range(15, 30):
        send(writer, request(seed, count=20, contents=False))
        settle(writer)
    kill(writer)
    return home


@pytest.fixture
def home(whole: Home, tmp_path: Path) -> Home:
    return whole.copy(tmp_path / "log")


@pytest.fixture
def served(home: Home) -> Served:
    return Served(home)


def size_of(home: Home) -> int:
    return Published(Layout(home.store)).size()


def test_the_checkpoint_is_never_taken_from_a_cache(served: Served) -> None:
    answer = served.get("/log/checkpoint", None)
    assert (answer.status, answer.body) == (200, served.home.checkpoint)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"


def test_every_size_ever_published_keeps_all_its_tiles(served: Served) -> None:
    leaves = leaf_hashes(all_records(served.home))
    size = size_of(served.home)
    assert len(leaves) == 32 * size > 32 * 512
    builder = TileBuilder()
    tiles = {}
    for at in range(0, len(leaves), 32):
        builder.extend(leaves[at : at + 32])
        tiles |= {(level, n, width): data for level, n, width, data in builder.drain()}
    assert tiles.keys() == {tile for each in range(1, size + 1) for tile in tiles_of(each)}
    for tile, data in tiles.items():
        answer = served.get(f"/log/{tile_path(*tile)}", None)
        assert (answer.status, answer.body) == (200, data), tile
        assert answer.headers["Cache-Control"] == f"public, {IMMUTABLE}"
        assert answer.headers["Content-Type"] == "application/octet-stream"


def test_what_is_not_published_is_not_there(served: Served) -> None:
    size = size_of(served.home)
    edge, width = divmod(size, 256)
    for path in (
        f"tile/0/{edge:03d}",
        f"tile/0/{edge:03d}.p/{width + 1}",
        f"tile/0/{edge + 1:03d}.p/1",
        "tile/1/000",
        f"tile/1/000.p/{edge + 1}",
        "tile/2/000.p/1",
        "tile/63/000.p/1",
        "tile/0/x999/x999/999",
        f"tile/entries/{edge:03d}",
        f"tile/entries/{edge:03d}.p/{width + 1}",
        f"tile/entries/{edge + 1:03d}.p/1",
    ):
        answer = served.get(f"/log/{path}")
        assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store"), path
    assert served.looked == []

    # The tiles of a size are written before its checkpoint: until then they are nobody's business.
    older = Checkpoint(ORIGIN, 300, bytes(32))
    (served.home.store / "checkpoint").write_bytes(sign_checkpoint(older, Signer.generate(ORIGIN)))
    assert served.get("/log/tile/0/001.p/44").status == 200
    assert served.get("/log/tile/0/001.p/45").status == 404
    assert served.get("/log/tile/0/001").status == 404


ODD = [
    "", "checkpoint/", "checkpoint.txt", "Checkpoint", "./checkpoint", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00",
    "tile/0/0000", "tile/0/000/", "tile/0/000.p", "tile/0/000.p/", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
    "tile/0/000.p/+1", "tile/0/000.p/1/", "tile/0/000.P/1", "tile/00/000", "tile/01/000", "tile/64/000", "tile/100/000", "tile/-1/000",
    "tile/0/x000/000", "tile/0/x001", "tile/0/001/000", "tile/0/X001/000", "tile/0/x1/000", "tile/0/x001/x000", "tile//000", "tile/0//000",
    "tile/entries", "tile/entries/", "tile/entries/0", "tile/entries/000.p/0", "tile/entries/000.p/256", "tile/entries/x000/000",
    "tile/0/%30%30%30", "tile/0/000%2ep/1", "%74ile/0/000", "tile/0/000%00", "tile/0/000%0a", "tile/0/%EF%BC%90%EF%BC%90%EF%BC%90",
    "tile/0/..%2f..%2ftrail.toml", "tile/0/../../trail.toml", "tile/../trail.toml", "../trail.toml", "..%2ftrail.toml",
    "%2e%2e/trail.toml", "tile/0/%2e%2e/0/000", "/trail.toml", "//trail.toml", "tile/0\\000", "trail.toml", "journal/", "records/",
    "tile/8/0/000", "tile/data/000", "tile/entries/../../../trail.toml", "checkpoints/cosigned", "tile/0/" + "x000/" * 40 + "000",
]  # fmt: skip


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[], list[str]]]:
    """What this process has opened since the last call."""
    seen: list[str] = []
    watching = threading.Event()
    watching.set()

    def hook(event: str, args: Any) -> None:
        if event == "open" and watching.is_set() and isinstance(args[0], str | bytes | Path):
            seen.append(str(args[0]))

    sys.addaudithook(hook)

    def take() -> list[str]:
        taken = list(seen)
        seen.clear()
        return taken

    yield take
    watching.clear()


@pytest.mark.parametrize("path", ODD)
def test_a_path_that_tlog_tiles_does_not_write(served: Served, opened: Callable[[], list[str]], path: str) -> None:
    opened()
    answer = served.get(f"/log/{path}")
    assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store")
    assert [name for name in opened() if name.startswith(str(served.home.store))] == []
    assert served.looked == []


def test_nothing_but_checkpoint_and_tiles_is_opened_for_hashes(served: Served, opened: Callable[[], list[str]]) -> None:
    opened()
    for path in ("checkpoint", "tile/0/000", "tile/0/001.p/7", "tile/1/000.p/2", "tile/0/002.p/9"):
        assert served.get(f"/log/{path}", None).status == 200
    root = served.home.store
    names = {Path(name).relative_to(root).as_posix() for name in opened() if name.startswith(str(root))}
    assert "tile/0/000" in names
    assert {name for name in names if not name.startswith("tile/")} == {"checkpoint"}


def test_head_says_what_get_would(served: Served) -> None:
    for path in ("checkpoint", "tile/0/000", "tile/entries/000"):
        got, headers = served.get(f"/log/{path}"), served.get(f"/log/{path}", method="HEAD")
        assert (headers.status, headers.headers) == (200, got.headers)
        assert int(got.headers["Content-Length"]) == len(got.body)
    assert served.get("/log/checkpoint", method="POST").status == 405
    # A length was told, and no record.
    assert [(one["from"], one["to"]) for one in served.looked] == [(0, 256)]


def test_entry_bundles(served: Served) -> None:
    records, size = all_records(served.home), size_of(served.home)
    for n, width in ((0, 256), (1, 256), (1, 10), (2, size - 512), (2, 1)):
        name = f"{n:03d}" if width == 256 else f"{n:03d}.p/{width}"
        answer = served.get(f"/log/tile/entries/{name}")
        assert (answer.status, decode_bundle(answer.body, width)) == (200, records[256 * n : 256 * n + width])
        assert answer.headers["Cache-Control"] == f"private, {IMMUTABLE}"
        assert answer.headers["Content-Type"] == "application/octet-stream"
    assert tile_width(0, 2, size) == size - 512


def test_who_may_read_whole_records(served: Served) -> None:
    nobody, reader = served.get("/log/tile/entries/000", None), served.get("/log/tile/entries/000", "reader")
    assert (nobody.status, nobody.headers["Www-Authenticate"], nobody.body) == (401, "Bearer", b"say who you are\n")
    assert (reader.status, reader.body) == (403, b"not you\n")
    assert served.get("/log/tile/entries/000", "broken").status == 503
    assert served.get("/log/tile/entries/999", None).status == 401, "what is there is not for everybody to find out"
    assert served.looked == []


HERE = ["localhost", "LocalHost:4318", "127.0.0.1", "127.0.0.1:4318", "127.1.2.3:1", "[::1]", "[::1]:4318"]
ELSEWHERE = [
    None, "", ":4318", "log.example.com", "log.example.com:4318", "127.0.0.1.example.com", "localhost.example.com", "192.0.2.1", "0.0.0.0",  # noqa: S104
    "[2001:db8::1]:4318", "127.0.0.1@example.com", "127.1", "2130706433", "127.0.0.1 ",
]  # fmt: skip


@pytest.mark.parametrize("host", [*HERE, *ELSEWHERE])
def test_without_tokens_only_who_asks_for_this_machine_is_answered(home: Home, host: str | None) -> None:
    """A page in a browser whose name was made to resolve to 127.0.0.1 says its own name in Host."""
    served = Served(home, local_only=True)
    for path in ("checkpoint", "tile/0/000", "tile/entries/000", "nothing"):
        answer = served.get(f"/log/{path}", host=host)
        if host in HERE:
            assert answer.status == (404 if path == "nothing" else 200)
        else:
            assert (answer.status, answer.headers["Content-Type"]) == (421, "text/plain; charset=utf-8")
            assert answer.body.startswith(b"without tokens ")
    assert (len(served.looked) == 0) == (host not in HERE)


def test_with_tokens_the_name_does_not_matter(served: Served) -> None:
    assert served.get("/log/checkpoint", None, host="log.example.com").status == 200


# ------------------------------------------------------------------------------------------- what is recorded


def test_reading_is_recorded_at_once_and_then_summed_up(served: Served) -> None:
    for _ in range(2):
        assert served.get("/log/tile/entries/001.p/9").status == 200
        assert served.get("/log/tile/entries/000").status == 200
        assert served.get("/log/tile/entries/000", "bob").status == 200
    told = {"what": "entries", "why": "a test"}
    first = [{"who": "ann", "from": 256, "to": 265, "records": 9} | told, {"who": "bob", "from": 0, "to": 256, "records": 256} | told]
    assert served.looked == first
    served.looks.close()
    rest = [{"who": "ann", "from": 0, "to": 265, "records": 521} | told, {"who": "bob", "from": 0, "to": 256, "records": 256} | told]
    assert served.looked == first + rest
    assert served.get("/log/tile/entries/000").status == 503, "what can no longer be recorded does not leave"


def test_the_rest_of_a_minute_is_recorded_after_it(home: Home) -> None:
    recorded, done = [], threading.Event()

    def record(body: Mapping[str, Any]) -> None:
        recorded.append((body["who"], body["from"], body["to"]))
        if len(recorded) == 2:
            done.set()

    served = Served(home, record=record, seconds=0.3)
    served.get("/log/tile/entries/000")
    served.get("/log/tile/entries/001")
    assert done.wait(30)
    served.looks.close()
    assert recorded == [("ann", 0, 256), ("ann", 256, 512)]


def test_what_cannot_be_recorded_does_not_leave(home: Home) -> None:
    full = True
    recorded = []

    def record(body: Mapping[str, Any]) -> None:
        if full:
            raise DiskFull("no room")
        recorded.append((body["from"], body["to"]))

    served = Served(home, record=record)
    answer = served.get("/log/tile/entries/000")
    assert (answer.status, answer.headers["Retry-After"], answer.body) == (503, "2", b"the store cannot be read just now\n")
    full = False
    assert served.get("/log/tile/entries/001").status == 200
    assert recorded == [(256, 512)], "and is not said to have been read"


def test_what_could_not_be_summed_up_is_recorded_with_the_next_look() -> None:
    full, now, recorded = False, 0.0, []

    def record(body: Mapping[str, Any]) -> None:
        if full:
            raise DiskFull("no room")
        recorded.append((body["from"], body["to"], body["records"]))

    looks = Looks(record, why="a test", seconds=60, monotonic=lambda: now)
    looks.note("ann", 0, 256)
    looks.note("ann", 512, 768)
    full, now = True, 60.0
    with pytest.raises(DiskFull):
        looks.note("ann", 256, 512)
    full = False
    looks.note("ann", 768, 1024)
    looks.note("ann", 0, 256)
    full = True
    looks.close()  # says in the server's log that it could not
    assert recorded == [(0, 256, 256), (512, 1024, 512)]


# ---------------------------------------------------------------------------------------------------- damage


def test_an_altered_record_or_tile_is_an_error_that_says_so(served: Served) -> None:
    tile = served.home.store / "tile/0/001"
    data = bytearray(tile.read_bytes())
    data[0:32] = leaf_hash(b"{}")
    tile.write_bytes(data)
    answer = served.get("/log/tile/entries/001")
    assert (answer.status, answer.headers["Cache-Control"], answer.headers["Content-Type"]) == (
        500,
        "no-store",
        "text/plain; charset=utf-8",
    )
    assert answer.body == b"not served, because the store is damaged here: record 256 is not the one that tile/0 commits to\n"
    assert served.looked == []
    assert served.get("/log/tile/entries/000").status == 200


def test_a_tile_that_should_be_there_is_no_404(served: Served) -> None:
    (served.home.store / "tile/0/000").unlink()
    answer = served.get("/log/tile/0/000")
    assert (answer.status, answer.body) == (500, b"not served, because the store is damaged here: tile/0/000 is missing or short\n")
    (served.home.store / "tile/0/001").write_bytes(bytes(31))
    assert served.get("/log/tile/0/001.p/1").status == 500
    (served.home.store / "tile/0/001").unlink()
    (served.home.store / "tile/0/001").mkdir()
    assert served.get("/log/tile/0/001").status == 500


@pytest.mark.parametrize("note", [b"", b"not a checkpoint\n", b"\xff" * 3000, b"x" * (1 << 21)], ids=["empty", "text", "binary", "huge"])
def test_a_checkpoint_that_cannot_be_read(served: Served, note: bytes) -> None:
    (served.home.store / "checkpoint").write_bytes(note)
    assert {served.get(f"/log/{path}").status // 100 for path in ("checkpoint", "tile/0/000", "tile/entries/000")} == {5}
    (served.home.store / "checkpoint").unlink()
    assert served.get("/log/checkpoint").body == b"nothing is published yet\n"
    assert {served.get(f"/log/{path}").status for path in ("checkpoint", "tile/0/000", "tile/entries/000")} == {404}


# ------------------------------------------------------------------------------------------- which checkpoint


def policy(quorum: str) -> str:
    witness = Signer.generate("witness.example/w1").cosigner.vkey
    return f"witness w1 {witness}\nquorum {quorum}\n"


def cosigned(size: int, origin: str = ORIGIN) -> bytes:
    return sign_checkpoint(Checkpoint(origin, size, bytes([7] * 32)), Signer.generate(origin))


def test_with_witnesses_the_newest_cosigned_one_is_shown(served: Served) -> None:
    layout = Layout(served.home.store)
    newest, size = served.home.checkpoint, size_of(served.home)

    def shown() -> bytes:
        return served.get("/log/checkpoint", None).body

    layout.policy.write_text(policy("w1"))
    assert shown() == newest, "no quorum was ever met"
    layout.cosigned.write_bytes(cosigned(300))
    assert shown() == cosigned_now(layout)
    assert served.get("/log/tile/0/001.p/200", None).status == 200, "tiles go on to the newest"
    layout.cosigned.write_bytes(cosigned(size))
    assert shown() == cosigned_now(layout)

    for other in (cosigned(size + 1), cosigned(300, "example.com/other"), b"rubbish"):
        layout.cosigned.write_bytes(other)
        assert shown() == newest
    layout.cosigned.write_bytes(cosigned(300))
    layout.policy.write_text(policy("none"))
    assert shown() == newest
    layout.policy.write_text("quorum\n")
    assert shown() == cosigned_now(layout), "while it cannot be read, nothing is shown that was not before"
    layout.policy.unlink()
    assert shown() == newest


def cosigned_now(layout: Layout) -> bytes:
    return layout.cosigned.read_bytes()
