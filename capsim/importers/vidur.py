"""Vidur's profiles: ``mlp.csv``, ``attention.csv`` and ``all_reduce.csv`` of one device, in milliseconds.

Shapes are those of one rank; Vidur computes in fp16, which stands as bf16: the bytes and the rates are the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError
from capsim.importers.csv_table import read_table
from capsim.importers.imported import Imported, kernel_row, reading

MS = 1e-3
MLP = ["n_head", "n_kv_head", "n_embd", "n_expanded_embd", "use_gated_mlp", "num_tokens", "num_tensor_parallel_workers"]
ATTENTION = [
    "n_embd", "n_q_head", "n_kv_head", "num_tensor_parallel_workers", "batch_size", "prefill_chunk_size",
    "kv_cache_size", "is_prefill",
]  # fmt: skip
ALL_REDUCE = ["size", "num_workers", "collective"]
Read = tuple[str, dict[str, Any], float]


def import_vidur(device: str, paths: Sequence[Path], created: str) -> Imported:
    """Kernels of one device from Vidur's profiles, told apart by their columns.

    Parameters
    ----------
    device
        A name, or a key of the catalog.
    created
        When they were measured, ISO 8601: the profiles do not say.

    Raises
    ------
    ScenarioError
        No such file, or none of the three profiles.
    """
    found = Imported.of(device, f"Vidur profile: {', '.join(path.name for path in paths)}", created, engine="vllm")
    for path in paths:
        frame = read_table(path)
        if set(ALL_REDUCE) <= set(frame):
            rows = _all_reduces(frame)
        elif "num_tokens" in frame:
            rows = _matrices(read_table(path, MLP))
        else:
            rows = _attention(read_table(path, ATTENTION), found)
        with reading(path):
            for op, shape, ms in rows:
                if ms > 0:
                    found.rows.append(kernel_row(op, "vidur", shape, ms * MS))
                else:
                    found.left_out["no time"] += 1
    return found


def _matrices(frame: Any) -> Iterator[Read]:
    """Projections, feed-forward layers and norms by tokens."""
    for row in frame.to_dict("records"):
        tokens, tp, hidden = int(row["num_tokens"]), int(row["num_tensor_parallel_workers"]), int(row["n_embd"])
        width, gated = int(row["n_expanded_embd"]) // tp, 1 + bool(row["use_gated_mlp"])
        dim = hidden // int(row["n_head"])
        heads, kv_heads = int(row["n_head"]) // tp, max(1, int(row["n_kv_head"]) // tp)
        matrices = {
            "attn_pre_proj": (hidden, (heads + 2 * kv_heads) * dim), "attn_post_proj": (heads * dim, hidden),
            "mlp_up_proj": (hidden, gated * width), "mlp_down_proj": (width, hidden),
        }  # fmt: skip
        for name, (inputs, outputs) in matrices.items():
            shape = {"tokens": tokens, "in_features": inputs, "out_features": outputs, "weight_format": "bf16"}
            yield "gemm", shape, _median(row, name)
        yield "norm", {"tokens": tokens, "hidden": hidden}, _median(row, "input_layernorm")


def _attention(frame: Any, found: Imported) -> Iterator[Read]:
    for row in frame.to_dict("records"):
        tp = int(row["num_tensor_parallel_workers"])
        heads = {
            "q_heads": int(row["n_q_head"]) // tp, "kv_heads": max(1, int(row["n_kv_head"]) // tp),
            "head_dim": int(row["n_embd"]) // int(row["n_q_head"]),
        }  # fmt: skip
        batch, new, context = int(row["batch_size"]), int(row["prefill_chunk_size"]), int(row["kv_cache_size"])
        if not row["is_prefill"]:
            shape = {"sequences": batch, "context_tokens": context, **heads, "kv_format": "bf16"}
            yield "decode_attention", shape, _median(row, "attn_decode")
        elif batch == 1:
            shape = {"new_tokens": new, "context_tokens": context, **heads}
            yield "prefill_attention", shape, _median(row, "attn_prefill")
        else:
            found.left_out["prefill_attention: several prompts at once, which a step adds up one by one"] += 1
        if "time_stats.attn_kv_cache_save.median" in row:
            written = {"tokens": new * batch if row["is_prefill"] else batch, "kv_heads": heads["kv_heads"]}
            shape = {**written, "head_dim": heads["head_dim"], "kv_format": "bf16"}
            yield "kv_write", shape, _median(row, "attn_kv_cache_save")


def _all_reduces(frame: Any) -> Iterator[Read]:
    """``size`` is in bytes; every rank has its row."""
    for row in frame[frame["collective"] == "all_reduce"].to_dict("records"):
        yield "all_reduce", {"bytes": int(row["size"]), "devices": int(row["num_workers"])}, _median(row, "all_reduce")


def _median(row: dict[str, Any], name: str) -> float:
    key = f"time_stats.{name}.median"
    if key not in row:
        raise ScenarioError.one(f"a profile of Vidur's without the column {key}")
    return float(row[key])
