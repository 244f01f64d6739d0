"""Attacks by what lies in a file's place, and by the names inside of seals: nothing outside the store is read, nothing is unpacked.

Evidence bundles (one file for a stranger) come with an issue of their own, and attacks on them with it: traversal, links and bombs inside
an archive, `fetch.txt`. Until then these are the ways in which somebody else's names and sizes reach us: the store itself.
"""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import FIRST, one_of_each, require_failed
from stores import Home, request, seal, seal_record, send, settle
from traced import opened, why_not
from trail_process import Ran, command_line, environment, run_trail

from ledger.errors import LedgerError
from tui.exits import Exit

WHY_NOT = why_not()
SECRET = b"the password is swordfish " * 20


def everything_below(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*"))


# --------------------------------------------------------------------------------------------------- an archive for a store


def a_zip(home: Home) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.write(home.store / "trail.toml", "trail.toml")
        archive.writestr("../../escaped", b"x")
        archive.writestr("fetch.txt", b"http://127.0.0.1:9/ 1 trail.toml")
    return data.getvalue()


def a_zip_bomb(_home: Home) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("trail.toml", b"\0" * (64 << 20))
    return data.getvalue()


def a_tar(home: Home) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(home.store / "trail.toml", "../../escaped")
        link = tarfile.TarInfo("checkpoint")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return data.getvalue()


@pytest.mark.parametrize("make", [a_zip, a_zip_bomb, a_tar], ids=lambda make: make.__name__)
def test_24_an_archive_in_place_of_a_store_is_refused_and_not_unpacked(home: Home, tmp_path: Path, make: Callable[[Home], bytes]) -> None:
    archive = tmp_path / "deep" / "down" / "store"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(make(home))
    before = everything_below(tmp_path)
    for name in ("verify", "info", "status"):
        ran = run_trail(name, "--store", archive, *(["--key", home.vkey] if name == "verify" else []))
        assert ran.code in (Exit.USAGE, Exit.UNVERIFIABLE, Exit.STORAGE), (name, ran)
        assert ran.out == ""
        assert "Traceback" not in ran.err
    assert everything_below(tmp_path) == before


# ------------------------------------------------------------------------------------------- something else in a file's place


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _hole(path: Path) -> None:
    os.truncate(path, 1 << 42)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("damage", [_pipe, _hole, _device], ids=["a pipe", "a hole of four terabytes", "a device"])
def test_24_nothing_put_in_place_of_a_file_keeps_verify_waiting(original: Home, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    wrong = []
    for number, name in enumerate([*one_of_each(original), "checkpoints"]):
        home = original.copy(tmp_path / str(number))
        damage(home.files("checkpoints/*")[0] if name == "checkpoints" else home.store / name)
        started = time.monotonic()
        verdict = home.verify().verdict
        harmless = damage is _hole and name.startswith("journal")  # behind the last record under the checkpoint
        if (verdict != "failed" and not harmless) or time.monotonic() - started > 20:
            wrong.append((name, verdict, time.monotonic() - started))
    assert wrong == []


def outside_the_store(home: Home) -> Path:
    """A file that is nobody's business."""
    path = home.base / "outside" / "secret"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(SECRET)
    return path


def test_24_a_link_to_a_file_outside_is_false_and_shows_nothing_of_it(original: Home, tmp_path: Path) -> None:
    for number, name in enumerate(one_of_each(original)):
        home = original.copy(tmp_path / str(number))
        secret = outside_the_store(home)
        (home.store / name).unlink()
        (home.store / name).symlink_to(secret)
        report = home.verify()
        assert report.verdict == "failed", name
        assert "swordfish" not in json.dumps(report.as_json()) + " ".join(report.not_judged), name


def test_24_the_command_shows_nothing_of_a_file_outside(home: Home) -> None:
    for name in ("checkpoint", FIRST):
        (home.store / name).unlink()
        (home.store / name).symlink_to(outside_the_store(home))
    for args in ([], ["--json"]):
        ran = verified_by_command(home, *args)
        assert ran.code == Exit.FALSE, ran
        assert "swordfish" not in ran.out + ran.err


def verified_by_command(home: Home, *args: str) -> Ran:
    env = {"TRAIL_STATE": str(home.state.path.parent)}
    return run_trail("verify", "--store", home.store, "--key", home.vkey, *args, env=env)


# -------------------------------------------------------------------------------------------------- names inside of seals

NAMES = (
    "../../outside/secret",
    "../outside/secret",
    "records/../../outside/secret",
    "records/%2e%2e/secret",
    "records/0-6.0.parquet\0/../x",
)
"""And the absolute path of it, which only the test knows."""


def forged(home: Home, name: str) -> None:
    """A side file that names this, and says that its record is where the true one is: what a thief can write."""
    path = home.store / f"{FIRST}.seal"
    value = json.loads(path.read_bytes())
    record = seal_record(home, FIRST)
    record["seal"] |= {"file": name, "contents": name, "supersedes": [name]}
    value["record"] = base64.b64encode(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).decode()
    path.write_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n")


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("name", [*NAMES, "absolute"])
def test_24_a_side_file_that_names_a_file_outside(home: Home, tmp_path: Path, name: str) -> None:
    secret = outside_the_store(home)
    forged(home, str(secret) if name == "absolute" else name)
    require_failed(home.verify(), what="side file", file=f"{FIRST}.seal")
    if name in ("../outside/secret", "absolute"):  # a process under strace takes its time
        require_never_opened(home, tmp_path / "log", Exit.FALSE)
    with pytest.raises(LedgerError):
        home.read()


def require_never_opened(home: Home, log: Path, expected: int) -> None:
    """`trail verify` as a process: nothing of the outside is opened, by whatever library."""
    env = environment({"TRAIL_STATE": str(home.state.path.parent)})
    code, paths = opened(command_line("verify", "--store", home.store, "--key", home.vkey), log, environment=env)
    assert code == expected
    assert any(path.endswith("/checkpoint") for path in paths), "the trace has the paths"
    assert [path for path in paths if "outside" in path or path.endswith("/secret")] == []


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("name", ["../outside/secret", "absolute"])
def test_24_a_seal_in_the_log_that_names_a_file_outside(home: Home, tmp_path: Path, name: str) -> None:
    """The holder of the key can put any record into the log, seals of files outside among them: it names nothing of this store."""
    secret = outside_the_store(home)
    place = str(secret) if name == "absolute" else name
    body = seal_record(home, FIRST)["seal"]
    writer = home.open()
    writer.append("seal", body | {"file": place, "sha256": "0" * 64, "supersedes": []}, facts={"name": place})
    settle(writer)
    send(writer, request(91))
    settle(writer)
    writer._release()
    require_never_opened(home, tmp_path / "log", Exit.OK)
    assert secret.read_bytes() == SECRET


def test_24_a_seal_that_supersedes_files_outside_removes_none(home: Home) -> None:
    """What a merge replaced is unlinked at a start: by the names of the store's own files, never by those in a seal."""
    secret = outside_the_store(home)
    with home.writing() as writer:
        send(writer, request(92))
        seal(writer)
    name = max((path for path in home.files("records/*.parquet")), key=lambda path: int(path.name.split("-")[0])).name
    path = home.store / "records" / f"{name}.seal"
    value = json.loads(path.read_bytes())
    record = json.loads(base64.b64decode(value["record"]))
    record["seal"]["supersedes"] = ["../../outside/secret", str(secret), "../trail.toml"]
    value["record"] = base64.b64encode(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).decode()
    path.write_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    require_failed(home.verify(), what="side file", file=f"records/{name}.seal")
    home.open().close()
    assert secret.read_bytes() == SECRET
    assert (home.store / "trail.toml").exists()
    assert home.verify().verdict == "verified", "the side file was made anew from the seal in the log"
