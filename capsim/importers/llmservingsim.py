"""LLMServingSim's profiles: a folder ``.../<variant>/tp<N>`` with one CSV a category, in microseconds.

Measured layer by layer in vLLM on one GPU, launched eagerly. The folder names the variant and the tensor-parallel
degree, ``meta.yaml`` above it the GPU, and the model's ``config.json`` the shapes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from capsim.errors import ScenarioError
from capsim.hugging_face import model_from_config
from capsim.importers.csv_table import read_table
from capsim.importers.imported import KV_BYTES, WEIGHT_BYTES, Imported, kernel_row, reading
from capsim.importers.json_file import read_json
from capsim.llm import ModelSpec

US = 1e-6
Read = tuple[str, dict[str, Any], float]
MIXED = "attention: prefill and decode in one call, which a step adds up"


def import_llmservingsim(folder: Path, config: Path) -> Imported:
    """Kernels of one model on one device at one tensor-parallel degree.

    Raises
    ------
    ScenarioError
        Not such a folder, or a model whose attention does not read plain keys and values.
    """
    meta = _meta(folder.parent / "meta.yaml")
    tp = _degree(folder)
    model = _model(config)
    weights, kv_format = _formats(folder)
    name = f"vllm {meta.get('vllm_version', '')}".strip()
    found = Imported.of(
        str(meta["gpu"]), f"LLMServingSim profile of {meta.get('model', model.name)}, {name}",
        str(meta["profiled_at"]), engine="vllm", version=meta.get("vllm_version"), model=meta.get("model"),
        variant=folder.parent.name, tp=tp,
    )  # fmt: skip
    with reading(folder):
        rows = [*_matrices(folder, model, tp, weights, found), *_attention(folder, model, tp, kv_format, found)]
        if (folder / "moe.csv").is_file():
            rows += _experts(folder, model, tp, weights)
    for op, shape, us in rows:
        found.rows.append(kernel_row(op, name, shape, us * US))
    return found


def _matrices(folder: Path, model: ModelSpec, tp: int, weights: str, found: Imported) -> Iterator[Read]:
    """Dense layers by tokens, and the LM head by sequences."""
    group, hidden = model.attention[0], model.hidden
    heads, kv_heads, dim = _heads(model, tp).values()
    shapes = {
        "qkv_proj": (hidden, (heads + 2 * kv_heads) * dim, weights), "o_proj": (heads * dim, hidden, weights),
        "lm_head": (hidden, model.vocab // tp, "bf16"),
    }  # fmt: skip
    if model.dense is not None:
        width = model.dense.intermediate // tp
        shapes |= {"gate_up_proj": (hidden, 2 * width, weights), "down_proj": (width, hidden, weights)}
    assert group.head_dim is not None
    for file, size in (("dense.csv", "tokens"), ("per_sequence.csv", "sequences")):
        for row in read_table(folder / file, ["layer", size, "time_us"]).to_dict("records"):
            layer, tokens = str(row["layer"]), int(row[size])
            if layer in shapes:
                inputs, outputs, stored = shapes[layer]
                shape = {"tokens": tokens, "in_features": inputs, "out_features": outputs, "weight_format": stored}
                yield "gemm", shape, float(row["time_us"])
            elif layer in ("layernorm", "input_layernorm"):
                yield "norm", {"tokens": tokens, "hidden": hidden}, float(row["time_us"])
            else:
                found.left_out[f"{layer}: no operation of capsim's"] += 1


def _attention(folder: Path, model: ModelSpec, tp: int, kv_format: str, found: Imported) -> Iterator[Read]:
    """A grid over new tokens, context before them, decoding sequences and their context; what is only one of both."""
    sizes = ["prefill_chunk", "kv_prefill", "n_decode", "kv_decode"]
    frame = read_table(folder / "attention.csv", [*sizes, "time_us"])
    if "layer" in frame:
        frame = frame[frame["layer"] == "attention"]
    if "decode_q_len" in frame:
        frame = frame[frame["decode_q_len"] == 1]
    for new, before, sequences, context, us in frame[[*sizes, "time_us"]].itertuples(index=False, name=None):
        heads = _heads(model, tp)
        if new and sequences:
            found.left_out[MIXED] += 1
        elif new:
            yield "prefill_attention", {"new_tokens": int(new), "context_tokens": int(before), **heads}, float(us)
        else:
            shape = {"sequences": int(sequences), "context_tokens": int(context), **heads, "kv_format": kv_format}
            yield "decode_attention", shape, float(us)


def _experts(folder: Path, model: ModelSpec, tp: int, weights: str) -> Iterator[Read]:
    """Routed experts by tokens and by the experts that they activated, of one expert-parallel rank."""
    experts = model.experts
    if experts is None:
        raise ScenarioError.one("has times of experts, but the model has none", path=folder / "moe.csv")
    for row in read_table(folder / "moe.csv", ["tokens", "activated_experts", "time_us"]).to_dict("records"):
        ranks = int(row.get("ep", 1))
        top_k = experts.top_k / ranks
        shape = {
            "tokens": int(row["tokens"]), "hidden": model.expert_width, "intermediate": experts.intermediate // tp,
            "experts": experts.count // ranks, "top_k": int(top_k) if top_k == int(top_k) else top_k,
            "shared_experts": 0, "active_experts": int(row["activated_experts"]), "skew": 0.0,
            "weight_format": weights,
        }  # fmt: skip
        yield "experts", shape, float(row["time_us"])


def _heads(model: ModelSpec, tp: int) -> dict[str, int]:
    group = model.attention[0]
    assert group.kv_heads is not None
    assert group.head_dim is not None
    return {"q_heads": group.heads // tp, "kv_heads": max(1, group.kv_heads // tp), "head_dim": group.head_dim}


def _model(path: Path) -> ModelSpec:
    config = read_json(path)
    model = model_from_config(config, path.parent.name)
    if any(group.kind != "full" or group.top_k is not None for group in model.attention):
        raise ScenarioError.one("only profiles of attention over the whole context can be imported", path=path)
    return model


def _meta(path: Path) -> dict[str, Any]:
    if not path.is_file():
        hint = "give the folder .../<variant>/tp<N> of a profile"
        raise ScenarioError.one("file not found", path=path, hint=hint)
    meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(meta, dict) or not {"gpu", "profiled_at"} <= set(meta):
        raise ScenarioError.one("does not say gpu and profiled_at: not LLMServingSim's", path=path)
    return meta


def _degree(folder: Path) -> int:
    digits = folder.name.removeprefix("tp")
    if folder.name == digits or not digits.isdigit() or not int(digits):
        raise ScenarioError.one("the folder is not named tp<N>", path=folder)
    return int(digits)


def _formats(folder: Path) -> tuple[str, str]:
    """Of ``bf16-kvfp8`` and the like: weights, and KV where it is not kept as the weights are."""
    weights, _, kv = folder.parent.name.partition("-kv")
    kv_format = kv or ("bf16" if weights != "fp8" else "fp8")
    if weights not in WEIGHT_BYTES or kv_format not in KV_BYTES:
        message = f"the variant '{folder.parent.name}' does not name formats of weights and KV, such as bf16-kvfp8"
        raise ScenarioError.one(message, path=folder.parent)
    return weights, kv_format
