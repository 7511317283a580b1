"""What a run writes down: one row a request, one row a run of like steps. Everything else is computed from these."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from capsim.steptime import Batch, StepTime

REQUEST_COLUMNS = (
    "request", "session", "turn", "pool", "node", "rank", "prompt_tokens", "cached_tokens", "output_tokens",
    "arrival_s", "enqueued_s", "first_scheduled_s", "first_token_s", "finished_s", "preemptions", "stalls_s",
    "outcome", "reason",
)  # fmt: skip
SEGMENT_COLUMNS = (
    "node", "rank", "start_s", "duration_s", "steps", "decode_sequences", "gaps", "prefill_tokens", "context_tokens",
    "kv_blocks", "running", "waiting", "bound", "attention_s", "experts_s", "dense_s", "collectives_s", "overhead_s",
)  # fmt: skip


@dataclass(slots=True)
class RequestRecord:
    """One request's life. Times are simulated seconds, NaN until they happen; ``stalls_s`` are the token gaps that
    spanned more than one step (preemption, or a token budget smaller than the batch)."""

    request: int
    session: int
    prompt_tokens: int
    output_tokens: int
    arrival_s: float
    turn: int = 0
    pool: str = "default"
    node: int = -1
    rank: int = -1
    cached_tokens: int = 0
    enqueued_s: float = float("nan")
    first_scheduled_s: float = float("nan")
    first_token_s: float = float("nan")
    last_token_s: float = float("nan")
    finished_s: float = float("nan")
    preemptions: int = 0
    stalls_s: list[float] = field(default_factory=list)
    outcome: str = "unfinished"
    reason: str = ""


class Records:
    """Rows as they happen; each is added whole, so that an interrupted run leaves no half row.

    ``kv_blocks`` holds, at the end and for each replica, blocks allocated, freed and resident.
    """

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.interrupted = False
        self.kv_blocks: list[tuple[int, int, int]] = []
        self._segments: list[tuple[Any, ...]] = []

    def add_segment(self, **row: Any) -> None:
        self._segments.append(tuple(row[name] for name in SEGMENT_COLUMNS))

    def requests_table(self) -> pd.DataFrame:
        rows = {name: [getattr(r, name) for r in self.requests] for name in REQUEST_COLUMNS}
        return pd.DataFrame(rows, columns=list(REQUEST_COLUMNS))

    def segments_table(self) -> pd.DataFrame:
        return pd.DataFrame(self._segments, columns=list(SEGMENT_COLUMNS))


def components(step: StepTime) -> dict[str, Any]:
    """A step's seconds by component, as the segments table names them."""
    return {
        "bound": step.bound,
        "attention_s": step.attention_s,
        "experts_s": step.experts_s,
        "dense_s": step.dense_s,
        "collectives_s": step.collectives_s,
        "overhead_s": step.overhead_s,
    }


def batch_columns(batch: Batch, context_tokens: int) -> dict[str, Any]:
    return {
        "decode_sequences": batch.decode_sequences,
        "prefill_tokens": batch.prefill_tokens,
        "context_tokens": context_tokens,
    }
