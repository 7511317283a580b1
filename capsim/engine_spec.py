"""Serving engines: how they batch, and how they share out a device's memory."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from capsim.hardware import Bytes, Precision

BLOCK_WEIGHTS = 32  # MX formats: weights that share one one-byte scale


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
    expert_layouts: tuple[ExpertLayout, ...] = ()
