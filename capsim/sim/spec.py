"""What is simulated: like nodes behind a router, and what one data-parallel replica of them may do."""

from dataclasses import dataclass

from capsim.llm import KVStream
from capsim.memory import BlockRule
from capsim.parallelism import Parallelism
from capsim.steptime import StepTimeModel


@dataclass(frozen=True)
class Limits:
    """What a replica's scheduler allows. ``queue_limit`` counts requests that could not start at once.

    Raises
    ------
    ValueError
        The token budget is smaller than ``max_num_seqs``: some sequences would starve (vLLM refuses it too).
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    queue_limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(f"max_num_batched_tokens {self.max_num_batched_tokens} is below {self.max_num_seqs} seqs")


@dataclass(frozen=True)
class ClusterSpec:
    """``nodes`` like nodes. ``kv_blocks`` and the limits are those of one data-parallel replica."""

    nodes: int
    layout: Parallelism
    kv_blocks: int
    block_rule: BlockRule
    limits: Limits
    max_context_tokens: int
    router: str
    model: StepTimeModel
    streams: tuple[KVStream, ...]
