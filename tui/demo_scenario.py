"""The demo's scenario: `samples/scenario`, found by its path and sent with OpenTelemetry's own exporters."""

from __future__ import annotations

import importlib
import sys
import time
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import tui
from ledger.errors import InvariantError, StorageError


def require_samples() -> None:
    """Say what is missing before anything is made.

    Raises:
        StorageError: the SDK or the scenario is not installed.
    """
    for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            missing = find_spec(name) is None
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise StorageError(
                f"the demo sends with OpenTelemetry's own exporters, and {name} is not installed", hint="pip install 'agent-trail[samples]'"
            )
    scenario_path()


def scenario_path() -> Path:
    """Where the scenario lies: in a source tree beside the packages, in a wheel inside `tui`.

    Raises:
        StorageError: in neither place.
    """
    package = Path(tui.__file__).resolve().parent
    for candidate in (package.parent / "samples" / "scenario", package / "_samples" / "scenario"):
        if (candidate / "play.py").is_file():
            return candidate
    raise StorageError("the demo's scenario is not installed", path=package, hint="install trail again, or run the demo from a source tree")


def play(url: str) -> Any:
    """Load the scenario, which is no part of the importable packages, and send it; what was sent (`scenario.story.Played`).

    Raises:
        StorageError: the server did not take everything.
    """
    path = scenario_path()
    spec = spec_from_file_location("scenario", path / "__init__.py", submodule_search_locations=[str(path)])
    if spec is None or spec.loader is None:
        raise InvariantError(f"{path} is no package")
    package = module_from_spec(spec)
    sys.modules["scenario"] = package
    spec.loader.exec_module(package)
    script = importlib.import_module("scenario.play")
    try:
        return script.play(url, now_unix_ns=time.time_ns())
    except script.NotDeliveredError as exc:
        raise StorageError(str(exc), hint="see trail doctor") from exc
