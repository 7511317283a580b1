"""How long one engine step takes: what goes in, what comes out."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

FOREVER = 1 << 60
"""Steps: as long as the composition of the batch stands."""

Bound = Literal["memory", "compute", "network", "overhead"]


class PrefillChunk(NamedTuple):
    """New tokens of one sequence, computed on top of ``context_tokens`` already in its KV."""

    new_tokens: int
    context_tokens: int


class Batch(NamedTuple):
    """What one engine step does, as numbers only.

    ``decode_reads`` holds, for each KV stream of the model, the entries that the decoding sequences read in one
    layer: Σ read(context). ``read_growth`` is what each gains from step to step, where like steps follow.
    ``expert_tokens`` are those that all replicas sharing the experts route in this step; None where the others are to
    be taken as like this one.
    """

    decode_sequences: int
    decode_reads: tuple[float, ...]
    prefill: tuple[PrefillChunk, ...] = ()
    finishing_prefills: int = 0
    read_growth: tuple[float, ...] = ()
    expert_tokens: int | None = None

    @property
    def prefill_tokens(self) -> int:
        return sum([new for new, _ in self.prefill])

    @property
    def tokens(self) -> int:
        return self.decode_sequences + self.prefill_tokens

    @property
    def sequences(self) -> int:
        return self.decode_sequences + len(self.prefill)


class StepTime(NamedTuple):
    """Seconds of one step by component, and the resource that takes most of it."""

    attention_s: float
    experts_s: float
    dense_s: float
    collectives_s: float
    overhead_s: float
    bound: Bound

    @property
    def total_s(self) -> float:
        return self.attention_s + self.experts_s + self.dense_s + self.collectives_s + self.overhead_s


class StepTimeModel(Protocol):
    """Anything that says how long a step takes."""

    def step_time(self, batch: Batch) -> StepTime: ...

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        """A decode step, by how many seconds each later one takes longer, and for how many steps that holds."""
        ...

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        """What of a run lies outside the sizes that were measured, in words.

        ``contexts`` are the longest mean contexts by the number of sequences that decoded, ``tokens`` the most of a
        step.
        """
        ...
