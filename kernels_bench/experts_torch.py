"""A mixture-of-experts MLP in torch: tokens sorted by expert, then a GEMM for each active expert, or a grouped one.

The weights of E experts are gate and up in one matrix (E, 2 * intermediate, hidden) and down (E, hidden, intermediate).
Each is a tuple of tensors: bf16 values (E, out, in) alone; int8 values with a bf16 scale (E, out) of each output; or
4-bit values (E, out, in / 2) with bf16 scales and zeros (E, in / GROUP, out, 2), a weight being
(value - 8) * scale + zero.
"""

from collections.abc import Callable
from itertools import cycle, product

import torch
from numpy.typing import NDArray
from torch.nn.functional import linear, silu

from kernels_bench.arena import Part, device_of, normal, pool
from kernels_bench.experts import Layer
from kernels_bench.weights import GROUP

Weights = tuple[torch.Tensor, ...]
Routed = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Weights, Weights], torch.Tensor]


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of the features times the second half."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def mlp(tokens: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """A dense SwiGLU MLP of bf16 weights (2 * intermediate, hidden) and (hidden, intermediate)."""
    return linear(swiglu(linear(tokens, gate_up)), down)


def loop_mlp(
    tokens: torch.Tensor, ids: torch.Tensor, gates: torch.Tensor, gate_up: Weights, down: Weights
) -> torch.Tensor:
    """Σ over a token's experts of gate times the expert's MLP, one active expert after the other.

    Tokens (n, hidden), the experts of each and their gates (n, top_k). Quantised weights are those of torch's packed
    CPU kernels, 4-bit ones as ``torch.ops.aten._convert_weight_to_int4pack_for_cpu`` packs them.
    """
    order, counts = _sorted(ids, len(down[0]))
    rows = tokens[order // ids.shape[1]]
    out, start = torch.empty_like(rows), 0
    for expert, count in enumerate(counts.tolist()):
        if count:
            mine = slice(start, start + count)
            out[mine] = _expert_linear(swiglu(_expert_linear(rows[mine], gate_up, expert)), down, expert)
            start += count
    return _combine(out, order, gates)


def grouped_mlp(
    tokens: torch.Tensor, ids: torch.Tensor, gates: torch.Tensor, gate_up: Weights, down: Weights
) -> torch.Tensor:
    """What ``loop_mlp`` computes by ``torch._grouped_mm``, for bf16: the same time on a CPU, one launch on a GPU."""
    order, counts = _sorted(ids, len(down[0]))
    ends = counts.cumsum(0).int()
    rows = tokens[order // ids.shape[1]]
    hidden = swiglu(torch._grouped_mm(rows, gate_up[0].transpose(1, 2), ends))
    return _combine(torch._grouped_mm(hidden, down[0].transpose(1, 2), ends), order, gates)


def prepare_experts(backend: str, layer: Layer, ids: NDArray, routed: Routed) -> Callable[[], None]:
    """A call of routed and shared experts: other weights each time, and other experts of the same routing."""
    tokens = normal(backend, len(ids), layer.hidden)
    gates = torch.full(ids.shape, 1 / layer.top_k, dtype=torch.bfloat16, device=tokens.device)
    gate_up, down = (
        parts(layer.experts, outputs, inputs, layer.weight_format)
        for outputs, inputs in ((2 * layer.intermediate, layer.hidden), (layer.hidden, layer.intermediate))
    )
    split = len(gate_up)
    layers = pool(backend, *gate_up, *down, *_dense_parts(layer.hidden, layer.shared_experts * layer.intermediate))
    calls = cycle(product(_relabelled(backend, layer, ids), layers))

    def call() -> None:
        mine, (*matrices, shared_gate_up, shared_down) = next(calls)
        out = routed(tokens, mine, gates, tuple(matrices[:split]), tuple(matrices[split:]))
        if layer.shared_experts:
            out += mlp(tokens, shared_gate_up, shared_down)

    return call


def prepare_dense(backend: str, layer: Layer, tokens: int) -> Callable[[], None]:
    """A call of the dense MLP that takes as many FLOPs as the routed and shared experts."""
    activations = normal(backend, tokens, layer.hidden)
    width = (layer.top_k + layer.shared_experts) * layer.intermediate
    weights = cycle(pool(backend, *_dense_parts(layer.hidden, width)))

    def call() -> None:
        mlp(activations, *next(weights))

    return call


def parts(experts: int, outputs: int, inputs: int, weight_format: str) -> list[Part]:
    """The tensors that hold a matrix (outputs, inputs) of each expert."""
    if weight_format == "bf16":
        return [(torch.bfloat16, (experts, outputs, inputs))]
    if weight_format == "int8":
        return [(torch.int8, (experts, outputs, inputs)), (torch.bfloat16, (experts, outputs))]
    return [(torch.uint8, (experts, outputs, inputs // 2)), (torch.bfloat16, (experts, inputs // GROUP, outputs, 2))]


def _dense_parts(hidden: int, intermediate: int) -> list[Part]:
    return [(torch.bfloat16, (2 * intermediate, hidden)), (torch.bfloat16, (hidden, intermediate))]


def _relabelled(backend: str, layer: Layer, ids: NDArray) -> list[torch.Tensor]:
    """The same routing with the experts' numbers shifted, so that a few tokens touch other experts at each call."""
    own = torch.from_numpy(ids).to(device_of(backend))
    return [(own + shift) % layer.experts for shift in range(0, layer.experts, layer.top_k)]


def _sorted(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The order that sorts (token, expert) pairs by expert, and the tokens of each expert."""
    flat = ids.flatten()
    return flat.argsort(), torch.bincount(flat, minlength=experts)


def _expert_linear(rows: torch.Tensor, weights: Weights, expert: int) -> torch.Tensor:
    mine = [tensor[expert] for tensor in weights]
    if len(mine) == 1:
        return linear(rows, mine[0])
    if mine[0].dtype == torch.int8:
        return torch.ops.aten._weight_int8pack_mm(rows, *mine)
    return torch.ops.aten._weight_int4pack_mm_for_cpu(rows, mine[0], GROUP, mine[1])


def _combine(sorted_rows: torch.Tensor, order: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """Rows back in the order of tokens, and their sum by gate."""
    rows = torch.empty_like(sorted_rows)
    rows[order] = sorted_rows
    return torch.bmm(gates[:, None], rows.view(*gates.shape, -1))[:, 0]
