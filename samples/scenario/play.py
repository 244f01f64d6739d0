"""Send the scenario to an OTLP endpoint: `python samples/scenario/play.py http://127.0.0.1:4318`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

if __package__:
    from .emitter import NotDeliveredError
    from .story import Played, tell
else:  # Run as a file: the folder above is then the place to import the package from.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from scenario.emitter import NotDeliveredError
    from scenario.story import Played, tell

__all__ = ["NotDeliveredError", "Played", "main", "play"]


def play(endpoint: str, *, now_unix_ns: int, headers: Mapping[str, str] | None = None, seed: int = 7) -> Played:
    """Send the six days before `now_unix_ns` to `endpoint` (the base URL, without `/v1/traces`).

    `headers` go with every request (a token). The same seed and time send the same bytes.

    Raises:
        NotDeliveredError: the endpoint refused something, or did not answer within ten seconds.
    """
    return tell(endpoint, now_unix_ns=now_unix_ns, headers=headers, seed=seed)


def main() -> int:
    """The script. Exit code 1 when something was not delivered."""
    parser = argparse.ArgumentParser(description="Send a week of two support agents to an OTLP/HTTP endpoint.")
    default = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    parser.add_argument("endpoint", nargs="?", default=default, help="base URL (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="another seed gives other ids and durations")
    options = parser.parse_args()
    try:
        played = play(options.endpoint, now_unix_ns=time.time_ns(), seed=options.seed)
    except NotDeliveredError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    changed = datetime.fromtimestamp(played.incident_at_unix_ns // 1_000_000_000, UTC)
    sys.stdout.write(
        f"sent {played.spans} spans and {played.logs} log records of {len(played.run_ids)} runs\n"
        f"{played.incident_resource} was changed at {changed:%Y-%m-%d %H:%M:%S} UTC"
        f" in run {played.incident_run_id}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
