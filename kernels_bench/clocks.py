"""How a call is timed on each backend, and the canary: fixed work of about 2 ms that shows when a machine is disturbed.

On the CPU the thread's own seconds are read, so that a neighbour who takes the core costs nothing; what a neighbour
does to caches, memory and clock rate the canary shows. On CUDA and Ascend events on the stream are read, behind a
sweep of memory that empties the caches and lets the launches get ahead of the device.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import numpy as np

Run = Callable[[], None]
_CANARY_PARTS, _CANARY_PART_BYTES = 8, 16 << 20  # read in turn, so that each comes from memory
_SWEEP_BYTES = 512 << 20  # ten times the L2 cache of an H100; long enough to hide a launch


@dataclass(frozen=True)
class Clock:
    time_s: Callable[[Run], float]  # of one call
    canary: Run


def clock(backend: str) -> Clock:
    return {"cpu": _cpu, "cuda": _torch_cuda, "ascend": _torch_npu, "mlx": _mlx}[backend]()


def _cpu() -> Clock:
    parts = cycle(np.ones((_CANARY_PARTS, _CANARY_PART_BYTES // 8)))
    angles = np.linspace(0, 1, 1 << 16)

    def canary() -> None:
        next(parts).sum()
        np.sin(angles)

    def time_s(run: Run) -> float:
        start = time.thread_time()
        run()
        return time.thread_time() - start

    return Clock(time_s, canary)


def _torch_cuda() -> Clock:
    import torch

    return _torch(torch.device("cuda"), torch.cuda)


def _torch_npu() -> Clock:
    import torch
    import torch_npu

    return _torch(torch.device("npu"), torch_npu.npu)


def _torch(device, library) -> Clock:  # type: ignore[no-untyped-def]
    import torch

    sweep = torch.empty(_SWEEP_BYTES, dtype=torch.uint8, device=device)
    square = torch.ones(4096, 4096, dtype=torch.bfloat16, device=device)
    start, end = library.Event(enable_timing=True), library.Event(enable_timing=True)

    def canary() -> None:
        for _ in range(8):
            square @ square

    def time_s(run: Run) -> float:
        sweep.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    return Clock(time_s, canary)


def _mlx() -> Clock:
    import mlx.core as mx

    square = mx.ones((2048, 2048), dtype=mx.bfloat16)

    def canary() -> None:
        mx.eval(square @ square)

    def time_s(run: Run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return Clock(time_s, canary)
