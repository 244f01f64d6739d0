"""A week of two support agents, told by real OpenTelemetry SDK exporters.

`play` is the entry. `story` is the order of events; `week` and `incident` are its two parts, told with
`support` and `refunds`. `telling` and `run` are how one run is told; `agents`, `people` and `tools` are who
is in it and with what; `texts` is what they read, `workspace` the file that changes; `emitter` is the way
to the exporters.

Nothing here imports `trail`'s packages: it is a client like any other.
"""
