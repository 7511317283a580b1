"""Sum-roofline step time: every component pays for its bytes and for its arithmetic, plus fixed times.

Summing the two fitted whole-step measurements better than taking the larger (10 % against 15 % in one study).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np

from capsim.efficiency import Efficiency
from capsim.hardware import Device, Precision
from capsim.kv_format import KVFormat, heads_per_rank, stream_bytes
from capsim.llm import ModelSpec, WeightFormat
from capsim.parallelism import Parallelism
from capsim.steptime import Batch, Bound, StepTime

ACTIVATION_BYTES = 2


@dataclass(frozen=True)
class _Seconds:
    """Time of one component by what it is spent on."""

    memory: float = 0.0
    compute: float = 0.0

    @property
    def total(self) -> float:
        return self.memory + self.compute


def _dot(counts: Sequence[float], each: Sequence[float]) -> float:
    return sum(map(mul, counts, each))


class Roofline:
    """Step time of one replica (``layout.tp`` ranks) of a model on a device.

    With ``layout.expert`` the other replicas of the node share the experts and are taken to run a batch of the same
    composition in the same step.
    """

    def __init__(
        self,
        model: ModelSpec,
        weights: WeightFormat,
        kv_format: KVFormat,
        device: Device,
        layout: Parallelism,
        efficiency: Efficiency,
    ) -> None:
        self.model = model
        self.layout = layout
        self.efficiency = efficiency
        tp = layout.tp
        precision: Precision = weights.compute
        self._bytes_per_s = device.memory_bytes_per_s * efficiency.memory_fraction
        self._flops = device.flops(precision) * efficiency.flops_fraction
        self._attention_flops = device.flops("bf16") * efficiency.flops_fraction
        self._layers = model.layers
        self._link_bytes_per_s = (device.link_bytes_per_s or math.inf) * efficiency.link_fraction
        self._dense_parameters = (model.attention_parameters + model.dense_parameters) / tp
        self._dense_bytes = self._dense_parameters * weights.dense_bytes
        self._head_parameters = model.embedding_parameters / tp
        self._head_bytes = self._head_parameters * weights.embedding_bytes
        self._expert_bytes = model.expert_parameters * weights.experts_bytes
        self._stream_bytes = [stream_bytes(model, s, kv_format, tp) for s in model.streams]
        extra = efficiency.kv_extra_s.get(kv_format.name, 0.0)
        heads = [s.flops_per_read / (2 * s.elements) for s in model.streams]
        self._extra_s = [extra * h * s.layers / tp * s.quantisable for h, s in zip(heads, model.streams, strict=True)]
        write = efficiency.kv_write_s.get(kv_format.name, 0.0)
        self._write_s = write * sum(s.layers * heads_per_rank(s, tp) / s.ratio for s in model.streams)
        self._prefill_flops = [s.flops_per_prefill_read * s.layers / tp for s in model.streams]
        self._decode_flops = [s.flops_per_read * s.layers / tp for s in model.streams]

    def step_time(self, batch: Batch) -> StepTime:
        """Seconds of one step of this replica."""
        attention, experts, dense = self._attention(batch), self._experts(batch), self._dense(batch)
        collectives, overhead = self._collectives(batch), self._overhead(batch)
        shares: dict[Bound, float] = {
            "memory": attention.memory + experts.memory + dense.memory,
            "compute": attention.compute + experts.compute + dense.compute,
            "network": collectives,
            "overhead": overhead,
        }
        bound = max(shares, key=lambda name: shares[name])
        return StepTime(attention.total, experts.total, dense.total, collectives, overhead, bound)

    def _attention(self, batch: Batch) -> _Seconds:
        """Decode reads the KV of every sequence; prefill reads each chunk's earlier context once and computes."""
        bytes_ = _dot(batch.decode_reads, self._stream_bytes)
        extra = _dot(batch.decode_reads, self._extra_s)
        flops = _dot(batch.decode_reads, self._decode_flops)
        for new, context in batch.prefill:
            flops += _dot([s.prefill_reads(new, context) for s in self.model.streams], self._prefill_flops)
            kept = [s.stored(context) for s in self.model.streams]
            bytes_ += _dot(kept, self._stream_bytes)
            extra += _dot(kept, self._extra_s)
        written = self._write_s * batch.tokens
        return _Seconds(bytes_ / self._bytes_per_s + extra + written, flops / self._attention_flops)

    def _dense(self, batch: Batch) -> _Seconds:
        """Attention projections, dense layers, shared experts, routers; the LM head by sequences, not tokens."""
        if batch.tokens == 0:
            return _Seconds()
        sampled = batch.decode_sequences + batch.finishing_prefills
        flops = 2.0 * (self._dense_parameters * batch.tokens + self._head_parameters * sampled)
        return _Seconds((self._dense_bytes + self._head_bytes) / self._bytes_per_s, flops / self._flops)

    def _experts(self, batch: Batch) -> _Seconds:
        """The distinct experts touched are read once; the heaviest rank sets the time."""
        experts = self.model.experts
        if experts is None or batch.tokens == 0:
            return _Seconds()
        tokens = batch.tokens * (self.layout.dp if self.layout.expert else 1)
        ranks = self.layout.devices if self.layout.expert else self.layout.tp
        imbalance = self._imbalance(tokens)
        bytes_ = experts.touched(tokens) * self._expert_bytes * experts.layers / ranks
        flops = 2.0 * tokens * experts.top_k * self.model.expert_parameters * experts.layers / ranks
        return _Seconds(bytes_ / self._bytes_per_s * imbalance, flops / self._flops * imbalance)

    def _imbalance(self, tokens: int) -> float:
        """Heaviest expert-parallel rank over the mean, log-linear between the measured rank counts."""
        if self.layout.expert_ranks == 1:
            return 1.0
        table = sorted(self.efficiency.expert_imbalance.items())
        ranks, values = zip(*table, strict=True)
        return float(np.interp(math.log(self.layout.expert_ranks), np.log(ranks), values))

    def _collectives(self, batch: Batch) -> float:
        """Two ring all-reduces a layer over tp ranks; a dispatch and a combine a layer for expert parallelism."""
        if batch.tokens == 0:
            return 0.0
        total, tp = 0.0, self.layout.tp
        hidden_bytes = batch.tokens * self.model.hidden * ACTIVATION_BYTES
        if tp > 1:
            moved = 2 * (tp - 1) / tp * hidden_bytes
            total += 2 * self._layers * (self.efficiency.collective_s + moved / self._link_bytes_per_s)
        experts = self.model.experts
        if experts and self.layout.expert_ranks > 1:
            away = 1 - 1 / self.layout.expert_ranks
            moved = hidden_bytes * experts.top_k * away / tp
            total += 2 * experts.layers * (self.efficiency.collective_s + moved / self._link_bytes_per_s)
        return total

    def _overhead(self, batch: Batch) -> float:
        fixed = self.efficiency
        expert_layers = self.model.experts.layers if self.model.experts else 0
        per_layer = fixed.layer_s * self._layers + fixed.expert_layer_s * expert_layers
        return fixed.step_s + per_layer + fixed.sequence_s * batch.sequences
