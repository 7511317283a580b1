"""All-reduce and all-to-all over the devices of a machine, a process each.

This process is the first device's and times the call. The others watch a counter in shared memory and join each call
within microseconds, so that the first never waits for a process to be woken.
"""

import tempfile
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from kernels_bench.case import Case
from kernels_bench.grid import coarse_to_fine

if TYPE_CHECKING:
    from torch import Tensor

LIBRARIES = {"cpu": "gloo", "cuda": "nccl", "ascend": "hccl"}
SIZES_BYTES = [1 << power for power in range(12, 29, 2)]
START_TIMEOUT = timedelta(minutes=2)


def cases(backend: str) -> Iterator[Case]:
    """``all_reduce`` and ``all_to_all`` of a buffer of ``bytes`` on each of all ``devices``."""
    devices = device_count(backend)
    sizes = SIZES_BYTES if devices > 1 else SIZES_BYTES[:1]  # where there is one, a case to say so
    for (size,) in coarse_to_fine(sizes):
        for op, rounds in (("all_reduce", 2), ("all_to_all", 1)):
            yield Case(
                op=op,
                backend=backend,
                kernel=f"torch-{LIBRARIES[backend]}",
                shape={"bytes": size, "devices": devices},
                bytes=rounds * (devices - 1) / devices * size,  # that leave each device
                flops=0,
                prepare=partial(_prepare, op, backend, size, devices),
            )


def device_count(backend: str) -> int:
    """Devices of a backend in this machine; its CPUs are one."""
    if backend == "cpu":
        return 1
    import torch

    if backend == "ascend":
        import torch_npu

        return torch_npu.npu.device_count()
    return torch.cuda.device_count()


def join(op: str, backend: str, size_bytes: int, devices: int) -> Callable[[], "Tensor"]:
    """Start the other devices' processes; the call that all of them join returns the first one's result.

    They end when the call is dropped.
    """
    context = get_context("spawn")
    asked, over = context.RawValue("q", 0), context.RawValue("b", 0)
    meeting = tempfile.TemporaryDirectory()
    where = f"file://{meeting.name}/store"
    others = [
        context.Process(target=_member, args=(op, backend, size_bytes, rank, devices, where, asked, over), daemon=True)
        for rank in range(1, devices)
    ]
    for process in others:
        process.start()
    run = _enter(op, backend, size_bytes, 0, devices, where)

    def call() -> "Tensor":
        asked.value += 1
        return run()

    weakref.finalize(call, _leave, over, others, meeting)
    return call


def _prepare(op: str, backend: str, size_bytes: int, devices: int) -> Callable[[], None]:
    if devices < 2:
        raise ValueError("there is one device")
    run = join(op, backend, size_bytes, devices)

    def call() -> None:
        run()

    return call


def _enter(op: str, backend: str, size_bytes: int, rank: int, devices: int, where: str) -> Callable[[], "Tensor"]:
    """Join the group and return this device's part in a call, once done to connect it."""
    import torch
    import torch.distributed as dist

    from kernels_bench.arena import device_of

    device = torch.device(device_of(backend).type, rank) if backend != "cpu" else device_of(backend)
    if backend != "cpu":
        getattr(torch, device.type).set_device(device)
    dist.init_process_group(LIBRARIES[backend], where, START_TIMEOUT, world_size=devices, rank=rank)
    own = torch.full((size_bytes // 2,), rank + 1, dtype=torch.bfloat16, device=device)
    received = torch.empty_like(own)

    def run() -> torch.Tensor:
        if op == "all_reduce":
            dist.all_reduce(own)  # in place, as engines do; that the values grow costs nothing
            return own
        dist.all_to_all_single(received, own)
        return received

    run()
    return run


def _member(op: str, backend: str, size_bytes: int, rank: int, devices: int, where: str, asked: Any, over: Any) -> None:
    """Another device's process: joins each call that is asked for until all is over."""
    import torch.distributed as dist

    run, joined = _enter(op, backend, size_bytes, rank, devices, where), 0
    while not over.value or joined < asked.value:
        if joined < asked.value:
            run()
            joined += 1
    dist.destroy_process_group()


def _leave(over: Any, others: list[Any], meeting: tempfile.TemporaryDirectory[str]) -> None:
    import torch.distributed as dist

    over.value = 1
    dist.destroy_process_group()
    for process in others:
        process.join()
    meeting.cleanup()
