"""Sparse decode attention: an indexer scores every token of the context, attention reads the best of them.

The indexer is DeepSeek-V3.2's: 64 heads of 128 over one key a token, scored by Σ over heads of weight * ReLU(q · k)
[DeepSeek-V3.2-Exp technical report, eq. 1]. Its keys and the attended K and V are bf16 here; V3.2's own keys are fp8.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from kernels_bench.case import Case
from kernels_bench.gqa import decode
from kernels_bench.grid import coarse_to_fine, doubled

if TYPE_CHECKING:
    from torch import Tensor

INDEX_HEADS, INDEX_DIM = 64, 128
TOP_K = 2048  # index_topk of DeepSeek-V3.2
Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
MOST_TOKENS = 1 << 19  # over all sequences: 2.2 GB
_GPU = ([1, 4, 16], [1 << power for power in range(12, 18)])
GRIDS = {"cpu": ([1], doubled(2048, 32768)), "cuda": _GPU, "ascend": _GPU}  # sequences, contexts


def cases(backend: str) -> Iterator[Case]:
    """``sparse_attention`` over sequences and contexts."""
    if backend in GRIDS:
        for sequences, context in coarse_to_fine(*GRIDS[backend]):
            if sequences * context <= MOST_TOKENS:
                yield sparse_case(backend, sequences, context)


def sparse_case(backend: str, sequences: int, context_tokens: int) -> Case:
    """One decode step of ``sequences``: all index keys are read, and the K and V of at most ``TOP_K`` tokens."""
    read = min(TOP_K, context_tokens)
    index_flops = 2 * context_tokens * INDEX_HEADS * (INDEX_DIM + 1)
    return Case(
        op="sparse_attention",
        backend=backend,
        kernel="torch-topk-gather",
        shape={
            "sequences": sequences,
            "context_tokens": context_tokens,
            "top_k": TOP_K,
            "q_heads": Q_HEADS,
            "kv_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
            "kv_format": "bf16",
            "index_heads": INDEX_HEADS,
            "index_dim": INDEX_DIM,
        },
        bytes=2 * sequences * (context_tokens * INDEX_DIM + 2 * read * KV_HEADS * HEAD_DIM),
        flops=sequences * (index_flops + 2 * 2 * read * Q_HEADS * HEAD_DIM),
        prepare=partial(_prepare, backend, sequences, context_tokens),
    )


def best_tokens(queries: "Tensor", weights: "Tensor", index_keys: "Tensor", top_k: int) -> "Tensor":
    """The tokens (sequences, min(top_k, context)) of the highest scores, in no order.

    Index queries (sequences, index heads, dim), their heads' weights (sequences, index heads) and keys
    (sequences, context, dim).
    """
    scores = weights[:, None].bmm(queries.bmm(index_keys.transpose(1, 2)).relu())[:, 0]
    return scores.topk(min(top_k, scores.shape[1]), sorted=False).indices


def gathered_attention(queries: "Tensor", keys: "Tensor", values: "Tensor", tokens: "Tensor") -> "Tensor":
    """Attention of queries (sequences, heads, dim) over some tokens (sequences, k) of a cache: as the queries' shape.

    Keys and values (sequences, KV heads, context, dim), a KV head serving neighbouring query heads.
    """
    import torch

    sequences, kv_heads, context, dim = keys.shape
    first = context * torch.arange(sequences * kv_heads, device=tokens.device).view(sequences, kv_heads, 1)
    rows = (first + tokens[:, None]).flatten()
    picked = (cache.view(-1, dim).index_select(0, rows).view(sequences, kv_heads, -1, dim) for cache in (keys, values))
    return decode(queries, *picked)


def _prepare(backend: str, sequences: int, context_tokens: int) -> Callable[[], None]:
    import torch

    from kernels_bench.arena import normal, pool

    index_queries = normal(backend, sequences, INDEX_HEADS, INDEX_DIM)
    head_weights = normal(backend, sequences, INDEX_HEADS)
    queries = normal(backend, sequences, Q_HEADS, HEAD_DIM)
    index = (torch.bfloat16, (sequences, context_tokens, INDEX_DIM))
    cache = (torch.bfloat16, (sequences, KV_HEADS, context_tokens, HEAD_DIM))
    caches = cycle(pool(backend, index, cache, cache))

    def call() -> None:
        index_keys, keys, values = next(caches)
        tokens = best_tokens(index_queries, head_weights, index_keys, TOP_K)
        gathered_attention(queries, keys, values, tokens)

    return call
