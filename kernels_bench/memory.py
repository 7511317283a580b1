"""The two ceilings of a machine's memory: copying a buffer, and reading one."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine

SIZES_BYTES = {
    "cpu": [1 << power for power in range(16, 28, 2)],
    "cuda": [1 << power for power in range(16, 30, 2)],
    "ascend": [1 << power for power in range(16, 30, 2)],
    "mlx": [1 << power for power in range(16, 30, 2)],
}


def cases(backend: str) -> Iterator[Case]:
    """``memory_copy`` (reads and writes each byte) and ``memory_read`` (adds the words up) of ``bytes``."""
    library = "mlx" if backend == "mlx" else "torch"
    for (size,) in coarse_to_fine(SIZES_BYTES[backend]):
        copy, read = partial(_prepare_copy, backend, size), partial(_prepare_read, backend, size)
        yield Case("memory_copy", backend, f"{library}-copy", {"bytes": size}, 2 * size, 0, copy)
        yield Case("memory_read", backend, f"{library}-sum", {"bytes": size}, size, 0, read)


def _prepare_copy(backend: str, size_bytes: int) -> Callable[[], None]:
    """Copy from one part of the arena to the one before."""
    if backend == "mlx":
        from kernels_bench.gemm_mlx import prepare_copy

        return prepare_copy(size_bytes)
    from kernels_bench.arena import slices

    pool = slices(backend, size_bytes // 2)
    pairs = cycle(zip(pool, pool[1:] + pool[:1], strict=True))

    def call() -> None:
        target, source = next(pairs)
        target.copy_(source)

    return call


def _prepare_read(backend: str, size_bytes: int) -> Callable[[], None]:
    """Add up the words of one part: whole numbers on the CPU, where they are quickest, fp32 elsewhere."""
    if backend == "mlx":
        from kernels_bench.gemm_mlx import prepare_read

        return prepare_read(size_bytes)
    import torch

    from kernels_bench.arena import slices

    word = torch.int64 if backend == "cpu" else torch.float32
    pool = cycle(slices(backend, size_bytes // word.itemsize, dtype=word))

    def call() -> None:
        next(pool).sum()

    return call
