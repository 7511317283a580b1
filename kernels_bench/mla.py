"""Decode attention over MLA's latents, queries absorbed: every head reads the same vector as key and as value."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine
from kernels_bench.sweep import in_turn

if TYPE_CHECKING:
    from torch import Tensor

LATENT_DIM, ROPE_DIM = 512, 64  # DeepSeek-V2 and V3 [arXiv:2405.04434, section 2.1]
SCALE = (128 + ROPE_DIM) ** -0.5  # of a query before it is absorbed: 128 without and 64 with position
MOST_TOKENS = 1 << 20  # over all sequences: 1.2 GB

# query heads, sequences, contexts
_GPU = [
    (heads, [1, 8, 64], [1 << power for power in range(10, 18)])
    for heads in (16, 128)  # a tensor-parallel rank of eight, and all of DeepSeek-V3
]
GRIDS = {
    "cpu": [(16, [1, 4], [512, 1024, 2048, 4096, 8192, 16384]), (128, [1], [512, 768, 1024, 1536, 2048, 3072, 4096])],
    "cuda": _GPU,
    "ascend": _GPU,
}


def cases(backend: str) -> Iterator[Case]:
    """``mla_decode`` over sequences and contexts, for few and for many heads."""
    return in_turn(*(_grid(backend, *grid) for grid in GRIDS.get(backend, [])))


def mla_case(backend: str, q_heads: int, sequences: int, context_tokens: int) -> Case:
    """One decode step of ``sequences`` that each read ``context_tokens`` latents in bf16."""
    width = LATENT_DIM + ROPE_DIM
    return Case(
        op="mla_decode",
        backend=backend,
        kernel="torch-bmm",
        shape={
            "sequences": sequences,
            "context_tokens": context_tokens,
            "q_heads": q_heads,
            "latent_dim": LATENT_DIM,
            "rope_dim": ROPE_DIM,
            "kv_format": "bf16",
        },
        bytes=2 * sequences * (context_tokens * width + q_heads * (width + LATENT_DIM)),
        flops=2 * sequences * q_heads * context_tokens * (width + LATENT_DIM),
        prepare=partial(_prepare, backend, q_heads, sequences, context_tokens),
    )


def latent_attention(queries: "Tensor", latents: "Tensor") -> "Tensor":
    """Queries (sequences, heads, latent + rope) over latents (sequences, context, latent + rope): (.., .., latent).

    Values are summed with their positions, which are then dropped: a strided view of them alone is, on a CPU, as quick
    at 4096 tokens and several times slower from 32768 on.
    """
    scores = queries.bmm(latents.transpose(1, 2)).float() * SCALE
    return scores.softmax(-1).to(latents.dtype).bmm(latents)[..., :LATENT_DIM]


def _grid(backend: str, q_heads: int, sequences: list[int], contexts: list[int]) -> Iterator[Case]:
    for count, context in coarse_to_fine(sequences, contexts):
        if count * context <= MOST_TOKENS:
            yield mla_case(backend, q_heads, count, context)


def _prepare(backend: str, q_heads: int, sequences: int, context_tokens: int) -> Callable[[], None]:
    from kernels_bench.arena import normal, slices

    width = LATENT_DIM + ROPE_DIM
    queries = normal(backend, sequences, q_heads, width)
    caches = cycle(slices(backend, sequences, context_tokens, width))

    def call() -> None:
        latent_attention(queries, next(caches))

    return call
