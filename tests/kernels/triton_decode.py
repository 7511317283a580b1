"""Run by test_attention_triton.py in a process of its own; prints JSON, a number for each format.

`compare OPERAND FORMAT...` runs the decode kernel in Triton's interpreter (TRITON_INTERPRET=1) against the plain
reference: relative errors. `write FORMAT...` runs quantise-on-append so: the share of bytes that differ. `compile
FORMAT...` compiles both for sm_90, without a GPU: bytes of the smaller cubin.
"""

import json
import sys

import numpy as np
import torch
import triton
import triton.language as tl
from plain_attention import attention, bf16, packed, stored
from triton.backends.compiler import GPUTarget

from kernels_bench import attention_triton, kv_write_triton
from kernels_bench.kv_formats import KV_FORMATS

HEAD_DIM, Q_HEADS, KV_HEADS, SPLITS = 128, 8, 2, 4
CONTEXTS = (150, 5)  # the second leaves splits empty


def compare(kv_format, operand):
    rng = np.random.default_rng(0)
    key, value = KV_FORMATS[kv_format]
    longest = -(-max(CONTEXTS) // attention_triton.PAGE_TOKENS)
    pages = rng.permutation(len(CONTEXTS) * longest).reshape(len(CONTEXTS), longest)
    x = rng.normal(size=(2, pages.size, attention_triton.PAGE_TOKENS, KV_HEADS, HEAD_DIM)).astype(np.float32)
    pool = np.concatenate([packed(x[0], key), packed(x[1], value)], -1)
    queries = rng.normal(size=(len(CONTEXTS), Q_HEADS, HEAD_DIM)).astype(np.float32)
    out = attention_triton.decode(
        torch.tensor(queries), torch.tensor(pool), torch.tensor(pages, dtype=torch.int32),
        torch.tensor(CONTEXTS, dtype=torch.int32), kv_format, SPLITS, operand,
    ).numpy()  # fmt: skip
    middle, errors = key.nbytes(HEAD_DIM), []
    for row, context in enumerate(CONTEXTS):
        slots = pool[pages[row]].reshape(-1, KV_HEADS, pool.shape[-1])[:context]
        kept = stored(slots[..., :middle], key, HEAD_DIM), stored(slots[..., middle:], value, HEAD_DIM)
        expected = attention(queries[row].astype(np.float64), *kept)
        errors.append(np.linalg.norm(out[row] - expected) / np.linalg.norm(expected))
    return float(max(errors))


def write(kv_format):
    rng = np.random.default_rng(0)
    key, value = KV_FORMATS[kv_format]
    (_, keys), (_, values) = (bf16(rng.normal(size=(40, KV_HEADS, HEAD_DIM))) for _ in "kv")
    slots = rng.permutation(4 * attention_triton.PAGE_TOKENS)[:40]
    size = key.nbytes(HEAD_DIM) + value.nbytes(HEAD_DIM)
    pool = torch.zeros(4, attention_triton.PAGE_TOKENS, KV_HEADS, size, dtype=torch.uint8)
    kv_write_triton.write(
        torch.tensor(keys).bfloat16(), torch.tensor(values).bfloat16(), pool, torch.tensor(slots), kv_format
    )
    written = pool.numpy().reshape(-1, KV_HEADS, size)[slots]
    return float(np.mean(written != np.concatenate([packed(keys, key), packed(values, value)], -1)))


def build(kv_format):
    target, options = GPUTarget("cuda", 90, 32), attention_triton.options(kv_format)
    decode = attention_triton.source(kv_format, Q_HEADS // KV_HEADS, HEAD_DIM, SPLITS)
    store = kv_write_triton.source(kv_format, HEAD_DIM)
    built = triton.compile(decode, target=target, options=options), triton.compile(store, target=target)
    return min(len(kernel.asm["cubin"]) for kernel in built)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "compare":
        operand = getattr(tl, arguments.pop(0))
        results = {kv_format: compare(kv_format, operand) for kv_format in arguments}
    else:
        results = {kv_format: {"write": write, "compile": build}[verb](kv_format) for kv_format in arguments}
    print(json.dumps(results))
