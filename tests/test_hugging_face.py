"""A config.json gives the model that the catalog has; what is not understood is refused by name."""

import json

import pytest
from configs import CONFIGS, config

from capsim.catalog import load_catalog
from capsim.errors import ScenarioError
from capsim.hugging_face import model_from_config, read_config

CATALOG = load_catalog()
LLAMA = CONFIGS["llama-3.1-8b"]


def without(key):
    return {name: value for name, value in LLAMA.items() if name != key}


@pytest.mark.parametrize("key", CONFIGS)
def test_a_config_is_the_catalog_s_entry(key):
    entry = CATALOG.models[key]
    model = model_from_config(CONFIGS[key], entry.name)
    assert model.weight_formats[0] == entry.weight_formats[0]
    assert set(model.weight_formats) <= set(entry.weight_formats)
    beyond = {"weight_formats": entry.weight_formats, "quality": entry.quality}
    assert model.model_copy(update=beyond) == entry


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        (without("model_type"), "model_type", "unknown model type 'None'"),
        ({**LLAMA, "model_type": "lama"}, "model_type", "unknown model type 'lama'"),
        (without("vocab_size"), "vocab_size", "is missing"),
        (without("torch_dtype"), "torch_dtype", "is missing"),
        ({**LLAMA, "torch_dtype": "float32"}, "torch_dtype", "weights in float32 are not understood"),
        ({**LLAMA, "num_kv_shared_layers": 12}, "num_kv_shared_layers", "is not understood and may change memory"),
        ({**LLAMA, "hidden_size": "4096"}, "hidden_size", "expected a positive whole number (got '4096')"),
        ({**LLAMA, "layer_types": ["mamba"] * 32}, "layer_types", "'mamba' is not understood"),
        ({**LLAMA, "layer_types": 7}, "layer_types", "expected a list (got 7)"),
        ({**LLAMA, "layer_types": ["full_attention"]}, "num_hidden_layers", "32 layers, but 1 of them"),
        ({**LLAMA, "use_sliding_window": True}, "use_sliding_window", "True is not understood"),
        ({**LLAMA, "use_sliding_window": "false"}, "use_sliding_window", "'false' is not understood"),
        ({**LLAMA, "use_sliding_window": 0}, "use_sliding_window", "0 is not understood"),
        ({**LLAMA, "tie_word_embeddings": "false"}, "tie_word_embeddings", "expected true or false (got 'false')"),
        ({**LLAMA, "num_hidden_layers": 50_000_000}, "num_hidden_layers", "more than 10,000 is not a model's"),
        ({**LLAMA, "hidden_size": 10**30}, "hidden_size", "more than 10,000,000 is not a model's"),
        ({**LLAMA, "max_position_embeddings": 10**400}, "max_position_embeddings", "more than 1,000,000,000"),
        ({**LLAMA, "num_key_value_heads": 10**30}, "num_key_value_heads", "expected a whole number up to 10,000,000"),
        ({**LLAMA, "quantization_config": {"quant_method": "exl2"}}, "quantization_config.quant_method", "'exl2' is"),
        ({**LLAMA, "audio_config": {"hidden_size": 8}}, "audio_config", "is not understood and may change memory"),
        ({**LLAMA, "text_config": 5}, "text_config", "expected keys and values"),
        ({**CONFIGS["deepseek-v3"], "moe_layer_freq": 2}, "moe_layer_freq", "2 is not understood"),
        ({**CONFIGS["deepseek-v4-pro"], "compress_ratios": [16] * 61}, "compress_ratios", "a ratio of 16"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(given, key, message):
    with pytest.raises(ScenarioError) as caught:
        model_from_config(given, "x")
    assert [problem.key for problem in caught.value.problems] == [key]
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("quantization", "formats"),
    [
        (None, ("bf16", "fp8", "int4")),
        ({"quant_method": "fp8"}, ("fp8", "int4")),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, ("int4-g128",)),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, ("int4-g128",)),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("nvfp4",)),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, ("fp8", "int4")),
        (
            {
                "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["re:.*self_attn.*"],
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 32}}},
            },
            ("int4-experts",),
        ),
    ],
)  # fmt: skip
def test_the_checkpoint_s_own_weights_come_first(quantization, formats):
    model = model_from_config({**LLAMA, "quantization_config": quantization}, "x")
    assert model.weight_formats == formats
    assert set(formats) <= set(CATALOG.weight_formats)


def test_groups_of_another_size_are_refused():
    odd = {"quant_method": "awq", "bits": 3, "group_size": 64}
    with pytest.raises(ScenarioError, match="3 bits in groups of 64 are not understood"):
        model_from_config({**LLAMA, "quantization_config": odd}, "x")


@pytest.mark.parametrize("key", ["qwen3.5-397b-a17b", "kimi-k3", "deepseek-v4-pro", "deepseek-v3.2", "gemma-4-26b-a4b"])
@pytest.mark.parametrize("junk", [-1, "x", [], [1], {"a": 1}, 1.5], ids=repr)
def test_junk_in_any_place_is_refused_or_harmless(key, junk):
    def spoilt(values):
        for name, value in values.items():
            yield {**values, name: junk}
            if isinstance(value, dict):
                yield from ({**values, name: inner} for inner in spoilt(value))

    refused = 0
    for given in spoilt(CONFIGS[key]):
        try:
            model_from_config(given, "x")
        except ScenarioError:
            refused += 1
    assert refused > 10


def test_mistral_s_first_release_slides_on_every_layer():
    first = config("mistral", 32, 4096, 32000, 32768, 32, 8, intermediate_size=14336, sliding_window=4096)
    (attention,) = model_from_config(first, "x").attention
    assert (attention.kind, attention.window_tokens) == ("sliding", 4096)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_a_window_that_is_not_asked_for_is_not_used(family):
    given = config(family, 28, 3584, 152064, 131072, 28, 4, intermediate_size=18944, sliding_window=4096)
    (attention,) = model_from_config(given, "x").attention
    assert attention.kind == "full"


def test_gpt_oss_alternates_where_its_layers_are_not_named():
    given = {name: value for name, value in CONFIGS["gpt-oss-20b"].items() if name != "layer_types"}
    assert model_from_config(given, "x").attention == model_from_config(CONFIGS["gpt-oss-20b"], "x").attention


def test_files_name_the_model_and_place_their_mistakes(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA))
    assert read_config(path).name == "my-llama"
    path.write_text(json.dumps(without("hidden_size")))
    with pytest.raises(ScenarioError, match=r"config\.json hidden_size: is missing"):
        read_config(path)
    for text, message in (("{", r"config\.json:1: not JSON"), ("[]", "expected a JSON object")):
        path.write_text(text)
        with pytest.raises(ScenarioError, match=message):
            read_config(path)
