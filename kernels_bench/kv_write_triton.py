"""Quantise-on-append in Triton for CUDA: new keys and values packed into their slots, a program a vector."""

from collections.abc import Callable
from itertools import cycle

import torch
import triton
import triton.language as tl
from triton.compiler import ASTSource

from kernels_bench.attention import HEAD_DIM, KV_HEADS
from kernels_bench.attention_triton import PAGE_TOKENS, cold_pool, levels_of, rotation
from kernels_bench.kv_formats import BF16, FP8, KV_FORMATS, TURBO, UNIFORM

_BF16, _FP8, _UNIFORM, _TURBO = (tl.constexpr(kind) for kind in (BF16, FP8, UNIFORM, TURBO))


@triton.jit
def _store_half(number, slot):
    """A number as little-endian fp16."""
    bits = number.to(tl.float16).to(tl.uint16, bitcast=True)
    tl.store(slot, (bits & 255).to(tl.uint8))
    tl.store(slot + 1, (bits >> 8).to(tl.uint8))


@triton.jit
def _store_codes(codes, slot, BITS: tl.constexpr, COUNT: tl.constexpr):
    """COUNT codes as a bit stream: in groups of 8 (3 bytes of 3 bits), or as many as fill a byte."""
    per_group: tl.constexpr = 8 if BITS == 3 else 8 // BITS
    group_bytes: tl.constexpr = per_group * BITS // 8
    shifts = tl.arange(0, per_group) * BITS
    words = tl.sum(tl.reshape(codes, [COUNT // per_group, per_group]) << shifts[None, :], 1)
    for byte in tl.static_range(group_bytes):
        place = tl.arange(0, COUNT // per_group) * group_bytes + byte
        tl.store(slot + place, ((words >> (8 * byte)) & 255).to(tl.uint8))


@triton.jit
def _nearest(x, levels, BITS: tl.constexpr):
    """The code of the nearest level, by counting the midpoints below, and the levels' squared norm."""
    codes = tl.zeros(x.shape, tl.int32)
    for code in tl.static_range(2**BITS - 1):
        middle = (tl.load(levels + code) + tl.load(levels + code + 1)) / 2
        codes += (x > middle).to(tl.int32)
    chosen = tl.load(levels + codes)
    return codes, tl.sum(chosen * chosen, 0)


@triton.jit
def pack_vectors(
    x, pool, slots, levels, page_stride, token_stride, head_stride,
    D: tl.constexpr, PAGE: tl.constexpr, AT: tl.constexpr, KIND: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, CORRECTED: tl.constexpr,
):  # fmt: skip
    """Vector (token, head) of `x` (tokens, kv_heads, D) into the slot of its token, from byte AT on.

    TurboQuant's come rotated; `levels` are `attention_triton.levels_of`.
    """
    token, head, heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    place = tl.load(slots + token)
    slot = pool + (place // PAGE) * page_stride + (place % PAGE) * token_stride + head * head_stride + AT
    source = x + (token * heads + head) * D
    middle: tl.constexpr = D * FIRST // 16
    end: tl.constexpr = D * (FIRST + SECOND) // 16
    if KIND == _BF16:
        whole = tl.load(source + tl.arange(0, D)).to(tl.bfloat16)
        tl.store(slot.to(tl.pointer_type(tl.bfloat16), bitcast=True) + tl.arange(0, D), whole)
    elif KIND == _FP8:
        whole = tl.clamp(tl.load(source + tl.arange(0, D)).to(tl.float32), -448.0, 448.0)
        tl.store(slot + tl.arange(0, D), whole.to(tl.float8e4nv).to(tl.uint8, bitcast=True))
    else:
        low = tl.load(source + tl.arange(0, D // 2)).to(tl.float32)
        high = tl.load(source + D // 2 + tl.arange(0, D // 2)).to(tl.float32)
        if KIND == _UNIFORM:
            zero = tl.minimum(tl.min(low, 0), tl.min(high, 0))
            top = tl.maximum(tl.max(low, 0), tl.max(high, 0))
            steps: tl.constexpr = 2**FIRST - 1
            scale = tl.maximum((top - zero) / steps, 1e-8)
            low_codes = tl.minimum(((low - zero) / scale + 0.5).to(tl.int32), steps)
            high_codes = tl.minimum(((high - zero) / scale + 0.5).to(tl.int32), steps)
            _store_half(zero, slot + end + 2)
        else:
            scale = tl.sqrt(tl.sum(low * low, 0) + tl.sum(high * high, 0))
            inverse = 1 / tl.maximum(scale, 1e-30)
            low_codes, low_squared = _nearest(low * inverse, levels, FIRST)
            high_codes, high_squared = _nearest(high * inverse, levels + 16, SECOND)
            if CORRECTED:
                scale /= tl.sqrt(low_squared + high_squared)
        _store_codes(low_codes, slot, FIRST, D // 2)
        _store_codes(high_codes, slot + middle, SECOND, D // 2)
        _store_half(scale, slot + end)


def write(keys: torch.Tensor, values: torch.Tensor, pool: torch.Tensor, slots: torch.Tensor, kv_format: str) -> None:
    """Pack new tokens' keys and values, bf16 (tokens, kv_heads, head_dim) each, into the slots of the pool.

    `slots` int64 (tokens,): page × PAGE_TOKENS + place in the page.
    """
    tokens, kv_heads, head_dim = keys.shape
    at = 0
    for x, vector in zip((keys, values), KV_FORMATS[kv_format], strict=True):
        turned = x.float() @ rotation(head_dim, x.device).T if vector.rotated else x
        pack_vectors[(tokens, kv_heads)](
            turned, pool, slots, levels_of(vector, head_dim, x.device), pool.stride(0), pool.stride(1), pool.stride(2),
            **constants(kv_format, at, head_dim), num_warps=1,
        )  # fmt: skip
        at = vector.nbytes(head_dim)


def constants(kv_format: str, at: int, head_dim: int) -> dict[str, object]:
    """What `pack_vectors` is compiled for: the key where `at` is 0, the value behind it."""
    vector = KV_FORMATS[kv_format][at > 0]
    return {
        "D": head_dim,
        "PAGE": PAGE_TOKENS,
        "AT": at,
        "KIND": vector.kind,
        "FIRST": vector.bits[0],
        "SECOND": vector.bits[1],
        "CORRECTED": vector.norm_correction,
    }


def source(kv_format: str, head_dim: int) -> ASTSource:
    """`pack_vectors` of a format's keys ready for `triton.compile`, for a machine without the device."""
    rotated = KV_FORMATS[kv_format][0].rotated
    types = {"x": "*fp32" if rotated else "*bf16", "pool": "*u8", "slots": "*i64", "levels": "*fp32"}
    fixed = constants(kv_format, 0, head_dim)
    strides = dict.fromkeys(pack_vectors.arg_names[4:7], "i32")
    return ASTSource(pack_vectors, types | strides | dict.fromkeys(fixed, "constexpr"), fixed)


def prepare_write(backend: str, kv_format: str, tokens: int) -> Callable[[], None]:
    """A call appends tokens to slots that nothing has touched for long."""
    pool = cold_pool(kv_format)
    order = torch.randperm(len(pool) * PAGE_TOKENS, device="cuda")[: 64 * tokens]
    places = cycle(order.split(tokens))
    keys, values = (torch.randn(tokens, KV_HEADS, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in "kv")

    def call() -> None:
        write(keys, values, pool, next(places), kv_format)

    return call
