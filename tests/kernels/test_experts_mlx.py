"""MLX's experts on the CPU against plain numpy."""

import numpy as np
import pytest

pytest.importorskip("mlx.core", reason="mlx is not installed")

import mlx.core as mx
from plain_experts import experts_mlp, inputs, mlp

from kernels_bench.clocks import clock
from kernels_bench.experts import Layer, dense_case, experts_case
from kernels_bench.experts_mlx import SORTED_PAIRS, dense_mlp, routed_mlp
from kernels_bench.weights import BITS, GROUP

RNG = np.random.default_rng(0)
HIDDEN, INTERMEDIATE, EXPERTS = 128, 64, 5


@pytest.mark.parametrize("tokens", [3, SORTED_PAIRS])
@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
def test_experts_equal_plain_numpy(tokens, weight_format):
    matrices = [
        mx.array(RNG.normal(scale=0.1, size=(EXPERTS, *shape)).astype(np.float32))
        for shape in ((2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE))
    ]
    weights = [(matrix,) for matrix in matrices]
    if weight_format != "bf16":
        quantising = {"group_size": GROUP, "bits": BITS[weight_format]}
        weights = [mx.quantize(matrix, **quantising) for matrix in matrices]
        matrices = [mx.dequantize(*quantised, **quantising) for quantised in weights]
    rows, ids, gates = inputs(RNG, tokens)
    arrays = (mx.array(rows.astype(np.float32)), mx.array(ids), mx.array(gates.astype(np.float32)))
    found = np.array(routed_mlp(*arrays, *weights, weight_format))
    np.testing.assert_allclose(found, experts_mlp(rows, ids, gates, *map(np.array, matrices)), rtol=1e-3, atol=1e-3)


def test_a_dense_mlp_equals_plain_numpy():
    tokens, gate_up, down = RNG.normal(size=(3, 32)), RNG.normal(size=(16, 32)), RNG.normal(size=(32, 8))
    found = np.array(dense_mlp(*(mx.array(values.astype(np.float32)) for values in (tokens, gate_up, down))))
    np.testing.assert_allclose(found, [mlp(token, gate_up, down) for token in tokens], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
def test_cases_run(monkeypatch, weight_format):
    """bf16 ones do not on a CPU, whose gathered product takes fp32 alone."""
    monkeypatch.setattr("kernels_bench.gemm_mlx.COLD_BYTES", 1 << 20)
    layer = Layer(HIDDEN, INTERMEDIATE, EXPERTS, 2, shared_experts=1, weight_format=weight_format)
    for case in (experts_case("mlx", layer, 2), dense_case("mlx", layer, 2)):
        call = case.prepare()
        assert all(clock("mlx").time_s(call) > 0 for _ in range(3))
