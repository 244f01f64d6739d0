"""What `trail doctor` looks at: each check says ok, warn or fail, what it found, and what to do."""

from __future__ import annotations

import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import pyarrow.compute as pc

from ledger import durable
from ledger.errors import LedgerError, MissingKey
from ledger.keys import LastSigned, Pins, default_key_path, state_dir
from ledger.layout import Layout
from ledger.note import Verifier
from ledger.settings import Settings
from ledger.signers import vkey_in
from ledger.trust import LogKeys
from query.rows import duration, iso
from tui import running
from tui.anchored import anchored
from tui.exits import Exit, exit_of
from tui.exposure import exposures
from tui.opening import OpenStore, open_store, origin_of, trust_of
from tui.output import size_text

NETWORK_FILESYSTEMS: Final = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.rclone")
"""Types of mounts, by how their names begin; locks and fsync there are somebody else's promise."""
_CLOCK_SECONDS: Final = 5
_COSIGNED_SECONDS: Final = 300
"""A quorum that is silent for longer is worth a warning."""
_REACH_SECONDS: Final = 3.0
_SLOW_FSYNC_SECONDS: Final = 0.1
_TESTED: Final = {"duckdb": (2, 3), "pyarrow": (22, 27), "protobuf": (6, 8)}
"""Major versions: from, below."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's."""

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    do: str = ""
    false: bool = False
    """The evidence itself is false, not merely the set-up."""


def examine(path: Path) -> Iterator[Finding]:
    """Run all checks that can be run; without a store only those of the machine."""
    try:
        origin_of(path)
        settings, _text = Settings.load(Layout(path))
    except LedgerError as exc:
        yield Finding("store", "fail", exc.message, exc.hint, exit_of(exc) is Exit.FALSE)
        yield from versions()
        return
    yield Finding("store", "ok", f"{path}, log {settings.origin}")
    yield from _signing_key(path, settings)
    yield from _exposed(path, settings)
    yield from _reading(path)
    yield from _disk(path, settings)
    yield from _server(path, settings)
    yield from versions()


def versions() -> Iterator[Finding]:
    """Python and the libraries that the store's files depend on."""
    found = [f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"]
    odd = []
    for name, (low, below) in _TESTED.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("versions", "fail", f"{name} is not installed", "install trail again, in an environment of its own")
            continue
        found.append(f"{name} {version}")
        if not low <= int(version.partition(".")[0]) < below:
            odd.append(f"{name} {version} is outside {low} to {below - 1}, with which trail is tested")
    if odd:
        yield Finding("versions", "warn", "; ".join(odd), "install the versions of constraints.txt")
    else:
        yield Finding("versions", "ok", ", ".join(found))


def _signing_key(path: Path, settings: Settings) -> Iterator[Finding]:
    key_path = default_key_path(settings.origin)
    pinned = Pins.default().key(settings.origin)
    try:
        # Not loaded: that might ask for a passphrase, or a program for a signature.
        vkey = vkey_in(key_path, origin=settings.origin)
    except MissingKey as exc:
        yield Finding("key", "warn", exc.message, "fine for a reader; to write, name the key with --key or TRAIL_KEY")
    except LedgerError as exc:
        yield Finding("key", "fail", exc.message, exc.hint)
    else:
        if Verifier.parse(vkey).name != settings.origin:
            yield Finding("key", "fail", f"{key_path} is a key of {Verifier.parse(vkey).name}", "name the right one with TRAIL_KEY")
            return
        yield Finding("key", "ok", f"{key_path} signs for {settings.origin}")
        trusted = LogKeys.of(*pinned.split()).keys if pinned is not None else ()
        if pinned is not None and vkey not in [key.verifier.vkey for key in trusted if key.until is None]:
            yield Finding("pin", "fail", "the pinned key is not this signing key's", "find out which of them is the log's")
            return
    if pinned is not None:
        yield Finding("pin", "ok", "a public key is pinned")
    elif os.environ.get("TRAIL_VKEY"):
        yield Finding("pin", "ok", "TRAIL_VKEY names the public key")
    elif _in_trust_file(settings.origin):
        yield Finding("pin", "ok", "your trust file names the public key")
    else:
        yield Finding(
            "pin",
            "fail",
            "no public key is pinned for this log",
            "get it from whoever runs the log: TRAIL_VKEY, or --key with each command",
        )


def _in_trust_file(origin: str) -> bool:
    """One that cannot be read is told where the store is opened with it."""
    try:
        return trust_of(origin, None).keys is not None
    except LedgerError:
        return False


def _exposed(path: Path, settings: Settings) -> Iterator[Finding]:
    found = list(exposures(Layout(path), origin=settings.origin, key=default_key_path(settings.origin)))
    for exposure in found:
        yield Finding("permissions", "warn", exposure.what, exposure.fix)
    if not found:
        yield Finding("permissions", "ok", "store, key and state are open to nobody else")
    if hasattr(os, "getuid") and os.getuid() == 0:
        yield Finding(
            "account", "warn", "this is root's account", "run the ledger under an account of its own, which the agents cannot become"
        )


def _reading(path: Path) -> Iterator[Finding]:
    """What needs an opened store."""
    try:
        store = open_store(path)
    except LedgerError as exc:
        yield Finding("reading", "fail", exc.message, exc.hint or "run trail verify", exit_of(exc) is Exit.FALSE)
        return
    reader = store.reader
    if store.signed.is_false:
        yield Finding("last signed", "fail", store.signed.why, "do not write on: restore the missing records, then run trail verify", True)
    elif store.signed.state == "unreadable":
        yield Finding("last signed", "fail", store.signed.why, f"restore {LastSigned.default(reader.origin).path} from a backup")
    elif store.signed.state == "kept":
        yield Finding("last signed", "ok", f"all {store.signed.size:,} records that this machine signed are here")
    else:
        yield Finding(
            "last signed", "warn", f"not compared: {store.signed.why}", "keep a trail checkpoint elsewhere, and verify --against it"
        )
    yield from _anchored(store)
    yield Finding("reading", "ok", f"{reader.size:,} records under the checkpoint, {len(reader.segments)} segments, every seal proven")
    yield _clock(store)
    unsealed = reader.tail(include_unsigned=True).records.num_rows
    if unsealed > reader.settings.segment_records * 4:
        yield Finding("sealing", "warn", f"{unsealed:,} records are not sealed", "see the server's log: sealing fails or falls behind")


def _anchored(store: OpenStore) -> Iterator[Finding]:
    """Does anybody outside keep what the log signs? Without, whoever has the key can rewrite it all."""
    reader = store.reader
    found = anchored(reader.layout, origin=reader.origin, size=reader.size)
    if found["error"]:
        yield Finding("anchored", "fail", found["error"], "run trail verify")
        return
    if not found["witnesses_wanted"]:
        yield Finding(
            "witnesses",
            "warn",
            "nobody outside confirms this log",
            f"name witnesses in {reader.layout.policy}, or keep checkpoints elsewhere",
        )
        return
    failing = [f"{witness['name']}: {witness['error']}" for witness in found["witnesses"] if witness["error"]]
    cosigned = found["cosigned"]
    if cosigned is None:
        why = "; ".join(failing) or "no quorum has cosigned anything yet"
        yield Finding("witnesses", "fail", why, "see the server's log; is trail serve running, and does each witness know this log?")
    elif cosigned["records_behind"] and cosigned["seconds_ago"] > _COSIGNED_SECONDS:
        age = duration(int(cosigned["seconds_ago"] * 10**9))
        late = f"{cosigned['records_behind']:,} records are newer than the last cosigned checkpoint, which is {age} old"
        yield Finding("witnesses", "warn", "; ".join([late, *failing]), "see the server's log")
    elif failing:
        yield Finding("witnesses", "warn", "; ".join(failing), "the quorum is met without them; see to them before another one fails")
    else:
        yield Finding("witnesses", "ok", f"a quorum has cosigned {cosigned['size']:,} records")


def _clock(store: OpenStore) -> Finding:
    """The newest record should not be from the future."""
    newest = max((segment.records.seal.max_received for segment in store.reader.segments), default=None)
    tail = store.reader.tail(include_unsigned=True).records
    if tail.num_rows:
        received = pc.max(tail.column("received")).cast("int64").as_py()
        newest = received if newest is None else max(newest, received)
    if newest is None:
        return Finding("clock", "ok", "no record to compare with")
    ahead = newest - time.time_ns()
    if ahead > _CLOCK_SECONDS * 10**9:
        return Finding(
            "clock", "fail", f"the newest record is {duration(ahead)} in the future: {iso(newest)}", "set the clock, and keep it set by NTP"
        )
    return Finding("clock", "ok", f"the newest record is {duration(ahead)} old")


def _disk(path: Path, settings: Settings) -> Iterator[Finding]:
    kind = _filesystem(path)
    if kind is not None and kind.startswith(NETWORK_FILESYSTEMS):
        yield Finding(
            "filesystem", "warn", f"the store lies on {kind}", "use a local disk: locks and fsync over a network are not to be relied on"
        )
    else:
        yield Finding("filesystem", "ok", kind or "not known on this system")
    free = shutil.disk_usage(path).free
    if free < settings.reserve_bytes:
        yield Finding(
            "disk",
            "fail",
            f"{size_text(free)} free, under the reserve of {size_text(settings.reserve_bytes)}",
            "free space: telemetry is refused",
        )
    elif free < 4 * settings.reserve_bytes:
        yield Finding("disk", "warn", f"{size_text(free)} free", "free space soon")
    else:
        yield Finding("disk", "ok", f"{size_text(free)} free")
    for what, directory in (("store", path), ("state", state_dir())):
        yield _fsync(what, directory)


def _fsync(what: str, directory: Path) -> Finding:
    """Write, sync and remove a file of the kind that recovery would remove too."""
    if not os.access(directory, os.W_OK):
        return Finding(
            "fsync",
            "warn",
            f"the {what} directory {directory} cannot be written by this account",
            "fine for a reader; else run as its owner",
        )
    probe = durable.temporary(directory / "doctor")
    begun = time.monotonic()
    try:
        durable.write_once(probe, b"trail doctor\n", mode=0o600)
    except LedgerError as exc:
        return Finding("fsync", "fail", exc.message, exc.hint)
    finally:
        probe.unlink(missing_ok=True)
    took = time.monotonic() - begun
    if took > _SLOW_FSYNC_SECONDS:
        return Finding(
            "fsync", "warn", f"{what}: {took * 1000:.0f} ms", "every request waits for two of these: a faster disk acknowledges faster"
        )
    return Finding("fsync", "ok", f"{what}: {took * 1000:.1f} ms")


def _server(path: Path, settings: Settings) -> Iterator[Finding]:
    server = running.find_server(settings.origin, path)
    if server is None:
        holder = running.lock_holder(path)
        if holder is not None and holder.alive is False:
            yield Finding(
                "server",
                "warn",
                f"{holder.command} (process {holder.pid}) did not stop cleanly",
                "start trail serve: it recovers, nothing acknowledged is lost",
            )
        else:
            yield Finding("server", "ok", "none is running for this store")
        return
    open_url: Callable[..., object] = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    try:
        open_url(f"{server.http}/readyz", timeout=_REACH_SECONDS)
    except urllib.error.HTTPError as exc:
        with exc:
            why = exc.read(1_000).decode("utf-8", "replace").strip()
        yield Finding("server", "fail", f"{server.http} refuses telemetry: {why}", "see the server's log")
    except OSError as exc:
        yield Finding("server", "fail", f"{server.http} does not answer: {exc}", f"see the log of process {server.pid}")
    else:
        yield Finding("server", "ok", f"{server.http} accepts telemetry")


def _filesystem(path: Path) -> str | None:
    """The type of the mount that holds a path, where the system says (Linux)."""
    try:
        lines = Path("/proc/mounts").read_text("utf-8").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    best, kind = -1, None
    for line in lines:
        _device, mount, found, *_rest = line.split(" ")
        point = Path(mount.replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), found
    return kind
