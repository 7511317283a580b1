"""Dense GEMMs, the LM head among them, and RMS norms."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

from kernels_bench.case import Case
from kernels_bench.sweep import in_turn, token_counts
from kernels_bench.weights import weight_bytes

# (in_features, out_features, weight format, most tokens); the widest is an LM head, whose tokens are sequences
_GPU = [
    (4096, 4096, "bf16", 4096),
    (4096, 14336, "bf16", 4096),
    (8192, 8192, "bf16", 4096),
    (4096, 4096, "fp32", 1024),
    (4096, 128256, "bf16", 256),
]
GEMMS = {
    "cpu": [
        (2048, 2048, "bf16", 1024),
        (2048, 8192, "bf16", 256),
        (2048, 2048, "fp32", 128),
        (2048, 32768, "bf16", 16),
    ],
    "cuda": _GPU,
    "ascend": _GPU,
    "mlx": [
        (4096, 4096, "bf16", 2048),
        (4096, 14336, "bf16", 1024),
        (4096, 4096, "int8", 1024),
        (4096, 4096, "int4", 1024),
        (4096, 128256, "int4", 64),
    ],
}
NORMS = {"cpu": (2048, 512), "cuda": (8192, 4096), "ascend": (8192, 4096)}  # hidden, most tokens


def cases(backend: str) -> Iterator[Case]:
    """``gemm`` of each shape and ``norm``, over tokens."""
    grids = [_gemms(backend, *gemm) for gemm in GEMMS.get(backend, [])]
    if backend in NORMS:
        grids.append(_norms(backend, *NORMS[backend]))
    return in_turn(*grids)


def gemm_case(backend: str, tokens: int, in_features: int, out_features: int, weight_format: str) -> Case:
    """Activations (tokens, in_features) times transposed weights (out_features, in_features)."""
    activation_bytes = 4 if weight_format == "fp32" else 2
    kernel = "torch-linear" if backend != "mlx" else "mlx-matmul" if weight_format == "bf16" else "mlx-quantized_matmul"
    prepare = _prepare_mlx if backend == "mlx" else _prepare_linear
    return Case(
        op="gemm",
        backend=backend,
        kernel=kernel,
        shape={
            "tokens": tokens,
            "in_features": in_features,
            "out_features": out_features,
            "weight_format": weight_format,
        },
        bytes=weight_bytes(out_features, in_features, weight_format, backend)
        + tokens * (in_features + out_features) * activation_bytes,
        flops=2 * tokens * in_features * out_features,
        prepare=partial(prepare, backend, tokens, in_features, out_features, weight_format),
    )


def norm_case(backend: str, tokens: int, hidden: int) -> Case:
    """RMS norm of bf16 activations (tokens, hidden)."""
    return Case(
        op="norm",
        backend=backend,
        kernel="torch-rms_norm",
        shape={"tokens": tokens, "hidden": hidden},
        bytes=2 * (2 * tokens * hidden + hidden),
        flops=4 * tokens * hidden,
        prepare=partial(_prepare_norm, backend, tokens, hidden),
    )


def _gemms(backend: str, in_features: int, out_features: int, weight_format: str, most: int) -> Iterator[Case]:
    for tokens in token_counts(most):
        yield gemm_case(backend, tokens, in_features, out_features, weight_format)


def _norms(backend: str, hidden: int, most: int) -> Iterator[Case]:
    for tokens in token_counts(most):
        yield norm_case(backend, tokens, hidden)


def _prepare_linear(
    backend: str, tokens: int, in_features: int, out_features: int, weight_format: str
) -> Callable[[], None]:
    import torch

    from kernels_bench.arena import normal, slices

    dtype = torch.float32 if weight_format == "fp32" else torch.bfloat16
    activations = normal(backend, tokens, in_features, dtype=dtype)
    weights = cycle(slices(backend, out_features, in_features, dtype=dtype))

    def call() -> None:
        torch.nn.functional.linear(activations, next(weights))

    return call


def _prepare_norm(backend: str, tokens: int, hidden: int) -> Callable[[], None]:
    import torch

    from kernels_bench.arena import slices

    activations = cycle(slices(backend, tokens, hidden))
    (gain,) = slices(backend, hidden)[:1]

    def call() -> None:
        torch.nn.functional.rms_norm(next(activations), (hidden,), gain, 1e-6)

    return call


def _prepare_mlx(_: str, tokens: int, in_features: int, out_features: int, weight_format: str) -> Callable[[], None]:
    from kernels_bench.gemm_mlx import prepare_gemm

    return prepare_gemm(tokens, in_features, out_features, weight_format)
