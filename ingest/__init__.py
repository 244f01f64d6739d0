"""From the network to records: interprets what emitters send, and never judges it. Imports `ledger` only.

Pure:

    otlp, otlp_json, json_scalars   OTLP requests and responses, protobuf and JSON
    wrap                            OTLP values as typed JSON, without loss
    normalise, batch, oversized     spans and log records to records and contents; the hot path
    facts, vocabularies             what attributes mean, as tables of data
    prepare                         all of that for one request
    restore                         records back to OTLP
    bodies, status                  content codings and their limits; error bodies

With a network, processes or files:

    auth         tokens, their roles, and the sender they make
    http         the OTLP/HTTP routes, their limits and their statuses
    server       uvicorn around them: addresses, signals, draining
    connections  how many connections, and how long without a request
    decoders     the processes in which requests are prepared
    pipeline     from a body to a receipt; quarantine and refusals

`CONVENTIONS.md` says which attributes are understood, and what to emit. Names are imported from the module that defines them.
"""

__all__: list[str] = []
