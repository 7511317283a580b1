"""Run by test_attention_triton.py in a process of its own; prints JSON, a number for each format.

`compare OPERAND FORMAT...` runs the kernel in Triton's interpreter (TRITON_INTERPRET=1) against the plain reference:
relative errors. `compile FORMAT...` compiles it for sm_90, without a GPU: bytes of the cubin.
"""

import json
import sys

import numpy as np
import torch
import triton
import triton.language as tl
from plain_attention import attention, packed, stored
from triton.backends.compiler import GPUTarget

from kernels_bench import attention_triton
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


def build(kv_format):
    source = attention_triton.source(kv_format, Q_HEADS // KV_HEADS, HEAD_DIM, SPLITS)
    target = GPUTarget("cuda", 90, 32)
    return len(triton.compile(source, target=target, options=attention_triton.options(kv_format)).asm["cubin"])


if __name__ == "__main__":
    if sys.argv[1] == "compile":
        print(json.dumps({kv_format: build(kv_format) for kv_format in sys.argv[2:]}))
    else:
        operand = getattr(tl, sys.argv[2])
        print(json.dumps({kv_format: compare(kv_format, operand) for kv_format in sys.argv[3:]}))
