"""Where a device's memory goes: weights, runtime, activations, and what is left for KV blocks.

Everything is per rank. Ranks never pool memory: a node carries what its fullest rank carries.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from capsim import units
from capsim.engine_spec import BLOCK_WEIGHTS, EngineSpec, ExpertLayout
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

    def parts(self, kv_share: float) -> dict[str, float]:
        """Where all of a device's memory goes, in bytes, when that share of the KV pool is in use."""
        pool = self.blocks * self.block_bytes
        reserve = self.runtime_bytes + self.activation_bytes
        others = self.device_bytes - self.weights_bytes - reserve - pool
        return {
            "weights": self.weights_bytes, "reserve": reserve, "KV used": kv_share * pool,
            "KV free": (1 - kv_share) * pool, "left alone": max(0.0, others),
        }  # fmt: skip


def weights_per_rank_bytes(
    model: ModelSpec, weights: WeightFormat, layout: Parallelism, held: ExpertLayout | None = None
) -> float:
    """Weight bytes of the fullest rank, its experts laid out as ``held`` says.

    Attention, dense layers and embeddings split over the tp ranks of one replica; routed experts over tp ranks in
    slices, or over all ranks of a stage whole. The fullest stage of a pipeline has the most layers and one of the two
    embeddings. MLA's latent projections are counted as split, a fraction of a percent low.
    Norms, position tables and what the allocator rounds up (in all 0.01 to 0.1 GiB a rank) are left out.
    """
    embeddings = model.embedding_parameters * (1 if model.tied_embedding or layout.pp > 1 else 2)
    bytes_ = (embeddings / layout.tp + model.tower_parameters) * weights.embedding_bytes
    layers = (model.attention_parameters + model.dense_parameters) * weights.dense_bytes / layout.tp
    if model.experts:
        whole = math.ceil(model.experts.count / layout.expert_ranks)
        slices = 1 if layout.expert else layout.tp
        layers += model.experts.layers * whole * expert_bytes(model, weights, slices, held)
    return bytes_ + layers * stage_share(model, layout)


def stage_share(model: ModelSpec, layout: Parallelism) -> float:
    """Share of the layers in the longest stage of a pipeline."""
    return math.ceil(model.layers / layout.pp) / model.layers


def expert_bytes(model: ModelSpec, weights: WeightFormat, slices: int = 1, held: ExpertLayout | None = None) -> float:
    """Bytes that one of ``slices`` slices of a routed expert of one layer takes."""
    if model.experts is None or held is None:
        return model.expert_parameters * weights.experts_bytes / slices
    hidden = _padded(model.expert_width, held.hidden_multiple)
    intermediate = _padded(model.experts.intermediate / slices, held.intermediate_multiple)
    gate_and_up, down = 2 * intermediate, hidden  # rows, that is outputs; their columns are each other's inputs
    bytes_ = (gate_and_up * hidden + down * intermediate) * weights.experts_bytes
    bytes_ += (gate_and_up + down) * held.bias_bytes
    if rows := held.scale_copy_rows:
        bytes_ += (_padded(gate_and_up, rows) * hidden + _padded(down, rows) * intermediate) / BLOCK_WEIGHTS
    return bytes_


def _padded(size: float, multiple: int) -> int:
    return math.ceil(size / multiple) * multiple


def expert_layout(engine: EngineSpec, weights: WeightFormat, device: Device) -> ExpertLayout | None:
    """How the engine lays out experts of that format on that device; None where they take their own bytes."""
    arithmetic = "fp4" if device.fp4_flops else "fp8" if device.fp8_flops else "bf16"
    fits = (held for held in engine.expert_layouts if (held.weights, held.arithmetic) == (weights.name, arithmetic))
    return next(fits, None)


def usable_bytes(device: Device, engine: EngineSpec, fraction: float) -> float:
    """What the engine may fill: a share of the card, or all that the operating system grants the accelerator."""
    granted = device.memory_bytes * device.usable_fraction
    base = granted if engine.memory_rule == "of_usable" else device.memory_bytes
    return granted if engine.memory_rule == "of_free" else min(base * fraction, granted)


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

    What an engine puts on the device after it has sized the pool (vLLM's CUDA graphs) is no part of the split.
    ``kv_capacity_tokens`` pins the pool instead of computing it.

    Raises
    ------
    Infeasible
        Weights and reserves leave no room for a KV block; says how many bytes are short and what would help.
    """
    fraction = memory_fraction or engine.memory_fraction
    usable = usable_bytes(device, engine, fraction)
    weight_bytes = weights_per_rank_bytes(model, weights, layout, expert_layout(engine, weights, device))
    activations = engine.activation_floor_bytes if activation_bytes is None else activation_bytes
    runtime = engine.runtime_reserve_bytes
    held = layout.tp, engine.keeps_windows
    token_bytes = growth_bytes_per_token(model, kv_format, *held) or kv_bytes(model, kv_format, 1, *held)
    block_bytes = engine.block_tokens * token_bytes * stage_share(model, layout)
    pool = usable - weight_bytes - runtime - (0 if engine.memory_rule == "static" else activations)
    if engine.memory_rule == "of_free":
        pool *= fraction
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
            remedies=_remedies(model, weights, device, layout, usable, short),
        )
    windows = math.ceil(window_bytes(model, kv_format, *held) * stage_share(model, layout) / block_bytes)
    return MemoryBudget(
        device.memory_bytes, usable, weight_bytes, runtime, activations, pool,
        engine.block_tokens, block_bytes, windows, blocks,
    )  # fmt: skip


def _remedies(
    model: ModelSpec, weights: WeightFormat, device: Device, layout: Parallelism, usable: float, short: float
) -> list[str]:
    remedies = [f"spread it over more devices (tp{2 * layout.tp} or more)"]
    smaller = list(model.weight_formats)[1 + list(model.weight_formats).index(weights.name) :]
    if smaller:
        remedies.append(f"use a smaller weight format: {', '.join(smaller)}")
    wanted = device.memory_bytes * (1 + short / usable)
    remedies.append(f"use a device with at least {units.bytes_(wanted)} of memory")
    return remedies


@dataclass(frozen=True)
class BlockRule:
    """How many KV blocks a sequence holds.

    ``table[n]`` for n blocks of tokens while its windows fill; after the table, one more for each further block of
    tokens.
    """

    block_tokens: int
    table: tuple[int, ...] = (0,)

    @property
    def settled_tokens(self) -> int:
        """Context beyond which every further block of tokens takes one block."""
        return (len(self.table) - 1) * self.block_tokens

    def blocks(self, context_tokens: int) -> int:
        covered = -(-context_tokens // self.block_tokens)
        return covered + self._settled_extra if covered >= len(self.table) else self.table[covered]

    @cached_property
    def _settled_extra(self) -> int:
        """Blocks beyond one for each block of tokens, once the windows are full."""
        return self.table[-1] - len(self.table) + 1


def block_rule(
    budget: MemoryBudget, model: ModelSpec, kv_format: KVFormat, layout: Parallelism, keeps_windows: bool = False
) -> BlockRule:
    """Blocks of a sequence in that pool: those that grow, and its windows as they fill."""
    held, share = (layout.tp, keeps_windows), stage_share(model, layout)
    longest = max((s.window_tokens or 0 for s in model.streams), default=0)
    grown = growth_bytes_per_token(model, kv_format, *held)
    table = [0]
    for covered in range(1, 1 + math.ceil(longest / budget.block_tokens)):
        tokens = covered * budget.block_tokens
        beside = share * max(0.0, kv_bytes(model, kv_format, tokens, *held) - grown * tokens)
        table.append(covered + math.ceil(beside / budget.block_bytes - 1e-9))
    return BlockRule(budget.block_tokens, tuple(table))
