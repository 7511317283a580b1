"""Step time from measured kernels, each component by its table; what was not measured falls back to the sum-roofline.

A batch knows sums over its sequences only, so decode attention is read from the table at the mean number of entries
that a sequence reads. That is exact along a straight piece of a table and close across one, as the tables are nearly
straight in context.
"""

from collections.abc import Mapping
from math import inf

from capsim.efficiency import Efficiency
from capsim.hardware import Device, Precision
from capsim.kernel_tables import KernelTable
from capsim.kv_format import KVFormat, entry_bytes, heads_per_rank, pair_bytes
from capsim.llm import Attention, KVStream, ModelSpec, WeightFormat
from capsim.parallelism import Parallelism
from capsim.steptime import FOREVER, Batch, PrefillChunk, StepTime
from capsim.steptime.carried import Carried, nearest
from capsim.steptime.domain import outside
from capsim.steptime.roofline import Roofline, largest

PLAIN = ("full", "sliding", "chunked")
STORED_AS_THEY_ARE = ("bf16", "fp8")  # a token's KV is thousandths of the bytes of a step, so no table is missed
ROOFLINE = "the fitted sum-roofline extends it"
PLAIN_FORMAT = KVFormat(name="bf16", key_bits=16, value_bits=16)


class Calibrated(Roofline):
    """Step time of one replica by the kernels of ``efficiency.measured``, carried over from where they were measured.

    ``unmeasured`` says in words what the roofline stands in for, ``stand_ins`` which weight formats were read from
    another's kernels, ``is_exact`` whether every kernel was measured at the very shapes and on the very device.
    """

    def __init__(
        self,
        model: ModelSpec,
        weights: WeightFormat,
        kv_format: KVFormat,
        device: Device,
        layout: Parallelism,
        efficiency: Efficiency,
        measured_on: Device,
    ) -> None:
        super().__init__(model, weights, kv_format, device, layout, efficiency)
        assert efficiency.measured is not None
        self._tables = efficiency.measured.kernels
        self._places = measured_on, device
        self._launched_s = efficiency.prefill_expert_layer_s * (model.experts.layers if model.experts else 0)
        self.unmeasured: list[str] = []
        self.stand_ins: list[str] = []
        streams = [(group, stream) for group in model.attention for stream in group.streams()]
        self._decoders = [self._decoding(group, stream, kv_format) for group, stream in streams]
        self._prefillers = [self._prefilling(group, stream) for group, stream in streams]
        self._writers = self._writing(kv_format)
        self._matrices, self._heads = self._dense(weights)
        self._mixture = self._experts_table(weights)

    def step_time(self, batch: Batch) -> StepTime:
        """Seconds of one step of this replica."""
        decoding, reads, prefill, finishing, _, routed = batch
        sequences = decoding + len(prefill)
        overhead = self._step_s + self._sequence_s * sequences
        if sequences == 0:
            return StepTime(0.0, 0.0, 0.0, 0.0, overhead, "overhead")
        memory, compute = self._decode(decoding, reads) if decoding else (0.0, 0.0)
        tokens = decoding
        for chunk in prefill:
            tokens += chunk[0]
            read_s, computed_s = self._prefill(chunk)
            memory, compute = memory + read_s, compute + computed_s
        memory += self._written(tokens)
        read_s, computed_s = self._multiplied(tokens, decoding + finishing)
        expert_read_s, expert_s = self._experts(tokens, routed) if self._has_experts else (0.0, 0.0)
        link = self._link_s + self._link_token_s * tokens
        if prefill:
            kernels_s = memory + compute + read_s + computed_s + expert_read_s + expert_s + link
            overhead += max(0.0, self._launched_s - kernels_s - overhead)
        bound = largest(memory + read_s + expert_read_s, compute + computed_s + expert_s, link, overhead)
        return StepTime(memory + compute, expert_read_s + expert_s, read_s + computed_s, link, overhead, bound)

    def decode_run(self, batch: Batch) -> tuple[StepTime, float, int]:
        """A decode step, its growth a step, and the steps until a table has its next knot."""
        growth_s, steps = 0.0, float(FOREVER)
        sequences = batch.decode_sequences
        for i, (count, growth) in enumerate(zip(batch.decode_reads, batch.read_growth, strict=True)):
            if not growth:
                continue
            growth_s += 0.0 if self._decoders[i] else growth * sum(self._decode_s[i])
            for kernel in self._decoders[i]:
                _, slope, until = kernel.along_context(sequences).at(count / sequences)
                growth_s += slope * growth / sequences
                if until < inf:
                    steps = min(steps, 1 + (until - count / sequences) * sequences // growth)
        return self.step_time(batch), growth_s, max(1, int(steps))

    def beyond(self, contexts: Mapping[int, float], tokens: int) -> list[str]:
        """Sizes outside the kernels' tables.

        Contexts lie below only where none of a run is as long as the shortest measured: every answer begins with short
        ones, which take little.
        """
        notes = []
        kernels = [kernel for served in self._decoders for kernel in served]
        fewest = min(contexts, default=1)
        if kernels and contexts:
            domains = [kernel.domain for kernel in kernels]
            batches = max(d["sequences"][0] for d in domains), min(d["sequences"][1] for d in domains)
            notes += outside("batches of {:,.0f} lie", (fewest, max(contexts)), batches, ROOFLINE)
            limits = {n: min(k.longest_context(n) for k in kernels) for n in contexts}
            worst = max(contexts, key=lambda n: contexts[n] / limits[n])
            shortest = max(d["context_tokens"][0] for d in domains)
            batch = f"a batch of {worst:,}" if worst > 1 else "one sequence"
            reached, measured = (max(contexts.values()), contexts[worst]), (shortest, limits[worst])
            notes += outside(f"context {{:,.0f}} of {batch} lies", reached, measured, ROOFLINE)
        if self._matrices:
            domains = [kernel.domain for kernel in self._matrices]
            sizes = max(d["tokens"][0] for d in domains), min(d["tokens"][1] for d in domains)
            notes += outside("steps of {:,.0f} tokens lie", (min(fewest, tokens), tokens), sizes, ROOFLINE)
        return notes

    @property
    def is_exact(self) -> bool:
        served = [kernel for kernels in self._decoders for kernel in kernels]
        served += [kernel for kernel in self._prefillers if kernel] + self._matrices + self._heads
        return not self.unmeasured and all(kernel.is_exact for kernel in served)

    def _decode(self, decoding: int, reads: tuple[float, ...]) -> tuple[float, float]:
        memory = compute = 0.0
        for count, kernels, (read_s, decode_s) in zip(reads, self._decoders, self._decode_s, strict=False):
            if not kernels:
                memory += count * read_s
                compute += count * decode_s
            for kernel in kernels:
                memory += kernel.along_context(decoding).at(count / decoding)[0]
        return memory, compute

    def _prefill(self, chunk: PrefillChunk) -> tuple[float, float]:
        """Of one chunk: a kernel that reads the earlier context and computes, else the roofline's two parts."""
        new, context = chunk
        memory = compute = 0.0
        for (stream, read_s, prefill_s), kernel in zip(self._prefill_s, self._prefillers, strict=True):
            reads = stream.prefill_reads(new, context)
            if kernel is None:
                compute += reads * prefill_s
                memory += stream.stored(context) * read_s if context else 0.0
                continue
            line = kernel.along_context(new)
            triangle = (new + 1) / 2  # reads of a token within the chunk, as a mean
            before = reads / new - triangle
            within = 1.0 if before >= 0 else reads / new / triangle  # a window narrower than the chunk
            compute += within * line.at(max(0.0, before))[0]
        return memory, compute

    def _written(self, tokens: int) -> float:
        if not self._writers:
            return self._write_s * tokens
        return sum([kernel.seconds(tokens)[0] for kernel in self._writers])

    def _multiplied(self, tokens: int, heads: int) -> tuple[float, float]:
        """Dense matrices for all tokens, the LM head for the sequences that get one: reading and computing."""
        if not self._matrices:
            return self._dense_read_s, self._dense_token_s * tokens + self._head_s * heads
        memory = compute = 0.0
        for kernels, size in ((self._matrices, tokens), (self._heads, heads)):
            for kernel in kernels if size else ():
                seconds, moving = kernel.seconds(size)
                memory += seconds * moving
                compute += seconds * (1 - moving)
        return memory, compute

    def _experts(self, tokens: int, routed: int | None) -> tuple[float, float]:
        if self._mixture is None:
            return super()._experts(tokens, routed)
        seconds, moving = self._mixture.seconds(self._routed(tokens, routed))
        return seconds * moving, seconds * (1 - moving) * self._heaviest

    def _decoding(self, group: Attention, stream: KVStream, kv_format: KVFormat) -> list[Carried]:
        """Kernels of a stream's decode attention: one for compressed layers, one for those that the format leaves."""
        kernels = []
        for layers, stored in self._formats(stream, kv_format):
            shape, op = (
                self._decode_shape(group, stream, stored),
                "mla_decode" if stream.name == "mla" else "decode_attention",
            )
            formats = {"kv_format": (stored.name,)}
            table = nearest(self._tables, op, shape, formats) if shape else None
            if table is None:
                self._miss(f"decode attention over {stored.name} KV ({stream.name})")
                return []
            kernels.append(self._carried(table, shape, count=layers * self._stretch))
        return kernels

    def _decode_shape(self, group: Attention, stream: KVStream, kv_format: KVFormat) -> dict[str, float]:
        """The kernel's shape on one rank; empty for a stream whose kernel nobody measures."""
        if stream.top_k is not None or stream.ratio != 1:
            return {}
        heads = {"q_heads": group.heads / self.layout.tp}
        if stream.name in PLAIN:
            dim = stream.value_elements
            kv_heads = heads_per_rank(stream, self.layout.tp)
            return {**heads, "kv_heads": kv_heads, "head_dim": dim, "pair_bytes": pair_bytes(kv_format, dim)}
        if stream.name == "mla":
            dims = {"latent_dim": float(group.latent_dim or 0), "rope_dim": float(group.rope_dim or 0)}
            return {**heads, **dims, "pair_bytes": entry_bytes(stream, kv_format)}
        return {}

    def _formats(self, stream: KVStream, kv_format: KVFormat) -> list[tuple[float, KVFormat]]:
        """Layers of a stream by the format that they keep their KV in."""
        plain = min(stream.layers, kv_format.uncompressed_layers * stream.layers / self.model.layers)
        if not stream.quantisable:
            plain = stream.layers
        parts = [(stream.layers - plain, kv_format), (plain, PLAIN_FORMAT)]
        return [(layers, stored) for layers, stored in parts if layers > 0]

    def _prefilling(self, group: Attention, stream: KVStream) -> Carried | None:
        if stream.name not in PLAIN or stream.top_k is not None:
            return None
        shape = {
            "q_heads": group.heads / self.layout.tp, "kv_heads": float(heads_per_rank(stream, self.layout.tp)),
            "head_dim": float(stream.value_elements),
        }  # fmt: skip
        table = nearest(self._tables, "prefill_attention", shape, {})
        if table is None:
            self._miss("prefill attention")
            return None
        return self._carried(table, shape, count=stream.layers * self._stretch)

    def _writing(self, kv_format: KVFormat) -> list[Carried]:
        kernels = []
        for stream in self.model.streams:
            for layers, stored in self._formats(stream, kv_format) if stream.name in PLAIN else ():
                heads, dim = heads_per_rank(stream, self.layout.tp), stream.value_elements
                shape = {"kv_heads": float(heads), "head_dim": float(dim), "pair_bytes": pair_bytes(stored, dim)}
                table = nearest(self._tables, "kv_write", shape, {"kv_format": (stored.name,)})
                if table is None:
                    if stored.name not in STORED_AS_THEY_ARE:
                        self._miss(f"writing {stored.name} KV")
                    return []
                kernels.append(self._carried(table, shape, count=layers * self._stretch))
        return kernels

    def _dense(self, weights: WeightFormat) -> tuple[list[Carried], list[Carried]]:
        """Projections, dense layers, shared experts, routers and norms by tokens; the LM head by sequences."""
        model, layout = self.model, self.layout
        matrices = [
            self._matrix(inputs, outputs, weights, weights.dense_bytes, count * self._stretch)
            for inputs, outputs, count in _shapes(model, layout.tp)
        ]
        head = self._matrix(model.hidden, model.vocab / layout.tp, weights, weights.embedding_bytes, layout.pp)
        found = [kernel for kernel in matrices if kernel is not None]
        if head is None or len(found) < len(matrices):
            self._miss("dense layers")
            return [], []
        norm = nearest(self._tables, "norm", {"hidden": float(model.hidden)}, {})
        if norm is not None:
            count = 2 * model.layers * self._stretch
            found.append(self._carried(norm, {"hidden": float(model.hidden)}, count=count))
        return found, [head]

    def _matrix(
        self, inputs: float, outputs: float, weights: WeightFormat, weight_bytes: float, count: float
    ) -> Carried | None:
        shape = {"in_features": inputs, "out_features": outputs, "weight_bytes": weight_bytes}
        table = nearest(self._tables, "gemm", shape, {"weight_format": _like(weights)})
        if table is None:
            return None
        self._stand_in("dense layers", weights, table)
        return self._carried(table, shape, count, weights.compute)

    def _experts_table(self, weights: WeightFormat) -> Carried | None:
        """Routed experts of one rank by the tokens routed; shared experts count as dense layers.

        A rank has a slice of each expert, or some of the experts and so of each token's. The heaviest rank computes
        more tokens than the mean, but reads no more experts.
        """
        experts = self.model.experts
        if experts is None:
            return None
        ranks, slices = self.layout.expert_ranks, 1 if self.layout.expert else self.layout.tp
        shape = {
            "hidden": float(self.model.expert_width), "intermediate": experts.intermediate / slices,
            "experts": experts.count / ranks, "top_k": experts.top_k / ranks, "shared_experts": 0.0,
            "weight_bytes": weights.experts_bytes,
        }  # fmt: skip
        table = nearest(self._tables, "experts", shape, {"weight_format": _like(weights)})
        if table is None:
            self._miss("experts")
            return None
        self._stand_in("experts", weights, table)
        self._heaviest = self._imbalance()
        return self._carried(table, shape, self._stretch * experts.layers, weights.compute)

    def _carried(
        self, table: KernelTable, shape: dict[str, float], count: float, precision: Precision = "bf16"
    ) -> Carried:
        return Carried(table, shape, *self._places, precision, count * self.efficiency.kernel_factor)

    def _stand_in(self, what: str, weights: WeightFormat, table: KernelTable) -> None:
        """Note a weight format that was not measured."""
        measured = str(table.shape["weight_format"])
        note = f"{weights.name} {what} by the utilisation of {measured}"
        if measured != weights.name and note not in self.stand_ins:
            self.stand_ins.append(note)

    def _miss(self, what: str) -> None:
        if what not in self.unmeasured:
            self.unmeasured.append(what)


def _like(weights: WeightFormat) -> tuple[str, ...]:
    """Weight formats whose kernels may stand in, the best first."""
    blocks = ("fp8_block",) if weights.compute == "fp8" else ()
    return (weights.name, weights.compute, *blocks, "bf16", "fp16", "fp8", "int4", "fp32")


def _shapes(model: ModelSpec, tp: int) -> list[tuple[float, float, float]]:
    """Inputs, outputs and number of a model's matrices on one rank; the projections of a layer stand as one."""
    hidden = model.hidden
    found: list[tuple[float, float, float]] = []
    for group in model.attention:
        found.append((hidden, group.parameters(hidden) / hidden / tp, group.layers))
    beside = model.dense_parameters
    if model.dense:
        width = model.dense.intermediate / tp
        found += [(hidden, 2 * width, model.dense.layers), (width, hidden, model.dense.layers)]
        beside -= 3 * hidden * model.dense.intermediate * model.dense.layers
    if model.experts:  # shared experts, router, latent projections
        found.append((hidden, beside / model.experts.layers / hidden / tp, model.experts.layers))
    return found
