"""KV bytes and parameter counts against published figures, to the byte where they are exact."""

import pytest

from capsim.catalog import load_catalog
from capsim.kv_format import entry_bytes, growth_bytes_per_token, kv_bytes, window_bytes
from capsim.llm import Attention

CATALOG = load_catalog()
BF16 = CATALOG.kv_formats["bf16"]

# model: (KV bytes a token at bf16, constant bytes of windows and states, total and active 1e9 parameters on the card)
PUBLISHED = {
    "llama-3.1-8b": (131_072, 0, 8.03, None),
    "llama-3.1-70b": (327_680, 0, 70.55, None),
    "llama-3.1-405b": (516_096, 0, 405.0, None),
    "llama-4-maverick": (49_152, 1_207_959_552, 400.0, 17.0),
    "llama-4-scout": (49_152, 1_207_959_552, 109.0, 17.0),
    "qwen3-0.6b": (114_688, 0, 0.6, None),
    "qwen3-vl-4b": (147_456, 0, 4.0, None),
    "qwen3-8b": (147_456, 0, 8.2, None),
    "qwen3-32b": (262_144, 0, 32.8, None),
    "qwen3-30b-a3b": (98_304, 0, 30.5, 3.3),
    "qwen3-235b-a22b": (192_512, 0, 235.0, 22.0),
    "qwen3.5-27b": (65_536, 153_944_064, 27.0, None),
    "qwen3.5-397b-a17b": (30_720, 192_061_440, 397.0, 17.0),
    "mistral-7b": (131_072, 0, 7.24, None),
    "mistral-small-24b": (163_840, 0, 23.6, None),
    "mistral-small-3.2-24b": (163_840, 0, 24.0, None),
    "mixtral-8x7b": (131_072, 0, 46.7, 12.9),
    "mixtral-8x22b": (229_376, 0, 141.0, 39.0),
    "gemma-3-27b": (81_920, 436_207_616, 27.4, None),
    "gemma-4-31b": (81_920, 838_860_800, 30.7, None),
    "gemma-4-26b-a4b": (20_480, 209_715_200, 25.2, 3.8),
    "gpt-oss-20b": (24_576, 3_145_728, 20.9, None),  # its card counts no embedding among the active: below
    "gpt-oss-120b": (36_864, 4_718_592, 116.8, None),
    "deepseek-v3": (70_272, 0, 671.0, 37.0),
    "deepseek-v3.2": (85_888, 0, 671.0, 37.0),
    "deepseek-v4-flash": (6_880, 5_636_096, 284.0, 13.0),
    "deepseek-v4-pro": (9_848, 7_995_392, 1600.0, 49.0),
    "deepseek-v4-article": (70_272, 0, 1000.0, 37.0),
    "kimi-k2": (70_272, 0, 1026.0, 32.0),
    "kimi-k3": (27_648, 69 * (96 * 128 * 128 * 4 + 3 * 3 * 96 * 128 * 2), 2800.0, 104.0),
    "glm-4.6": (376_832, 0, 355.0, 32.0),
    "glm-5": (109_824, 0, 744.0, 40.0),
    "minimax-m3": (122_880 + 57 * 256, 0, 428.0, None),  # K and V, and the indexer's keys
    "mano-p-4b": (147_456, 0, 4.0, None),
    "mano-p-72b": (327_680, 0, 72.7, None),
    "gemini-2m-article": (120_000, 0, None, None),
}


def test_every_model_is_held_to_a_published_figure():
    assert set(PUBLISHED) == set(CATALOG.models)


@pytest.mark.parametrize("key", PUBLISHED)
def test_kv_bytes_per_token_to_the_byte(key):
    model = CATALOG.models[key]
    growth, window, _, _ = PUBLISHED[key]
    assert growth_bytes_per_token(model, BF16) == growth
    assert window_bytes(model, BF16) == window
    context = model.max_context_tokens
    assert kv_bytes(model, BF16, context) == growth * context + window


@pytest.mark.parametrize("key", [key for key, row in PUBLISHED.items() if row[2]])
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


@pytest.mark.parametrize("key", [key for key, row in PUBLISHED.items() if row[3]])
def test_active_parameters_near_the_card(key):
    assert CATALOG.models[key].active_parameters / 1e9 == pytest.approx(PUBLISHED[key][3], rel=0.055)


@pytest.mark.parametrize(("key", "active"), [("gpt-oss-20b", 3.6), ("gpt-oss-120b", 5.1)])
def test_the_gpt_oss_card_counts_no_input_embedding_among_the_active(key, active):
    model = CATALOG.models[key]
    assert (model.active_parameters - model.embedding_parameters) / 1e9 == pytest.approx(active, rel=0.02)


def test_mla_holds_a_full_copy_on_each_rank():
    assert growth_bytes_per_token(CATALOG.models["deepseek-v3"], BF16, tp=8) == 70_272


def test_fewer_kv_heads_than_ranks_replicate():
    model = CATALOG.models["qwen3-235b-a22b"]
    per_rank = growth_bytes_per_token(model, BF16, tp=8)
    assert 8 * per_rank == 2 * growth_bytes_per_token(model, BF16)


def test_a_short_context_of_a_windowed_model_costs_as_if_all_layers_were_full():
    model = CATALOG.models["gpt-oss-120b"]
    assert kv_bytes(model, BF16, 100) == 100 * 36 * 2 * 8 * 64 * 2


def test_a_recurrent_state_is_fp32_and_no_format_compresses_it():
    """45 layers x (64 heads x 128 x 128 x 4 bytes, and 3 tokens of 2 x 16 x 128 + 64 x 128 channels in bf16)."""
    model = CATALOG.models["qwen3.5-397b-a17b"]
    state = 45 * (64 * 128 * 128 * 4 + 3 * (2 * 16 * 128 + 64 * 128) * 2)
    assert state == 192_061_440
    for kv_format in CATALOG.kv_formats.values():
        assert window_bytes(model, kv_format) == state
    assert kv_bytes(model, BF16, 1) == state + growth_bytes_per_token(model, BF16)


def test_an_indexer_stores_a_key_of_its_own_and_reads_all_of_them():
    latent, keys = CATALOG.models["deepseek-v3.2"].streams
    assert entry_bytes(latent, BF16) + entry_bytes(keys, BF16) == 1408
    assert (latent.read(100_000), keys.read(100_000)) == (2048, 100_000)


def test_a_chunk_is_read_from_its_beginning():
    full, chunked = CATALOG.models["llama-4-scout"].streams
    assert [chunked.read(c) for c in (1, 8192, 8193, 20_000)] == [1, 8192, 1, 20_000 - 2 * 8192]
    assert [chunked.stored(c) for c in (1, 8192, 8193, 20_000)] == [1, 8192, 8192, 8192]
    assert full.read(20_000) == 20_000


@pytest.mark.parametrize("key", PUBLISHED)
def test_pieces_are_what_a_step_reads(key):
    for stream in CATALOG.models[key].streams:
        context = 1
        for _ in range(5):
            slope, level, last = stream.piece(context)
            for inside in (context, last or 10 * context):
                assert (slope * inside + level) / stream.ratio == stream.read(inside)
            if last is None:
                break
            context = last + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "chunked"}, "chunked attention needs head_dim, kv_heads, window_tokens"),
        ({"kind": "full", "kv_heads": 2, "head_dim": 4, "window_tokens": 8}, "full attention has no window_tokens"),
        ({"kind": "full", "kv_heads": 2, "head_dim": 4, "top_k": 8}, "an indexer needs top_k, index_heads, index_dim"),
    ],
)
def test_attention_that_is_half_described_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Attention(layers=1, heads=4, **fields)


@pytest.mark.parametrize("key", PUBLISHED)
@pytest.mark.parametrize(("new", "context"), [(1, 0), (700, 0), (100, 50), (3000, 2000), (5, 127), (17_000, 6000)])
def test_prefill_reads_are_the_sum_over_its_tokens(key, new, context):
    for stream in CATALOG.models[key].streams:
        expected = sum(stream.read(context + i) for i in range(1, new + 1))
        assert stream.prefill_reads(new, context) == pytest.approx(expected, rel=1e-12)


def test_experts_touched_follow_even_routing():
    experts = CATALOG.models["deepseek-v3"].experts
    assert experts.touched(1) == pytest.approx(8)
    assert experts.touched(32) == pytest.approx(256 * (1 - (1 - 8 / 256) ** 32))
    assert experts.touched(100_000) == pytest.approx(256)
