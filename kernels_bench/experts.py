"""Mixture-of-experts MLPs from one token to thousands, and the dense MLP of equal FLOPs beside them.

A case routes its tokens beforehand and says how many distinct experts they touch: that, not the tokens, is what a
small batch pays for. Sorting tokens by expert and adding up their experts' outputs is part of the call; the router's
own GEMM, a small dense one, is not.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels_bench.case import Case
from kernels_bench.routing import route
from kernels_bench.sweep import in_turn, token_counts
from kernels_bench.weights import weight_bytes


@dataclass(frozen=True)
class Layer:
    """The experts of a layer; shared ones are as wide as the routed ones, in bf16, and see every token."""

    hidden: int
    intermediate: int
    experts: int
    top_k: int
    shared_experts: int = 0
    skew: float = 0.0
    weight_format: str = "bf16"


# a layer, the most tokens, and whether the dense MLP is measured beside it
_GPU = [
    (Layer(2048, 768, 128, 8), 4096, True),  # Qwen3-30B-A3B
    (Layer(2048, 768, 128, 8, skew=1.0), 1024, False),
    (Layer(2048, 1024, 64, 8, shared_experts=1), 4096, False),
    (Layer(2048, 768, 128, 8, weight_format="int8"), 1024, False),
    (Layer(2048, 768, 128, 8, weight_format="int4"), 1024, False),
]
LAYERS = {
    "cpu": [
        (Layer(1024, 512, 64, 8), 4096, True),
        (Layer(1024, 512, 64, 8, skew=1.0), 256, False),
        (Layer(512, 256, 32, 4, shared_experts=1), 1024, False),
        (Layer(1024, 512, 64, 8, weight_format="int8"), 256, False),
        (Layer(1024, 512, 64, 8, weight_format="int4"), 256, False),
    ],
    "cuda": _GPU,
    "mlx": _GPU,
    "ascend": [row for row in _GPU if row[0].weight_format == "bf16"],
}
KERNELS = {
    ("cpu", "bf16"): "torch-grouped_mm",
    ("cpu", "int8"): "torch-loop",
    ("cpu", "int4"): "torch-loop",
    ("cuda", "bf16"): "torch-grouped_mm",
    ("cuda", "int8"): "triton-grouped",
    ("cuda", "int4"): "triton-grouped",
    ("ascend", "bf16"): "torch-loop",
    ("mlx", "bf16"): "mlx-gather_mm",
    ("mlx", "int8"): "mlx-gather_qmm",
    ("mlx", "int4"): "mlx-gather_qmm",
}


def cases(backend: str) -> Iterator[Case]:
    """``experts`` of each layer and ``experts_dense`` beside some, over tokens."""
    rows = LAYERS[backend]
    experts = [_over_tokens(experts_case, backend, layer, most) for layer, most, _ in rows]
    dense = [_over_tokens(dense_case, backend, layer, most) for layer, most, beside in rows if beside]
    return in_turn(*experts, *dense)


def experts_case(backend: str, layer: Layer, tokens: int) -> Case:
    """Routed experts, weighted and added up, and the shared ones."""
    ids = route(tokens, layer.experts, layer.top_k, layer.skew)
    active = len(np.unique(ids))
    routed = active * _expert_bytes(layer, layer.weight_format, backend)
    shared = layer.shared_experts * _expert_bytes(layer, "bf16", backend)
    kernel = KERNELS[backend, layer.weight_format]
    return Case(
        op="experts",
        backend=backend,
        kernel=kernel,
        shape={"tokens": tokens, "active_experts": active} | asdict(layer),
        bytes=routed + shared + _activation_bytes(layer, tokens),
        flops=_flops(layer, tokens),
        prepare=partial(_prepare_experts, backend, kernel, layer, ids),
    )


def dense_case(backend: str, layer: Layer, tokens: int) -> Case:
    """One bf16 MLP as wide as the experts of a token together."""
    ids = route(tokens, layer.experts, layer.top_k, layer.skew)
    matrices = (layer.top_k + layer.shared_experts) * _expert_bytes(layer, "bf16", backend)
    return Case(
        op="experts_dense",
        backend=backend,
        kernel="mlx-matmul" if backend == "mlx" else "torch-linear",
        shape={"tokens": tokens, "active_experts": len(np.unique(ids))} | asdict(layer) | {"weight_format": "bf16"},
        bytes=matrices + _activation_bytes(layer, tokens),
        flops=_flops(layer, tokens),
        prepare=partial(_prepare_dense, backend, layer, tokens),
    )


def _over_tokens(make: Callable[[str, Layer, int], Case], backend: str, layer: Layer, most: int) -> Iterator[Case]:
    return (make(backend, layer, tokens) for tokens in token_counts(most))


def _expert_bytes(layer: Layer, weight_format: str, backend: str) -> float:
    gate_up = weight_bytes(2 * layer.intermediate, layer.hidden, weight_format, backend)
    return gate_up + weight_bytes(layer.hidden, layer.intermediate, weight_format, backend)


def _activation_bytes(layer: Layer, tokens: int) -> int:
    return 2 * 2 * tokens * layer.hidden


def _flops(layer: Layer, tokens: int) -> float:
    return 2.0 * tokens * (layer.top_k + layer.shared_experts) * 3 * layer.hidden * layer.intermediate


def _prepare_experts(backend: str, kernel: str, layer: Layer, ids: NDArray[np.int64]) -> Callable[[], None]:
    if backend == "mlx":
        from kernels_bench.experts_mlx import prepare_experts as prepare_mlx

        return prepare_mlx(layer, ids)
    from kernels_bench.experts_torch import grouped_mlp, loop_mlp, prepare_experts

    if kernel == "triton-grouped":
        from kernels_bench.experts_triton import grouped_mlp as triton_mlp

        return prepare_experts(backend, layer, ids, triton_mlp)
    return prepare_experts(backend, layer, ids, loop_mlp if kernel == "torch-loop" else grouped_mlp)


def _prepare_dense(backend: str, layer: Layer, tokens: int) -> Callable[[], None]:
    if backend == "mlx":
        from kernels_bench.experts_mlx import prepare_dense as prepare_mlx

        return prepare_mlx(layer, tokens)
    from kernels_bench.experts_torch import prepare_dense

    return prepare_dense(backend, layer, tokens)
