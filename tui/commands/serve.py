"""`trail serve`: the server that receives OpenTelemetry and writes the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.errors import LedgerError, StoreMissing
from ledger.keys import config_dir, default_key_path, slug
from tui import running
from tui.exits import Exit
from tui.exposure import exposures
from tui.interrupts import deaf_children
from tui.output import say, warn
from tui.verb import Checked, store_of, verb

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.server import Address
    from ledger.writer import StoreWriter

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0


def _address(text: str) -> Address:
    from ingest.server import Address

    return Address.parse(text)


@verb(
    "serve",
    examples=[
        ("trail serve", "on this machine only, for exporters that use the default port"),
        ("trail serve --store /srv/trail --http 0.0.0.0:4318", "for other machines too, which needs tokens: see trail token"),
    ],
    exits={
        Exit.OK: "stopped by a signal, everything drained and sealed",
        Exit.FALSE: "the store is not what was signed: it is not written on",
    },
)
@click.option(
    "--http",
    "address",
    metavar="HOST:PORT",
    type=Checked("address", _address),
    default="127.0.0.1:4318",
    show_default=True,
    help="Where to listen for OTLP/HTTP; port 0 takes a free one.",
)
@click.option(
    "--key", metavar="FILE", type=click.Path(path_type=Path), help="The signing key.  [default: TRAIL_KEY, else where trail init put it]"
)
@click.option("--tokens", metavar="FILE", type=click.Path(path_type=Path), help="The token file.  [default: where trail token puts it]")
@click.option("--init", "make", is_flag=True, help="Make the store first if there is none.")
@click.option("--processes", type=click.IntRange(1, 256), help="How many decoders.  [default: one a core]")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.pass_context
def command(
    context: click.Context, address: Address, key: Path | None, tokens: Path | None, make: bool, processes: int | None, verbose: bool
) -> Exit:
    """Receive OpenTelemetry (OTLP over HTTP: traces and logs, protobuf or JSON) and keep it.

    An exporter gets its 200 only after its request is on disk. Without tokens the server listens on this machine only and says of every
    record that it came from "loopback". SIGTERM and Ctrl-C finish the requests in progress, seal what was received, and stop.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    store = store_of(context)
    _make_if_wanted(store, key, make=make)
    return _serve(store, address, key_path=key, tokens_path=tokens, processes=processes)


def _make_if_wanted(store: Path, key: Path | None, *, make: bool) -> None:
    from ledger.layout import Layout
    from ledger.settings import Settings
    from tui.commands.init import make_store

    try:
        Settings.load(Layout(store))
    except StoreMissing as exc:
        if not make:
            raise StoreMissing(exc.message, path=exc.path, hint="make it with trail init, or let this do it: trail serve --init") from exc
        made = make_store(store, key=key)
        say(f"made the store {store}, log {made['origin']}")


def _serve(store: Path, address: Address, *, key_path: Path | None, tokens_path: Path | None, processes: int | None) -> Exit:
    """Listen, open the store, serve until a signal, then close in the order that loses nothing."""
    from ingest.auth import LiveTokens
    from ingest.http import Limits, create_app
    from ingest.pipeline import Pipeline
    from ingest.server import addresses_of, listen, run
    from ledger.layout import Layout
    from ledger.settings import Settings
    from ledger.writer import StoreWriter

    settings, _text = Settings.load(Layout(store))
    key_path = key_path or default_key_path(settings.origin)
    senders = _Senders(tokens_path or config_dir() / f"tokens-{slug(settings.origin)}.json")
    # First of all, so that a taken port is found before the log says that it started.
    sockets = listen(address, tokens_in_use=senders.in_use)
    announced = running.running_path(settings.origin)
    with contextlib.ExitStack() as undo:
        for opened in sockets:
            undo.callback(opened.close)
        with deaf_children():
            writer = StoreWriter.open(store, command="trail serve", key_path=key_path)
            undo.callback(writer.close)
            senders.attach(writer)
            _record_configuration(writer)
            pipeline = Pipeline(writer, processes=processes)
            undo.callback(pipeline.close)
        app = create_app(
            pipeline,
            tokens=LiveTokens(senders.path) if senders.in_use else None,
            limits=Limits(body_bytes=settings.request_bytes),
            ready=lambda: str(writer.log.fault or ""),
        )
        url = f"http://{addresses_of(sockets)[0]}"
        closing = _Closing(pipeline, writer, senders, announced)

        async def started() -> None:
            here = running.Running(os.getpid(), socket.gethostname(), str(store.resolve()), url, senders.in_use)
            running.announce(announced, here)
            _say_started(url, store, writer, in_use=senders.in_use)
            closing.watch()

        undo.pop_all()
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run(app, sockets, on_start=[started], on_stop=closing.steps))
    if closing.unsealed:
        say(f"stopped: {closing.unsealed:,} records could not be sealed; they stay in the journal, and the next start seals them")
        return Exit.STORAGE
    say("stopped: everything received is sealed")
    return Exit.OK


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it is not built for every platform
        return None
    return uvloop.new_event_loop


def _record_configuration(writer: StoreWriter) -> None:
    """Facts are judged by the vocabulary that made them, so its text is in the log."""
    from ingest import vocabularies

    for label, text in vocabularies.load().texts.items():
        writer.record_config(f"vocabulary {label}", text)


def _say_started(url: str, store: Path, writer: StoreWriter, *, in_use: bool) -> None:
    say(f"listening  {url} (OTLP/HTTP{', tokens required' if in_use else ', this machine only, no tokens'})")
    say(f"store      {store}")
    say(f"log        {writer.settings.origin}")
    say(f"vkey       {writer.key.signer.vkey}")
    for found in exposures(writer.layout, origin=writer.settings.origin, key=writer.key.path):
        warn(f"{found.what}: {found.fix}")


class _Senders:
    """The token file: in use if a token in it is valid at the start, and recorded (without digests) whenever it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            LedgerError: it is damaged or open to others.
        """
        from ingest.auth import TokenFile

        self.path = path
        now = time.time_ns()
        tokens = TokenFile.load(path).tokens
        self.in_use = any(token.revoked is None and (token.expires is None or token.expires > now) for token in tokens)
        if tokens and not self.in_use:
            warn(f"none of the {len(tokens)} tokens in {path} is valid any more: whoever is on this machine may send")
        self._writer: StoreWriter | None = None
        self._seen: object = None

    def attach(self, writer: StoreWriter) -> None:
        """Record the senders as they are now."""
        self._writer = writer
        self.record_change()

    def record_change(self) -> None:
        """Record the senders if the file is another one than at the last look.

        Raises:
            LedgerError: it is damaged, or the record could not be made durable.
        """
        from ingest.auth import TokenFile

        version = self._version()
        if self._writer is None or version == self._seen:
            return
        tokens: list[dict[str, Any]] = [
            {
                "name": token.name,
                "role": token.role.value,
                "services": list(token.services),
                "expires": None if token.expires is None else str(token.expires),
                "revoked": None if token.revoked is None else str(token.revoked),
            }
            for token in TokenFile.load(self.path).tokens
        ]
        self._writer.record_config("senders", json.dumps({"in_use": self.in_use, "tokens": tokens}, indent=1))
        self._seen = version

    def _version(self) -> object:
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns


class _Closing:
    """What happens at the end, in this order: no more telemetry, then the store, then nobody is sent here any more."""

    def __init__(self, pipeline: Pipeline, writer: StoreWriter, senders: _Senders, announced: Path) -> None:
        self._pipeline = pipeline
        self._writer = writer
        self._senders = senders
        self._announced = announced
        self._watching: asyncio.Task[None] | None = None
        self.unsealed = 0
        """Records that were there at the end and could not be sealed: the disk was full, or failed."""
        self.steps = [self._stop_watching, self._close_pipeline, self._close_writer, self._withdraw]

    def watch(self) -> None:
        """Look at the token file every second."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                await asyncio.to_thread(self._senders.record_change)
            except LedgerError as exc:
                logger.error("the change of %s is not recorded: %s", self._senders.path, exc)

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    async def _close_pipeline(self) -> None:
        say("stopping: sealing what was received")
        await asyncio.to_thread(self._pipeline.close)

    async def _close_writer(self) -> None:
        received = self._writer.log.size
        await asyncio.to_thread(self._writer.close)
        segments = self._writer.sealer.segments
        self.unsealed = max(0, received - (segments[-1].end if segments else 0))

    async def _withdraw(self) -> None:
        running.withdraw(self._announced)
