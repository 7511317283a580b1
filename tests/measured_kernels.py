"""Synthetic measurements of a machine whose kernels follow a known model, for tests to recover."""

import json

import numpy as np

from capsim.kernel_tables import Work, work
from capsim.measurements import Kernel, Step

BANDWIDTH, RATE, CALL_S = 13e9, 1e12, 20e-6  # bytes/s, FLOP/s of what the synthetic kernels reach
TOKENS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
CONTEXTS = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
HEADS = {"q_heads": 32, "kv_heads": 8, "head_dim": 128}
GEMM = {"in_features": 2048, "out_features": 2048, "weight_format": "bf16"}
EXPERTS = {
    "hidden": 1024, "intermediate": 512, "experts": 64, "top_k": 8, "shared_experts": 0, "skew": 0.0,
    "weight_format": "bf16",
}  # fmt: skip
PAIR_BYTES = {"bf16": 512.0, "turboquant_4bit_nc": 134.0}
EXTRA_S = {"bf16": 0.0, "turboquant_4bit_nc": 4e-10}  # to dequantise, a query head and KV token


def seconds(op: str, shape: dict) -> float:
    done = _work(op, shape)
    extra = 0.0
    if op == "decode_attention":
        extra = EXTRA_S[shape["kv_format"]] * shape["q_heads"] * shape["sequences"] * shape["context_tokens"]
    return CALL_S + done.bytes / BANDWIDTH + done.flops / RATE + extra


def _work(op: str, shape: dict) -> Work:
    sizes = {"pair_bytes": PAIR_BYTES.get(shape.get("kv_format", ""), 0.0), "weight_bytes": 2.0}
    return work(op, {**shape, **sizes})


def row(op: str, shape: dict, noise: float = 0.0, draw=None, kernel: str = "synthetic", slower: float = 1.0) -> Kernel:
    factor = slower * (float(np.exp(draw.normal(0, noise))) if draw is not None else 1.0)
    done = _work(op, shape)
    return Kernel(
        op=op, backend="cpu", kernel=kernel, shape=shape, median_s=seconds(op, shape) * factor, iqr_s=0.0, runs=9,
        bytes=done.bytes, flops=done.flops,
    )  # fmt: skip


def rows(noise: float = 0.0, seed: int = 1) -> list[Kernel]:
    """A whole machine: ceilings, GEMMs, norms, decode in two formats, prefill, writes and experts."""
    draw = np.random.default_rng(seed)
    made = [row("memory_read", {"bytes": size}, noise, draw) for size in (1 << power for power in range(20, 30, 2))]
    made += [row("gemm", {"tokens": n, **GEMM}, noise, draw) for n in TOKENS]
    made += [row("gemm", {"tokens": n, **GEMM, "out_features": 8192}, noise, draw) for n in TOKENS]
    made += [row("norm", {"tokens": n, "hidden": 2048}, noise, draw) for n in TOKENS]
    for kv_format in PAIR_BYTES:
        shape = {**HEADS, "kv_format": kv_format}
        made += [
            row("decode_attention", {"sequences": s, "context_tokens": c, **shape}, noise, draw)
            for s in (1, 4, 16) for c in CONTEXTS
        ]  # fmt: skip
        write = {"kv_heads": 8, "head_dim": 128, "kv_format": kv_format}
        made += [row("kv_write", {"tokens": n, **write}, noise, draw) for n in TOKENS]
    made += [
        row("prefill_attention", {"new_tokens": n, "context_tokens": c, **HEADS}, noise, draw)
        for n in (64, 256, 1024) for c in (0, 1024, 4096, 16384)
    ]  # fmt: skip
    for n in TOKENS:
        active = 64 * (1 - (1 - 8 / 64) ** n)
        made.append(row("experts", {"tokens": n, **EXPERTS, "active_experts": active}, noise, draw))
    return made


def step(line: dict) -> Step:
    return Step(**{key: value for key, value in line.items() if key != "kind"})


def write(path, kernels=(), others=(), device="cpu-test", **environment):
    """A measurements file with these rows."""
    header = {
        "schema": "capsim-measurements", "version": 1, "device": device, "created": "2026-11-24T10:00:00Z",
        "environment": {"cpu": "a test", "threads": 1, "memory_bytes": 24e9, **environment},
        "source": "kernels_bench 0.1.0",
    }  # fmt: skip
    lines = [header, *({"kind": "kernel", **kernel.model_dump()} for kernel in kernels), *others]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
