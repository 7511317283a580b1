"""What a driven engine is to its driver."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Composition(NamedTuple):
    """What a step did; the keys of a ``step`` line (SCHEMA.md).

    ``kv_tokens`` are the contexts of the decoding sequences, their new tokens included. ``prefill_reads`` are the
    pairs of a prefilled token and a KV entry that attention computes: Σ new · (context + new / 2) in an engine that
    attends each sequence apart, new tokens · all KV of the step in one that masks a single product.
    """

    decode_sequences: int
    kv_tokens: int
    prefill_tokens: int
    prefill_reads: float
    prefills: int
    active_experts: float | None


@dataclass
class Done:
    """One step: what it did, and which requests got a token, ended or were preempted in it."""

    composition: Composition
    tokens: list[int]
    finished: list[int]
    preempted: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Arguments:
    """How an engine serves. ``kv_blocks`` are those that requests can hold."""

    max_num_seqs: int
    max_num_batched_tokens: int
    block_tokens: int
    kv_blocks: int
    max_context_tokens: int = 2048
    kv_dtype: str = "bfloat16"
    weights_dtype: str = "bfloat16"


class Engine(Protocol):
    """An engine that does one step when told to."""

    name: str
    version: str
    config: dict[str, Any]
    arguments: Arguments

    def submit(self, request: int, prompt_tokens: int, output_tokens: int) -> None:
        """Queue a request of random tokens, whose answer has exactly ``output_tokens``."""

    @property
    def busy(self) -> bool:
        """Whether a request is inside."""

    def step(self) -> Done:
        """Do one step; somebody must be inside."""


def attended_apart(prefill: list[tuple[int, int]]) -> float:
    """Σ new · (context + new / 2) of chunks (new, context)."""
    return sum(new * (context + new / 2) for new, context in prefill)


def expected_experts(config: dict[str, Any], tokens: int) -> float | None:
    """Distinct experts that a layer touches under even routing, E(1 − (1 − k/E)^tokens); None in a dense model."""
    experts, top_k = config.get("num_experts"), config.get("num_experts_per_tok")
    if not experts or not top_k:
        return None
    return float(experts * (1 - (1 - top_k / experts) ** tokens))
