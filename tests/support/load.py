"""Exporters that send without pause, and remember exactly what was acknowledged and what was left without an answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from typing import Any

from raw_otlp import post, span, traces
from trail_process import Ran, run_trail

SPANS = 5
"""A request."""


class Load:
    """A few clients; a request without an answer is sent again by `settle`, as an exporter would."""

    def __init__(self, clients: int = 3, *, token: str | None = None) -> None:
        """Nothing is sent yet."""
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.acknowledged: dict[int, str] = {}
        """Index -> span id, from the receipts."""
        self.duplicates = 0
        self._clients = clients
        self._open: list[tuple[bytes, list[str]]] = []
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def start(self, url: str) -> None:
        """Send, until `stop` or until the server is gone."""
        self._stopping.clear()
        self._threads = [threading.Thread(target=self._send_on, args=(url,)) for _ in range(self._clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for the answers that are still to come."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def settle(self, url: str) -> None:
        """Send again what got no answer."""
        left, self._open = self._open, []
        for body, ids in left:
            assert self._send(url, body, ids)

    def _send_on(self, url: str) -> None:
        while not self._stopping.is_set():
            spans = [span("load") for _ in range(SPANS)]
            if not self._send(url, json.dumps(traces(*spans)).encode(), [one["spanId"] for one in spans]):
                return

    def _send(self, url: str, body: bytes, ids: list[str]) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer = post(url, "/v1/traces", body, timeout=20, **self._headers)
            if answer.status == 200:
                with self._lock:
                    self.acknowledged.update(zip(answer.receipt, ids, strict=True))
                    self.duplicates += "Trail-Duplicate" in answer.headers
                return True
            assert answer.status == 503, answer.failure
        with self._lock:
            self._open.append((body, ids))
        return False


def spans_of(store: Any) -> dict[int, str]:
    """Index -> span id of all spans in a store, by `trail sql`."""
    query = "SELECT index, span_id FROM records WHERE kind = 'span'"
    ran: Ran = run_trail("sql", query, "--json", "--limit", 1_000_000, "--store", store)
    assert ran.code == 0, ran.err
    return {row["index"]: row["span_id"] for row in ran.json}
