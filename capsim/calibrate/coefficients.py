"""Coefficients of the roofline from kernel tables: what stands in where no kernel was measured."""

from collections.abc import Sequence

import numpy as np

from capsim.calibrate.sum_roofline import fit_sum_roofline
from capsim.hardware import Device
from capsim.kernel_tables import KernelTable, Surface, Work, work
from capsim.kernel_tables.table import AXES

SIXTEEN_BITS = ("bf16", "fp16")


def fractions(tables: Sequence[KernelTable], device: Device) -> dict[str, float]:
    """Reached shares of bandwidth and arithmetic, from all 16-bit GEMMs together, else from all kernels."""
    gemms = [table for table in tables if table.op == "gemm" and table.shape["weight_format"] in SIXTEEN_BITS]
    works, seconds = _points(gemms or tables)
    if not works:
        return {"memory_fraction": 1.0, "flops_fraction": 1.0}
    fit = fit_sum_roofline(works, seconds)
    return {
        "memory_fraction": _share(fit.byte_s, device.memory_bytes_per_s),
        "flops_fraction": _share(fit.flop_s, device.bf16_flops),
    }


def kv_costs(tables: Sequence[KernelTable], device: Device, reached: dict[str, float]) -> dict[str, dict[str, float]]:
    """Per KV format, seconds beyond its bytes and arithmetic to read a KV token (a query head and layer), and to write
    one (a KV head and layer): the slopes of the kernels at their largest sizes."""
    byte_s = 1 / (device.memory_bytes_per_s * reached["memory_fraction"])
    flop_s = 1 / (device.bf16_flops * reached["flops_fraction"])
    extra: dict[str, float] = {}
    write: dict[str, float] = {}
    for table in tables:
        kv_format = str(table.shape.get("kv_format"))
        if table.op == "decode_attention":
            heads, dim = float(table.shape["q_heads"]), float(table.shape["head_dim"])
            read = float(table.shape["kv_heads"]) * float(table.shape["pair_bytes"])
            beyond = _slope(table) - read * byte_s - 4 * heads * dim * flop_s
            extra[kv_format] = min(extra.get(kv_format, np.inf), max(0.0, beyond) / heads)
        elif table.op == "kv_write":
            each = _slope(table) / float(table.shape["kv_heads"])
            write[kv_format] = min(write.get(kv_format, np.inf), each)
    return {"kv_extra_s": extra, "kv_write_s": write}


def link(tables: Sequence[KernelTable], device: Device) -> dict[str, float]:
    """Latency of a collective and the reached share of the link, from all-reduces; nothing where none was measured.

    A ring all-reduce over n devices passes 2 (n − 1) / n of the bytes over each link.
    """
    rings = [table for table in tables if table.op == "all_reduce"]
    if not rings or device.link_bytes_per_s is None:
        return {}
    widest = max(rings, key=lambda table: float(table.shape["devices"]))
    devices = float(widest.shape["devices"])
    moved = 2 * (devices - 1) / devices
    return {
        "collective_s": widest.fit.call_s,
        "link_fraction": _share(widest.fit.byte_s / moved, device.link_bytes_per_s),
    }


def _share(each_s: float, full_rate: float) -> float:
    return min(1.0, 1 / (each_s * full_rate)) if each_s > 0 else 1.0


def _slope(table: KernelTable) -> float:
    """Seconds that a further token takes at the largest measured sizes, for one sequence."""
    curve = table.curves[-1]
    most = curve.sizes[-1]
    grown = Surface(table).seconds(2 * most, curve.at) - curve.seconds[-1]
    return grown / most / (curve.at if AXES[table.op][0] else 1.0)


def _points(tables: Sequence[KernelTable]) -> tuple[list[Work], list[float]]:
    works, seconds = [], []
    for table in tables:
        outer, inner = AXES[table.op]
        for curve in table.curves:
            for size, time in zip(curve.sizes, curve.seconds, strict=True):
                works.append(work(table.op, {**table.shape, inner: size, **({outer: curve.at} if outer else {})}))
                seconds.append(time)
    return works, seconds
