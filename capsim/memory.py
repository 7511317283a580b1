"""Where a device's memory goes: weights, runtime, activations, and what is left for KV blocks.

Everything is per rank. Ranks never pool memory: a node carries what its fullest rank carries.
"""

import math
from dataclasses import dataclass

from capsim import units
from capsim.engine_spec import EngineSpec
from capsim.errors import Infeasible
from capsim.hardware import Device
from capsim.kv_format import KVFormat, growth_bytes_per_token, kv_bytes, window_bytes
from capsim.llm import ModelSpec, WeightFormat
from capsim.parallelism import Parallelism


@dataclass(frozen=True)
class MemoryBudget:
    """One rank's memory in bytes, and the KV blocks it leaves."""

    device_bytes: float
    usable_bytes: float
    weights_bytes: float
    runtime_bytes: float
    activation_bytes: float
    kv_pool_bytes: float
    block_tokens: int
    block_bytes: float
    window_blocks: int
    blocks: int

    @property
    def capacity_tokens(self) -> int:
        """Context tokens the pool holds when they grow in long sequences (windows left out)."""
        return self.blocks * self.block_tokens


def weights_per_rank_bytes(
    model: ModelSpec, weights: WeightFormat, layout: Parallelism, hidden_padding: int = 1
) -> float:
    """Weight bytes of the fullest rank.

    Attention, dense layers and embeddings split over the tp ranks of one replica; routed experts over tp ranks in
    slices, or over all ranks whole. MLA's latent projections are counted as split, a fraction of a percent low.
    """
    embeddings = model.embedding_parameters * (1 if model.tied_embedding else 2)
    bytes_ = embeddings * weights.embedding_bytes / layout.tp
    bytes_ += (model.attention_parameters + model.dense_parameters) * weights.dense_bytes / layout.tp
    if model.experts:
        padded = math.ceil(model.hidden / hidden_padding) * hidden_padding / model.hidden
        spread = layout.devices if layout.expert else layout.tp
        fullest = math.ceil(model.experts.count / spread) / model.experts.count if layout.expert else 1 / spread
        bytes_ += model.routed_parameters * weights.experts_bytes * padded * fullest
    return bytes_


def usable_bytes(device: Device, engine: EngineSpec, fraction: float) -> float:
    """What the engine may fill: a share of the card, or of what the operating system grants the accelerator."""
    base = device.memory_bytes if engine.memory_rule == "of_total" else device.memory_bytes * device.usable_fraction
    return min(base * fraction, device.memory_bytes * device.usable_fraction)


def memory_budget(
    model: ModelSpec,
    weights: WeightFormat,
    kv_format: KVFormat,
    device: Device,
    engine: EngineSpec,
    layout: Parallelism,
    *,
    memory_fraction: float | None = None,
    activation_bytes: float | None = None,
    kv_capacity_tokens: int | None = None,
) -> MemoryBudget:
    """Split one rank's memory.

    ``kv_capacity_tokens`` pins the pool instead of computing it.

    Raises
    ------
    Infeasible
        Weights and reserves leave no room for a KV block; says how many bytes are short and what would help.
    """
    usable = usable_bytes(device, engine, memory_fraction or engine.memory_fraction)
    weight_bytes = weights_per_rank_bytes(model, weights, layout, engine.hidden_padding)
    activations = engine.activation_floor_bytes if activation_bytes is None else activation_bytes
    runtime = engine.runtime_reserve_bytes
    block_bytes = engine.block_tokens * (
        growth_bytes_per_token(model, kv_format, layout.tp) or kv_bytes(model, kv_format, 1, layout.tp)
    )
    pool = usable - weight_bytes - runtime - activations
    blocks = math.floor(pool / block_bytes)
    if kv_capacity_tokens is not None:
        blocks = kv_capacity_tokens // engine.block_tokens
    if blocks < 1 or pool <= 0:
        short = block_bytes - pool
        raise Infeasible(
            f"{model.name} in {weights.name} does not fit {device.name} at {layout}: "
            f"{units.bytes_(short)} short on each device "
            f"({units.bytes_(weight_bytes)} weights + {units.bytes_(runtime + activations)} reserve "
            f"in {units.bytes_(usable)} usable)",
            bytes_short=short,
            remedies=_remedies(model, weights, device, layout, short),
        )
    windows = math.ceil(window_bytes(model, kv_format, layout.tp) / block_bytes)
    return MemoryBudget(
        device.memory_bytes, usable, weight_bytes, runtime, activations, pool,
        engine.block_tokens, block_bytes, windows, blocks,
    )  # fmt: skip


def _remedies(model: ModelSpec, weights: WeightFormat, device: Device, layout: Parallelism, short: float) -> list[str]:
    remedies = [f"spread it over more devices (tp{2 * layout.tp} or more)"]
    smaller = list(model.weight_formats)[1 + list(model.weight_formats).index(weights.name) :]
    if smaller:
        remedies.append(f"use a smaller weight format: {', '.join(smaller)}")
    remedies.append(f"use a device with at least {units.bytes_(device.memory_bytes + short)} of memory")
    return remedies


def blocks_of(budget: MemoryBudget, model: ModelSpec, kv_format: KVFormat, context_tokens: int, tp: int) -> int:
    """KV blocks that a sequence of ``context_tokens`` holds: those that grow, and its filled windows."""
    growing = math.ceil(context_tokens / budget.block_tokens)
    if budget.window_blocks == 0:
        return growing
    rounded = growing * budget.block_tokens
    grown = growth_bytes_per_token(model, kv_format, tp) * rounded
    held = max(0.0, kv_bytes(model, kv_format, rounded, tp) - grown)
    return growing + math.ceil(held / budget.block_bytes - 1e-9)
