"""Experts: the routing, what a case says it moves and computes, and each kernel against plain numpy."""

import numpy as np
import pytest
from plain_experts import experts_mlp, inputs, int4_weights, int8_weights, mlp, plain_int4, plain_int8

from kernels_bench.clocks import clock
from kernels_bench.experts import KERNELS, LAYERS, Layer, cases, dense_case, experts_case
from kernels_bench.routing import popularity, route

RNG = np.random.default_rng(0)
HIDDEN, INTERMEDIATE, EXPERTS = 128, 64, 5


def test_each_token_goes_to_distinct_experts():
    ids = route(500, 16, 4, 1.0)
    assert ids.shape == (500, 4)
    assert all(len(set(own)) == 4 for own in ids)
    assert {int(expert) for expert in ids.flat} <= set(range(16))


@pytest.mark.parametrize(("experts", "top_k"), [(64, 8), (32, 4), (128, 8)])
@pytest.mark.parametrize("tokens", [1, 2, 8, 32])
def test_even_routing_touches_as_many_experts_as_theory_says(experts, top_k, tokens):
    """E(1 - (1 - k/E)^n), to four standard errors of what 200 draws average."""
    active = [len(np.unique(route(tokens, experts, top_k, 0.0, seed))) for seed in range(200)]
    error = 4 * np.std(active) / np.sqrt(len(active))
    assert np.mean(active) == pytest.approx(experts * (1 - (1 - top_k / experts) ** tokens), abs=error + 1e-9)


def test_skew_touches_fewer_experts_and_the_popular_ones_most():
    active = [np.mean([len(np.unique(route(16, 64, 8, skew, seed))) for seed in range(50)]) for skew in (0.0, 1.0, 2.0)]
    assert active[0] > active[1] > active[2]
    counts = np.bincount(route(20_000, 8, 1, 1.0).ravel(), minlength=8)
    assert counts / counts.sum() == pytest.approx(popularity(8, 1.0), abs=0.015)


def test_a_case_counts_the_experts_that_its_tokens_touch():
    layer = Layer(1024, 512, 64, 8)
    expert_bytes, activation_bytes = 2 * 3 * 1024 * 512, 2 * 2 * 1024
    one, many = experts_case("cpu", layer, 1), experts_case("cpu", layer, 1024)
    assert (one.shape["active_experts"], many.shape["active_experts"]) == (8, 64)
    assert one.bytes == 8 * expert_bytes + activation_bytes
    assert many.bytes == 64 * expert_bytes + 1024 * activation_bytes
    assert one.flops == 2 * 8 * 3 * 1024 * 512
    assert many.flops == 1024 * one.flops


def test_shared_experts_and_formats_count_in_the_bytes():
    plain, shared = (experts_case("cpu", Layer(1024, 512, 64, 8, shared_experts=count), 1) for count in (0, 2))
    assert shared.bytes - plain.bytes == 2 * 2 * 3 * 1024 * 512
    assert shared.flops / plain.flops == 10 / 8
    int4 = experts_case("cpu", Layer(1024, 512, 64, 8, weight_format="int4"), 1)
    assert int4.bytes - 4096 == pytest.approx((plain.bytes - 4096) * 4.5 / 16)


def test_the_dense_mlp_beside_takes_as_many_flops():
    layer = Layer(1024, 512, 64, 8, shared_experts=1)
    assert dense_case("cpu", layer, 32).flops == experts_case("cpu", layer, 32).flops
    assert dense_case("cpu", layer, 1).bytes == experts_case("cpu", layer, 1).bytes


@pytest.mark.parametrize("backend", ["cpu", "cuda", "ascend", "mlx"])
def test_every_layer_has_a_kernel_and_no_case_is_measured_twice(backend):
    assert all((backend, layer.weight_format) in KERNELS for layer, *_ in LAYERS[backend])
    found = list(cases(backend))
    assert len({(case.op, tuple(case.shape.items())) for case in found}) == len(found)
    assert {case.op for case in found} == {"experts", "experts_dense"}


def bf16_tensor(values):
    torch = pytest.importorskip("torch")
    return torch.tensor(values, dtype=torch.bfloat16)


def rounded(values):
    """What bf16 keeps of some values."""
    return bf16_tensor(values).double().numpy()


def close(found, expected):
    """Whether bf16 arithmetic explains the difference."""
    return np.abs(found.double().numpy() - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["loop_mlp", "grouped_mlp"])
def test_bf16_experts_equal_plain_numpy(name):
    torch = pytest.importorskip("torch")
    from kernels_bench import experts_torch

    tokens, ids, gates = inputs(RNG)
    matrices = [
        RNG.normal(scale=0.1, size=(EXPERTS, *shape)) for shape in ((2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE))
    ]
    found = getattr(experts_torch, name)(
        bf16_tensor(tokens), torch.from_numpy(ids), bf16_tensor(gates), *((bf16_tensor(matrix),) for matrix in matrices)
    )
    assert close(found, experts_mlp(rounded(tokens), ids, gates, *map(rounded, matrices)))


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
def test_quantised_experts_equal_plain_numpy(weight_format):
    torch = pytest.importorskip("torch")
    from kernels_bench.experts_torch import loop_mlp

    make, plain = (int8_weights, plain_int8) if weight_format == "int8" else (int4_weights, plain_int4)
    tokens, ids, gates = inputs(RNG)
    matrices = [make(RNG, EXPERTS, *shape) for shape in ((2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE))]
    packed = [(packed_for_cpu(values), bf16_tensor(scales)) for values, scales in matrices]
    found = loop_mlp(bf16_tensor(tokens), torch.from_numpy(ids), bf16_tensor(gates), *packed)
    dequantised = [plain(values, rounded(scales)) for values, scales in matrices]
    assert close(found, experts_mlp(rounded(tokens), ids, gates, *dequantised))


def packed_for_cpu(values):
    import torch

    if values.dtype == np.int8:
        return torch.from_numpy(values)
    pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    return torch.stack([pack(torch.from_numpy(expert.astype(np.int32)), 1) for expert in values])


@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
def test_the_arena_gives_as_many_bytes_as_a_case_says(weight_format):
    pytest.importorskip("torch")
    from kernels_bench.experts_torch import parts

    layer = Layer(HIDDEN, INTERMEDIATE, EXPERTS, EXPERTS, weight_format=weight_format)
    tensors = [
        *parts(EXPERTS, 2 * INTERMEDIATE, HIDDEN, weight_format),
        *parts(EXPERTS, HIDDEN, INTERMEDIATE, weight_format),
    ]
    held = sum(dtype.itemsize * np.prod(shape) for dtype, shape in tensors)
    assert experts_case("cpu", layer, 1).bytes == held + 2 * 2 * HIDDEN


@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("shared_experts", [0, 1])
def test_cases_run_on_the_cpu(weight_format, shared_experts):
    pytest.importorskip("torch")
    layer = Layer(HIDDEN, INTERMEDIATE, EXPERTS, 2, shared_experts, weight_format=weight_format)
    for case in (experts_case("cpu", layer, 4), dense_case("cpu", layer, 4)):
        call = case.prepare()
        assert all(clock("cpu").time_s(call) > 0 for _ in range(3))


def test_a_dense_mlp_equals_plain_numpy():
    pytest.importorskip("torch")
    from kernels_bench.experts_torch import mlp as torch_mlp

    tokens = RNG.normal(size=(3, HIDDEN))
    gate_up, down = RNG.normal(scale=0.1, size=(128, HIDDEN)), RNG.normal(scale=0.1, size=(HIDDEN, 64))
    found = torch_mlp(*map(bf16_tensor, (tokens, gate_up, down)))
    assert close(found, np.array([mlp(token, rounded(gate_up), rounded(down)) for token in rounded(tokens)]))
