"""The history of checkpoints: one file a day, a line now and then, so that older tree heads can be shown and compared.

Each line is a JSON object: `checkpoint`, the signed note, and `published`, our clock in Unix nanoseconds as a decimal string. What is
absent proves nothing; what is there must be signed and a prefix of the tree (`ledger.fsck`).
"""

from __future__ import annotations

import datetime

import orjson

from ledger import durable
from ledger.layout import Layout


def append(layout: Layout, note: bytes, *, published: int) -> None:
    """Add a checkpoint that was published.

    Args:
        layout: the store.
        note: the signed checkpoint.
        published: Unix nanoseconds.
    """
    day = datetime.datetime.fromtimestamp(published // 1_000_000_000, datetime.UTC).date().isoformat()
    line = orjson.dumps({"checkpoint": note.decode(), "published": str(published)}, option=orjson.OPT_APPEND_NEWLINE)
    durable.append_line(layout.history / f"{day}.jsonl", line)
