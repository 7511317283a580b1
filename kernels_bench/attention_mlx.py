"""Attention on Apple GPUs by MLX: bf16, MLX's own quantised caches, and TurboQuant unpacked by array operations.

Keys and values are contiguous, (sequences, kv_heads, tokens, …), as in mlx-lm. `mlx_8bit` and `mlx_4bit` are mlx-lm's
quantised cache: groups of 64 with a scale and a bias. TurboQuant at 4 bits is not fused: what it reads packed it
writes to memory as bf16 before attention reads it.
"""

from collections.abc import Callable
from itertools import cycle

import mlx.core as mx
import numpy as np

from kernels_bench.attention import HEAD_DIM, KV_HEADS, Q_HEADS, packed_bytes
from kernels_bench.kv_formats import KV_FORMATS
from kernels_bench.turboquant import codebook, rotate, rotation_signs

COLD_BYTES = 1 << 30  # ten times the largest system-level cache
GROUP_ELEMENTS = 64
Cache = tuple[mx.array, ...]


def pack(keys: mx.array, values: mx.array, kv_format: str) -> Cache:
    """Keys and values as the format keeps them."""
    if kv_format == "bf16":
        return keys.astype(mx.bfloat16), values.astype(mx.bfloat16)
    if kv_format.startswith("mlx_"):
        packed = (mx.quantize(x.astype(mx.bfloat16), GROUP_ELEMENTS, _bits(kv_format)) for x in (keys, values))
        return tuple(part for parts in packed for part in parts)
    vectors, signs = KV_FORMATS[kv_format], rotation_signs(keys.shape[-1])
    slots = (vector.encode(np.array(x), signs) for x, vector in zip((keys, values), vectors, strict=True))
    return tuple(mx.array(part) for slot in slots for part in (slot[..., :-2], slot[..., -2:].copy().view(np.float16)))


def decode(queries: mx.array, cache: Cache, kv_format: str) -> mx.array:
    """Attention of queries (sequences, q_heads, 1, head_dim) over a packed cache, in the type of the queries."""
    head_dim = queries.shape[-1]
    if kv_format == "bf16":
        return mx.fast.scaled_dot_product_attention(queries, *cache, scale=head_dim**-0.5)
    if kv_format.startswith("mlx_"):
        return _quantised(queries, cache, _bits(kv_format))
    turn, levels = _rotation(head_dim, queries.dtype), mx.array(codebook(4, head_dim)).astype(queries.dtype)
    keys, values = (_unpacked(codes, norms, levels) for codes, norms in (cache[:2], cache[2:]))
    return mx.fast.scaled_dot_product_attention(queries @ turn.T, keys, values, scale=head_dim**-0.5) @ turn


def prepare_decode(backend: str, kv_format: str, sequences: int, context_tokens: int) -> Callable[[], None]:
    """A call reads another cache of a pool larger than the system's cache."""
    one = sequences * context_tokens * KV_HEADS * packed_bytes(kv_format)
    caches = cycle([_random_cache(kv_format, sequences, context_tokens) for _ in range(max(2, COLD_BYTES // one))])
    queries = mx.random.normal((sequences, Q_HEADS, 1, HEAD_DIM)).astype(mx.bfloat16)
    run = mx.compile(lambda queries, cache: decode(queries, cache, kv_format))

    def call() -> None:
        mx.eval(run(queries, next(caches)))

    return call


def prepare_prefill(backend: str, new_tokens: int, context_tokens: int) -> Callable[[], None]:
    """New queries over the context and, causally, over themselves."""
    caches = cycle([_random_cache("bf16", 1, context_tokens + new_tokens) for _ in range(2)])
    queries = mx.random.normal((1, Q_HEADS, new_tokens, HEAD_DIM)).astype(mx.bfloat16)

    def call() -> None:
        keys, values = next(caches)
        mx.eval(mx.fast.scaled_dot_product_attention(queries, keys, values, scale=HEAD_DIM**-0.5, mask="causal"))

    return call


def _random_cache(kv_format: str, sequences: int, tokens: int) -> Cache:
    """What is packed is one stretch of 64 tokens, repeated; the copies lie apart."""
    keys, values = (mx.random.normal((sequences, KV_HEADS, min(tokens, 64), HEAD_DIM)) for _ in "kv")
    repeats = (1, 1, -(-tokens // 64), 1)
    cache = tuple(mx.contiguous(mx.tile(part, repeats)[:, :, :tokens]) for part in pack(keys, values, kv_format))
    mx.eval(cache)
    return cache


def _quantised(queries: mx.array, cache: Cache, bits: int) -> mx.array:
    """As mlx-lm attends to a quantised cache: the query heads of a group are rows of one quantised product."""
    sequences, q_heads, new, head_dim = queries.shape
    kv_heads = cache[0].shape[1]
    rows = (queries * head_dim**-0.5).reshape(sequences, kv_heads, q_heads // kv_heads * new, head_dim)
    scores = mx.quantized_matmul(rows, *cache[:3], transpose=True, group_size=GROUP_ELEMENTS, bits=bits)
    weights = mx.softmax(scores, axis=-1, precise=True)
    out = mx.quantized_matmul(weights, *cache[3:], transpose=False, group_size=GROUP_ELEMENTS, bits=bits)
    return out.reshape(queries.shape)


def _unpacked(codes: mx.array, norms: mx.array, levels: mx.array) -> mx.array:
    """4-bit codes, two a byte and the low one first, as rotated vectors."""
    pairs = mx.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], -1)
    return mx.take(levels, pairs) * norms.astype(levels.dtype)


def _rotation(head_dim: int, dtype: mx.Dtype) -> mx.array:
    """The rotation as a matrix: rotated = x @ matrix.T."""
    return mx.array(rotate(np.eye(head_dim, dtype=np.float32), rotation_signs(head_dim)).T).astype(dtype)


def _bits(kv_format: str) -> int:
    return int(kv_format.removeprefix("mlx_").removesuffix("bit"))
