"""Attention by torch on the CPU, CUDA and Ascend (untested): bf16, contiguous.

It is torch's own kernel but on the CPU, where that one repeats the cache for each query of a group.
"""

from collections.abc import Callable
from itertools import cycle

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from kernels_bench import gqa
from kernels_bench.arena import normal, pool
from kernels_bench.attention import HEAD_DIM, KV_HEADS, Q_HEADS


def prepare_decode(backend: str, kv_format: str, sequences: int, context_tokens: int) -> Callable[[], None]:
    """One query a sequence over contiguous keys and values; each call other ones."""
    shape = (sequences, KV_HEADS, context_tokens, HEAD_DIM)
    caches = cycle(pool(backend, (torch.bfloat16, shape), (torch.bfloat16, shape)))
    queries = normal(backend, sequences, Q_HEADS, HEAD_DIM)

    def call() -> None:
        keys, values = next(caches)
        if backend == "cpu":
            gqa.decode(queries, keys, values)
        else:
            scaled_dot_product_attention(queries[:, :, None], keys, values, enable_gqa=True)

    return call


def prepare_prefill(backend: str, new_tokens: int, context_tokens: int) -> Callable[[], None]:
    """New queries over the context and, causally, over themselves."""
    shape = (1, KV_HEADS, context_tokens + new_tokens, HEAD_DIM)
    caches = cycle(pool(backend, (torch.bfloat16, shape), (torch.bfloat16, shape)))
    queries = normal(backend, 1, Q_HEADS, new_tokens, HEAD_DIM)
    bias = causal_lower_right(new_tokens, context_tokens + new_tokens)

    def call() -> None:
        keys, values = next(caches)
        if backend == "cpu":
            gqa.prefill(queries[0], keys[0], values[0])
        else:
            scaled_dot_product_attention(queries, keys, values, attn_mask=bias, enable_gqa=True)

    return call
