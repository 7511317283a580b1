"""Attention over a KV cache: what is measured of it, the same on every backend."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine
from kernels_bench.kv_formats import KV_FORMATS, slot_bytes
from kernels_bench.sweep import in_turn

Q_HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128  # Llama 3 8B's; 70B's on two ranks, too
HEADS: dict[str, int | float | str] = {"q_heads": Q_HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM}

_GPU_DECODE = [1, 4, 8, 16, 32, 64], [1024, 4096, 8192, 16384, 32768, 65536, 131072]
_GPU_PREFILL = [128, 512, 2048, 8192], [0, 4096, 32768, 131072]
DECODE = {  # sequences, context tokens of each
    "cpu": ([1, 4, 16], [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]),
    "cuda": _GPU_DECODE,
    "ascend": _GPU_DECODE,
    "mlx": ([1, 2, 4, 8], [512, 1024, 4096, 16384, 32768]),
}
PREFILL = {  # new tokens, context tokens before them
    "cpu": ([32, 64, 128, 256, 512], [0, 1024, 4096, 16384]),
    "cuda": _GPU_PREFILL,
    "ascend": _GPU_PREFILL,
    "mlx": ([128, 512, 2048], [0, 4096, 16384]),
}
WRITE_TOKENS = {"cpu": [1, 8, 64, 256, 1024], "cuda": [1, 16, 256, 1024, 4096]}
PREFILLERS = dict.fromkeys(("cpu", "cuda", "ascend"), ("torch-sdpa", "attention_torch")) | {
    "mlx": ("mlx-sdpa", "attention_mlx")
}
WRITERS = {"cpu": ("numba-pack", "attention_cpu"), "cuda": ("triton-pack", "kv_write_triton")}
MOST_READS = {"cpu": 1 << 16, "cuda": 1 << 23, "ascend": 1 << 23, "mlx": 1 << 17}  # Σ context tokens of a decode
MOST_PAIRS = {"cpu": 1 << 19, "cuda": 1 << 29, "ascend": 1 << 29, "mlx": 1 << 25}  # queries × keys of a prefill

_TURBO = tuple(name for name in KV_FORMATS if name.startswith("turboquant"))
KERNELS: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {  # kernel, module, formats
    "cpu": [("numba-fused", "attention_cpu", tuple(KV_FORMATS)), ("torch-matmul", "attention_torch", ("bf16",))],
    "cuda": [
        (
            "triton-fused",
            "attention_triton",
            ("bf16", "fp8", *_TURBO),
        ),
        ("torch-sdpa", "attention_torch", ("bf16",)),
    ],
    "ascend": [("torch-sdpa", "attention_torch", ("bf16",))],
    "mlx": [
        ("mlx-quantized-matmul", "attention_mlx", ("mlx_8bit", "mlx_4bit")),
        ("mlx-unpack-sdpa", "attention_mlx", ("turboquant_4",)),
        ("mlx-sdpa", "attention_mlx", ("bf16",)),
    ],
}


def cases(backend: str) -> Iterator[Case]:
    """`decode_attention` and `kv_write` of every KV format, and `prefill_attention`."""
    return in_turn(_decodes(backend), _writes(backend), _prefills(backend))


def _decodes(backend: str) -> Iterator[Case]:
    for sequences, context_tokens in coarse_to_fine(*DECODE[backend]):
        if sequences * context_tokens > MOST_READS[backend]:
            continue
        for kernel, module, kv_formats in KERNELS[backend]:
            for kv_format in kv_formats:
                yield decode_case(backend, kernel, module, kv_format, sequences, context_tokens)


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
    for new_tokens, context_tokens in coarse_to_fine(*PREFILL[backend]):
        pairs = new_tokens * (context_tokens + new_tokens / 2)
        if pairs <= MOST_PAIRS[backend]:
            yield Case(
                op="prefill_attention",
                backend=backend,
                kernel=kernel,
                shape={"new_tokens": new_tokens, "context_tokens": context_tokens, **HEADS},
                bytes=4 * HEAD_DIM * (KV_HEADS * (context_tokens + new_tokens) + Q_HEADS * new_tokens),
                flops=4 * pairs * Q_HEADS * HEAD_DIM,
                prepare=partial(_prepare, module, "prepare_prefill", backend, new_tokens, context_tokens),
            )


def _writes(backend: str) -> Iterator[Case]:
    """New tokens' bf16 keys and values are packed into their slots."""
    if backend not in WRITERS:
        return
    (kernel, module), (_, _, kv_formats) = WRITERS[backend], KERNELS[backend][0]
    for (tokens,) in coarse_to_fine(WRITE_TOKENS[backend]):
        for kv_format in kv_formats:
            yield Case(
                op="kv_write",
                backend=backend,
                kernel=kernel,
                shape={"tokens": tokens, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "kv_format": kv_format},
                bytes=tokens * KV_HEADS * (4 * HEAD_DIM + packed_bytes(kv_format)),
                flops=0,
                prepare=partial(_prepare, module, "prepare_write", backend, kv_format, tokens),
            )


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
