"""Shapes as the models' own config.json files publish them (keys that say nothing of memory mostly left out)."""

COMMON = {"torch_dtype": "bfloat16", "use_cache": True, "rms_norm_eps": 1e-5, "hidden_act": "silu", "bos_token_id": 1}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
SIX = ["sliding_attention"] * 5 + ["full_attention"]
FOUR = ["linear_attention"] * 3 + ["full_attention"]


def config(model_type, layers, hidden, vocab, context, heads, kv_heads, **more):
    return {
        **COMMON, "model_type": model_type, "num_hidden_layers": layers, "hidden_size": hidden, "vocab_size": vocab,
        "max_position_embeddings": context, "num_attention_heads": heads, "num_key_value_heads": kv_heads, **more,
    }  # fmt: skip


def latent(model_type, layers, hidden, vocab, context, heads, **more):
    return config(
        model_type, layers, hidden, vocab, context, heads, heads, kv_lora_rank=512, qk_rope_head_dim=64,
        moe_intermediate_size=2048, num_experts_per_tok=8, n_shared_experts=1, moe_layer_freq=1, n_group=8,
        topk_group=4, num_nextn_predict_layers=1, **more,
    )  # fmt: skip


V3 = {
    "q_lora_rank": 1536, "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 256,
    "first_k_dense_replace": 3, "intermediate_size": 18432, "quantization_config": FP8,
}  # fmt: skip
INDEXER = {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}
LINEAR = {
    "linear_num_key_heads": 16, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    "head_dim": 256, "attn_output_gate": True, "mtp_num_hidden_layers": 1,
}  # fmt: skip
V4 = {
    "head_dim": 512, "qk_rope_head_dim": 64, "sliding_window": 128, "o_lora_rank": 1024, "index_n_heads": 64,
    "index_head_dim": 128, "num_experts_per_tok": 6, "n_shared_experts": 1, "num_hash_layers": 3, "hc_mult": 4,
    "expert_dtype": "fp4", "num_nextn_predict_layers": 1,
}  # fmt: skip
LLAMA4 = {
    **COMMON, "model_type": "llama4_text", "num_hidden_layers": 48, "hidden_size": 5120, "vocab_size": 202048,
    "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "attention_chunk_size": 8192,
    "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_experts_per_tok": 1,
}  # fmt: skip
LLAMA4_VISION = {
    "model_type": "llama4_vision_model", "num_hidden_layers": 34, "hidden_size": 1408, "intermediate_size": 5632,
}  # fmt: skip
SIGLIP = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "patch_size": 16}
GEMMA4 = {"head_dim": 256, "global_head_dim": 512, "sliding_window": 1024, "attention_k_eq_v": True}
MISTRAL = {"head_dim": 128, "sliding_window": None}
QWEN3 = {"head_dim": 128, "sliding_window": None, "use_sliding_window": False, "max_window_layers": 64}
GPT_OSS = {
    "head_dim": 64, "sliding_window": 128, "intermediate_size": 2880, "num_experts_per_tok": 4, "experts_per_token": 4,
    "quantization_config": {"quant_method": "mxfp4"},
}  # fmt: skip
HALF = ["sliding_attention", "full_attention"]

CONFIGS = {
    "llama-3.1-8b": config("llama", 32, 4096, 128256, 131072, 32, 8, intermediate_size=14336, pretraining_tp=1),
    "llama-3.1-70b": config("llama", 80, 8192, 128256, 131072, 64, 8, intermediate_size=28672),
    "mistral-7b": config("mistral", 32, 4096, 32000, 32768, 32, 8, intermediate_size=14336, sliding_window=None),
    "mistral-small-24b": config("mistral", 40, 5120, 131072, 32768, 32, 8, intermediate_size=32768, **MISTRAL),
    "qwen3-0.6b": config(
        "qwen3", 28, 1024, 151936, 40960, 16, 8, intermediate_size=3072, tie_word_embeddings=True, **QWEN3
    ),
    "qwen3-32b": config("qwen3", 64, 5120, 151936, 40960, 64, 8, intermediate_size=25600, **QWEN3),
    "qwen3-30b-a3b": config(
        "qwen3_moe", 48, 2048, 151936, 40960, 32, 4, intermediate_size=6144, moe_intermediate_size=768,
        num_experts=128, num_experts_per_tok=8, decoder_sparse_step=1, mlp_only_layers=[], **QWEN3,
    ),
    "mixtral-8x7b": config(
        "mixtral", 32, 4096, 32000, 32768, 32, 8, intermediate_size=14336, num_local_experts=8, num_experts_per_tok=2
    ),
    "gpt-oss-20b": config(
        "gpt_oss", 24, 2880, 201088, 131072, 64, 8, num_local_experts=32, layer_types=HALF * 12, **GPT_OSS
    ),
    "gpt-oss-120b": config(
        "gpt_oss", 36, 2880, 201088, 131072, 64, 8, num_local_experts=128, layer_types=HALF * 18, **GPT_OSS
    ),
    "gemma-3-27b": {
        "model_type": "gemma3", "torch_dtype": "bfloat16", "mm_tokens_per_image": 256,
        "text_config": {
            "model_type": "gemma3_text", "num_hidden_layers": 62, "hidden_size": 5376, "intermediate_size": 21504,
            "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
        },
        "vision_config": {"num_hidden_layers": 27, "hidden_size": 1152, "intermediate_size": 4304},
    },
    "gemma-4-31b": config(
        "gemma4_text", 60, 5376, 262144, 262144, 32, 16, intermediate_size=21504, num_global_key_value_heads=4,
        layer_types=SIX * 10, hidden_size_per_layer_input=0, num_kv_shared_layers=0, **GEMMA4,
    ),
    "gemma-4-26b-a4b": config(
        "gemma4_text", 30, 2816, 262144, 262144, 16, 8, intermediate_size=2112, num_global_key_value_heads=2,
        layer_types=SIX * 5, enable_moe_block=True, num_experts=128, top_k_experts=8, moe_intermediate_size=704,
        **GEMMA4,
    ),
    "llama-4-maverick": {
        "model_type": "llama4", "torch_dtype": "bfloat16", "vision_config": LLAMA4_VISION,
        "text_config": {
            **LLAMA4, "max_position_embeddings": 1048576, "num_local_experts": 128, "interleave_moe_layer_step": 2,
        },
    },
    "llama-4-scout": {
        "model_type": "llama4", "torch_dtype": "bfloat16", "vision_config": LLAMA4_VISION,
        "text_config": {
            **LLAMA4, "max_position_embeddings": 10485760, "num_local_experts": 16, "no_rope_layers": [1, 1, 1, 0] * 12,
        },
    },
    "deepseek-v3": latent("deepseek_v3", 61, 7168, 129280, 163840, 128, **V3),
    "deepseek-v3.2": latent("deepseek_v32", 61, 7168, 129280, 163840, 128, **V3, **INDEXER),
    "kimi-k2": latent(
        "kimi_k2", 61, 7168, 163840, 131072, 64, **{**V3, "n_routed_experts": 384, "first_k_dense_replace": 1}
    ),
    "glm-5": latent(
        "glm_moe_dsa", 78, 6144, 154880, 202752, 64, q_lora_rank=2048, qk_nope_head_dim=192, v_head_dim=256,
        head_dim=64, n_routed_experts=256, first_k_dense_replace=3, intermediate_size=12288,
        **{**INDEXER, "index_n_heads": 32},
    ),
    "glm-4.6": config(
        "glm4_moe", 92, 5120, 151552, 131072, 96, 8, head_dim=128, intermediate_size=12288, first_k_dense_replace=3,
        n_routed_experts=160, n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=1536,
    ),
    "deepseek-v4-flash": config(
        "deepseek_v4", 43, 4096, 129280, 1048576, 64, 1, q_lora_rank=1024, o_groups=8, index_topk=512,
        n_routed_experts=256, moe_intermediate_size=2048, compress_ratios=[0, 0, *[4, 128] * 20, 4, 0], **V4,
    ),
    "deepseek-v4-pro": config(
        "deepseek_v4", 61, 7168, 129280, 1048576, 128, 1, q_lora_rank=1536, o_groups=16, index_topk=1024,
        n_routed_experts=384, moe_intermediate_size=3072, compress_ratios=[128, 128, *[4, 128] * 29, 4, 0], **V4,
    ),
    "qwen3.5-27b": config(
        "qwen3_5_text", 64, 5120, 248320, 262144, 24, 4, intermediate_size=17408, linear_num_value_heads=48,
        layer_types=FOUR * 16, **LINEAR,
    ),
    "qwen3.5-397b-a17b": {
        "model_type": "qwen3_5_moe", "tie_word_embeddings": False, "image_token_id": 248056, "vision_config": SIGLIP,
        "text_config": config(
            "qwen3_5_moe_text", 60, 4096, 248320, 262144, 32, 2, linear_num_value_heads=64, num_experts=512,
            num_experts_per_tok=10, moe_intermediate_size=1024, shared_expert_intermediate_size=1024, **LINEAR,
        ),
    },
    "kimi-k3": {
        "model_type": "kimi_k3",
        "text_config": {
            **COMMON, "model_type": "kimi_linear", "num_hidden_layers": 93, "hidden_size": 7168, "vocab_size": 163840,
            "model_max_length": 1048576, "num_attention_heads": 96, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128, "v_head_dim": 128, "q_lora_rank": 1536, "mla_use_output_gate": True,
            "intermediate_size": 33792, "first_k_dense_replace": 1, "num_experts": 896, "num_experts_per_token": 16,
            "num_shared_experts": 2, "moe_intermediate_size": 3072, "routed_expert_hidden_size": 3584,
            "linear_attn_config": {
                "num_heads": 96, "head_dim": 128, "short_conv_kernel_size": 4, "use_full_rank_gate": True,
                "full_attn_layers": list(range(24)), "kda_layers": list(range(69)),
            },
            "quantization_config": {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"},
        },
    },
}  # fmt: skip
