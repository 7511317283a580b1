"""Serving engines: how they batch, and how they share out a device's memory."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from capsim.hardware import Bytes, Precision

BLOCK_WEIGHTS = 32  # MX formats: weights that share one one-byte scale

Reserve = Literal["prompt", "answer", "estimate", "slot"]
"""What must be free before a request starts. ``prompt``: its whole prompt; it grows from there, and when the pool is
full the youngest is preempted and computed again later (vLLM). ``answer``: prompt and ``max_tokens``, held from the
start, so that nobody is ever preempted (TensorRT-LLM's no-evict). ``estimate``: prompt and ``max_tokens``, beside a
share of what those inside may still ask for; when the pool is full the one with the fewest tokens is retracted
(SGLang). ``slot``: an equal part of the pool for each of ``max_num_seqs``, which no request may outgrow (llama.cpp)."""


class ExpertLayout(BaseModel):
    """How an engine holds routed experts of one weight format, where that takes more than their own bytes.

    It is for devices whose narrowest arithmetic is ``arithmetic``. Hidden and intermediate size are padded to the
    multiples; where ``scale_copy_rows`` is set, a second copy of the block scales lies beside the checkpoint's, in
    the kernel's order and with its rows padded; each output of each matrix has a bias of ``bias_bytes``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str
    arithmetic: Precision
    hidden_multiple: PositiveInt = 1
    intermediate_multiple: PositiveInt = 1
    scale_copy_rows: PositiveInt | None = None
    bias_bytes: int = Field(0, ge=0)


class EngineSpec(BaseModel):
    """A serving engine's defaults, some of which a scenario may set.

    Attributes
    ----------
    prefill_first
        Prefill has steps of its own, which go first, while those who decode stand still; else a step decodes for
        everybody inside and fills what is left of the token budget with prefill.
    chunked_prefill
        A prompt may be computed in parts; else it waits for a step with room for all of it.
    joins_running
        Requests join a running batch (continuous batching); else a batch is formed when the last has ended (static).
    reserve
        See ``Reserve``.
    prefix_caching
        Whether KV stays for later prompts by default; None where the engine's way of doing so is not modelled.
    serial
        One request at a time, always.
    memory_rule
        What the KV pool is. ``of_total``: ``memory_fraction`` of the device less weights, runtime and activations
        (vLLM). ``static``: ``memory_fraction`` of the device less weights and runtime; activations live in the rest
        (SGLang). ``of_free``: ``memory_fraction`` of what weights, runtime and activations leave (TensorRT-LLM).
        ``of_usable``: as ``of_total``, of the part that the operating system lets the accelerator use (Metal).
    keeps_windows
        Layers with a window of tokens keep the KV of all others too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prefill_first: bool = False
    chunked_prefill: bool = True
    joins_running: bool = True
    reserve: Reserve = "prompt"
    prefix_caching: bool | None = None
    serial: bool = False
    memory_rule: Literal["of_total", "static", "of_free", "of_usable"]
    memory_fraction: float = Field(gt=0, le=1)
    runtime_reserve_bytes: Bytes
    activation_floor_bytes: Bytes
    max_num_seqs: PositiveInt
    max_num_batched_tokens: PositiveInt
    block_tokens: PositiveInt
    keeps_windows: bool = False
    expert_layouts: tuple[ExpertLayout, ...] = ()

    @property
    def longest_prompt_tokens(self) -> float:
        """The longest prompt that it computes."""
        return math.inf if self.chunked_prefill else self.max_num_batched_tokens
