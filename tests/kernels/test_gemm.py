"""Dense kernels and memory traffic: what a case says it moves and computes, and that it does so."""

from itertools import pairwise

import pytest

from kernels_bench import gemm, memory
from kernels_bench.clocks import clock

BACKENDS = ("cpu", "cuda", "ascend", "mlx")


def test_bytes_and_flops_of_a_gemm():
    case = gemm.gemm_case("cpu", 8, 2048, 1024, "bf16")
    assert case.bytes == 2 * (1024 * 2048 + 8 * (2048 + 1024))
    assert case.flops == 2 * 8 * 2048 * 1024
    assert gemm.gemm_case("cpu", 8, 2048, 1024, "fp32").bytes == 2 * case.bytes


def test_quantised_weights_carry_their_scales():
    """int4 in groups of 64 with a bf16 scale and zero: 4.5 bits; MLX's int8: 8.5 bits."""
    activations = 2 * (64 + 128)
    assert gemm.gemm_case("mlx", 1, 64, 128, "int4").bytes == 64 * 128 * 4.5 / 8 + activations
    assert gemm.gemm_case("mlx", 1, 64, 128, "int8").bytes == 64 * 128 * 8.5 / 8 + activations


@pytest.mark.parametrize("module", [gemm, memory])
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_case_is_measured_twice(module, backend):
    cases = list(module.cases(backend))
    assert cases
    assert len({(case.op, tuple(case.shape.items())) for case in cases}) == len(cases)


def test_the_first_cases_span_every_grid():
    first = list(gemm.cases("cpu"))[: 2 * (len(gemm.GEMMS["cpu"]) + 1)]
    for in_features, out_features, weight_format, most in gemm.GEMMS["cpu"]:
        shape = {"in_features": in_features, "out_features": out_features, "weight_format": weight_format}
        assert {case.shape["tokens"] for case in first if case.shape.items() >= shape.items()} == {1, most}


def test_a_copy_moves_each_byte_twice():
    for case in memory.cases("cpu"):
        assert case.bytes == case.shape["bytes"] * (2 if case.op == "memory_copy" else 1)


def test_parts_of_the_arena_are_disjoint_finite_and_aligned():
    torch = pytest.importorskip("torch")
    from kernels_bench.arena import ALIGNMENT_BYTES, COLD_BYTES, pool

    parts = (torch.float32, (3, 5)), (torch.int8, (7,)), (torch.bfloat16, (COLD_BYTES // 64,))
    tensors = [tensor for tensors in pool("cpu", *parts) for tensor in tensors]
    assert len(tensors) == 3 * 31  # 32 of the largest fill the arena, and the small ones need room
    spans = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all((start - spans[0][0]) % ALIGNMENT_BYTES == 0 for start, _ in spans)
    assert all(tensor.isfinite().all() for tensor in tensors)


def test_a_part_larger_than_the_arena_makes_it_grow():
    torch = pytest.importorskip("torch")
    from kernels_bench.arena import COLD_BYTES, slices

    (only,) = slices("cpu", COLD_BYTES + 1, dtype=torch.int8)
    assert len(only) == COLD_BYTES + 1


@pytest.mark.parametrize("module", [gemm, memory])
def test_small_cases_run_on_the_cpu(module):
    pytest.importorskip("torch")
    cases = [case for case in module.cases("cpu") if case.bytes < 9e6]
    for case in cases:
        case.prepare()()
    assert {case.op for case in cases} == {case.op for case in module.cases("cpu")}


def test_mlx_linear_equals_its_reference():
    mx = pytest.importorskip("mlx.core")
    from kernels_bench.gemm_mlx import linear

    rows, weights = mx.random.normal((3, 128)), mx.random.normal((64, 128))
    for weight_format, bits in (("int8", 8), ("int4", 4)):
        quantised = mx.quantize(weights, group_size=64, bits=bits)
        plain = rows @ mx.dequantize(*quantised, group_size=64, bits=bits).T
        assert mx.allclose(linear(rows, quantised, weight_format), plain, atol=1e-3)
    assert mx.allclose(linear(rows, (weights,), "bf16"), rows @ weights.T)


def test_mlx_random_weights_have_the_layout_of_quantised_ones():
    mx = pytest.importorskip("mlx.core")
    from kernels_bench.gemm_mlx import random_weights

    for weight_format, bits in (("int8", 8), ("int4", 4)):
        expected = mx.quantize(mx.zeros((6, 128), dtype=mx.bfloat16), group_size=64, bits=bits)
        found = random_weights(6, 128, weight_format=weight_format)
        assert [(part.shape, part.dtype) for part in found] == [(part.shape, part.dtype) for part in expected]


def test_mlx_calls_run():
    pytest.importorskip("mlx.core")
    from kernels_bench.gemm_mlx import COLD_BYTES, prepare_copy, prepare_gemm, prepare_read

    calls = [
        prepare_gemm(2, 64, 64 * 1024, "bf16"), prepare_copy(COLD_BYTES // 2), prepare_read(COLD_BYTES // 2),
    ]  # fmt: skip
    assert all(clock("mlx").time_s(call) > 0 for call in calls)
