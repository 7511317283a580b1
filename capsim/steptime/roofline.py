"""Sum-roofline step time: every component pays for its bytes and for its arithmetic, plus fixed times.

Summing the two fitted whole-step measurements better than taking the larger (10 % against 15 % in one study).
"""

import math
from collections.abc import Mapping

import numpy as np

from capsim.efficiency import Efficiency
from capsim.hardware import Device
from capsim.kv_format import KVFormat, heads_per_rank, stream_bytes
from capsim.llm import ModelSpec, WeightFormat
from capsim.parallelism import Parallelism
from capsim.steptime import FOREVER, Batch, Bound, PrefillChunk, StepTime

ACTIVATION_BYTES = 2
DISPATCHED_BYTES = {"fp8": 1.0, "nvfp4": 0.5625}
"""Of an element of a token on its way to its experts: quantised before, where the whole tensor or 16 elements have a
scale (TensorRT-LLM's fused_moe_cutlass)."""
GATHERED_RANKS = 8


class Roofline:
    """Step time of one replica (``layout.tp`` ranks) of a model on a device.

    With ``layout.expert`` the replicas of a node share the experts in each step, so that a step takes the experts that
    the tokens of all of them touch. A pipeline has a batch in each of its ``layout.pp`` stages; a step takes each batch
    through all of them at the pace of the slowest, which has the most layers and the LM head. A step is a sum of
    products of counts and coefficients; the coefficients are worked out here, once.
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
        self._has_experts = model.experts is not None
        self._sequence_s = efficiency.sequence_s
        self._stretch = layout.pp * math.ceil(model.layers / layout.pp) / model.layers
        self._bytes_per_s = device.memory_bytes_per_s * efficiency.memory_fraction
        self._link_bytes_per_s = (device.link_bytes_per_s or math.inf) * efficiency.link_fraction
        self._weigh_attention(kv_format, device.flops("bf16") * efficiency.flops_fraction)
        self._weigh_matrices(weights, device.flops(weights.compute) * efficiency.flops_fraction)
        self._dispatched_bytes = DISPATCHED_BYTES.get(weights.name, ACTIVATION_BYTES)
        self._weigh_links()
        expert_layers = model.experts.layers if model.experts else 0
        self._step_s = efficiency.step_s + efficiency.layer_s * model.layers + efficiency.expert_layer_s * expert_layers
        compressed = model.layers - kv_format.uncompressed_layers
        self._step_s += efficiency.kv_layer_s.get(kv_format.name, 0.0) * max(0.0, compressed)

    def step_time(self, batch: Batch) -> StepTime:
        """Seconds of one step of this replica."""
        decoding, reads, prefill, finishing, _, routed = batch
        sequences = decoding + len(prefill)
        overhead = self._step_s + self._sequence_s * sequences
        if sequences == 0:
            return StepTime(0.0, 0.0, 0.0, 0.0, overhead, "overhead")
        memory = compute = 0.0
        for count, (read_s, decode_s) in zip(reads, self._decode_s, strict=False):
            memory += count * read_s
            compute += count * decode_s
        tokens = decoding
        for chunk in prefill:
            tokens += chunk[0]
            read, computed = self._prefill(chunk)
            memory, compute = memory + read, compute + computed
        memory += self._write_s * tokens
        dense = self._dense_token_s * tokens + self._head_s * (decoding + finishing)
        expert_memory, expert_compute = self._experts(tokens, routed) if self._has_experts else (0.0, 0.0)
        link = self._link_s + self._link_token_s * tokens + self._exchange_token_s * self._routed(tokens, routed)
        bound = largest(memory + self._dense_read_s + expert_memory, compute + dense + expert_compute, link, overhead)
        experts = expert_memory + expert_compute
        return StepTime(memory + compute, experts, self._dense_read_s + dense, link, overhead, bound)

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        """A decode step and its growth a step: what each further entry read costs."""
        growth_s = 0.0
        for count, (read_s, decode_s) in zip(batch.read_growth, self._decode_s, strict=True):
            growth_s += count * (read_s + decode_s)
        return self.step_time(batch), growth_s, FOREVER

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        """Nothing: a roofline has no sizes that it was measured at."""
        return []

    def _weigh_attention(self, kv_format: KVFormat, flops: float) -> None:
        """Seconds to read an entry of each stream in all its layers, to compute with it, and to write a token's."""
        streams, tp = self.model.streams, self.layout.tp
        extra_s = self.efficiency.kv_extra_s.get(kv_format.name, 0.0)
        write_s = self.efficiency.kv_write_s.get(kv_format.name, 0.0)
        self._decode_s, self._prefill_s = [], []
        for stream in streams:
            query_heads = stream.flops_per_read / (2 * stream.elements)
            extra = extra_s * query_heads * stream.layers / tp * stream.quantisable
            moved = stream_bytes(self.model, stream, kv_format, tp) * (1 + stream.written_back)
            read_s = moved / self._bytes_per_s + extra
            per_layer_s = stream.layers / tp / flops * self._stretch
            self._decode_s.append((read_s * self._stretch, stream.flops_per_read * per_layer_s))
            self._prefill_s.append((stream, read_s * self._stretch, stream.flops_per_prefill_read * per_layer_s))
        self._write_s = write_s * self._stretch * sum(s.layers * heads_per_rank(s, tp) / s.ratio for s in streams)

    def _weigh_matrices(self, weights: WeightFormat, flops: float) -> None:
        """Attention projections, dense layers, shared experts, routers; the LM head by sequences, not tokens."""
        model, tp = self.model, self.layout.tp
        parameters = (model.attention_parameters + model.dense_parameters) / tp * self._stretch
        head = model.embedding_parameters / tp * self.layout.pp
        read = parameters * weights.dense_bytes + head * weights.embedding_bytes
        self._dense_read_s = read / self._bytes_per_s
        self._dense_token_s = 2.0 * parameters / flops
        self._head_s = 2.0 * head / flops
        if model.experts:
            ranks = self.layout.expert_ranks if self.layout.expert else tp
            share = self._stretch * self._imbalance() * model.experts.layers * model.expert_parameters / ranks
            self._expert_read_s = share * weights.experts_bytes / self._bytes_per_s
            self._expert_token_s = 2.0 * share * model.experts.top_k / flops

    def _weigh_links(self) -> None:
        """Two ring all-reduces a layer over tp ranks, a dispatch and a combine a layer where replicas share experts,
        and the activations that a pipeline hands from stage to stage.

        One replica's ranks all have its tokens, and its all-reduce adds up what their experts make of them: experts
        spread over the ranks of one replica exchange nothing else.
        """
        tp, experts = self.layout.tp, self.model.experts
        hidden_bytes = self.model.hidden * ACTIVATION_BYTES
        calls, moved = 0, 0.0
        if tp > 1:
            calls += 2 * self.model.layers
            moved += 2 * self.model.layers * 2 * (tp - 1) / tp * hidden_bytes
        exchanged = 0.0
        if experts and self.layout.in_lockstep:
            calls += 2 * experts.layers
            sent = self._dispatched_bytes + ACTIVATION_BYTES
            exchanged = experts.layers * self.model.expert_width * sent * self._copies() / self.layout.dp
        calls += self.layout.pp - 1
        moved += (self.layout.pp - 1) * hidden_bytes / tp
        self._link_s = calls * self.efficiency.collective_s
        self._link_token_s = moved / self._link_bytes_per_s
        self._exchange_token_s = exchanged / self._link_bytes_per_s

    def _copies(self) -> float:
        """How often a rank takes in each token that replicas exchange, as a mean over its own and theirs.

        Inside a box engines gather the tokens of all replicas on every rank and scatter the sums (TensorRT-LLM's
        CUTLASS experts, vLLM's allgather_reducescatter), over more ranks they send each token to its experts.
        """
        experts, layout = self.model.experts, self.layout
        assert experts is not None
        if layout.expert_ranks <= GATHERED_RANKS:
            return layout.dp - 1
        return experts.top_k * (1 - 1 / layout.expert_ranks) / layout.tp

    def _prefill(self, chunk: PrefillChunk) -> tuple[float, float]:
        """Of one chunk: its earlier context is read once, and every new token attends to what precedes it."""
        new, context = chunk
        memory = compute = 0.0
        for stream, read_s, prefill_s in self._prefill_s:
            compute += stream.prefill_reads(new, context) * prefill_s
            if context:
                memory += stream.stored(context) * read_s
        return memory, compute

    def _experts(self, tokens: int, routed: int | None) -> tuple[float, float]:
        """The distinct experts touched are read once; the heaviest rank sets the time."""
        experts, routed = self.model.experts, self._routed(tokens, routed)
        assert experts is not None
        return experts.touched(routed) * self._expert_read_s, routed * self._expert_token_s

    def _routed(self, tokens: int, routed: int | None) -> int:
        """Tokens that the experts see; by default the other replicas that share them are taken as like this one."""
        if routed is not None:
            return routed
        return tokens * (self.layout.dp if self.layout.expert else 1)

    def _imbalance(self) -> float:
        """Heaviest expert-parallel rank over the mean, log-linear between the measured rank counts."""
        if self.layout.expert_ranks == 1:
            return 1.0
        table = sorted(self.efficiency.expert_imbalance.items())
        ranks, values = zip(*table, strict=True)
        return float(np.interp(math.log(self.layout.expert_ranks), np.log(ranks), values))


def largest(memory: float, compute: float, network: float, overhead: float) -> Bound:
    """The resource that takes most seconds."""
    if memory >= compute and memory >= network and memory >= overhead:
        return "memory"
    if compute >= network and compute >= overhead:
        return "compute"
    return "network" if network >= overhead else "overhead"
