"""Serving engines: how they batch, and how they share out a device's memory."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from capsim.hardware import Bytes


class EngineSpec(BaseModel):
    """A serving engine's defaults, each of which a scenario may set.

    ``memory_rule`` says what ``memory_fraction`` is a fraction of: the whole device (``of_total``, vLLM) or the
    part of it that the operating system lets the accelerator use (``of_usable``, Metal).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    policy: Literal["continuous", "serial"]
    memory_rule: Literal["of_total", "of_usable"]
    memory_fraction: float = Field(gt=0, le=1)
    runtime_reserve_bytes: Bytes
    activation_floor_bytes: Bytes
    max_num_seqs: PositiveInt
    max_num_batched_tokens: PositiveInt
    block_tokens: PositiveInt
    enable_prefix_caching: bool
    graph_capture_max_seqs: PositiveInt
    hidden_padding: PositiveInt = 1
