"""A whole transformer layer in torch: norm, GQA over a KV cache, norm, then a SwiGLU MLP or experts."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from kernels_bench import gqa
from kernels_bench.case import Case
from kernels_bench.routing import route
from kernels_bench.sweep import in_turn

if TYPE_CHECKING:
    from torch import Tensor

    from kernels_bench.arena import Part

ROPE_BASE = 10_000.0  # of Llama; any other costs the same


@dataclass(frozen=True)
class Shape:
    """A layer's sizes; ``intermediate`` is one expert's where there are experts."""

    hidden: int
    intermediate: int
    q_heads: int
    kv_heads: int
    head_dim: int
    experts: int = 0
    top_k: int = 0

    @property
    def attention_width(self) -> int:
        """Outputs of the fused query, key and value projection."""
        return (self.q_heads + 2 * self.kv_heads) * self.head_dim


# sequences, context tokens of each, new tokens of each: decode steps, then prefill chunks
_CPU_POINTS = [(1, 512, 1), (16, 2048, 1), (1, 0, 128), (4, 1024, 1), (1, 512, 64), (1, 4096, 1), (16, 512, 1)]
_GPU_POINTS = [
    *[(1, 1024, 1), (64, 4096, 1), (1, 0, 2048), (8, 16384, 1), (1, 8192, 512), (256, 1024, 1), (1, 131072, 1)],
    *[(16, 4096, 1), (128, 2048, 1), (1, 0, 512)],
]
_GPU_LAYERS = [
    Shape(4096, 14336, 32, 8, 128),  # Llama-3.1-8B
    Shape(2048, 768, 32, 4, 128, experts=128, top_k=8),  # Qwen3-30B-A3B
]
GRIDS = {
    "cpu": (
        [
            Shape(1024, 3072, 16, 8, 128),  # Qwen3-0.6B
            Shape(1024, 512, 16, 8, 128, experts=32, top_k=4),
        ],
        _CPU_POINTS,
    ),
    "cuda": (_GPU_LAYERS, _GPU_POINTS),
    "ascend": (_GPU_LAYERS, _GPU_POINTS),
}


def cases(backend: str) -> Iterator[Case]:
    """``layer`` of a dense and of an expert model, decode steps and prefill chunks."""
    if backend in GRIDS:
        shapes, points = GRIDS[backend]
        yield from in_turn(*([layer_case(backend, shape, *point) for point in points] for shape in shapes))


def layer_case(backend: str, shape: Shape, sequences: int, context_tokens: int, new_tokens: int) -> Case:
    """``new_tokens`` of each sequence through the layer, after ``context_tokens`` that its cache holds."""
    tokens = sequences * new_tokens
    ids = route(tokens, shape.experts, shape.top_k, 0.0) if shape.experts else np.empty((tokens, 0), np.int64)
    expert_parameters = 3 * shape.hidden * shape.intermediate
    projections = shape.hidden * (shape.attention_width + shape.q_heads * shape.head_dim)
    read, used = (len(np.unique(ids)), shape.top_k) if shape.experts else (1, 1)
    seen = new_tokens * context_tokens + new_tokens * (new_tokens + 1) // 2
    cached = sequences * (context_tokens + new_tokens) * 2 * shape.kv_heads * shape.head_dim
    return Case(
        op="layer",
        backend=backend,
        kernel="torch",
        shape={"sequences": sequences, "context_tokens": context_tokens, "new_tokens": new_tokens} | asdict(shape),
        bytes=2 * (projections + read * expert_parameters + cached + 2 * tokens * shape.hidden),
        flops=2 * tokens * (projections + used * expert_parameters)
        + 4 * sequences * seen * shape.q_heads * shape.head_dim,
        prepare=partial(_prepare, backend, shape, sequences, context_tokens, new_tokens),
    )


def forward(
    tokens: "Tensor",
    cache: "Tensor",
    weights: tuple["Tensor", "Tensor"],
    mlp: Callable[["Tensor"], "Tensor"],
    shape: Shape,
    rope: "Tensor",
    mask: "Tensor",
) -> "Tensor":
    """The layer's output for new tokens (sequences, new, hidden), both norms with a gain of one."""
    import torch

    norm = partial(torch.nn.functional.rms_norm, normalized_shape=(shape.hidden,), eps=1e-6)
    hidden = tokens + attention(norm(tokens), cache, weights, shape, rope, mask)
    return hidden + mlp(norm(hidden).flatten(0, 1)).view_as(hidden)


def attention(
    hidden: "Tensor", cache: "Tensor", weights: tuple["Tensor", "Tensor"], shape: Shape, rope: "Tensor", mask: "Tensor"
) -> "Tensor":
    """Grouped-query attention of new tokens (sequences, new, hidden) over a cache that they are written to.

    The cache is (2, sequences, KV heads, context + new, head_dim), keys first. ``rope`` (2, new, head_dim / 2) holds
    cosines and sines, ``mask`` (new, context + new) what each new token sees.
    """
    import torch

    new, dim = hidden.shape[1], shape.head_dim
    heads = torch.nn.functional.linear(hidden, weights[0]).unflatten(-1, (-1, dim)).transpose(1, 2)
    queries, keys, values = heads.split([shape.q_heads, shape.kv_heads, shape.kv_heads], 1)
    cache[0, :, :, -new:] = rotated(keys, rope)
    cache[1, :, :, -new:] = values
    queries = rotated(queries, rope)
    if new == 1:
        out = gqa.decode(queries[:, :, 0], *cache).flatten(1)[:, None]
    elif hidden.device.type == "cpu":
        out = torch.stack([gqa.prefill(*each) for each in zip(queries, *cache, strict=True)])
        out = out.transpose(1, 2).flatten(2)
    else:
        out = torch.nn.functional.scaled_dot_product_attention(queries, *cache, attn_mask=mask, enable_gqa=True)
        out = out.transpose(1, 2).flatten(2)
    return torch.nn.functional.linear(out, weights[1])


def rotated(heads: "Tensor", rope: "Tensor") -> "Tensor":
    """Rotary position embedding of heads (sequences, heads, new, dim), whose halves are the two coordinates."""
    import torch

    (first, second), (cosine, sine) = heads.chunk(2, -1), rope
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def rope_table(context_tokens: int, new_tokens: int, dim: int) -> "Tensor":
    """Cosines and sines (2, new, dim / 2) of the positions after the context [arXiv:2104.09864]."""
    import torch

    positions = torch.arange(context_tokens, context_tokens + new_tokens)
    angles = positions[:, None] * ROPE_BASE ** -(torch.arange(0, dim, 2) / dim)
    return torch.stack([angles.cos(), angles.sin()])


def causal_mask(context_tokens: int, new_tokens: int) -> "Tensor":
    """Which of context and new tokens each new one sees: (new, context + new)."""
    import torch

    return torch.ones(new_tokens, context_tokens + new_tokens, dtype=torch.bool).tril(context_tokens)


def _prepare(backend: str, shape: Shape, sequences: int, context_tokens: int, new_tokens: int) -> Callable[[], None]:
    import torch

    from kernels_bench.arena import normal, pool

    width = shape.q_heads * shape.head_dim
    experts = (shape.experts,) if shape.experts else ()
    parts: list[Part] = [
        (torch.bfloat16, size)
        for size in (
            (shape.attention_width, shape.hidden),
            (shape.hidden, width),
            (*experts, 2 * shape.intermediate, shape.hidden),
            (*experts, shape.hidden, shape.intermediate),
            (2, sequences, shape.kv_heads, context_tokens + new_tokens, shape.head_dim),
        )
    ]
    layers = cycle(pool(backend, *parts))
    tokens = normal(backend, sequences, new_tokens, shape.hidden)
    rope = rope_table(context_tokens, new_tokens, shape.head_dim).to(tokens)
    mask = causal_mask(context_tokens, new_tokens).to(tokens.device)
    mlp = _mlp(backend, shape, sequences * new_tokens)

    def call() -> None:
        qkv, out, gate_up, down, cache = next(layers)
        forward(tokens, cache, (qkv, out), partial(mlp, gate_up=gate_up, down=down), shape, rope, mask)

    return call


def _mlp(backend: str, shape: Shape, tokens: int) -> Callable[..., "Tensor"]:
    """The dense MLP, or that of experts to which the tokens have been routed evenly."""
    import torch

    from kernels_bench.arena import device_of
    from kernels_bench.experts_torch import grouped_mlp, loop_mlp, mlp

    if not shape.experts:
        return mlp
    routed = loop_mlp if backend == "ascend" else grouped_mlp
    ids = torch.from_numpy(route(tokens, shape.experts, shape.top_k, 0.0)).to(device_of(backend))
    gates = torch.full(ids.shape, 1 / shape.top_k, dtype=torch.bfloat16, device=ids.device)
    return lambda hidden, gate_up, down: routed(hidden, ids, gates, (gate_up,), (down,))
