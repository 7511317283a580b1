"""A folder in the schema of NVIDIA's package, with made rows, for tests of its importer."""

import pandas as pd

VERSIONS = {"vllm": "0.24.0", "sglang": "0.5.14", "trtllm": "1.3.0rc20"}
SLOTS = """\
defaults:
  trtllm: {current: "1.3.0rc20"}
  sglang: {current: "0.5.14"}
  vllm: {current: "0.24.0"}
overrides:
  a100_sxm:
    vllm: {current: "0.14.0"}
"""
HEADS = {"num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "beam_width": 1, "attn_dtype": "bfloat16"}
MIXTURE = {
    "hidden_size": 2048, "inter_size": 768, "topk": 8, "num_experts": 128, "moe_tp_size": 1, "moe_ep_size": 1,
    "moe_dtype": "bfloat16", "distribution": "balanced", "kernel_source": "made",
}  # fmt: skip


def gemm(m=1, n=4096, k=4096, dtype="bfloat16", ms=0.02):
    return {"gemm_dtype": dtype, "m": m, "n": n, "k": k, "latency": ms, "kernel_source": "made"}


def decode(batch=1, step=1023, ms=0.02, **changed):
    row = {"batch_size": batch, "isl": 1, "step": step, "window_size": 0, "kv_cache_dtype": "bfloat16", "latency": ms}
    return {**HEADS, **row, **changed}


def prefill(new=1024, ms=0.05, **changed):
    row = {"batch_size": 1, "isl": new, "step": 0, "window_size": 0, "kv_cache_dtype": "bfloat16", "latency": ms}
    return {**HEADS, **row, **changed}


def moe(tokens=1, ms=0.1, **changed):
    return {**MIXTURE, "num_tokens": tokens, "latency": ms, **changed}


def write(root, tables, system="h100_sxm"):
    """``tables``: rows by (family, engine, table); the folder stands in for the installed package."""
    systems = root / "systems"
    systems.mkdir(exist_ok=True)
    (systems / "query_versions.yaml").write_text(SLOTS)
    for (family, engine, table), rows in tables.items():
        folder = systems / "data" / system / family / engine / VERSIONS.get(engine, "2.29.2")
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(folder / f"{table}_perf.parquet")
    return root
