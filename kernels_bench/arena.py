"""Tensors colder than the caches: one arena of random values, of which each call of a kernel takes another part."""

import math
from functools import lru_cache
from itertools import accumulate

import torch

COLD_BYTES = 512 << 20  # many times the last-level cache of a CPU (tens of MiB) or a GPU (50 MiB on an H100)
ALIGNMENT_BYTES = 256
MOST_SETS = 4096  # more than a kernel is called while it is measured, and quick to make
_SEED_VALUES = 1 << 20  # values drawn; the arena repeats them, which no cache can tell
DEVICES = {"cpu": "cpu", "cuda": "cuda", "ascend": "npu"}

Part = tuple[torch.dtype, tuple[int, ...]]


def device_of(backend: str) -> torch.device:
    """The torch device of a backend; ``ascend`` needs ``torch_npu`` (untested)."""
    if backend == "ascend":
        import torch_npu  # noqa: F401 - registers the device
    return torch.device(DEVICES[backend])


def pool(backend: str, *parts: Part) -> list[tuple[torch.Tensor, ...]]:
    """Disjoint sets of tensors, one of each part, spread over the arena; at least one set.

    Their bytes are those of small bf16 normals, which any dtype may be viewed on: two make an fp32 and no NaN.
    """
    sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in parts]
    *starts, end = accumulate(map(_aligned, sizes), initial=0)
    arena = _arena(backend, max(COLD_BYTES, end))
    count = min(len(arena) // end, MOST_SETS)
    spacing = len(arena) // count // ALIGNMENT_BYTES * ALIGNMENT_BYTES

    def tensors(base: int) -> tuple[torch.Tensor, ...]:
        return tuple(
            arena[base + start : base + start + size].view(dtype).view(shape)
            for start, size, (dtype, shape) in zip(starts, sizes, parts, strict=True)
        )

    return [tensors(spacing * number) for number in range(count)]


def slices(backend: str, *shape: int, dtype: torch.dtype = torch.bfloat16) -> list[torch.Tensor]:
    """A pool of single tensors."""
    return [tensor for (tensor,) in pool(backend, (dtype, shape))]


def normal(backend: str, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Activations: standard normal values, as warm as the kernel before leaves them."""
    return torch.randn(shape, device=device_of(backend)).to(dtype)


def _aligned(size_bytes: int) -> int:
    return math.ceil(size_bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@lru_cache(maxsize=1)
def _arena(backend: str, size_bytes: int) -> torch.Tensor:
    seed = (normal(backend, _SEED_VALUES) * 0.05).view(torch.uint8)
    return seed.repeat(math.ceil(size_bytes / len(seed)))
