"""One thing to measure: a kernel at a shape, with the least it must move and compute."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A kernel at a shape; a line of kind `kernel` in the measurements file (SCHEMA.md) once it has been timed.

    A kernel module yields them from `cases(backend: str) -> Iterator[Case]` ("cpu", "cuda", "mlx" or "ascend"), in
    the order of `grid.coarse_to_fine`, and imports its heavy libraries inside its functions or at its own top, never
    in a module that the command line imports.

    `prepare` allocates and returns the function that runs one call. It is dropped when the case is measured, so that
    memory returns. Each call works on data colder than the caches (other pages, other weights of a pool). On the CPU
    and in MLX the call returns when its work is done; on CUDA and Ascend it only enqueues (events time it).
    """

    op: str  # an operation of SCHEMA.md: decode_attention, gemm, experts, ...
    backend: str  # cpu | cuda | mlx | ascend
    kernel: str  # the implementation: numba-paged, torch-sdpa, triton-split, ...
    shape: dict[str, int | float | str]  # the keys that SCHEMA.md gives the operation
    bytes: float  # what the algorithm must at least move (packed KV, the active experts' weights)
    flops: float  # what it must at least compute
    prepare: Callable[[], Callable[[], None]]
