"""Decoder processes: requests go to them over a pipe each, and come back as journal parts.

Not `concurrent.futures`: measured with bodies of 1.5 MB and parts of 2.6 MB its queues cost 14 us of CPU a span, as much as the Parquet
files, against 1.5 us for plain messages over a pipe (`ingest/CONVENTIONS.md`, Decisions). One thread a process waits for its answers.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import pickle
import queue
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ingest.prepare import Job, Prepared, Preparer, start_process
from ledger.errors import InvariantError, LedgerError, StorageError
from ledger.journal import Part

logger = logging.getLogger(__name__)


class Decoders:
    """A fixed number of decoder processes; a process that dies is replaced, and its request fails with a `StorageError`."""

    def __init__(self, count: int, secret: bytes) -> None:
        """Start the processes and wait until they answer: a server that is ready takes no request into a cold start."""
        self._secret = secret
        self._context = multiprocessing.get_context("spawn")
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Prepared]] | None] = queue.SimpleQueue()
        self._closed = False
        started = [self._start() for _ in range(count)]
        for _process, connection in started:
            connection.recv_bytes()
        self._threads = [
            threading.Thread(target=self._serve, args=pair, name=f"trail-decoder-{i}", daemon=True) for i, pair in enumerate(started)
        ]
        for thread in self._threads:
            thread.start()

    async def prepare(self, job: Job) -> Prepared:
        """Decode one request.

        Raises:
            LedgerError: what the decoder raised (`Undecodable`, `Forbidden`), or `StorageError` when it died.
        """
        future: Future[Prepared] = Future()
        self._jobs.put((job, future))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the processes after what is queued."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_decode, args=(theirs, self._secret), name="trail-decoder", daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def _serve(self, process: BaseProcess, connection: Connection) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                _send_job(connection, job)
                answer = _receive(connection)
            except (OSError, EOFError) as exc:
                # Out of memory, or killed. The request is its sender's to send again; the next one finds a new process.
                logger.error("a decoder process died (exit code %s) and is replaced", process.exitcode)
                future.set_exception(_died(exc))
                connection.close()
                process.join()
                process, connection = self._start()
                connection.recv_bytes()
                continue
            if isinstance(answer, Prepared):
                future.set_result(answer)
            else:
                future.set_exception(answer)
        connection.close()
        process.join()


def _died(exc: BaseException) -> StorageError:
    error = StorageError("a decoder process died", hint="the exporter sends again; see the server's log")
    error.__cause__ = exc
    return error


def _send_job(connection: Connection, job: Job) -> None:
    connection.send_bytes(pickle.dumps({name: getattr(job, name) for name in Job.__slots__ if name != "body"}))
    connection.send_bytes(job.body)


def _send(connection: Connection, prepared: Prepared) -> None:
    """The large parts as they are, the rest pickled."""
    rest = {name: getattr(prepared, name) for name in Prepared.__slots__ if name != "parts"}
    connection.send_bytes(pickle.dumps((rest, [part.count for part in prepared.parts])))
    for part in prepared.parts:
        connection.send_bytes(part.records)
        connection.send_bytes(part.contents)


def _receive(connection: Connection) -> Prepared | LedgerError:
    head = pickle.loads(connection.recv_bytes())  # noqa: S301  # from our own child over a private pipe
    if isinstance(head, LedgerError):
        return head
    rest, counts = head
    parts = []
    for count in counts:
        records = connection.recv_bytes()
        parts.append(Part(count, records, connection.recv_bytes()))
    return Prepared(parts=parts, **rest)


def _decode(connection: Connection, secret: bytes) -> None:
    """The decoder process: answer requests until the pipe closes."""
    preparer: Preparer = start_process(secret)
    connection.send_bytes(b"ready")
    while True:
        try:
            fields: dict[str, Any] = pickle.loads(connection.recv_bytes())  # noqa: S301  # from our own parent
            body = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            prepared = preparer.prepare(Job(body=body, **fields))
        except LedgerError as exc:
            connection.send_bytes(pickle.dumps(exc))
        except MemoryError:
            return  # the parent finds the pipe closed, tells the sender to try again, and starts a new process
        except Exception as exc:  # whatever it is, the sender gets an answer; its text may quote the body, so only the type goes
            connection.send_bytes(pickle.dumps(InvariantError(f"decoding failed: {type(exc).__name__}")))
        else:
            _send(connection, prepared)
