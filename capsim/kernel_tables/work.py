"""The least that a kernel must move and compute, by operation and shape, and the time of it on a device at its best.

Shapes have the keys of ``capsim.measurements.SHAPES``; sizes of formats stand in them as ``pair_bytes`` (K and V of one
KV head of one token, or the latent that serves as both) and ``weight_bytes`` (of one parameter).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from capsim.hardware import Device, Precision

BF16_BYTES = 2
MXFP4 = "mxfp4"
Shape = Mapping[str, Any]


class Work(NamedTuple):
    """Bytes to and from memory, and floating-point operations."""

    bytes: float
    flops: float


def work(op: str, shape: Shape) -> Work:
    """What ``op`` must at least do at ``shape``; activations are bf16.

    Raises
    ------
    KeyError
        No such operation, or a shape that lacks a size.
    """
    return _WORK[op](shape)


def ideal_s(done: Work, device: Device, precision: Precision = "bf16") -> float:
    """Seconds at the device's full bandwidth and then at its full arithmetic rate: a sum, as the roofline's."""
    return done.bytes / device.memory_bytes_per_s + done.flops / device.flops(precision)


def precision_of(weight_format: str, device: Device) -> Precision:
    """The arithmetic of a weight format by its name; what is neither fp8 nor fp4 computes in 16 bits.

    A chip with 4-bit arithmetic multiplies MXFP4 weights with 8-bit activations.
    """
    if weight_format in ("fp8", "fp8_block") or (weight_format == MXFP4 and device.computes_in("fp4")):
        return "fp8"
    return "fp4" if weight_format == "nvfp4" else "bf16"


def touched(experts: float, top_k: float, tokens: float) -> float:
    """Distinct experts under even routing: E(1 − (1 − k/E)^n)."""
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def _moved(s: Shape) -> Work:
    return Work(s["bytes"], 0.0)


def _gemm(s: Shape) -> Work:
    weights, tokens = s["in_features"] * s["out_features"], s["tokens"]
    activations = tokens * (s["in_features"] + s["out_features"]) * BF16_BYTES
    return Work(weights * s["weight_bytes"] + activations, 2.0 * weights * tokens)


def _norm(s: Shape) -> Work:
    elements = s["tokens"] * s["hidden"]
    return Work(2.0 * elements * BF16_BYTES, 4.0 * elements)


def _decode(s: Shape) -> Work:
    read = s["sequences"] * min(s["context_tokens"], s.get("top_k") or s["context_tokens"])
    queries = s["sequences"] * s["q_heads"] * s["head_dim"]
    kv = read * s["kv_heads"] * s["pair_bytes"]
    return Work(kv + 2.0 * queries * BF16_BYTES, 4.0 * read * s["q_heads"] * s["head_dim"])


def _mla_decode(s: Shape) -> Work:
    read = s["sequences"] * s["context_tokens"]
    width = 2.0 * s["latent_dim"] + s["rope_dim"]
    queries = s["sequences"] * s["q_heads"] * width * BF16_BYTES
    return Work(read * s["pair_bytes"] + queries, 2.0 * read * s["q_heads"] * width)


def _prefill(s: Shape) -> Work:
    new, context = s["new_tokens"], s["context_tokens"]
    kv = (context + new) * s["kv_heads"] * 2 * s["head_dim"] * BF16_BYTES
    queries = new * s["q_heads"] * s["head_dim"] * BF16_BYTES
    return Work(kv + 2.0 * queries, 4.0 * s["q_heads"] * s["head_dim"] * new * (context + (new + 1) / 2))


def _kv_write(s: Shape) -> Work:
    vectors = s["tokens"] * s["kv_heads"]
    return Work(vectors * (s["pair_bytes"] + 2 * s["head_dim"] * BF16_BYTES), 2.0 * vectors * s["head_dim"])


def _experts(s: Shape) -> Work:
    """Weights of the experts touched (by even routing where the shape does not say) and of the shared ones."""
    expert = 3.0 * s["hidden"] * s["intermediate"]
    active = s.get("active_experts") or touched(s["experts"], s["top_k"], s["tokens"])
    shared = s["shared_experts"]
    activations = 2.0 * s["tokens"] * s["hidden"] * BF16_BYTES
    flops = 2.0 * expert * s["tokens"] * (s["top_k"] + shared)
    return Work(expert * (active + shared) * s["weight_bytes"] + activations, flops)


def _experts_dense(s: Shape) -> Work:
    """Dense matrices of as many parameters as a token's experts."""
    return _experts({**s, "active_experts": s["top_k"]})


_WORK = {
    "memory_copy": _moved, "memory_read": _moved, "all_reduce": _moved, "all_to_all": _moved, "gemm": _gemm,
    "norm": _norm, "decode_attention": _decode, "sparse_attention": _decode, "mla_decode": _mla_decode,
    "prefill_attention": _prefill, "kv_write": _kv_write, "experts": _experts, "experts_dense": _experts_dense,
}  # fmt: skip
