"""KV bytes and parameter counts against published figures, to the byte where they are exact."""

import pytest

from capsim.catalog import load_catalog
from capsim.kv_format import growth_bytes_per_token, kv_bytes, window_bytes

CATALOG = load_catalog()
BF16 = CATALOG.kv_formats["bf16"]

# model: (KV bytes a token at bf16, constant window bytes, total parameters in 1e9 on the model card)
PUBLISHED = {
    "llama-3.1-8b": (131_072, 0, 8.03),
    "llama-3.1-70b": (327_680, 0, 70.55),
    "qwen3-0.6b": (114_688, 0, 0.6),
    "qwen3-32b": (262_144, 0, 32.8),
    "qwen3-30b-a3b": (98_304, 0, 30.5),
    "qwen3-235b-a22b": (192_512, 0, 235.0),
    "mistral-small-3.2-24b": (163_840, 0, 24.0),
    "gpt-oss-20b": (24_576, 3_145_728, 20.9),
    "gpt-oss-120b": (36_864, 4_718_592, 116.8),
    "deepseek-v3": (70_272, 0, 671.0),
    "deepseek-v4-flash": (6_880, 5_636_096, 284.0),
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_kv_bytes_per_token_to_the_byte(key):
    model = CATALOG.models[key]
    growth, window, _ = PUBLISHED[key]
    assert growth_bytes_per_token(model, BF16) == growth
    assert window_bytes(model, BF16) == window
    context = model.max_context_tokens
    assert kv_bytes(model, BF16, context) == growth * context + window


@pytest.mark.parametrize("key", PUBLISHED)
def test_total_parameters_within_three_percent_of_the_card(key):
    assert CATALOG.models[key].total_parameters / 1e9 == pytest.approx(PUBLISHED[key][2], rel=0.03)


@pytest.mark.parametrize(
    ("key", "checkpoint", "norms_a_layer"),
    [
        ("llama-3.1-8b", 8_030_261_248, 2 * 4096),
        ("qwen3-0.6b", 596_049_920, 2 * 1024 + 2 * 128),  # two of the hidden size, two of a head
        ("qwen3-32b", 32_762_123_264, 2 * 5120 + 2 * 128),
        ("mistral-small-3.2-24b", 24_011_361_280, 2 * 5120),
    ],
)
def test_parameters_are_the_checkpoint_s_but_for_its_norms(key, checkpoint, norms_a_layer):
    """Against the totals of the safetensors on Hugging Face, to the parameter."""
    model = CATALOG.models[key]
    assert model.total_parameters + model.layers * norms_a_layer + model.hidden == checkpoint


@pytest.mark.parametrize(
    ("key", "active"), [("deepseek-v3", 37.0), ("qwen3-30b-a3b", 3.3), ("deepseek-v4-flash", 13.0)]
)
def test_active_parameters_near_the_card(key, active):
    assert CATALOG.models[key].active_parameters / 1e9 == pytest.approx(active, rel=0.07)


def test_mla_holds_a_full_copy_on_each_rank():
    assert growth_bytes_per_token(CATALOG.models["deepseek-v3"], BF16, tp=8) == 70_272


def test_fewer_kv_heads_than_ranks_replicate():
    model = CATALOG.models["qwen3-235b-a22b"]
    per_rank = growth_bytes_per_token(model, BF16, tp=8)
    assert 8 * per_rank == 2 * growth_bytes_per_token(model, BF16)


def test_a_short_context_of_a_windowed_model_costs_as_if_all_layers_were_full():
    model = CATALOG.models["gpt-oss-120b"]
    assert kv_bytes(model, BF16, 100) == 100 * 36 * 2 * 8 * 64 * 2


@pytest.mark.parametrize(("key", "ratio"), [("llama-3.1-8b", 2.17), ("qwen3-30b-a3b", 2.30), ("llama-3.1-70b", 2.42)])
def test_turboquant_capacity_with_four_layers_left_in_bf16(key, ratio):
    model = CATALOG.models[key]
    k8v4 = CATALOG.kv_formats["turboquant_k8v4"]
    gain = growth_bytes_per_token(model, BF16) / growth_bytes_per_token(model, k8v4)
    assert gain == pytest.approx(ratio, abs=0.005)


@pytest.mark.parametrize("key", PUBLISHED)
@pytest.mark.parametrize(("new", "context"), [(1, 0), (700, 0), (100, 50), (3000, 2000), (5, 127)])
def test_prefill_reads_are_the_sum_over_its_tokens(key, new, context):
    for stream in CATALOG.models[key].streams:
        if stream.ratio == 1:
            expected = sum(stream.read(context + i) for i in range(1, new + 1))
            assert stream.prefill_reads(new, context) == pytest.approx(expected, rel=1e-12)


def test_experts_touched_follow_even_routing():
    experts = CATALOG.models["deepseek-v3"].experts
    assert experts.touched(1) == pytest.approx(8)
    assert experts.touched(32) == pytest.approx(256 * (1 - (1 - 8 / 256) ** 32))
    assert experts.touched(100_000) == pytest.approx(256)
