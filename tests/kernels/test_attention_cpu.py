"""Fused CPU kernels against the plain reference."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="numba is not installed")

from plain_attention import attention, bf16, packed, stored

from kernels_bench.attention_cpu import PAGE_TOKENS, decode, write
from kernels_bench.kv_formats import KV_FORMATS, slot_bytes
from kernels_bench.numba_codecs import aligned

CONTEXTS = (70, 1, 33)
Q_HEADS, KV_HEADS = 8, 2
RNG = np.random.default_rng(0)


def filled_pool(kv_format, head_dim):
    """A pool with the sequences' tokens written at scattered pages; the pages and what went in."""
    longest = -(-max(CONTEXTS) // PAGE_TOKENS)
    pages = RNG.permutation(len(CONTEXTS) * longest).reshape(len(CONTEXTS), longest).astype(np.int32)
    pool = np.zeros((pages.size, KV_HEADS, PAGE_TOKENS, slot_bytes(kv_format, head_dim)), np.uint8)
    tokens = []
    for row, context in zip(pages, CONTEXTS, strict=True):
        (key_bits, keys), (value_bits, values) = (bf16(RNG.normal(size=(context, KV_HEADS, head_dim))) for _ in "kv")
        place = np.arange(context)
        slots = row[place // PAGE_TOKENS].astype(np.int64) * PAGE_TOKENS + place % PAGE_TOKENS
        write(key_bits, value_bits, pool, slots, kv_format)
        tokens.append((slots, keys, values))
    return pool, pages, tokens


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_fused_decode_equals_attention_over_dequantised(kv_format, head_dim):
    pool, pages, tokens = filled_pool(kv_format, head_dim)
    queries = RNG.normal(size=(len(CONTEXTS), Q_HEADS, head_dim)).astype(np.float32)
    out = decode(queries, pool, pages, np.array(CONTEXTS, np.int32), kv_format)
    key, value = KV_FORMATS[kv_format]
    for row, (query, (slots, _, _)) in enumerate(zip(queries, tokens, strict=True)):
        slot = pool[slots // PAGE_TOKENS, :, slots % PAGE_TOKENS]
        middle = key.nbytes(head_dim)
        kept = stored(slot[..., :middle], key, head_dim), stored(slot[..., middle:], value, head_dim)
        expected = attention(query.astype(np.float64), *kept)
        assert np.linalg.norm(out[row] - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_written_bytes_are_the_references(kv_format):
    """But for a coordinate in a thousand that lies within a rounding of a boundary."""
    pool, _, tokens = filled_pool(kv_format, 128)
    for slots, keys, values in tokens:
        expected = np.concatenate(
            [packed(x, v) for x, v in zip((keys, values), KV_FORMATS[kv_format], strict=True)], -1
        )
        written = pool[slots // PAGE_TOKENS, :, slots % PAGE_TOKENS]
        assert written.shape == expected.shape
        assert np.mean(written != expected) <= 2e-3


def test_zero_vectors_are_kept():
    for kv_format in KV_FORMATS:
        pool = np.zeros((1, 1, PAGE_TOKENS, slot_bytes(kv_format, 128)), np.uint8)
        nothing = np.zeros((1, 1, 128), np.uint16)
        write(nothing, nothing, pool, np.array([0]), kv_format)
        out = decode(
            np.ones((1, 1, 128), np.float32), pool, np.zeros((1, 1), np.int32), np.ones(1, np.int32), kv_format
        )
        assert np.abs(out).max() < 1e-6


def test_arrays_begin_with_a_cache_line_wherever_the_allocator_puts_them():
    kept = []
    for nbytes in (1, 100, 512, 8192, 100_001):
        kept.append(bytearray(nbytes + 24))  # so that the heap looks different each time
        kept.append(aligned(nbytes))
        assert kept[-1].ctypes.data % 64 == 0
        assert kept[-1].nbytes == nbytes
        assert not kept[-1].any()
