"""`trail import`: telemetry that lies in files."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from ledger.errors import StoreLocked
from tui.exits import Exit
from tui.interrupts import deaf_children
from tui.output import Progress, emit, emit_json, say
from tui.verb import json_option, store_of, verb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from ingest.otlp import Encoding, Signal
    from ledger.settings import Settings
    from tui.telemetry_files import Body

_IN_FLIGHT: Final = 8
"""Requests in work at once: enough for all decoders, few enough to stay near the order of the file."""
_NAMED: Final = 20
"""Bad lines named on stderr; `--json` has them all."""
_SENDER: Final = "import"
_UNKNOWN: Final = "it cannot be told whether it holds traces, logs or metrics: --signal says so"


@dataclass(slots=True)
class Outcome:
    """What an import came to."""

    requests: int = 0
    kept: int = 0
    """Records."""
    duplicates: int = 0
    """Requests that had been kept before."""
    not_kept: int = 0
    """Metric data points, which are counted and not kept."""
    bad: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a body was not kept."""

    why: str
    quarantined: bool


class Taker(Protocol):
    """Where bodies go: a running server, or our own writer."""

    async def take(self, body: Body, signal: Signal | None, encoding: Encoding, outcome: Outcome) -> Refusal | None:
        """Keep one body and count it; or say why it was not kept."""


@verb(
    "import",
    examples=[
        ("trail import traces.jsonl logs.jsonl.gz", "what the Collector's file exporter wrote"),
        ("trail import request.pb --signal logs", "one protobuf request, said to be of log records"),
    ],
    exits={
        Exit.UNVERIFIABLE: "something could not be read: it is named and quarantined, everything else is kept",
        Exit.STORAGE: "storage, I/O or the server failed: import again, nothing is kept twice within a day",
    },
)
@click.argument("files", nargs=-1, required=True, metavar="FILES...", type=click.Path(path_type=Path))
@click.option("--signal", type=click.Choice(["traces", "logs", "metrics"]), help="What is in the files.  [default: what they look like]")
@click.option("--key", metavar="FILE", type=click.Path(path_type=Path), help="The signing key, where no server is running.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A file with the token that a running server wants.  [default: TRAIL_TOKEN]",
)
@json_option
@click.pass_context
def command(
    context: click.Context, files: tuple[Path, ...], signal: str | None, key: Path | None, token_file: Path | None, as_json: bool
) -> Exit:
    """Keep OpenTelemetry from files: OTLP requests as protobuf (.pb), as JSON (.json), or one JSON request a line (.jsonl).

    Each may be compressed (.gz, .zst). If a server is running for the store they are sent there, else this takes the store itself, with
    the sender "import". What cannot be read is named by file and line and put into quarantine; the rest is kept. The same request is
    not kept twice within a day.
    """
    from ledger.layout import Layout
    from ledger.settings import Settings
    from tui.telemetry_files import KNOWN, is_known

    store = store_of(context)
    settings, _text = Settings.load(Layout(store))
    for path in files:
        path.stat()
        if not is_known(path):
            raise click.UsageError(f"{path}: the name does not say what is in it; {KNOWN}", context)
    token = token_file.read_text("utf-8").strip() if token_file is not None else os.environ.get("TRAIL_TOKEN")
    with Progress("importing", unit="records") as progress:
        outcome = asyncio.run(_import(store, settings, files, signal, key, token, progress))
    _report(outcome, as_json=as_json)
    return Exit.UNVERIFIABLE if outcome.bad else Exit.OK


async def _import(
    store: Path, settings: Settings, files: tuple[Path, ...], signal: str | None, key: Path | None, token: str | None, progress: Progress
) -> Outcome:
    """Send to the server that holds the lock, or hold it ourselves."""
    from ingest.pipeline import Pipeline
    from tui.posting import Poster
    from tui.running import find_server
    from tui.witnessing import open_witnessed

    try:
        with deaf_children():
            writer = open_witnessed(store, command="trail import", key_path=key)
    except StoreLocked:
        server = find_server(settings.origin, store)
        if server is None:
            raise
        say(f"sending to the running server at {server.http}")
        poster = Poster(server.http, token=token)
        try:
            return await _take_all(files, signal, settings, _Server(poster), progress, at_once=1)
        finally:
            poster.close()
    try:
        with deaf_children():
            pipeline = Pipeline(writer)
        try:
            return await _take_all(files, signal, settings, _Own(pipeline), progress, at_once=_IN_FLIGHT)
        finally:
            pipeline.close()
    finally:
        writer.close()


async def _take_all(
    files: tuple[Path, ...], signal: str | None, settings: Settings, taker: Taker, progress: Progress, *, at_once: int
) -> Outcome:
    outcome = Outcome()
    waiting: list[asyncio.Task[tuple[Body, Refusal | None]]] = []

    async def one(body: Body) -> tuple[Body, Refusal | None]:
        if body.why:
            return body, Refusal(body.why, False)
        found, encoding = _look(body, signal)
        return body, await taker.take(body, found, encoding, outcome)

    async def oldest() -> None:
        """Finish in the order of the files, so that what is wrong is told in that order."""
        body, refusal = await waiting[0]
        waiting.pop(0)
        outcome.requests += 1
        if refusal is not None:
            outcome.bad.append({"place": body.place, "why": refusal.why})
            if len(outcome.bad) <= _NAMED:
                say(f"{body.place}: {refusal.why}{' (quarantined)' if refusal.quarantined else ''}")
        progress(outcome.kept, 0)

    try:
        for body in _all_bodies(files, settings.request_bytes):
            waiting.append(asyncio.create_task(one(body)))
            if len(waiting) >= at_once:
                await oldest()
        while waiting:
            await oldest()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return outcome


def _all_bodies(files: tuple[Path, ...], limit: int) -> Iterator[Body]:
    from tui.telemetry_files import bodies

    for path in files:
        yield from bodies(path, limit=limit)


def _look(body: Body, signal: str | None) -> tuple[Signal | None, Encoding]:
    """Which signal it is (None where that cannot be told), and how it is encoded."""
    from ingest.otlp import Encoding, Signal

    encoding = Encoding.JSON if body.is_json else Encoding.PROTOBUF
    return Signal(signal) if signal is not None else _signal_of(body.data, encoding), encoding


def _signal_of(data: bytes, encoding: Encoding) -> Signal | None:
    """What a request looks like: JSON by its member's name; protobuf, whose three requests have one shape, by its first item."""
    import orjson

    from ingest.otlp import Encoding, Signal, Undecodable, parse

    if encoding is Encoding.JSON:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return Signal.TRACES  # whoever decodes it will say what is wrong with it, and put it into quarantine
        names = {"resourceSpans": Signal.TRACES, "resourceLogs": Signal.LOGS, "resourceMetrics": Signal.METRICS}
        return next((found for name, found in names.items() if isinstance(value, dict) and name in value), None)
    # Metrics before logs: a gauge lies where a log record has its body, but a log record has nothing where a metric has its name.
    for signal in (Signal.TRACES, Signal.METRICS, Signal.LOGS):
        try:
            message = parse(signal, data, encoding).message
        except Undecodable:
            continue
        if _is_plausible(signal, message):
            return signal
    return None


def _is_plausible(signal: Signal, message: Message) -> bool:
    from ingest.otlp import Signal

    resources: Any = next((value for _field, value in message.ListFields()), ())
    scopes: Any = (
        scope for resource in resources for _field, value in resource.ListFields() if _field.name.startswith("scope_") for scope in value
    )
    for scope in scopes:
        match signal:
            case Signal.TRACES if len(scope.spans):
                return len(scope.spans[0].trace_id) == 16 and len(scope.spans[0].span_id) == 8
            case Signal.LOGS if len(scope.log_records):
                item = scope.log_records[0]
                return bool(item.time_unix_nano or item.observed_time_unix_nano or item.HasField("body"))
            case Signal.METRICS if len(scope.metrics):
                return bool(scope.metrics[0].name) and scope.metrics[0].WhichOneof("data") is not None
            case _:
                continue
    return False


class _Own:
    """Our own writer."""

    def __init__(self, pipeline: Any) -> None:
        from ingest.auth import Sender

        self._pipeline = pipeline
        self._sender = Sender(_SENDER, None, ())

    async def take(self, body: Body, signal: Signal | None, encoding: Encoding, outcome: Outcome) -> Refusal | None:
        """See `Taker`."""
        from ingest.otlp import Undecodable

        now, media_type = time.time_ns(), encoding.media_type
        if signal is None:
            await self._pipeline.quarantine(body=body.data, why=_UNKNOWN, sender=self._sender, content_type=media_type, received=now)
            return Refusal(_UNKNOWN, True)
        try:
            kept = await self._pipeline.accept(
                signal=signal,
                body=body.data,
                encoding=encoding,
                sender=self._sender,
                received=now,
                content_type=media_type,
                content_encoding="none",
            )
        except Undecodable as exc:
            return Refusal(exc.message, True)
        outcome.duplicates += kept.duplicate
        outcome.kept += 0 if kept.duplicate else kept.end - kept.start
        outcome.not_kept += kept.not_kept
        return None


class _Server:
    """A running server."""

    def __init__(self, poster: Any) -> None:
        self._poster = poster

    async def take(self, body: Body, signal: Signal | None, encoding: Encoding, outcome: Outcome) -> Refusal | None:
        """See `Taker`."""
        from ingest.otlp import Signal, count, parse

        if signal is None:  # nothing to send it as: a server takes any protobuf for spans it does not know
            return Refusal(_UNKNOWN, False)
        answer = await asyncio.to_thread(self._poster.post, str(signal), body.data, media_type=encoding.media_type)
        if answer.refused:
            return Refusal(str(answer.refused), answer.quarantined)
        outcome.duplicates += answer.duplicate
        outcome.kept += 0 if answer.duplicate else answer.records
        if signal is Signal.METRICS:
            outcome.not_kept += count(parse(signal, body.data, encoding).message)
        return None


def _report(outcome: Outcome, *, as_json: bool) -> None:
    if len(outcome.bad) > _NAMED:
        say(f"and {len(outcome.bad) - _NAMED:,} more")
    if as_json:
        emit_json(asdict(outcome))
        return
    text = f"kept {outcome.kept:,} records of {outcome.requests:,} requests"
    text += f"; {outcome.duplicates:,} had been kept before" if outcome.duplicates else ""
    text += f"; {outcome.not_kept:,} metric data points are counted and not kept" if outcome.not_kept else ""
    text += f"; {len(outcome.bad):,} could not be read" if outcome.bad else ""
    emit(text)
