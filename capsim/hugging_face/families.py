"""Families of models: which keys of a config.json mean what. Each reader gives the fields of a ``ModelSpec``."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from capsim.hugging_face.keys import Keys

Fields = dict[str, Any]

FULL, SLIDING, CHUNKED, LINEAR = "full_attention", "sliding_attention", "chunked_attention", "linear_attention"


def _dense(text: Keys) -> Fields:
    """Llama, Mistral, Qwen and Phi-3: grouped-query attention and one gated feed-forward a layer."""
    return {"attention": _attention(text), "dense": _dense_layers(text, _layers(text))}


def _mixtral(text: Keys) -> Fields:
    experts = _experts(text, _layers(text), text.number("num_local_experts"), "intermediate_size")
    return {"attention": _attention(text), "experts": experts}


def _gpt_oss(text: Keys) -> Fields:
    text.get("experts_per_token")  # num_experts_per_tok again
    return _mixtral(text)


def _qwen_moe(text: Keys) -> Fields:
    """Qwen's mixtures: every ``decoder_sparse_step``-th layer, but for ``mlp_only_layers``."""
    layers, step = _layers(text), max(1, text.count("decoder_sparse_step", 1))
    dense_only = text.items("mlp_only_layers")
    sparse = sum(1 for layer in range(layers) if layer not in dense_only and (layer + 1) % step == 0)
    shared = text.count("shared_expert_intermediate_size")
    experts = _experts(
        text, sparse, text.number("num_experts"), shared=1 if shared else 0, shared_size=shared or None,
    )  # fmt: skip
    text.get("intermediate_size")
    return {"attention": _attention(text), **_mixed(text, layers - sparse, experts)}


def _glm_moe(text: Keys) -> Fields:
    return {"attention": _attention(text), **_deepseek_experts(text)}


def _gemma3(text: Keys) -> Fields:
    return {"attention": _attention(text), "dense": _dense_layers(text, _layers(text))}


def _gemma4(text: Keys) -> Fields:
    """Local and global layers with heads of their own; the dense branch of a mixture is a shared expert."""
    layers, shared = _layers(text), text.flag("attention_k_eq_v")
    kinds = _kinds(text)
    key_values = text.number("num_global_key_value_heads" if shared else "num_key_value_heads")
    text.get("num_global_key_value_heads")
    attention = []
    if kinds[FULL]:
        head = {"heads": text.number("num_attention_heads"), "head_dim": text.number("global_head_dim")}
        attention = [
            {"kind": "full", "layers": kinds[FULL], **head, "kv_heads": key_values, "shared_projection": shared}
        ]
    attention += _windowed(text, kinds)
    if not text.flag("enable_moe_block"):
        return {"attention": attention, "dense": _dense_layers(text, layers)}
    experts = _experts(
        text, layers, text.number("num_experts"), top_k="top_k_experts",
        shared=1, shared_size=text.number("intermediate_size"),
    )  # fmt: skip
    return {"attention": attention, "experts": experts}


def _llama4(text: Keys) -> Fields:
    """Chunks but for the layers without RoPE; experts every few layers, always with one shared."""
    layers = _layers(text)
    step = text.number("interleave_moe_layer_step")
    sparse = text.items("moe_layers") or list(range(step - 1, layers, step))
    experts = _experts(text, len(sparse), text.number("num_local_experts"), "intermediate_size", shared=1)
    size = text.number("intermediate_size_mlp")
    return {"attention": _attention(text), **_mixed(text, layers - len(sparse), experts, size)}


def _deepseek(text: Keys) -> Fields:
    """DeepSeek V2 and V3, Kimi K2: multi-head latent attention."""
    text.get("num_key_value_heads")
    text.get("head_dim")
    return {"attention": [_latent(text, _layers(text))], **_deepseek_experts(text)}


def _deepseek_sparse(text: Keys) -> Fields:
    """DeepSeek V3.2 and GLM-5: latent attention over the tokens that an indexer chooses."""
    fields = _deepseek(text)
    fields["attention"][0] |= _indexer(text)
    return fields


def _deepseek_v4(text: Keys) -> Fields:
    """One entry for every 4 tokens with an indexer, for every 128 without, or the window alone."""
    text.expect("num_key_value_heads", 1)
    layers = _layers(text)
    ratios = Counter(map(str, text.items("compress_ratios")[:layers]))
    if foreign := set(ratios) - {"0", "4", "128"}:
        raise text.refuse("compress_ratios", f"a ratio of {min(foreign)} is not understood", "known: 0, 4, 128")
    like = {
        "heads": text.number("num_attention_heads"), "head_dim": text.number("head_dim"),
        "window_tokens": text.number("sliding_window"), "query_rank": text.number("q_lora_rank"),
        "output_rank": text.number("o_lora_rank"), "output_groups": text.number("o_groups"),
    }  # fmt: skip
    text.get("qk_rope_head_dim")  # part of head_dim
    text.get("compress_rope_theta")
    kinds = {
        "4": {"kind": "csa", "ratio": 4, **_indexer(text)},
        "128": {"kind": "hca", "ratio": 128},
        "0": {"kind": "hca", "ratio": 1},
    }
    attention = [{**kind, **like, "layers": ratios[ratio]} for ratio, kind in kinds.items() if ratios[ratio]]
    experts = _experts(
        text, layers, text.number("n_routed_experts"), shared=text.count("n_shared_experts"),
    )  # fmt: skip
    return {"attention": attention, "experts": experts}


def _kimi_linear(text: Keys) -> Fields:
    """Kimi K3: latent attention on few layers, Kimi Delta Attention on the others, experts in a latent space."""
    linear = text.nested("linear_attn_config")
    linear.expect("use_full_rank_gate", True)
    linear.get("gate_lower_bound")
    heads, dim = linear.number("num_heads"), linear.number("head_dim")
    full = _latent(text, len(linear.items("full_attn_layers")))
    full["output_gate"] = text.flag("mla_use_output_gate")
    state = {
        "kind": "linear", "layers": len(linear.items("kda_layers")), "heads": heads, "kv_heads": heads, "head_dim": dim,
        "value_dim": dim, "conv_tokens": linear.number("short_conv_kernel_size"), "decay_rank": dim,
    }  # fmt: skip
    linear.check_unread()
    text.get("num_key_value_heads")
    text.get("head_dim")
    layers, dense = _layers(text), text.count("first_k_dense_replace")
    experts = _experts(
        text, layers - dense, text.number("num_experts"), top_k="num_experts_per_token",
        shared=text.count("num_shared_experts"),
    )  # fmt: skip
    experts["latent_dim"] = text.count("routed_expert_hidden_size") or None
    return {"attention": [full, state], **_mixed(text, dense, experts)}


FAMILIES: dict[str, Callable[[Keys], Fields]] = {
    "llama": _dense,
    "mistral": _dense,
    "qwen2": _dense,
    "qwen3": _dense,
    "qwen3_vl_text": _dense,
    "qwen3_5_text": _dense,
    "phi3": _dense,
    "mixtral": _mixtral,
    "gpt_oss": _gpt_oss,
    "qwen3_moe": _qwen_moe,
    "qwen3_next": _qwen_moe,
    "qwen3_5_moe_text": _qwen_moe,
    "glm4_moe": _glm_moe,
    "gemma3_text": _gemma3,
    "gemma4_text": _gemma4,
    "llama4_text": _llama4,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "kimi_k2": _deepseek,
    "deepseek_v32": _deepseek_sparse,
    "glm_moe_dsa": _deepseek_sparse,
    "deepseek_v4": _deepseek_v4,
    "kimi_linear": _kimi_linear,
}

SLIDE_UNASKED = ("mistral", "mixtral", "phi3")
"""Those whose ``sliding_window`` holds for every layer; others name the layers, or ask with ``use_sliding_window``."""

# What the configuration classes of Hugging Face's transformers fill in where a published config leaves a key out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "vocab_size": 262208, "max_position_embeddings": 131072, "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
    "gpt_oss": {"sliding_window_pattern": 2},
    "gemma4_text": {"tie_word_embeddings": True},
    "llama4_text": {"no_rope_layer_interval": 4, "interleave_moe_layer_step": 1},
    "qwen3_next": {"full_attention_interval": 4, "attn_output_gate": True},
    "qwen3_5_text": {"full_attention_interval": 4},
    "qwen3_5_moe_text": {"full_attention_interval": 4},
}  # fmt: skip


def _layers(text: Keys) -> int:
    return text.layers()


def _kinds(text: Keys) -> Counter[str]:
    """How many layers have which attention."""
    layers = _layers(text)
    given, interval = text.items("layer_types"), text.count("full_attention_interval")
    no_rope, no_rope_interval = text.items("no_rope_layers"), text.count("no_rope_layer_interval")
    pattern, window = text.count("sliding_window_pattern"), text.count("sliding_window")
    text.expect("use_sliding_window", False)
    slides = text.get("model_type") in SLIDE_UNASKED
    if given:
        kinds = given
    elif interval:
        kinds = [FULL if (layer + 1) % interval == 0 else LINEAR for layer in range(layers)]
    elif no_rope:
        kinds = [CHUNKED if rope else FULL for rope in no_rope]
    elif no_rope_interval:
        kinds = [FULL if (layer + 1) % no_rope_interval == 0 else CHUNKED for layer in range(layers)]
    elif pattern:
        kinds = [FULL if (layer + 1) % pattern == 0 else SLIDING for layer in range(layers)]
    elif slides and window and "use_sliding_window" not in text.values and window < text.context():
        kinds = [SLIDING] * layers
    else:
        kinds = [FULL] * layers
    if len(kinds) != layers:
        raise text.refuse("num_hidden_layers", f"{layers} layers, but {len(kinds)} of them have an attention")
    if foreign := sorted({str(kind) for kind in kinds} - {FULL, SLIDING, CHUNKED, LINEAR}):
        raise text.refuse("layer_types", f"'{foreign[0]}' is not understood")
    return Counter(kinds)


def _attention(text: Keys) -> list[Fields]:
    """Grouped-query layers, those that see everything first; then the others."""
    kinds = _kinds(text)
    attention = []
    if kinds[FULL]:
        attention.append({"kind": "full", "layers": kinds[FULL], **_heads(text)})
    return attention + _windowed(text, kinds) + _linear(text, kinds)


def _heads(text: Keys) -> Fields:
    heads = text.number("num_attention_heads")
    dim = text.count("head_dim") or text.number("hidden_size") // heads
    key_values = text.count("num_key_value_heads", heads)
    return {"heads": heads, "kv_heads": key_values, "head_dim": dim, "output_gate": text.flag("attn_output_gate")}


def _windowed(text: Keys, kinds: Counter[str]) -> list[Fields]:
    found = []
    if kinds[SLIDING]:
        window = text.number("sliding_window")
        found.append({"kind": "sliding", "layers": kinds[SLIDING], **_heads(text), "window_tokens": window})
    if kinds[CHUNKED]:
        window = text.number("attention_chunk_size")
        found.append({"kind": "chunked", "layers": kinds[CHUNKED], **_heads(text), "window_tokens": window})
    return found


def _linear(text: Keys, kinds: Counter[str]) -> list[Fields]:
    """Gated delta layers."""
    if not kinds[LINEAR]:
        return []
    return [
        {
            "kind": "linear", "layers": kinds[LINEAR], "heads": text.number("linear_num_value_heads"),
            "kv_heads": text.number("linear_num_key_heads"), "head_dim": text.number("linear_key_head_dim"),
            "value_dim": text.number("linear_value_head_dim"), "conv_tokens": text.number("linear_conv_kernel_dim"),
        }
    ]  # fmt: skip


def _latent(text: Keys, layers: int) -> Fields:
    return {
        "kind": "mla", "layers": layers, "heads": text.number("num_attention_heads"),
        "latent_dim": text.number("kv_lora_rank"), "rope_dim": text.number("qk_rope_head_dim"),
        "nope_dim": text.number("qk_nope_head_dim"), "value_dim": text.number("v_head_dim"),
        "query_rank": text.count("q_lora_rank") or None,
    }  # fmt: skip


def _indexer(text: Keys) -> Fields:
    return {
        "top_k": text.number("index_topk"), "index_heads": text.number("index_n_heads"),
        "index_dim": text.number("index_head_dim"),
    }  # fmt: skip


def _dense_layers(text: Keys, layers: int, size: int | None = None) -> Fields:
    return {"layers": layers, "intermediate": size or text.number("intermediate_size")}


def _experts(
    text: Keys,
    layers: int,
    count: int,
    size: str = "moe_intermediate_size",
    *,
    top_k: str = "num_experts_per_tok",
    shared: int = 0,
    shared_size: int | None = None,
) -> Fields:
    intermediate = text.number(size)
    return {
        "layers": layers, "count": count, "top_k": text.number(top_k), "shared": shared, "intermediate": intermediate,
        "shared_intermediate": None if shared_size == intermediate else shared_size,
    }  # fmt: skip


def _deepseek_experts(text: Keys) -> Fields:
    """The first layers dense, experts on all others."""
    text.expect("moe_layer_freq", 1)
    layers, dense = _layers(text), text.count("first_k_dense_replace")
    shared = text.count("n_shared_experts")
    experts = _experts(text, layers - dense, text.number("n_routed_experts"), shared=shared)
    return _mixed(text, dense, experts)


def _mixed(text: Keys, dense: int, experts: Fields, size: int | None = None) -> Fields:
    return {"experts": experts, **({"dense": _dense_layers(text, dense, size)} if dense else {})}
