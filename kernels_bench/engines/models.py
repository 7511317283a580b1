"""Small models for engines on a CPU, as Hugging Face configurations; their weights are random."""

from typing import Any

LONGEST_TOKENS = 4096
_COMMON: dict[str, Any] = {
    "hidden_act": "silu", "vocab_size": 8192, "max_position_embeddings": LONGEST_TOKENS, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
    "bos_token_id": 1, "eos_token_id": 2, "attention_bias": False, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 64, "hidden_size": 512,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "llama-32m": {
        **_COMMON, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 8,
        "intermediate_size": 1408,
    },
    "qwen3-moe-32x4": {
        **_COMMON, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": 6,
        "intermediate_size": 1024, "moe_intermediate_size": 256, "num_experts": 32, "num_experts_per_tok": 4,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
}  # fmt: skip
"""A dense Llama, and a Qwen3-MoE of 32 experts of which each token takes 4."""
