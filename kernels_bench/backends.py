"""What runs where: each backend's kernel modules, what it needs, and what its machine is called."""

import importlib
import os
import platform
import re
import subprocess
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kernels_bench.case import Case

MODULES = {  # each has `cases(backend)`; their heavy libraries are imported when a case is prepared
    "cuda": ["attention", "memory", "gemm", "experts", "mla", "sparse", "layer", "collectives"],
    "ascend": ["attention", "memory", "gemm", "experts", "mla", "sparse", "layer", "collectives"],  # untested
    "mlx": ["attention", "memory", "gemm", "experts"],
    "cpu": ["attention", "memory", "gemm", "experts", "mla", "sparse", "layer", "collectives"],
}
ALIASES = {"nvidia-gb10": "dgx-spark", "ascend910b3": "ascend-910b"}  # drivers' names of devices in capsim's catalog
LIBRARIES = ("numpy", "numba", "torch", "torch_npu", "triton", "mlx")


def lack(backend: str) -> str | None:
    """What a backend needs and this machine has not; None where it can run."""
    try:
        if backend == "cuda":
            import torch

            return None if torch.cuda.is_available() else "torch sees no CUDA device"
        if backend == "ascend":
            import torch_npu

            return None if torch_npu.npu.is_available() else "torch_npu sees no device"
        if backend == "mlx":
            import mlx.core as mx

            return None if mx.metal.is_available() else "mlx sees no Apple GPU"
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    return None


def device_name(backend: str) -> str:
    """The machine's name in a measurements file, as capsim's catalog has it where it knows the device:
    `nvidia-h100-80gb-hbm3`, `apple-m4-pro-64-gb`, `cpu-amd-epyc-9555`."""
    name = _slug(_chip(backend))
    if backend == "mlx":  # Macs of one chip differ in memory
        return f"{name}-{round(_memory_bytes(backend) / 2**30)}-gb"
    return f"cpu-{name}" if backend == "cpu" else ALIASES.get(name, name)


def environment(backend: str) -> dict[str, str | int]:
    """What a measurement depends on beside the kernel: processor, threads, versions, driver."""
    found: dict[str, str | int] = {"python": platform.python_version()}
    if backend == "cpu":
        found |= {"cpu": _processor(), "threads": 1}
    else:
        found |= {"device": _chip(backend), "host_cpu": _processor()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    found |= {"memory_bytes": _memory_bytes(backend), "system": platform.platform()}
    if backend == "cuda":
        import torch

        found |= {"cuda": torch.version.cuda or "", "driver": _nvidia_driver()}
    return found


def cases_by_operation(backend: str) -> dict[str, list[Case]]:
    """The cases of each operation of a backend, in the order of its kernel module."""
    found: dict[str, list[Case]] = defaultdict(list)
    for name in MODULES[backend]:
        for case in importlib.import_module(f"kernels_bench.{name}").cases(backend):
            found[case.op].append(case)
    return found


def _memory_bytes(backend: str) -> int:
    """The memory that weights and KV have to share: the card's, or the machine's."""
    if backend == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    if backend == "ascend":
        import torch_npu

        return int(torch_npu.npu.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _chip(backend: str) -> str:
    """What the driver calls the device; a Mac's is its processor."""
    if backend == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    if backend == "ascend":
        import torch_npu

        return str(torch_npu.npu.get_device_name())
    return _processor()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        if found:
            return found[1].strip()
    if platform.system() == "Darwin":
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    return platform.processor() or platform.machine()


def _nvidia_driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return ""


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
