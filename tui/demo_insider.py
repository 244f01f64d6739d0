"""The demo's insider: whoever has the signing key cuts the end off the log, and signs again.

Everything is done with the writer's own code and the log's own key, so the result is a perfect store. Only somebody who kept what was
signed before can tell.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger import columns, contents
from ledger.errors import InvariantError
from ledger.journal import JournalWriter, encode_frame, encode_part
from ledger.keys import LastSigned
from ledger.layout import Layout, journal_name
from ledger.writer import StoreWriter

_DERIVED: Final = ("records", "contents", "tile", "journal", "checkpoints")


def cut_and_sign_again(store: Path, *, key: Path, keep: int, state: LastSigned) -> int:
    """Make a store the log of its first `keep` records, signed anew.

    Args:
        store: a stopped store whose first `keep` records are sealed.
        key: the log's signing key.
        keep: the first record to vanish.
        state: a last-signed state other than the one that would notice.

    Returns:
        How many records vanished.
    """
    layout = Layout(store)
    records, rows = _first(layout, "records", keep), _first(layout, "contents", keep)
    before = sum(pq.read_metadata(path).num_rows for path in layout.part("records").glob("*.parquet"))
    if records.num_rows != keep:
        raise InvariantError(f"{store} has {records.num_rows} sealed records below {keep}")
    for name in _DERIVED:
        shutil.rmtree(store / name)
    layout.checkpoint.unlink()
    layout.journal.mkdir()
    journal = JournalWriter(layout.journal / journal_name(start=0, generation=0), start=0)
    table = records.select(columns.BATCH_SCHEMA.names).cast(columns.BATCH_SCHEMA).combine_chunks()
    journal.write(encode_frame(0, [encode_part(_one_batch(table), _one_batch(rows.cast(contents.SCHEMA).combine_chunks()))]))
    journal.sync()
    journal.close()
    StoreWriter.open(store, command="trail serve", key_path=key, last_signed=state).close()
    return before - keep


def _first(layout: Layout, part: str, keep: int) -> pa.Table:
    """Rows of the records before `keep`, in order."""
    files = sorted((layout.root / part).glob("*.parquet"), key=lambda path: int(path.name.partition("-")[0]))
    table = pa.concat_tables([pq.read_table(path) for path in files])
    return table.filter(pc.less(table.column("index"), pa.scalar(keep)))


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
