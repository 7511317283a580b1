"""Apple's kernels through MLX's CPU backend, against the plain reference."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

from plain_attention import attention, packed, stored  # noqa: E402

from kernels_bench.attention import KERNELS  # noqa: E402
from kernels_bench.attention_mlx import GROUP_ELEMENTS, decode, pack, prepare_decode, prepare_prefill  # noqa: E402
from kernels_bench.clocks import clock  # noqa: E402
from kernels_bench.kv_formats import KV_FORMATS  # noqa: E402

FORMATS = [kv_format for _, _, kv_formats in KERNELS["mlx"] for kv_format in kv_formats]


def kept(x, cache, kv_format, head_dim):
    """What the cache keeps of keys or values (1, heads, tokens, d), as (tokens, heads, d)."""
    if kv_format.startswith("mlx_"):
        codes, scales, biases = cache
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        y = mx.dequantize(codes, scales, biases, GROUP_ELEMENTS, int(kv_format[4]))
    elif kv_format == "bf16":
        y = cache[0]
    else:
        vector = KV_FORMATS[kv_format][0]
        y = mx.array(stored(packed(np.array(x), vector), vector, head_dim))
    return np.array(y.astype(mx.float32)).astype(np.float64)[0].swapaxes(0, 1)


@pytest.mark.parametrize("kv_format", FORMATS)
def test_decode_equals_attention_over_dequantised(kv_format):
    rng = np.random.default_rng(0)
    keys, values, queries = (mx.array(rng.normal(size=shape).astype(np.float32)) for shape in
                             ((1, 2, 90, 128), (1, 2, 90, 128), (1, 8, 1, 128)))  # fmt: skip
    cache = pack(keys, values, kv_format)
    out = np.array(decode(queries, cache, kv_format).astype(mx.float32))[0, :, 0]
    half = len(cache) // 2
    both = [kept(x, part, kv_format, 128) for x, part in ((keys, cache[:half]), (values, cache[half:]))]
    expected = attention(np.array(queries)[0, :, 0].astype(np.float64), *both)
    assert np.linalg.norm(out - expected) <= 1e-5 * np.linalg.norm(expected)


def test_what_is_measured_runs():
    ticks = clock("mlx")
    assert all(ticks.time_s(prepare_decode("mlx", kv_format, 1, 8192)) > 0 for kv_format in FORMATS)
    assert ticks.time_s(prepare_prefill("mlx", 16, 48)) > 0
