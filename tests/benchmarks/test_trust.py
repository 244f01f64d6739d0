"""Trust: what proofs, verification, signing and witnesses cost.

What must stay flat: the time of a proof and the memory of `trail verify`, from a million records to a hundred million. Ingest must not
notice that checkpoints are signed and published. `TRAIL_BENCH_RECORDS` (10,000,000) is the size of the large store: it takes 90 bytes of
disk and 3 microseconds a record to make, and is removed afterwards.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from bench import Server, post, report
from bench_large import Large, make_large

from ledger import durable, merkle
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.keys import LastSigned
from ledger.note import Signer
from ledger.reader import StoreReader
from ledger.segment import read_batches
from ledger.tiles import TILE_BYTES, TILE_WIDTH
from ledger.tree import TreeWriter, tile_nodes
from ledger.witness_client import Cosigned, WitnessClient
from ledger.witness_protocol import AddCheckpoint

pytestmark = pytest.mark.benchmark
RECORDS = int(os.environ.get("TRAIL_BENCH_RECORDS", "10000000"))
ROUNDS = 300
REQUESTS = 100
"""Of 512 spans each, for each of the servers that are compared."""
RECORDS_A_CHECKPOINT = 6_000
"""What a server takes in half a second on two cores, at the rate that `test_ingest` reports."""
COMMAND = [sys.executable, "-m", "tui.cli"]


@contextlib.contextmanager
def removed(path: Path) -> Iterator[Path]:
    """A directory that pytest shall not keep for three runs, as it keeps others."""
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """A million records."""
    with removed(tmp_path_factory.mktemp("small")) as place:
        yield make_large(place, 1_000_000)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """Many more of the same."""
    with removed(tmp_path_factory.mktemp("large")) as place:
        yield make_large(place, RECORDS)


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Of seconds, in milliseconds."""
    ordered = sorted(times)
    return {name: round(ordered[int(len(ordered) * share)] * 1e3, 2) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}


def timed(work: Callable[..., object], *arguments: object, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds."""
    start = clock()
    work(*arguments)
    return clock() - start


# ---- proofs


def test_proof(small: Large, large: Large, tmp_path: Path) -> None:
    """A proof of any record. The files were hashed and are in the page cache; indexes are random, so nothing of ours is warm but footers.

    The floor is the audit path alone, from the tiles: what a log that keeps no records pays.
    """
    stores = {"small": small, "large": large}
    readers = {name: StoreReader.open(store.root, vkeys=[store.vkey], cache=tmp_path / name) for name, store in stores.items()}
    for reader in readers.values():
        reader.verified_files("records")
    first = timed(readers["large"].prove, large.records // 3)
    times: dict[str, list[float]] = {f"{name}_{what}": [] for name in stores for what in ("prove", "record", "path")}
    times["large_prove_cpu"] = []
    rng = random.Random(11)
    for _ in range(ROUNDS):
        for name, reader in readers.items():  # in turn, so that a busy machine is as unkind to all of them
            for what, work in (("prove", reader.prove), ("record", reader.record), ("path", partial(path_alone, reader))):
                times[f"{name}_{what}"].append(timed(work, rng.randrange(reader.size)))
        times["large_prove_cpu"].append(timed(readers["large"].prove, rng.randrange(large.records), clock=time.thread_time))
    medians = {name: statistics.median(values) for name, values in times.items()}
    report(
        "proof",
        records=[store.records for store in stores.values()],
        record_bytes=round(large.record_bytes / large.records),
        **{f"{name}_ms": percentiles(values) for name, values in times.items()},
        first_ms=round(first * 1e3, 1),
        ratio_to_floor=round(medians["large_prove"] / medians["large_path"], 1),
        large_to_small=round(medians["large_prove"] / medians["small_prove"], 2),
    )
    assert medians["large_prove"] < 3 * medians["small_prove"], "a proof takes longer in a larger store"
    assert medians["large_prove"] < 40 * medians["large_path"]


def path_alone(reader: StoreReader, index: int) -> list[bytes]:
    """The floor of a proof."""
    return merkle.inclusion_path(index, reader.size, tile_nodes(reader.layout.root, reader.size))


# ---- verify


@dataclass
class Watched:
    """One run of a command with its processes watched."""

    seconds: float
    cpu_seconds: float
    """Of all its processes; what a busy machine leaves as it is."""
    main_mib: int
    """Peak of its own memory, without the files it maps."""
    main_rss_mib: int
    """Peak with them."""
    worker_mib: int
    """Of the largest other process, likewise."""
    worker_rss_mib: int


def watch(arguments: Sequence[object], environment: dict[str, str]) -> Watched:
    """Run a command of ours, which must succeed, and look at its processes five times a second."""
    start, spent = time.perf_counter(), children_cpu_seconds()
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], env=environment, stdout=subprocess.DEVNULL)
    peaks = {(who, what): 0 for who in ("main", "worker") for what in ("RssAnon", "VmHWM")}
    while process.poll() is None:
        for pid in [process.pid, *_below(process.pid)]:
            who = "main" if pid == process.pid else "worker"
            for what, kib in _memory(pid).items():
                peaks[who, what] = max(peaks[who, what], kib >> 10)
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    assert process.returncode == 0, arguments
    return Watched(
        seconds,
        children_cpu_seconds() - spent,
        peaks["main", "RssAnon"],
        peaks["main", "VmHWM"],
        peaks["worker", "RssAnon"],
        peaks["worker", "VmHWM"],
    )


def children_cpu_seconds() -> float:
    """User and system time of the processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _below(pid: int) -> list[int]:
    """The processes that it has started, in whichever of its threads."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, listed.read_text().split())
    return found


def _memory(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if name in ("RssAnon", "VmHWM")}


def openssl(store: Large, place: Path) -> tuple[float, float]:
    """`openssl dgst -sha256` over the records of the first file: bytes a second, and a second of processor time."""
    path = place / "records.bytes"
    if not path.exists():
        with path.open("wb") as out:
            for batch in read_batches(store.root / "records" / "0-1000000.0.parquet", names=["record"]):
                out.writelines(batch.column(0).to_pylist())
    size, spent = path.stat().st_size, children_cpu_seconds()
    seconds = timed(partial(subprocess.run, ["openssl", "dgst", "-sha256", path], check=True, capture_output=True))
    return size / seconds, size / (children_cpu_seconds() - spent)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there: nothing to compare with")
def test_verify(small: Large, large: Large, tmp_path: Path) -> None:
    """The whole command over both stores: as fast for either, and in the same memory.

    The floor is `openssl dgst -sha256` over the same record bytes, one thread, files in the page cache. By the clock `trail verify` uses
    all cores; by processor time nobody else's work is in the figure.
    """
    environment = os.environ | {f"XDG_{kind}_HOME": str(tmp_path / kind) for kind in ("CONFIG", "STATE", "CACHE")}
    floors = [openssl(small, tmp_path) for _ in range(3)]
    runs = []
    for store in (small, large):
        runs.append(watch(["verify", "--store", store.root, "--key", store.vkey, "--json"], environment))
        floors += [openssl(small, tmp_path) for _ in range(3)]
    ratios = sorted(large.record_bytes / runs[1].seconds / clock for clock, _cpu in floors)
    cpu_ratios = sorted(large.record_bytes / runs[1].cpu_seconds / cpu for _clock, cpu in floors)
    report(
        "verify_large",
        records=[small.records, large.records],
        record_bytes=round(large.record_bytes / large.records),
        cores=os.cpu_count(),
        seconds=[round(run.seconds, 1) for run in runs],
        cpu_seconds=[round(run.cpu_seconds, 1) for run in runs],
        records_s=round(large.records / runs[1].seconds),
        openssl_mib_s=[round(clock / 2**20) for clock, _cpu in sorted(floors)[:: len(floors) - 1]],
        ratio_to_openssl=[round(ratio, 3) for ratio in (ratios[0], statistics.median(ratios), ratios[-1])],
        cpu_ratio_to_openssl=[round(ratio, 3) for ratio in (cpu_ratios[0], statistics.median(cpu_ratios), cpu_ratios[-1])],
        main_mib=[run.main_mib for run in runs],
        main_rss_mib=[run.main_rss_mib for run in runs],
        worker_mib=[run.worker_mib for run in runs],
        worker_rss_mib=[run.worker_rss_mib for run in runs],
    )
    assert runs[1].main_mib < 1.25 * runs[0].main_mib + 16, "the memory of verify grows with the store"
    assert runs[1].worker_mib < 1.25 * runs[0].worker_mib + 64, "the memory of a worker grows with the store"
    assert statistics.median(cpu_ratios) > 0.02


# ---- signing and publishing


@contextlib.contextmanager
def serving(place: Path, **settings: float) -> Iterator[Server]:
    """A fresh store with these settings, and its server."""
    environment = os.environ | {f"XDG_{kind}_HOME": str(place / kind) for kind in ("CONFIG", "STATE", "CACHE")}
    store = place / "store"
    subprocess.run([*COMMAND, "init", "--store", str(store)], env=environment, check=True, capture_output=True)
    with (store / "trail.toml").open("a") as toml:
        toml.writelines(f"{name} = {value}\n" for name, value in settings.items())
    with _listening([*COMMAND, "serve", "--store", str(store), "--http", "127.0.0.1:0"], environment) as (process, port):
        yield Server(store, port, process.pid, environment)


@contextlib.contextmanager
def _listening(command: list[str], environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = next((line for line in process.stderr if line.startswith("listening")), None)
    assert line is not None, "it did not start"
    drain = threading.Thread(target=process.stderr.read, daemon=True)
    drain.start()
    try:
        yield process, int(line.split("http://127.0.0.1:")[1].split()[0])
    finally:
        process.terminate()
        process.wait(60)
        drain.join()
        process.stderr.close()


def test_publishing(tmp_path: Path) -> None:
    """What one checkpoint of half a second's records costs the writer: tiles, signature, two durable files. Its share of that half second
    is what ingest loses.

    The floor is the files alone: as many tiles, written plainly, and two durable ones.
    """
    signer = Signer.generate("bench.example/publishing")
    tree = TreeWriter.load(tmp_path, 0)
    last_signed = LastSigned(tmp_path / "last-signed")
    times: dict[str, list[float]] = {name: [] for name in ("publish", "publish_cpu", "files")}
    for number in range(ROUNDS):
        tree.extend(random.Random(number).randbytes(merkle.HASH_SIZE * RECORDS_A_CHECKPOINT))
        start, spent = time.perf_counter(), time.thread_time()
        tree.write()
        note = sign_checkpoint(Checkpoint(signer.name, tree.size, tree.root()), signer)
        last_signed.write(note)
        durable.replace(tmp_path / "checkpoint", note)
        times["publish_cpu"].append(time.thread_time() - spent)
        times["publish"].append(time.perf_counter() - start)
        times["files"].append(timed(files_alone, tmp_path / "floor", number, note))
    medians = {name: statistics.median(values) for name, values in times.items()}
    report(
        "publishing",
        records_a_checkpoint=RECORDS_A_CHECKPOINT,
        **{f"{name}_ms": percentiles(values) for name, values in times.items()},
        ratio_to_floor=round(medians["publish"] / medians["files"], 1),
        share_of_half_a_second={name: round(medians[name] / 0.5, 4) for name in ("publish", "publish_cpu")},
    )
    assert medians["publish_cpu"] < 0.1 * 0.5


def files_alone(place: Path, number: int, note: bytes) -> None:
    """The floor of a checkpoint."""
    place.mkdir(exist_ok=True)
    for tile in range(RECORDS_A_CHECKPOINT // TILE_WIDTH):
        (place / f"{number}-{tile}").write_bytes(bytes(TILE_BYTES))
    for _ in range(2):
        durable.replace(place / "note", note)


def test_signing(bodies: list[bytes], tmp_path: Path) -> None:
    """Ingest with a checkpoint every half second, and with none until the server stops; by turns, so that both see one machine.

    What is compared is the processor time of the server, which a busy machine disturbs less than the clock. Their difference is smaller
    than the spread of either: `test_publishing` measures it alone.
    """
    kinds = {"signing": {}, "not_signing": {"checkpoint_seconds": 3600.0}}
    cpu: dict[str, list[float]] = {name: [] for name in kinds}
    rate: dict[str, list[float]] = {name: [] for name in kinds}
    checkpoints = {}
    for number, name in enumerate(["signing", "not_signing", "not_signing", "signing"] * 2):
        with serving(tmp_path / str(number), **kinds[name]) as server:
            post(server.port, bodies[:2])  # imports, and the first of everything
            spent = server.cpu_seconds()
            posted = post(server.port, bodies[2 : 2 + REQUESTS])
            cpu[name].append((server.cpu_seconds() - spent) / posted.spans * 1e5)
            rate[name].append(posted.spans / posted.seconds)
            checkpoints[name] = (server.store / "checkpoint").read_text().split("\n")[1] if (server.store / "checkpoint").exists() else "0"
        shutil.rmtree(tmp_path / str(number))
    medians = {name: statistics.median(values) for name, values in cpu.items()}
    report(
        "signing",
        cpu_s_per_100k={name: [round(value, 2) for value in sorted(values)] for name, values in cpu.items()},
        acknowledged_spans_s={name: [round(value) for value in sorted(values)] for name, values in rate.items()},
        cpu_ratio=round(medians["signing"] / medians["not_signing"], 3),
        rate_ratio=round(statistics.median(rate["signing"]) / statistics.median(rate["not_signing"]), 3),
        checkpoint_sizes=checkpoints,
    )
    assert medians["signing"] < 1.25 * medians["not_signing"]


# ---- witness


def test_witness(small: Large, tmp_path: Path) -> None:
    """One checkpoint of a log of a million records submitted to a witness on loopback: request, proof, its disk, cosignature.

    The floor is what cannot be left out: a round trip to the same server, and one durable replacement of a small file.
    """
    environment = dict(os.environ)
    place = str(tmp_path / "witness")
    for arguments in (["init", "--name", "bench.example/witness"], ["add-log", small.vkey]):
        subprocess.run([*COMMAND, "witness", *arguments, "--dir", place], env=environment, check=True, capture_output=True)
    times: dict[str, list[float]] = {name: [] for name in ("submit", "round_trip", "replace")}
    nodes = tile_nodes(small.root, small.records)
    rng = random.Random(5)
    sizes = sorted(rng.sample(range(1, small.records), ROUNDS))
    with _listening([*COMMAND, "witness", "serve", "--dir", place, "--http", "127.0.0.1:0"], environment) as (_process, port):
        client = WitnessClient(f"http://127.0.0.1:{port}")
        for old, new in zip([0, *sizes], sizes, strict=False):
            note = sign_checkpoint(Checkpoint(small.signer.name, new, merkle.root_from(new, nodes)), small.signer)
            request = AddCheckpoint(old=old, proof=tuple(merkle.consistency_path(old, new, nodes)), note=note)
            start = time.perf_counter()
            answer = client.submit(request)
            times["submit"].append(time.perf_counter() - start)
            assert isinstance(answer, Cosigned), answer
            times["round_trip"].append(timed(client.newest, small.signer.name))
            times["replace"].append(timed(durable.replace, tmp_path / "note", note))
        client.close()
    floor = statistics.median(times["round_trip"]) + statistics.median(times["replace"])
    report(
        "witness",
        records=small.records,
        **{f"{name}_ms": percentiles(values) for name, values in times.items()},
        ratio_to_floor=round(statistics.median(times["submit"]) / floor, 2),
    )
    assert statistics.median(times["submit"]) < 10 * floor
