"""A whole transformer layer against plain numpy, and what its cases say they move and compute."""

import numpy as np
import pytest
from plain_experts import mlp

from kernels_bench import layer
from kernels_bench.clocks import clock
from kernels_bench.layer import Shape, layer_case

RNG = np.random.default_rng(0)
SMALL = Shape(hidden=12, intermediate=6, q_heads=4, kv_heads=2, head_dim=8)
SEQUENCES = 2


def rotated(head, position):
    """One head's vector turned to a position, one pair of coordinates at a time."""
    half = len(head) // 2
    turned = np.empty_like(head)
    for pair in range(half):
        turn = np.exp(1j * position * 10_000 ** (-pair / half)) * complex(head[pair], head[pair + half])
        turned[pair], turned[pair + half] = turn.real, turn.imag
    return turned


def norm(values):
    return values / np.sqrt((values**2).mean() + 1e-6)


def plain_token(token, keys, values, position, qkv, out, gate_up, down):
    """One token through the layer; its keys and values are added to the lists of its sequence."""
    heads = (qkv @ norm(token)).reshape(-1, SMALL.head_dim)
    keys.append([rotated(head, position) for head in heads[SMALL.q_heads : -SMALL.kv_heads]])
    values.append(heads[-SMALL.kv_heads :])
    attended = []
    for head in range(SMALL.q_heads):
        own_keys, own_values = (np.array(cache)[:, head // 2] for cache in (keys, values))
        weights = np.exp(own_keys @ rotated(heads[head], position) / np.sqrt(SMALL.head_dim))
        attended.append(weights / weights.sum() @ own_values)
    hidden = token + out @ np.concatenate(attended)
    return hidden + mlp(norm(hidden), gate_up, down)


@pytest.mark.parametrize(("context", "new"), [(5, 1), (0, 4), (3, 4)])
def test_a_layer_equals_plain_numpy(context, new):
    torch = pytest.importorskip("torch")
    from kernels_bench.experts_torch import mlp as torch_mlp

    sizes = [(SMALL.attention_width, 12), (12, 32), (12, 12), (12, 6)]
    qkv, out, gate_up, down = (RNG.normal(scale=0.3, size=size) for size in sizes)
    tokens = RNG.normal(size=(SEQUENCES, new, 12))
    cache = RNG.normal(size=(2, SEQUENCES, SMALL.kv_heads, context + new, SMALL.head_dim))
    rope, mask = layer.rope_table(context, new, SMALL.head_dim).double(), layer.causal_mask(context, new)

    def dense(hidden):
        return torch_mlp(hidden, torch.tensor(gate_up), torch.tensor(down))

    weights = torch.tensor(qkv), torch.tensor(out)
    found = layer.forward(torch.tensor(tokens), torch.tensor(cache), weights, dense, SMALL, rope, mask).numpy()
    for sequence in range(SEQUENCES):
        keys, values = (list(part[sequence].swapaxes(0, 1)[:context]) for part in cache)
        for index in range(new):
            token = tokens[sequence, index]
            expected = plain_token(token, keys, values, context + index, qkv, out, gate_up, down)
            np.testing.assert_allclose(found[sequence, index], expected, atol=1e-5)


def test_bytes_and_flops_of_a_decode_step():
    case = layer_case("cpu", Shape(1024, 3072, 16, 8, 128), 4, 1000, 1)
    weights = 1024 * (2048 + 2 * 1024 + 2048) + 3 * 1024 * 3072
    assert case.bytes == 2 * (weights + 4 * 1001 * 2 * 8 * 128 + 2 * 4 * 1024)
    assert case.flops == 2 * 4 * weights + 4 * 4 * 1001 * 16 * 128


def test_a_prefill_chunk_attends_to_context_and_half_of_itself():
    chunk, decode = (layer_case("cpu", Shape(1024, 3072, 16, 8, 128), 1, 1000, new) for new in (64, 1))
    weights_flops = decode.flops - 4 * 1001 * 16 * 128
    assert chunk.flops - 64 * weights_flops == 4 * (64 * 1000 + 64 * 65 / 2) * 16 * 128


def test_a_layer_of_experts_reads_those_that_are_touched():
    shape = Shape(1024, 512, 16, 8, 128, experts=32, top_k=4)
    one, many = (layer_case("cpu", shape, tokens, 0, 1) for tokens in (1, 256))
    expert, token = 2 * 3 * 1024 * 512, 2 * (2 * 8 * 128 + 2 * 1024)
    assert many.bytes - one.bytes == 28 * expert + 255 * token
    assert many.flops == 256 * one.flops


@pytest.mark.parametrize("experts", [(), (5, 2)])
@pytest.mark.parametrize(("context", "new"), [(16, 1), (16, 4)])
def test_cases_run_on_the_cpu(experts, context, new):
    pytest.importorskip("torch")
    call = layer_case("cpu", Shape(128, 64, 4, 2, 32, *experts), 2, context, new).prepare()
    assert all(clock("cpu").time_s(call) > 0 for _ in range(2))


@pytest.mark.parametrize("backend", ["cpu", "cuda", "ascend"])
def test_no_case_is_measured_twice(backend):
    found = list(layer.cases(backend))
    assert {case.shape["experts"] > 0 for case in found} == {True, False}
    assert len({tuple(case.shape.items()) for case in found}) == len(found)
