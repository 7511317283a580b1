"""A mixture-of-experts MLP in MLX, by its gathered matrix products, as mlx-lm's ``SwitchGLU`` does it."""

from collections.abc import Callable
from itertools import cycle, product

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from kernels_bench.experts import Layer
from kernels_bench.gemm_mlx import Weights, copies, linear, random_weights
from kernels_bench.weights import BITS, GROUP, weight_bytes

SORTED_PAIRS = 64  # (token, expert) pairs from which on mlx-lm sorts them by expert


def swiglu(gate_up: mx.array) -> mx.array:
    """SiLU of the first half of the features times the second half."""
    gate, up = mx.split(gate_up, 2, axis=-1)
    return nn.silu(gate) * up


def dense_mlp(tokens: mx.array, gate_up: mx.array, down: mx.array) -> mx.array:
    """A SwiGLU MLP of bf16 weights (2 * intermediate, hidden) and (hidden, intermediate)."""
    return linear(swiglu(linear(tokens, (gate_up,), "bf16")), (down,), "bf16")


def routed_mlp(
    tokens: mx.array, ids: mx.array, gates: mx.array, gate_up: Weights, down: Weights, weight_format: str
) -> mx.array:
    """Σ over a token's experts of gate times the expert's MLP: (n, hidden).

    Tokens (n, hidden), the experts of each and their gates (n, top_k), weights (experts, out, in) in a format of MLX.
    """
    top_k, flat = ids.shape[1], ids.flatten()
    in_order = flat.size >= SORTED_PAIRS
    order = mx.argsort(flat) if in_order else mx.arange(flat.size)
    rows, experts = tokens[order // top_k][:, None], flat[order]
    hidden = swiglu(_gathered(rows, gate_up, experts, in_order, weight_format))
    out = _gathered(hidden, down, experts, in_order, weight_format)[:, 0]
    by_token = out[mx.argsort(order)] if in_order else out
    return (by_token.reshape(*ids.shape, -1) * gates[..., None]).sum(axis=1)


def prepare_experts(layer: Layer, ids: NDArray[np.int64]) -> Callable[[], None]:
    """A call of routed and shared experts: other weights each time, and other experts of the same routing."""
    tokens = mx.random.normal((len(ids), layer.hidden), dtype=mx.bfloat16)
    gates = mx.full(ids.shape, 1 / layer.top_k, dtype=mx.bfloat16)
    own = mx.array(ids)
    shifted = [(own + shift) % layer.experts for shift in range(0, layer.experts, layer.top_k)]
    bytes_ = 3 * layer.experts * weight_bytes(layer.intermediate, layer.hidden, layer.weight_format, "mlx")
    layers = [_random_layer(layer) for _ in range(copies(bytes_))]
    mx.eval(tokens, gates, shifted, layers)
    calls = cycle(product(shifted, layers))

    def call() -> None:
        mine, (gate_up, down, shared) = next(calls)
        out = routed_mlp(tokens, mine, gates, gate_up, down, layer.weight_format)
        mx.eval(out + dense_mlp(tokens, *shared) if layer.shared_experts else out)

    return call


def prepare_dense(layer: Layer, tokens: int) -> Callable[[], None]:
    """A call of the dense MLP that takes as many FLOPs as the routed and shared experts."""
    activations = mx.random.normal((tokens, layer.hidden), dtype=mx.bfloat16)
    width = (layer.top_k + layer.shared_experts) * layer.intermediate
    pool = [_random_dense(layer.hidden, width) for _ in range(copies(3 * 2 * width * layer.hidden))]
    mx.eval(activations, pool)
    weights = cycle(pool)

    def call() -> None:
        mx.eval(dense_mlp(activations, *next(weights)))

    return call


def _gathered(rows: mx.array, weights: Weights, experts: mx.array, in_order: bool, weight_format: str) -> mx.array:
    """Each row (n, 1, in) times the transposed matrix of its expert: (n, 1, out)."""
    if weight_format == "bf16":
        return mx.gather_mm(rows, weights[0].swapaxes(-1, -2), rhs_indices=experts, sorted_indices=in_order)
    return mx.gather_qmm(
        rows,
        *weights,
        rhs_indices=experts,
        transpose=True,
        group_size=GROUP,
        bits=BITS[weight_format],
        sorted_indices=in_order,
    )


def _random_layer(layer: Layer) -> tuple[Weights, Weights, Weights]:
    gate_up, down = (
        random_weights(layer.experts, *shape, weight_format=layer.weight_format)
        for shape in ((2 * layer.intermediate, layer.hidden), (layer.hidden, layer.intermediate))
    )
    return gate_up, down, _random_dense(layer.hidden, layer.shared_experts * layer.intermediate)


def _random_dense(hidden: int, width: int) -> Weights:
    (gate_up,), (down,) = (
        random_weights(*shape, weight_format="bf16") for shape in ((2 * width, hidden), (hidden, width))
    )
    return gate_up, down
