"""OTLP/JSON bodies written as Python objects, and their reading."""

from __future__ import annotations

import json
from typing import Any

from ingest.otlp import Encoding, Signal, parse


def traces(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def value_of(value: Any) -> dict[str, Any]:
    return traces({"attributes": [{"key": "a", "value": value}]})


def parse_json(body: Any, signal: Signal = Signal.TRACES) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(signal, text, Encoding.JSON)


def attribute(body: Any) -> Any:
    return parse_json(body).message.resource_spans[0].scope_spans[0].spans[0].attributes[0]
