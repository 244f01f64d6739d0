"""A server from its start to its end: what it opens and in which order, what it says, and how it stops without losing anything.

Only `trail serve` loads this module, and with it everything a server needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from fastapi import APIRouter

from ingest import vocabularies
from ingest.auth import LiveTokens
from ingest.http import Limits, create_app
from ingest.pipeline import Pipeline
from ingest.server import Address, addresses_of, listen, serve
from ingest.witness import create_witness_router
from ledger.errors import LedgerError, VerificationError
from ledger.keys import config_dir, default_key_path, slug
from ledger.layout import Layout
from ledger.settings import Settings
from ledger.timestamping import Stamper
from ledger.witness import WitnessStore
from ledger.writer import StoreWriter
from query.custody import Looks
from query.log_api import create_log_router
from tui import running
from tui.exits import Exit
from tui.exposure import exposures
from tui.interrupts import deaf_children
from tui.opening import trust_of
from tui.output import say, shout, warn
from tui.senders import Senders, auditors
from tui.witnessing import Witnessing

logger = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0
_WITNESS_PREFIX: Final = "/witness"


def serve_store(
    store: Path, address: Address, *, key_path: Path | None, tokens_path: Path | None, witness_path: Path | None, processes: int | None
) -> Exit:
    """Listen, open the store, serve until a signal, then close in the order that loses nothing.

    Args:
        store: its directory.
        address: where to listen.
        key_path: the signing key; None for where `trail init` put it.
        tokens_path: the token file; None for where `trail token` puts it.
        witness_path: the directory of a witness to be as well.
        processes: how many decoders; None for one a core.

    Raises:
        LedgerError: it cannot start; nothing was signed then.
    """
    settings, _text = Settings.load(Layout(store))
    key_path = key_path or default_key_path(settings.origin)
    senders = Senders(tokens_path or config_dir() / f"tokens-{slug(settings.origin)}.json")
    witnessing = Witnessing(Layout(store))
    # Whoever names the roots of authorities wants no token of another one in the store.
    roots = trust_of(settings.origin, None).tsa_roots if settings.timestamp_urls else ()
    stamper = Stamper(Layout(store), settings.timestamp_urls, seconds=settings.timestamp_seconds, roots=roots)
    # First of all, so that a taken port is found before the log says that it started.
    sockets = listen(address, tokens_in_use=senders.in_use)
    announced = running.running_path(settings.origin)
    with contextlib.ExitStack() as undo:
        for opened in sockets:
            undo.callback(opened.close)
        witness = _Witness(witness_path)
        undo.callback(witness.close)
        with deaf_children():
            writer = StoreWriter.open(store, command="trail serve", key_path=key_path, before_signing=witnessing.compare)
            undo.callback(writer.close)
            senders.attach(writer)
            _record_configuration(writer)
            witnessing.attach(writer)
            pipeline = Pipeline(writer, processes=processes)
            undo.callback(pipeline.close)
        tokens = LiveTokens(senders.path) if senders.in_use else None
        looks = _looks(writer)
        app = create_app(
            pipeline,
            tokens=tokens,
            limits=Limits(body_bytes=settings.request_bytes),
            ready=lambda: str(writer.log.fault or ""),
            extra_routers=[
                create_log_router(store, authorize=auditors(tokens, pipeline), looks=looks, local_only=tokens is None),
                *witness.routers,
            ],
        )
        url = f"http://{addresses_of(sockets)[0]}"
        closing = _Closing(pipeline, writer, [senders, witnessing], announced, looks, stamper)

        async def started() -> None:
            here = running.Running(os.getpid(), socket.gethostname(), str(store.resolve()), url, senders.in_use)
            running.announce(announced, here)
            _say_started(url, store, writer, in_use=senders.in_use)
            witnessing.say()
            witness.say(url, own=settings.origin)
            closing.watch()
            stamper.start()

        undo.pop_all()
        serve(app, sockets, on_start=[started], on_stop=[*closing.steps, witness.stop])
    if isinstance(writer.log.fault, VerificationError):
        shout("NOTHING MORE WAS SIGNED", f"{writer.log.fault.message}: {writer.log.fault.hint}")
        return Exit.FALSE
    if closing.unsealed:
        say(f"stopped: {closing.unsealed:,} records could not be sealed; they stay in the journal, and the next start seals them")
        return Exit.STORAGE
    say("stopped: everything received is sealed")
    return Exit.OK


def _record_configuration(writer: StoreWriter) -> None:
    """Facts are judged by the vocabulary that made them, so its text is in the log."""
    for label, text in vocabularies.load().texts.items():
        writer.record_config(f"vocabulary {label}", text)


def _looks(writer: StoreWriter) -> Looks:
    """Where reading whole records over HTTP is recorded."""
    return Looks(lambda body: writer.append("custody", body, facts={"name": body["what"]}), why="read over HTTP")


def _say_started(url: str, store: Path, writer: StoreWriter, *, in_use: bool) -> None:
    say(f"listening  {url} (OTLP/HTTP{', tokens required' if in_use else ', this machine only, no tokens'})")
    say(f"store      {store}")
    say(f"log        {writer.settings.origin}")
    say(f"vkey       {writer.key.signer.vkey}")
    readers = "with a token of role auditor" if in_use else "to nobody without tokens"
    say(f"published  {url}/log/checkpoint and /log/tile: hashes to whoever reaches it, whole records {readers}")
    for found in exposures(writer.layout, origin=writer.settings.origin, key=writer.key.path):
        warn(f"{found.what}: {found.fix}")


class _Witness:
    """The witness that this server is beside its own log, for the logs of others; without a directory, nothing."""

    def __init__(self, directory: Path | None) -> None:
        """Load its key, and keep any other process from cosigning with it.

        Raises:
            LedgerError: its directory cannot be used, or another process cosigns with it.
        """
        self.routers: list[APIRouter] = []
        self._store: WitnessStore | None = None
        if directory is not None:
            self._store = WitnessStore.open(directory, clock=lambda: int(time.time()), command="trail serve")
            self.routers = [create_witness_router(self._store, _WITNESS_PREFIX)]

    def say(self, url: str, *, own: str) -> None:
        """Tell where it is and who it is; `own` is the log of this server."""
        if self._store is None:
            return
        say(f"witness    {url}{_WITNESS_PREFIX} ({self._store.cosigner.vkey})")
        if any(log.verifier.name == own for log in self._store.files.load_logs()):
            warn("the witness here also cosigns for this server's own log, which convinces nobody: whoever has the one has the other")

    def close(self) -> None:
        """Cosign nothing any more."""
        if self._store is not None:
            self._store.close()

    async def stop(self) -> None:
        """Close, once the requests are answered."""
        await asyncio.to_thread(self.close)


class _Watched(Protocol):
    """A file of the configuration whose changes are recorded while the server runs."""

    path: Path

    def record_change(self) -> None: ...


class _Closing:
    """What happens at the end, in this order: no more telemetry, then the store, then nobody is sent here any more."""

    def __init__(
        self, pipeline: Pipeline, writer: StoreWriter, files: Sequence[_Watched], announced: Path, looks: Looks, stamper: Stamper
    ) -> None:
        self._pipeline = pipeline
        self._writer = writer
        self._files = files
        self._announced = announced
        self._looks = looks
        self._stamper = stamper
        self._watching: asyncio.Task[None] | None = None
        self.unsealed = 0
        """Records that were there at the end and could not be sealed: the disk was full, or failed."""
        self.steps = [self._stop_watching, self._close_pipeline, self._close_writer, self._withdraw]

    def watch(self) -> None:
        """Look at the files of senders and witnesses every second."""
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            for file in self._files:
                try:
                    await asyncio.to_thread(file.record_change)
                except LedgerError as exc:
                    logger.error("the change of %s is not recorded: %s", file.path, exc)

    async def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    async def _close_pipeline(self) -> None:
        say("stopping: sealing what was received")
        await asyncio.to_thread(self._stamper.stop)
        await asyncio.to_thread(self._pipeline.close)
        await asyncio.to_thread(self._looks.close)

    async def _close_writer(self) -> None:
        received = self._writer.log.size
        await asyncio.to_thread(self._writer.close)
        segments = self._writer.sealer.segments
        self.unsealed = max(0, received - (segments[-1].end if segments else 0))

    async def _withdraw(self) -> None:
        running.withdraw(self._announced)
