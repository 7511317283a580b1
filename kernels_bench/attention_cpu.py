"""Paged attention on one CPU core: decode over packed pages, fused, and quantise-on-append (numba).

The pool is uint8 [pages, kv_heads, PAGE_TOKENS, slot_bytes]: a head's slots of a page lie together. The tile of one
page and head is unpacked into the L1 cache and used at once by all query heads of its group.
"""

from collections.abc import Callable
from functools import cache
from itertools import count

import numpy as np
from numba import njit

from kernels_bench.attention import HEAD_DIM, KV_HEADS, Q_HEADS
from kernels_bench.kv_formats import BF16, KV_FORMATS, VectorFormat, slot_bytes
from kernels_bench.numba_codecs import (
    FAST,
    aligned,
    aligned_floats,
    codec,
    exp,
    float_of_bf16,
    level_tables,
    pack_vector,
    prefetch,
    rotate,
    unpack_tile,
    unrotate,
    unsigned,
)  # fmt: skip
from kernels_bench.turboquant import rotation_signs

PAGE_TOKENS = 16
COLD_BYTES = 256 << 20  # many times the last-level cache
Array = np.ndarray

_level_tables = cache(level_tables)
_rotation_signs = cache(rotation_signs)


def decode(queries: Array, pool: Array, pages: Array, contexts: Array, kv_format: str) -> Array:
    """Attention of one new token a sequence over its packed context: float32 (sequences, q_heads, head_dim).

    `queries` float32 (sequences, q_heads, head_dim); `pages` int32 (sequences, pages): the pool's pages that hold each
    sequence, in order; `contexts` int32 (sequences,): its tokens.
    """
    head_dim = queries.shape[-1]
    key, value = KV_FORMATS[kv_format]
    out = aligned(queries.nbytes).view(np.float32).reshape(queries.shape)
    _decode(
        queries, pool, pool.view(np.uint16), pages, contexts, codec(key), codec(value), key.nbytes(head_dim),
        (key.rotated, value.rotated), _level_tables(head_dim)[2], _rotation_signs(head_dim), out,
    )  # fmt: skip
    return out


def write(keys: Array, values: Array, pool: Array, slots: Array, kv_format: str) -> None:
    """Pack new tokens' keys and values into the pool: bf16 as uint16 (tokens, kv_heads, head_dim) each.

    `slots` int64 (tokens,): page × PAGE_TOKENS + place in the page.
    """
    head_dim = keys.shape[-1]
    key, value = KV_FORMATS[kv_format]
    levels, middles, _ = _level_tables(head_dim)
    _write(
        keys, values, pool, pool.view(np.uint16), slots, codec(key), codec(value), key.nbytes(head_dim),
        _rotation_signs(head_dim), levels, middles,
    )  # fmt: skip


def prepare_decode(backend: str, kv_format: str, sequences: int, context_tokens: int) -> Callable[[], None]:
    """A call a step: other pages of a pool far larger than the caches, in no order."""
    pool, need = _cold_pool(kv_format), -(-context_tokens // PAGE_TOKENS)
    order, calls = np.random.default_rng(0).permutation(len(pool)).astype(np.int32), count()
    queries = np.random.default_rng(1).normal(size=(sequences, Q_HEADS, HEAD_DIM)).astype(np.float32)
    contexts = np.full(sequences, context_tokens, np.int32)

    def call() -> None:
        places = next(calls) * sequences * need + np.arange(sequences * need)
        decode(queries, pool, order[places % len(order)].reshape(sequences, need), contexts, kv_format)

    return call


def prepare_write(backend: str, kv_format: str, tokens: int) -> Callable[[], None]:
    """A call appends tokens to slots that nothing has touched for long."""
    pool = _cold_pool(kv_format)
    order, calls = np.random.default_rng(0).permutation(len(pool) * PAGE_TOKENS), count()
    normal = np.random.default_rng(1).normal(size=(2, tokens, KV_HEADS, HEAD_DIM)).astype(np.float32)
    keys, values = VectorFormat(BF16).encode(normal, _rotation_signs(HEAD_DIM)).view(np.uint16)

    def call() -> None:
        places = next(calls) * tokens + np.arange(tokens)
        write(keys, values, pool, order[places % len(order)], kv_format)

    return call


def _cold_pool(kv_format: str) -> Array:
    """The arena as pages of a format; what lies in them is no matter, as long as it is finite and not denormal."""
    page_bytes = KV_HEADS * PAGE_TOKENS * slot_bytes(kv_format, HEAD_DIM)
    pages = COLD_BYTES // page_bytes
    return _arena()[: pages * page_bytes].reshape(pages, KV_HEADS, PAGE_TOKENS, -1)


@cache
def _arena() -> Array:
    """Bytes from 32 to 79: read as halves they are 2^-7 to 2^5, as bf16 2^-63 to 2^32, as codes anything."""
    part, arena = np.random.default_rng(0).integers(32, 80, 1 << 20, np.uint8), aligned(COLD_BYTES)
    arena.reshape(-1, len(part))[:] = part
    return arena


@njit(fastmath=FAST)
def _decode(queries, pool, halves, pages, contexts, key, value, value_at, rotated, pairs, signs, out):
    sequences, q_heads, head_dim = queries.shape
    kv_heads = pool.shape[1]
    group = q_heads // kv_heads
    start, page_bytes, tile_bytes = pool.ctypes.data, pool.strides[0], pool.strides[1]
    softmax_scale = np.float32(1 / np.sqrt(head_dim))
    query, query_sum = aligned_floats(q_heads, head_dim), np.empty(q_heads, np.float32)
    top, total, shift = np.empty(q_heads, np.float32), np.empty(q_heads, np.float32), np.empty(q_heads, np.float32)
    weights, spare = aligned_floats(group, PAGE_TOKENS), aligned_floats(1, head_dim)[0]
    tile = aligned_floats(PAGE_TOKENS, head_dim)
    tile_pairs = tile.view(np.uint64)
    scales, offsets = np.zeros(PAGE_TOKENS, np.float32), np.zeros(PAGE_TOKENS, np.float32)
    for sequence in range(sequences):
        accumulated, context = out[sequence], contexts[sequence]
        for head in range(q_heads):
            top[head], total[head], shift[head] = np.float32(-1e30), np.float32(0), np.float32(0)
            for i in range(head_dim):
                query[head, i] = queries[sequence, head, i] * softmax_scale
                accumulated[head, i] = np.float32(0)
            if rotated[0]:
                rotate(query[head], signs, spare)
            query_sum[head] = np.float32(0)
            for i in range(head_dim):
                query_sum[head] += query[head, i]
        used = (context + PAGE_TOKENS - 1) // PAGE_TOKENS
        for index in range(used):
            page, tokens = pages[sequence, index], min(PAGE_TOKENS, context - index * PAGE_TOKENS)
            for kv_head in range(kv_heads):
                if kv_head + 1 < kv_heads:
                    prefetch(start + page * page_bytes + (kv_head + 1) * tile_bytes, tile_bytes)
                elif index + 1 < used:
                    prefetch(start + pages[sequence, index + 1] * page_bytes, tile_bytes)
                first = kv_head * group
                slots, slot_halves = pool[page, kv_head], halves[page, kv_head]
                unpack_tile(key, slots, slot_halves, 0, tokens, pairs, tile, tile_pairs, scales, offsets)
                _score(query, query_sum, first, tile, scales, offsets, weights)
                _soften(weights, tokens, first, top, total, shift, accumulated)
                unpack_tile(value, slots, slot_halves, value_at, tokens, pairs, tile, tile_pairs, scales, offsets)
                _accumulate(weights, scales, offsets, tile, first, accumulated, shift)
        for head in range(q_heads):
            for i in range(head_dim):
                accumulated[head, i] = (accumulated[head, i] + shift[head]) / total[head]
            if rotated[1]:
                unrotate(accumulated[head], signs, spare)


@njit(fastmath=FAST)
def _score(query, query_sum, first, tile, scales, offsets, scores):
    """Scores of the heads of a group, from `first` on, with the tokens of a tile."""
    for member in range(len(scores)):
        head = unsigned(first + member)
        for token in range(PAGE_TOKENS):
            dot = np.float32(0)
            for i in range(query.shape[1]):
                dot += query[head, i] * tile[token, i]
            scores[member, token] = dot * scales[token] + query_sum[head] * offsets[token]


@njit(fastmath=FAST)
def _soften(weights, tokens, first, top, total, shift, accumulated):
    """Scores to softmax weights against the running maxima; what was summed so far is scaled to the new ones."""
    for member in range(len(weights)):
        head = unsigned(first + member)
        highest = top[head]
        for token in range(tokens):
            highest = max(highest, weights[member, token])
        if highest > top[head]:
            shrink = exp(top[head] - highest)
            total[head] *= shrink
            shift[head] *= shrink
            for i in range(accumulated.shape[1]):
                accumulated[head, i] *= shrink
            top[head] = highest
        for token in range(PAGE_TOKENS):
            weight = exp(weights[member, token] - highest)
            weights[member, token] = weight if token < tokens else np.float32(0)
            total[head] += weights[member, token]


@njit(fastmath=FAST)
def _accumulate(weights, scales, offsets, tile, first, accumulated, shift):
    """Adds the weighted rows of the tile, four at a time, and to `shift` the offsets, which all coordinates share."""
    for member in range(len(weights)):
        head = unsigned(first + member)
        for token in range(PAGE_TOKENS):
            shift[head] += weights[member, token] * offsets[token]
            weights[member, token] *= scales[token]
        for token in range(0, PAGE_TOKENS, 4):
            w0, w1 = weights[member, token], weights[member, token + 1]
            w2, w3 = weights[member, token + 2], weights[member, token + 3]
            for i in range(accumulated.shape[1]):
                accumulated[head, i] += (
                    w0 * tile[token, i] + w1 * tile[token + 1, i] + w2 * tile[token + 2, i] + w3 * tile[token + 3, i]
                )


@njit(fastmath=FAST)
def _write(keys, values, pool, halves, slots, key, value, value_at, signs, levels, middles):
    tokens, kv_heads, head_dim = keys.shape
    (x, spare), codes = aligned_floats(2, head_dim), aligned(head_dim)
    for token in range(tokens):
        page, place = divmod(slots[token], PAGE_TOKENS)
        for head in range(kv_heads):
            slot, slot_halves = pool[page, head, place], halves[page, head, place]
            for i in range(head_dim):
                x[i] = float_of_bf16(keys[token, head, i])
            pack_vector(key, x, signs, levels, middles, slot[:value_at], slot_halves[: value_at // 2], spare, codes)
            for i in range(head_dim):
                x[i] = float_of_bf16(values[token, head, i])
            pack_vector(value, x, signs, levels, middles, slot[value_at:], slot_halves[value_at // 2 :], spare, codes)
