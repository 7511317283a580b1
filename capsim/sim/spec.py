"""What is simulated: like nodes behind a router, and how one data-parallel replica of them schedules."""

from dataclasses import dataclass

from capsim.engine_spec import Reserve
from capsim.llm import KVStream
from capsim.memory import BlockRule
from capsim.parallelism import Parallelism
from capsim.steptime import StepTimeModel


@dataclass(frozen=True)
class Policy:
    """How a replica schedules; the words are those of ``EngineSpec``.

    ``queue_limit`` counts requests that could not start at once.

    Raises
    ------
    ValueError
        The token budget of a step that mixes prefill and decoding is smaller than ``max_num_seqs``: some sequences
        would starve (vLLM refuses it too).
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    queue_limit: int | None = None
    prefill_first: bool = False
    chunked_prefill: bool = True
    joins_running: bool = True
    reserve: Reserve = "prompt"
    prefix_caching: bool = False

    def most_blocks(self, pool_blocks: int) -> int:
        """KV blocks that one request may hold."""
        return pool_blocks // self.max_num_seqs if self.reserve == "slot" else pool_blocks

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs and not self.prefill_first:
            raise ValueError(f"max_num_batched_tokens {self.max_num_batched_tokens} is below {self.max_num_seqs} seqs")


@dataclass(frozen=True)
class OffloadTier:
    """Room for KV below the device: how many blocks one pool has there, and the seconds that one takes to move."""

    name: str
    blocks: int
    block_s: float


@dataclass(frozen=True)
class ClusterSpec:
    """``nodes`` like nodes. ``kv_blocks`` and the policy are those of one replica, ``offload`` those of its pool."""

    nodes: int
    layout: Parallelism
    kv_blocks: int
    block_rule: BlockRule
    policy: Policy
    max_context_tokens: int
    router: str
    model: StepTimeModel
    streams: tuple[KVStream, ...]
    offload: tuple[OffloadTier, ...] = ()
