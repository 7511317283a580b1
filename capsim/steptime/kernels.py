"""Which measured kernel serves which part of a model's step, carried over to the model's shapes and its device."""

from capsim.efficiency import Efficiency
from capsim.hardware import Device, Precision
from capsim.kernel_tables import KernelTable
from capsim.kernel_tables.work import MXFP4, precision_of
from capsim.kv_format import KVFormat, entry_bytes, heads_per_rank, pair_bytes
from capsim.llm import Attention, KVStream, ModelSpec, WeightFormat
from capsim.parallelism import Parallelism
from capsim.steptime.carried import Carried, nearest

PLAIN = ("full", "sliding", "chunked")
STORED_AS_THEY_ARE = ("bf16", "fp8")  # a token's KV is thousandths of the bytes of a step, so no table is missed
MXFP4_BYTES = 4.25 / 8  # 4 bits a weight and an 8-bit scale for 32 of them
PLAIN_FORMAT = KVFormat(name="bf16", key_bits=16, value_bits=16)


class Kernels:
    """Kernels of one replica's step by component, each for as many layers as it serves; empty, or None, where the
    roofline stands in.

    ``decoders`` and ``prefillers`` stand in the order of the model's streams, ``matrices`` go by tokens and ``heads``
    by sequences, ``mixture`` by tokens routed. ``unmeasured`` says in words what the roofline stands in for,
    ``stand_ins`` which weight formats were read from another's kernels.
    """

    def __init__(
        self,
        model: ModelSpec,
        weights: WeightFormat,
        kv_format: KVFormat,
        layout: Parallelism,
        efficiency: Efficiency,
        places: tuple[Device, Device],
        stretch: float,
    ) -> None:
        """``places`` are the device measured on and the one to tell of; ``stretch`` is how much more than its share of
        the layers the slowest stage of a pipeline has."""
        assert efficiency.measured is not None
        self._model, self._layout, self._places, self._stretch = model, layout, places, stretch
        self._tables, self._factor = efficiency.measured.kernels, efficiency.kernel_factor
        self.unmeasured: list[str] = []
        self.stand_ins: list[str] = []
        streams = [(group, stream) for group in model.attention for stream in group.streams()]
        self.decoders = [self._decoding(group, stream, kv_format) for group, stream in streams]
        self.prefillers = [self._prefilling(group, stream) for group, stream in streams]
        self.writers = self._writing(kv_format)
        self.matrices, self.heads = self._dense(weights)
        self.mixture = self._experts(weights)

    @property
    def decoding(self) -> list[Carried]:
        """Those of all streams' decode attention."""
        return [kernel for kernels in self.decoders for kernel in kernels]

    @property
    def is_exact(self) -> bool:
        """Whether every kernel was measured at the very shapes and on the very device."""
        served = self.decoding + [kernel for kernel in self.prefillers if kernel] + self.matrices + self.heads
        return not self.unmeasured and all(kernel.is_exact for kernel in served)

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
        heads = {"q_heads": group.heads / self._layout.tp}
        if stream.name in PLAIN:
            dim = stream.value_elements
            kv_heads = heads_per_rank(stream, self._layout.tp)
            return {**heads, "kv_heads": kv_heads, "head_dim": dim, "pair_bytes": pair_bytes(kv_format, dim)}
        if stream.name == "mla":
            dims = {"latent_dim": float(group.latent_dim or 0), "rope_dim": float(group.rope_dim or 0)}
            return {**heads, **dims, "pair_bytes": entry_bytes(stream, kv_format)}
        return {}

    def _formats(self, stream: KVStream, kv_format: KVFormat) -> list[tuple[float, KVFormat]]:
        """Layers of a stream by the format that they keep their KV in."""
        plain = min(stream.layers, kv_format.uncompressed_layers * stream.layers / self._model.layers)
        if not stream.quantisable:
            plain = stream.layers
        parts = [(stream.layers - plain, kv_format), (plain, PLAIN_FORMAT)]
        return [(layers, stored) for layers, stored in parts if layers > 0]

    def _prefilling(self, group: Attention, stream: KVStream) -> Carried | None:
        if stream.name not in PLAIN or stream.top_k is not None:
            return None
        shape = {
            "q_heads": group.heads / self._layout.tp, "kv_heads": float(heads_per_rank(stream, self._layout.tp)),
            "head_dim": float(stream.value_elements),
        }  # fmt: skip
        table = nearest(self._tables, "prefill_attention", shape, {})
        if table is None:
            self._miss("prefill attention")
            return None
        return self._carried(table, shape, count=stream.layers * self._stretch)

    def _writing(self, kv_format: KVFormat) -> list[Carried]:
        kernels = []
        for stream in self._model.streams:
            for layers, stored in self._formats(stream, kv_format) if stream.name in PLAIN else ():
                heads, dim = heads_per_rank(stream, self._layout.tp), stream.value_elements
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
        model, layout = self._model, self._layout
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

    def _experts(self, weights: WeightFormat) -> Carried | None:
        """Routed experts of one rank by the tokens routed; shared experts count as dense layers.

        A rank has a slice of each expert, or some of the experts and so of each token's. The heaviest rank computes
        more tokens than the mean, but reads no more experts.
        """
        experts = self._model.experts
        if experts is None:
            return None
        ranks, slices = self._layout.expert_ranks, 1 if self._layout.expert else self._layout.tp
        shape = {
            "hidden": float(self._model.expert_width), "intermediate": experts.intermediate / slices,
            "experts": experts.count / ranks, "top_k": experts.top_k / ranks, "shared_experts": 0.0,
            "weight_bytes": weights.experts_bytes,
        }  # fmt: skip
        packed = (MXFP4,) if weights.experts_bytes == MXFP4_BYTES else ()
        table = nearest(self._tables, "experts", shape, {"weight_format": (weights.name, *packed, *_like(weights))})
        if table is None:
            self._miss("experts")
            return None
        self._stand_in("experts", weights, table)
        mixed = packed and table.shape["weight_format"] == MXFP4  # its arithmetic is the chip's choice
        precision = precision_of(MXFP4, self._places[1]) if mixed else weights.compute
        return self._carried(table, shape, self._stretch * experts.layers, precision)

    def _carried(
        self, table: KernelTable, shape: dict[str, float], count: float, precision: Precision = "bf16"
    ) -> Carried:
        return Carried(table, shape, *self._places, precision, count * self._factor)

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
