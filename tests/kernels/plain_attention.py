"""Attention written plainly, over what a KV format keeps of keys and values: the reference of the fused kernels."""

import numpy as np

from kernels_bench.kv_formats import KV_FORMATS
from kernels_bench.turboquant import rotation_signs, unrotate


def bf16(x):
    """float32 rounded to bf16, as uint16 and as float32 again."""
    bits = KV_FORMATS["bf16"][0].encode(x.astype(np.float32), None).view(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


def packed(x, vector):
    return vector.encode(x, rotation_signs(x.shape[-1]))


def stored(slots, vector, head_dim):
    """The vectors in packed bytes, float64, no longer rotated."""
    y = vector.decode(slots, head_dim).astype(np.float64)
    return unrotate(y, rotation_signs(head_dim)) if vector.rotated else y


def attention(query, keys, values):
    """One query (q_heads, d) over keys and values (tokens, kv_heads, d), in float64."""
    group = query.shape[0] // keys.shape[1]
    keys, values = keys.repeat(group, 1), values.repeat(group, 1)
    scores = np.einsum("hd,thd->ht", query, keys) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("ht,thd->hd", weights / weights.sum(-1, keepdims=True), values)
