"""Fused paged decode in Triton for CUDA: bf16, fp8 and the packed TurboQuant pages, unpacked in registers.

The pool is vLLM's: uint8 [pages, PAGE_TOKENS, kv_heads, slot_bytes]. A program takes one sequence, one KV head and one
split of the context, and all query heads of the group, so that every packed byte is read once; a second kernel joins
the splits. Queries come rotated and the output leaves rotated where the format is.
"""

from collections.abc import Callable
from functools import cache
from itertools import cycle

import numpy as np
import torch
import triton
import triton.language as tl
from triton.compiler import ASTSource

from kernels_bench.attention import HEAD_DIM, KV_HEADS, Q_HEADS
from kernels_bench.kv_formats import BF16, FP8, KV_FORMATS, TURBO, UNIFORM, VectorFormat, slot_bytes
from kernels_bench.turboquant import codebook, rotate, rotation_signs

PAGE_TOKENS = 16
POOL_BYTES = 8 << 30  # far more than the caches, and room for the largest call
MOST_SPLITS = 64
PROGRAMS = 132 * 4  # enough for every multiprocessor of an H100

_BF16, _FP8, _UNIFORM, _TURBO = (tl.constexpr(kind) for kind in (BF16, FP8, UNIFORM, TURBO))


@triton.jit
def _half(pointer, mask):
    """Little-endian fp16 at any even address."""
    low = tl.load(pointer, mask, 0).to(tl.uint16)
    high = tl.load(pointer + 1, mask, 0).to(tl.uint16)
    return (low | (high << 8)).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _codes(base, live, FIRST: tl.constexpr, SECOND: tl.constexpr, D: tl.constexpr):
    """The codes of a tile [tokens, D]: widths FIRST and SECOND of the two halves, a bit stream each."""
    if FIRST == 4 and SECOND == 4:  # each byte is read once
        pairs = tl.load(base[:, None] + tl.arange(0, D // 2)[None, :], live, 0).to(tl.int32)
        codes = tl.interleave(pairs & 15, pairs >> 4)
    else:
        places = tl.arange(0, D)
        width = tl.where(places < D // 2, FIRST, SECOND)
        bit = tl.where(places < D // 2, places * FIRST, D // 2 * (FIRST - SECOND) + places * SECOND)
        address = base[:, None] + (bit // 8)[None, :]
        across = (bit % 8 + width > 8)[None, :]  # a code that ends in the next byte
        word = tl.load(address, live, 0).to(tl.int32) | tl.load(address + 1, live & across, 0).to(tl.int32) << 8
        codes = (word >> (bit % 8)[None, :]) & ((1 << width) - 1)[None, :]
    return codes


@triton.jit
def _tile(
    base, places, live_tokens, levels, KIND: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, D: tl.constexpr
):
    """A packed tile as numbers [tokens, D], and the scale and offset of each row."""
    live = live_tokens[:, None]
    scale = tl.full(base.shape, 1.0, tl.float32)
    offset = tl.zeros(base.shape, tl.float32)
    if KIND == _BF16:
        halves = base.to(tl.pointer_type(tl.bfloat16), bitcast=True)[:, None] + places[None, :]
        numbers = tl.load(halves, live, 0.0).to(tl.float32)
    elif KIND == _FP8:
        codes = tl.load(base[:, None] + places[None, :], live, 0)
        numbers = codes.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    else:
        end: tl.constexpr = D * (FIRST + SECOND) // 16
        codes = _codes(base, live, FIRST, SECOND, D)
        scale = _half(base + end, live_tokens)
        if KIND == _UNIFORM:
            numbers = codes.to(tl.float32)
            offset = _half(base + end + 2, live_tokens)
        else:  # the levels of both widths, the second's 16 further on
            numbers = tl.load(levels + codes + tl.where(places < D // 2, 0, 16)[None, :], live, 0.0)
    return numbers, scale, offset


@triton.jit
def decode_split(
    queries, pool, pages, contexts, key_levels, value_levels, partial, logsum,
    page_stride, token_stride, head_stride, pages_stride,
    GROUP: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, TILE: tl.constexpr,
    SPLITS: tl.constexpr,
    K_KIND: tl.constexpr, K_FIRST: tl.constexpr, K_SECOND: tl.constexpr,
    V_KIND: tl.constexpr, V_FIRST: tl.constexpr, V_SECOND: tl.constexpr, V_AT: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """Attention over one split of a context; GROUP query heads, in ROWS ≥ 16 rows as a tensor core wants them.

    `queries` float32 (sequences, q_heads, D), scaled by 1/√D; `partial` float32 (sequences, q_heads, SPLITS, D);
    `logsum` (sequences, q_heads, SPLITS). OPERAND is what the dot products take: tl.float16, or tl.float32 to compare.
    """
    sequence, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    context = tl.load(contexts + sequence)
    tiles = tl.cdiv(tl.cdiv(context, SPLITS), TILE)
    start = split * tiles * TILE
    stop = tl.minimum(start + tiles * TILE, context)
    rows, places = tl.arange(0, ROWS), tl.arange(0, D)
    heads = sequence * tl.num_programs(1) * GROUP + kv_head * GROUP + rows
    mine = rows < GROUP
    query = tl.load(queries + heads[:, None] * D + places[None, :], mine[:, None], 0.0)
    query_sum = tl.sum(query, 1)
    top = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, D], tl.float32)
    shift = tl.zeros([ROWS], tl.float32)
    for tile in range(start, stop, TILE):
        token = tile + tl.arange(0, TILE)
        live = token < stop
        page = tl.load(pages + sequence * pages_stride + token // PAGE, live, 0).to(tl.int64)
        base = pool + page * page_stride + (token % PAGE) * token_stride + kv_head * head_stride
        keys, scale, offset = _tile(base, places, live, key_levels, K_KIND, K_FIRST, K_SECOND, D)
        scores = tl.dot(query.to(OPERAND), tl.trans(keys.to(OPERAND)), input_precision="ieee")
        scores = scores * scale[None, :] + query_sum[:, None] * offset[None, :]
        scores = tl.where(live[None, :], scores, -1e30)
        highest = tl.maximum(top, tl.max(scores, 1))
        weights = tl.where(live[None, :], tl.exp(scores - highest[:, None]), 0.0)
        shrink = tl.exp(top - highest)
        values, scale, offset = _tile(base + V_AT, places, live, value_levels, V_KIND, V_FIRST, V_SECOND, D)
        scaled = (weights * scale[None, :]).to(OPERAND)
        sums = sums * shrink[:, None] + tl.dot(scaled, values.to(OPERAND), input_precision="ieee")
        shift = shift * shrink + tl.sum(weights * offset[None, :], 1)
        total = total * shrink + tl.sum(weights, 1)
        top = highest
    some = tl.where(total > 0, total, 1.0)
    at = heads * SPLITS + split
    tl.store(partial + at[:, None] * D + places[None, :], (sums + shift[:, None]) / some[:, None], mine[:, None])
    tl.store(logsum + at, tl.where(total > 0, top + tl.log(some), -1e30), mine)


@triton.jit
def join_splits(partial, logsum, out, D: tl.constexpr, SPLITS: tl.constexpr):
    """The splits of a query head, weighted by their shares of the softmax's sum; SPLITS is a power of two."""
    head = tl.program_id(0)
    splits, places = tl.arange(0, SPLITS), tl.arange(0, D)
    logs = tl.load(logsum + head * SPLITS + splits)
    shares = tl.exp(logs - tl.max(logs, 0))
    parts = tl.load(partial + (head * SPLITS + splits)[:, None] * D + places[None, :])
    tl.store(out + head * D + places, tl.sum(parts * shares[:, None], 0) / tl.sum(shares, 0))


def decode(
    queries: torch.Tensor,
    pool: torch.Tensor,
    pages: torch.Tensor,
    contexts: torch.Tensor,
    kv_format: str,
    splits: int,
    operand: tl.dtype = tl.float16,
) -> torch.Tensor:
    """Attention of one new token a sequence, float32 (sequences, q_heads, head_dim).

    `queries` float32 of that shape; `pages` int32 (sequences, pages) of the pool; `contexts` int32 (sequences,).
    """
    sequences, q_heads, head_dim = queries.shape
    kv_heads, device = pool.shape[2], queries.device
    key, value = KV_FORMATS[kv_format]
    turn = rotation(head_dim, device)
    scaled = (queries @ turn.T if key.rotated else queries) / head_dim**0.5
    partial = torch.empty(sequences, q_heads, splits, head_dim, device=device)
    logsum = torch.empty(sequences, q_heads, splits, device=device)
    out = torch.empty(sequences, q_heads, head_dim, device=device)
    decode_split[(sequences, kv_heads, splits)](
        scaled.contiguous(), pool, pages, contexts,
        levels_of(key, head_dim, device), levels_of(value, head_dim, device), partial, logsum,
        pool.stride(0), pool.stride(1), pool.stride(2), pages.stride(0),
        **constants(kv_format, q_heads // kv_heads, head_dim, splits, operand), **options(kv_format),
    )  # fmt: skip
    join_splits[(sequences * q_heads,)](partial, logsum, out, D=head_dim, SPLITS=splits)
    return out @ turn if value.rotated else out


def constants(kv_format: str, group: int, head_dim: int, splits: int, operand: tl.dtype) -> dict[str, object]:
    """What `decode_split` is compiled for."""
    key, value = KV_FORMATS[kv_format]
    return {
        "GROUP": group,
        "ROWS": max(16, triton.next_power_of_2(group)),
        "D": head_dim,
        "PAGE": PAGE_TOKENS,
        "TILE": 64 if options(kv_format)["num_stages"] > 1 else 16,
        "SPLITS": splits,
        "K_KIND": key.kind,
        "K_FIRST": key.bits[0],
        "K_SECOND": key.bits[1],
        "V_KIND": value.kind,
        "V_FIRST": value.bits[0],
        "V_SECOND": value.bits[1],
        "V_AT": key.nbytes(head_dim),
        "OPERAND": operand,
    }


def options(kv_format: str) -> dict[str, int]:
    """Launch options, by registers and spills of the sm_90 code (not yet tuned on a device).

    Whole bytes are fetched ahead of their use; codes are not, because Triton would fetch their levels ahead, too.
    """
    packed = any(vector.kind in (UNIFORM, TURBO) for vector in KV_FORMATS[kv_format])
    return {"num_warps": 4, "num_stages": 1 if packed else 3}


def source(kv_format: str, group: int, head_dim: int, splits: int) -> ASTSource:
    """`decode_split` ready for `triton.compile`, for a machine without the device; pointers are aligned to 16 bytes."""
    pointers = dict.fromkeys(
        ("queries", "pool", "pages", "contexts", "key_levels", "value_levels", "partial", "logsum"), "*fp32"
    )
    pointers |= {"pool": "*u8", "pages": "*i32", "contexts": "*i32"}
    strides = dict.fromkeys(decode_split.arg_names[8:12], "i32")
    fixed = constants(kv_format, group, head_dim, splits, tl.float16)
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(len(pointers))}
    return ASTSource(decode_split, pointers | strides | dict.fromkeys(fixed, "constexpr"), fixed, aligned)


@cache
def rotation(head_dim: int, device: torch.device) -> torch.Tensor:
    """The rotation as a matrix: rotated = x @ matrix.T."""
    return torch.tensor(rotate(np.eye(head_dim, dtype=np.float32), rotation_signs(head_dim)).T.copy(), device=device)


@cache
def levels_of(vector: VectorFormat, head_dim: int, device: torch.device) -> torch.Tensor:
    """The levels of the first half's width and, 16 further on, of the second's; empty but for TurboQuant."""
    levels = np.zeros((2, 16), np.float32)
    if vector.kind == TURBO:
        for row, bits in zip(levels, vector.bits, strict=True):
            row[: 2**bits] = codebook(bits, head_dim)
    return torch.tensor(levels, device=device)


def prepare_decode(backend: str, kv_format: str, sequences: int, context_tokens: int) -> Callable[[], None]:
    """A call a step: other pages of a pool far larger than the caches, in no order."""
    pool, need = cold_pool(kv_format), -(-context_tokens // PAGE_TOKENS)
    order = torch.randperm(len(pool), device="cuda", dtype=torch.int32)
    queries = torch.randn(sequences, Q_HEADS, HEAD_DIM, device="cuda")
    contexts = torch.full((sequences,), context_tokens, device="cuda", dtype=torch.int32)
    places = torch.arange(sequences * need, device="cuda").reshape(sequences, need)
    tables = cycle([order[(places + call * places.numel()) % len(order)] for call in range(8)])
    splits = min(MOST_SPLITS, triton.next_power_of_2(triton.cdiv(PROGRAMS, sequences * KV_HEADS)))

    def call() -> None:
        decode(queries, pool, next(tables), contexts, kv_format, splits)

    return call


def cold_pool(kv_format: str) -> torch.Tensor:
    """The arena as pages of a format; what lies in them is no matter, as long as it is finite."""
    page_bytes = KV_HEADS * PAGE_TOKENS * slot_bytes(kv_format, HEAD_DIM)
    arena = _arena()
    pages = len(arena) // page_bytes
    return arena[: pages * page_bytes].view(pages, PAGE_TOKENS, KV_HEADS, -1)


@cache
def _arena() -> torch.Tensor:
    """Up to a quarter of the free memory; bytes from 32 to 79 are small numbers in every format."""
    size = min(POOL_BYTES, torch.cuda.mem_get_info()[0] // 4)
    return torch.randint(32, 80, (size,), dtype=torch.uint8, device="cuda")
