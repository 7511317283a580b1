"""Attention over a KV cache: what is measured of it, the same on every backend."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine, curves_coarse_to_fine, doubled
from kernels_bench.kv_formats import KV_FORMATS, slot_bytes
from kernels_bench.sweep import in_turn

Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128  # Llama 3 8B's; 70B's on two ranks, too
HEADS: dict[str, int | float | str] = {"q_heads": Q_HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM}

_GPU_DECODE = [1, 4, 8, 16, 32, 64], [1024, 4096, 8192, 16384, 32768, 65536, 131072]
_GPU_PREFILL = [128, 512, 2048, 8192], [0, 4096, 32768, 131072]
DECODE = {  # sequences, context tokens of each
    "cpu": ([1, 4, 16], doubled(512, 65536)),
    "cuda": _GPU_DECODE,
    "ascend": _GPU_DECODE,
    "mlx": ([1, 2, 4, 8], [512, 1024, 4096, 16384, 32768]),
}
PREFILL = {  # new tokens, context tokens before them
    "cpu": ([32, 64, 128, 256, 512], [0, *doubled(256, 16384)]),
    "cuda": _GPU_PREFILL,
    "ascend": _GPU_PREFILL,
    "mlx": ([128, 512, 2048], [0, 4096, 16384]),
}
WRITE_TOKENS = {"cpu": [1, 8, 64, 256, 1024], "cuda": [1, 16, 256, 1024, 4096]}
PREFILLERS = dict.fromkeys(("cuda", "ascend"), ("torch-sdpa", "attention_torch")) | {
    "cpu": ("torch-matmul", "attention_torch"),
    "mlx": ("mlx-sdpa", "attention_mlx"),
}
WRITERS = {"cpu": ("numba-pack", "attention_cpu"), "cuda": ("triton-pack", "kv_write_triton")}
MOST_READS = {"cpu": 1 << 16, "cuda": 1 << 23, "ascend": 1 << 23, "mlx": 1 << 17}  # Σ context tokens of a decode
MOST_PAIRS = {"cpu": 9 << 18, "cuda": 1 << 29, "ascend": 1 << 29, "mlx": 1 << 25}  # queries × keys of a prefill

FIRST_FORMATS = ("bf16", "fp8", "turboquant_4bit_nc", "mlx_4bit")  # measured first: what a short run is to have
COARSE_POINTS = 4  # which a table must have: both ends of context, of one sequence and of the largest batch

_TURBO = tuple(name for name in KV_FORMATS if name.startswith(("turboquant", "tq_paper")))
_Series = tuple[str, str, str]  # kernel, module, format
KERNELS: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {  # kernel, module, formats
    "cpu": [("numba-fused", "attention_cpu", tuple(KV_FORMATS)), ("torch-matmul", "attention_torch", ("bf16",))],
    "cuda": [
        ("triton-fused", "attention_triton", ("bf16", "fp8", *_TURBO)),
        ("torch-sdpa", "attention_torch", ("bf16",)),
    ],
    "ascend": [("torch-sdpa", "attention_torch", ("bf16",))],
    "mlx": [
        ("mlx-quantized-matmul", "attention_mlx", ("mlx_8bit", "mlx_4bit")),
        ("mlx-unpack-sdpa", "attention_mlx", ("tq_paper_4b",)),
        ("mlx-sdpa", "attention_mlx", ("bf16",)),
    ],
}


def cases(backend: str) -> Iterator[Case]:
    """`decode_attention` and `kv_write` of every KV format, and `prefill_attention`."""
    return in_turn(_decodes(backend), _writes(backend), _prefills(backend))


def _decodes(backend: str) -> Iterator[Case]:
    batches, contexts = DECODE[backend]
    curves = {
        sequences: [tokens for tokens in contexts if sequences * tokens <= MOST_READS[backend]] for sequences in batches
    }
    for series, point in _in_rounds(KERNELS[backend], list(curves_coarse_to_fine(curves))):
        yield decode_case(backend, *series, *point)


def decode_case(backend: str, kernel: str, module: str, kv_format: str, sequences: int, context_tokens: int) -> Case:
    """One new token of each sequence reads its whole packed context."""
    tokens = sequences * context_tokens
    return Case(
        op="decode_attention",
        backend=backend,
        kernel=kernel,
        shape={"sequences": sequences, "context_tokens": context_tokens, **HEADS, "kv_format": kv_format},
        bytes=tokens * KV_HEADS * packed_bytes(kv_format),
        flops=4 * tokens * Q_HEADS * HEAD_DIM,
        prepare=partial(_prepare, module, "prepare_decode", backend, kv_format, sequences, context_tokens),
    )


def _prefills(backend: str) -> Iterator[Case]:
    """New tokens read their context and, causally, one another; bf16."""
    kernel, module = PREFILLERS[backend]
    chunks, contexts = PREFILL[backend]
    curves = {new: [tokens for tokens in contexts if _pairs(new, tokens) <= MOST_PAIRS[backend]] for new in chunks}
    for new_tokens, context_tokens in curves_coarse_to_fine(curves):
        yield Case(
            op="prefill_attention",
            backend=backend,
            kernel=kernel,
            shape={"new_tokens": new_tokens, "context_tokens": context_tokens, **HEADS},
            bytes=4 * HEAD_DIM * (KV_HEADS * (context_tokens + new_tokens) + Q_HEADS * new_tokens),
            flops=4 * _pairs(new_tokens, context_tokens) * Q_HEADS * HEAD_DIM,
            prepare=partial(_prepare, module, "prepare_prefill", backend, new_tokens, context_tokens),
        )


def _pairs(new_tokens: int, context_tokens: int) -> float:
    """Queries times the keys that each reads."""
    return new_tokens * (context_tokens + new_tokens / 2)


def _writes(backend: str) -> Iterator[Case]:
    """New tokens' bf16 keys and values are packed into their slots."""
    if backend not in WRITERS:
        return
    formats = KERNELS[backend][0][2]
    for (kernel, module, kv_format), (tokens,) in _in_rounds(
        [(*WRITERS[backend], formats)], list(coarse_to_fine(WRITE_TOKENS[backend]))
    ):
        yield Case(
            op="kv_write",
            backend=backend,
            kernel=kernel,
            shape={"tokens": tokens, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "kv_format": kv_format},
            bytes=tokens * KV_HEADS * (4 * HEAD_DIM + packed_bytes(kv_format)),
            flops=0,
            prepare=partial(_prepare, module, "prepare_write", backend, kv_format, tokens),
        )


def _in_rounds(
    kernels: Sequence[tuple[str, str, tuple[str, ...]]], points: Sequence[tuple[int, ...]]
) -> Iterator[tuple[_Series, tuple[int, ...]]]:
    """Each kernel and format at each point: the coarse points of the first formats, then those of the others, then all
    the finer ones, so that a run cut short has whole tables of some formats and not a point of each."""
    every = [(kernel, module, kv_format) for kernel, module, formats in kernels for kv_format in formats]
    first = [series for series in every if series[2] in FIRST_FORMATS]
    rest = [series for series in every if series not in first]
    coarse, fine = points[:COARSE_POINTS], points[COARSE_POINTS:]
    for some, here in ((first, coarse), (rest, coarse), (first + rest, fine)):
        yield from ((series, point) for point in here for series in some)


def packed_bytes(kv_format: str) -> int:
    """Bytes of a token's key and value of one head; MLX's have a bf16 scale and bias for 64 elements."""
    if kv_format.startswith("mlx_"):
        bits = int(kv_format.removeprefix("mlx_").removesuffix("bit"))
        return 2 * (HEAD_DIM * bits // 8 + 4 * HEAD_DIM // 64)
    return slot_bytes(kv_format, HEAD_DIM)


def _prepare(module: str, function: str, *arguments: str | int) -> Callable[[], None]:
    """The kernel's module is imported when a case is measured: it may not be installable here."""
    run: Callable[[], None] = getattr(import_module(f"kernels_bench.{module}"), function)(*arguments)
    return run
