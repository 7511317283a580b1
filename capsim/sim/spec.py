"""What is simulated: like nodes behind a router, and how one data-parallel replica of them schedules."""

from dataclasses import dataclass
from typing import Literal

from capsim.engine_spec import Reserve
from capsim.llm import KVStream
from capsim.memory import BlockRule
from capsim.parallelism import Parallelism
from capsim.steptime import StepTimeModel


@dataclass(frozen=True)
class Policy:
    """How a replica schedules; the words are those of ``EngineSpec``.

    ``queue_limit`` counts requests that could not start at once. Of an engine that no row of the catalog is about,
    Hugging Face's continuous batching, the word for what must be free before a request starts is ``chunk``: the first
    chunk of its prompt (``Stalling``).

    Raises
    ------
    ValueError
        The token budget of a step that mixes prefill and decoding is smaller than ``max_num_seqs``: some sequences
        would starve (vLLM refuses it too). Prefixes are cached although sequences may stand still: how Hugging Face's
        engine shares blocks is not modelled.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    queue_limit: int | None = None
    prefill_first: bool = False
    chunked_prefill: bool = True
    joins_running: bool = True
    reserve: Reserve | Literal["chunk"] = "prompt"
    prefix_caching: bool = False

    def most_blocks(self, pool_blocks: int) -> int:
        """KV blocks that one request may hold."""
        return pool_blocks // self.max_num_seqs if self.reserve == "slot" else pool_blocks

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs and not self.prefill_first:
            raise ValueError(f"max_num_batched_tokens {self.max_num_batched_tokens} is below {self.max_num_seqs} seqs")
        if self.reserve == "chunk" and self.prefix_caching:
            raise ValueError("prefix caching of an engine whose sequences may stand still is not modelled")


@dataclass(frozen=True)
class OffloadTier:
    """Room for KV below the device: how many blocks one pool has there, and the seconds that one takes to move."""

    name: str
    blocks: int
    block_s: float


@dataclass(frozen=True)
class ClusterSpec:
    """``nodes`` like nodes. ``kv_blocks`` and the policy are those of one replica, ``offload`` those of its pool.

    Raises
    ------
    ValueError
        Stages of a pipeline share a pool for whose blocks sequences may stand still: each could wait for the other.
    """

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

    def __post_init__(self) -> None:
        if self.policy.reserve == "chunk" and self.layout.pp > 1:
            raise ValueError("a pipeline of an engine whose sequences may stand still is not modelled")
