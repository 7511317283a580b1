"""What a run writes down: one row a request, one row a run of like steps. Everything else is computed from these.

Rows are buffered, turned into Arrow columns a chunk at a time, and from the second chunk on streamed to a temporary
file, so that memory does not grow with the length of a run.
"""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capsim.sim.columns import Columns
from capsim.sim.sequence import Sequence

CHUNK_ROWS = 8192
PART_CHUNKS = 2
_TEXT = pa.dictionary(pa.int32(), pa.string())
REQUESTS = pa.schema({
    "request": pa.int32(), "ask": pa.int32(), "session": pa.int32(), "turn": pa.int32(), "pool": _TEXT,
    "node": pa.int32(), "rank": pa.int32(), "prompt_tokens": pa.int32(), "cached_tokens": pa.int32(),
    "loaded_tokens": pa.int32(), "output_tokens": pa.int32(), "asked_s": pa.float64(), "arrival_s": pa.float64(),
    "enqueued_s": pa.float64(), "first_scheduled_s": pa.float64(), "first_token_s": pa.float64(),
    "finished_s": pa.float64(), "preemptions": pa.int32(), "stalls_s": pa.list_(pa.float64()),
    "think_s": pa.float64(), "outcome": _TEXT, "reason": _TEXT,
})  # fmt: skip
SEGMENTS = pa.schema({
    "node": pa.int32(), "rank": pa.int32(), "start_s": pa.float64(), "duration_s": pa.float64(),
    "growth_s": pa.float64(), "steps": pa.int32(), "decode_sequences": pa.int32(),
    "prefill_tokens": pa.int32(), "context_tokens": pa.int64(), "kv_blocks": pa.int64(), "kv_blocks_end": pa.int64(),
    "running": pa.int32(), "waiting": pa.int32(), "bound": _TEXT, "attention_s": pa.float64(),
    "experts_s": pa.float64(), "dense_s": pa.float64(), "collectives_s": pa.float64(), "overhead_s": pa.float64(),
    "late_gaps_s": pa.list_(pa.float64()), "late_gaps": pa.list_(pa.int32()),
})  # fmt: skip
SESSIONS = pa.schema({"since_s": pa.float64(), "attached": pa.int32(), "cached": pa.int32()})


class Table:
    """Rows of one schema. A table longer than a chunk lies in an Arrow file of its own, deleted with it."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._rows: list[tuple[Any, ...]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def append(self, row: tuple[Any, ...]) -> None:
        """Add a row, its values in the order of the schema."""
        self._rows.append(row)
        if len(self._rows) >= CHUNK_ROWS:
            self._spill()

    def close(self) -> None:
        """No more rows are coming."""
        if self._writer is None:
            self._only = self._batch()
        else:
            self._spill()
            self._writer.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, a part at a time. The table must be closed."""
        if self._folder is None:
            return iter([self._only])
        return iter(pa.ipc.open_stream(pa.OSFile(str(self._path))))

    def parts(self, columns: tuple[str, ...]) -> Iterator[pd.DataFrame]:
        """Some columns of all rows, ``PART_CHUNKS`` chunks at a time. The table must be closed."""
        batches = self.batches()
        while part := list(islice(batches, PART_CHUNKS)):
            yield pa.Table.from_batches(part).unify_dictionaries().select(list(columns)).to_pandas()

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows. The table must be closed.

        The file is mapped, so that only this column's pages are read.
        """
        batches = self.batches() if self._folder is None else pa.ipc.open_stream(pa.memory_map(str(self._path)))
        return pa.chunked_array([batch.column(name) for batch in batches]).unify_dictionaries()

    def frame(self) -> pd.DataFrame:
        """All rows, in the order in which they were added. The table must be closed."""
        return pa.Table.from_batches(self.batches(), schema=self.schema).unify_dictionaries().to_pandas()

    @property
    def _path(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "rows.arrow"

    def _spill(self) -> None:
        if self._writer is None:
            self._folder = tempfile.TemporaryDirectory(prefix="capsim-")
            self._writer = pa.ipc.new_stream(self._path, self.schema)
        self._writer.write_batch(self._batch())

    def _batch(self) -> pa.RecordBatch:
        self.rows += len(self._rows)
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self.schema)
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, self.schema, strict=True)]
        self._rows.clear()
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


class TierUse(NamedTuple):
    """What a tier below the KV pools did, summed over pools: prompt tokens found there, blocks moved up and down.

    ``busy_s`` is for how long its links were needed.
    """

    name: str
    hit_tokens: int
    loaded_blocks: int
    stored_blocks: int
    busy_s: float


class Records:
    """The two tables of a run. Each row is added whole, so that an interrupted run leaves no half row.

    ``kv_blocks`` holds, at the end and for each pool, blocks allocated, freed and resident (held by sequences or
    kept for later prompts); ``evicted_blocks`` counts those that made room. ``offload`` holds the tiers below the
    pools, and ``lost_blocks`` counts those that left the last of them. ``sessions`` has one row an
    instant at which their counts changed: since when, how many are attached, and how many of them are cached.
    """

    def __init__(self) -> None:
        self.requests = Table(REQUESTS)
        self.segments = Table(SEGMENTS)
        self.interrupted = False
        self.kv_blocks: list[tuple[int, int, int]] = []
        self.evicted_blocks = self.lost_blocks = 0
        self.offload: list[TierUse] = []
        self.sessions = Table(SESSIONS)

    def close(self) -> None:
        self.requests.close()
        self.segments.close()
        self.sessions.close()

    def add_request(self, s: Sequence) -> None:
        """Write down a request that has ended, or that the run's end left unfinished."""
        self.requests.append((
            s.request, s.ask, s.session, s.turn, "default", s.node, s.rank, s.prompt_tokens, s.cached_tokens,
            s.loaded_tokens, s.output_tokens, s.asked_s, s.arrival_s, s.enqueued_s, s.first_scheduled_s,
            s.first_token_s, s.finished_s, s.preemptions, s.stalls_s, s.think_s, s.outcome, s.reason,
        ))  # fmt: skip

    def requests_columns(self) -> Columns:
        """The requests, in order of arrival, a column at a time."""
        order = np.argsort(self.requests.column("request").to_numpy()).astype(np.int32)
        return Columns(self.requests.column, order, pd.RangeIndex(len(order)))

    def stalls(self) -> pd.Series:
        """Gaps between two tokens that a preemption made longer, in seconds, by request."""
        lists = self.requests.column("stalls_s").combine_chunks()
        requests = self.requests.column("request").to_numpy()[pc.list_parent_indices(lists).to_numpy()]
        return pd.Series(lists.flatten().to_numpy(), requests, float)

    def requests_table(self) -> pd.DataFrame:
        """One row a request, in order of arrival."""
        return self.requests.frame().sort_values("request", ignore_index=True)

    def segments_table(self) -> pd.DataFrame:
        """One row a run of like steps, in order of their ends."""
        return self.segments.frame()


def write_tables(tables: list[Table], path: Path) -> None:
    """One Parquet file of like tables, a replication each, told apart by a column ``replication``."""
    schema = tables[0].schema.append(pa.field("replication", pa.int32()))
    text = [field.name for field in schema if field.type == _TEXT]  # numbers hardly repeat
    with pq.ParquetWriter(path, schema, use_dictionary=text) as writer:
        for replication, table in enumerate(tables):
            for batch in table.batches():
                mark = pa.repeat(pa.scalar(replication, pa.int32()), len(batch))
                writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, mark], schema=schema))
