"""What a device under an engine reaches of its datasheet, and what a step costs beside its bytes and its arithmetic."""

from pydantic import BaseModel, ConfigDict, Field

from capsim.hardware import Seconds
from capsim.measured import Measured


class Efficiency(BaseModel):
    """Coefficients of the roofline step-time model for one device and engine.

    The fixed times stand beside the bandwidths, never inside them: a published ITL intercept is weight bytes over
    ``memory_fraction`` of the bandwidth *plus* the fixed times, and the two are stored split.

    Attributes
    ----------
    memory_fraction
        Reached share of the memory bandwidth, weights and KV alike.
    flops_fraction
        Reached share of the dense arithmetic rate in prefill.
    layer_s
        Launch and gap time of one layer.
    expert_layer_s
        What a mixture-of-experts layer adds: routing, permutation, small grouped GEMMs.
    step_s
        Scheduling, sampling and detokenising of a step, whatever its size.
    sequence_s
        Host time per sequence in the batch.
    collective_s
        Latency of one all-reduce or all-to-all inside the node.
    link_fraction
        Reached share of the link bandwidth.
    kv_extra_s
        Per KV format, time beyond its bytes for each (query head x KV token x layer): conversion and dequantisation.
    kv_layer_s
        Per KV format, time of a step for each layer that keeps its KV so, whatever it reads: kernels of its own.
    kv_write_s
        Per KV format, time to quantise and store one KV head of one token of one layer.
    expert_imbalance
        Load of the heaviest expert-parallel rank over the mean, by number of ranks.
    kernel_factor
        What a whole step's kernels take over the same kernels measured alone: gaps, cold caches, small kernels beside.
    prefill_expert_layer_s
        The least that a mixture-of-experts layer takes in a step that prefills: its many kernels are then launched one
        by one, and small ones do not hide that. This and ``kernel_factor`` matter beside measured kernels only.
    measured
        Kernels and whole steps measured there. They stand in place of the roofline where there are any; the fixed
        times are then what a step takes beside its kernels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: str
    engine: str
    memory_fraction: float = Field(gt=0, le=1)
    flops_fraction: float = Field(gt=0, le=1)
    layer_s: Seconds
    expert_layer_s: Seconds
    step_s: Seconds
    sequence_s: Seconds
    collective_s: Seconds = 0.0
    link_fraction: float = Field(0.7, gt=0, le=1)
    kv_extra_s: dict[str, Seconds] = Field(default_factory=dict)
    kv_layer_s: dict[str, Seconds] = Field(default_factory=dict)
    kv_write_s: dict[str, Seconds] = Field(default_factory=dict)
    expert_imbalance: dict[int, float] = Field(default_factory=lambda: {1: 1.0})
    kernel_factor: float = Field(1.0, ge=1)
    prefill_expert_layer_s: Seconds = 0.0
    measured: Measured | None = None
