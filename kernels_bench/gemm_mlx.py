"""Dense GEMMs and memory traffic in MLX, on unified memory; tested on a CPU, measured on none of Apple's GPUs."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import mlx.core as mx

from kernels_bench.weights import BITS, GROUP, weight_bytes

COLD_BYTES = 512 << 20  # many times the system cache of Apple's chips (up to 96 MB)
Weights = tuple[mx.array, ...]  # values alone (bf16), or packed values, scales and zeros as mx.quantize returns them


def random_weights(*shape: int, weight_format: str) -> Weights:
    """Weights (..., out, in) in bf16, or in MLX's groupwise int8 or int4, from random bits."""
    if weight_format == "bf16":
        return (mx.random.normal(shape, dtype=mx.bfloat16, scale=0.05),)
    *outer, columns = shape
    words = columns * BITS[weight_format] // 32
    packed = mx.random.randint(0, 1 << 31, (*outer, words), dtype=mx.uint32)
    scales, zeros = (mx.random.normal((*outer, columns // GROUP), dtype=mx.bfloat16, scale=0.05) for _ in range(2))
    return packed, scales, zeros


def copies(bytes_: float) -> int:
    """How many sets of weights of so many bytes are colder than the caches."""
    return max(2, round(COLD_BYTES / bytes_))


def linear(rows: mx.array, weights: Weights, weight_format: str) -> mx.array:
    """Rows (n, in) times transposed weights (out, in)."""
    if weight_format == "bf16":
        return rows @ weights[0].T
    return mx.quantized_matmul(rows, *weights, transpose=True, group_size=GROUP, bits=BITS[weight_format])


def prepare_gemm(tokens: int, in_features: int, out_features: int, weight_format: str) -> Callable[[], None]:
    """A GEMM on other weights at each call."""
    rows = mx.random.normal((tokens, in_features), dtype=mx.bfloat16)
    count = copies(weight_bytes(out_features, in_features, weight_format, "mlx"))
    pool = [random_weights(out_features, in_features, weight_format=weight_format) for _ in range(count)]
    mx.eval(rows, pool)
    weights = cycle(pool)

    def call() -> None:
        mx.eval(linear(rows, next(weights), weight_format))

    return call


def prepare_copy(size_bytes: int) -> Callable[[], None]:
    """Read a buffer and write one of the same size."""
    return _over_buffers(size_bytes, lambda buffer: buffer + 1)


def prepare_read(size_bytes: int) -> Callable[[], None]:
    """Add up a buffer's words."""
    return _over_buffers(size_bytes, mx.sum)


def _over_buffers(size_bytes: int, operation: Callable[[mx.array], Any]) -> Callable[[], None]:
    pool = [mx.random.normal((size_bytes // 4,)) for _ in range(copies(size_bytes))]
    mx.eval(pool)
    buffers = cycle(pool)

    def call() -> None:
        mx.eval(operation(next(buffers)))

    return call
