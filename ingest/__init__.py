"""From the network to records: interprets what emitters send, and never judges it. Imports `ledger` only.

Pure:

    otlp           OTLP messages, protobuf and JSON, to records and back without loss
    normalise      the facts of a record, as the vocabulary in force reads them
    vocabularies   what each emitter calls things, as tables of data
    redact         which values leave the record and become contents

With a network:

    auth           tokens, their roles, and the sender they make
    http           the OTLP/HTTP routes, their limits and their statuses

`CONVENTIONS.md` says which attributes are understood, and what to emit. Names are imported from the module
that defines them.
"""

__all__: list[str] = []
