"""A published point as the scenario that was run: what is stated, what had to be assumed, and what is not modelled."""

import re
from dataclasses import dataclass
from typing import Any

from capsim.catalog import load_catalog
from capsim.validate.names import ENGINES, HARDWARE, MODELS, WEIGHTS, Skip, kv_format_of
from capsim.validate.points import Point
from capsim.validate.trtllm_bench import GUIDE, GUIDED, Guided, tuned

ROUNDS = 10
"""Requests per user of a closed loop where the source states nothing else (InferenceMAX's recipe)."""
SINGLE_ANSWERS = 128
"""Tokens of an answer whose length is not stated (llama-bench's tg128)."""
BATCH_BESIDE_PROMPT = 2048
"""Tokens of a step beside the longest prompt, where prompts are not computed in parts: the largest batch."""
LOWEST_SHARE = 0.8
"""InferenceMAX draws lengths uniformly from this share of the stated one up to it."""
RANGE = re.compile(r"(\d+)\.\.(\d+)k$")
SPREAD = re.compile(r"~(\d+) \(\+-(\d+)%\)")
UNMODELLED = {
    "MTP": "speculative decoding", "1P1D": "prefill and decode on separate nodes", "prefill ": "separate prefill",
    "decode ": "separate decode", "DCP": "decode context parallelism",
}  # fmt: skip
MIXED = ("Maverick", "Scout", "Qwen3-235B", "Qwen3-30B", "DeepSeek", "gpt-oss")


@dataclass(frozen=True)
class AsRun:
    """A scenario and a catalog of its own, as YAML values, and the conditions that nobody stated.

    ``probe`` is what is run: requests through the simulator, decode steps of one sequence over a range of context, or
    only the memory of an engine that has started.
    """

    scenario: dict[str, Any]
    catalog: dict[str, Any]
    assumed: tuple[str, ...]
    probe: str


def as_run(point: Point) -> AsRun:
    """The scenario of a point.

    Raises
    ------
    Skip
        Something in it is not modelled, or too little is stated to run it; the message says what.
    """
    assumed: list[str] = []
    device, model, engine = HARDWARE.of(point.hardware), MODELS.of(point.model), ENGINES.of(point.engine)
    layout = _layout(point, assumed)
    weights = WEIGHTS.of(point.weight_precision)
    if model.startswith("gpt-oss") and weights != "mxfp4":
        assumed.append(f"'{point.weight_precision}' of gpt-oss: its own MXFP4 experts")
        weights = "mxfp4"
    if model.startswith("deepseek") and weights == "fp8":
        weights = "fp8_block"  # as DeepSeek publishes them
    kv_format, reason = kv_format_of(point.kv_precision, weights, engine)
    assumed += [reason] if reason else []
    count = layout["tp"] * layout["pp"] * layout["dp"]
    workload = _workload(point, engine, assumed)
    scheduler: dict[str, Any] = {"enable_prefix_caching": False} if engine in ("vllm", "sglang") else {}
    if engine == "tensorrt-llm":
        most = _trtllm_limits(point, model, weights, kv_format, device, layout, assumed)
        scheduler = {"enable_prefix_caching": False, **most}
    if engine in ("sglang", "vllm") and "closed" in point.load:
        scheduler["max_num_seqs"] = max(256, workload["arrival"]["users"])
    scenario: dict[str, Any] = {
        "catalog": "catalog.yaml", "model": model, "weights": weights, "kv_format": kv_format, "node": "as-published",
        "engine": engine, "parallelism": layout, "scheduler": scheduler, "workload": workload,
        "seed": 1, "replications": 1,
    }  # fmt: skip
    fraction = _memory_fraction(point, engine, assumed)
    if fraction:
        scenario["memory"] = {"fraction": fraction}
    node = {
        "provenance": {"basis": "vendor", "source": "as published", "as_of": "2026-11-23"}, "name": point.hardware,
        "device": device, "devices": count, "engine": engine,
    }  # fmt: skip
    probe = "memory" if point.load == "startup profile" else "contexts" if contexts(point) else "requests"
    return AsRun(scenario, {"nodes": {"as-published": node}}, tuple(assumed), probe)


def contexts(point: Point) -> tuple[int, int] | None:
    """The least and the most tokens of context of a single stream that was measured over a range of them."""
    found = RANGE.match(point.isl)
    return (int(found[1]), 1000 * int(found[2])) if found and point.load == "single" else None


def _layout(point: Point, assumed: list[str]) -> dict[str, Any]:
    """tp, pp, dp and expert parallelism from a label such as ``tp8 ep8 dp-attn``, ``TP1PP4`` or ``DEP8``."""
    label = point.parallelism
    for mark, what in UNMODELLED.items():
        if mark in label:
            raise Skip(what)
    if not label or label == "SINGLE":
        return {"tp": 1, "pp": 1, "dp": 1, "expert": False}
    sizes = {kind.lower(): int(size) for kind, size in re.findall(r"(?i)(tp|pp|dep|ep)(\d+)", label)}
    if not sizes:
        raise Skip(f"parallelism '{label}' is not understood")
    tp, pp = sizes.get("dep", sizes.get("tp", 1)), sizes.get("pp", 1)
    expert_ranks = sizes.get("dep", sizes.get("ep", 1))
    replicated = "dep" in sizes or re.search(r"(?i)dp-attn|attention-DP", label) is not None or bool(_guided(point))
    if "MoE runs used attention DP" in point.notes and tp > 1 and any(part in point.model for part in MIXED):
        assumed.append("attention data-parallel and experts spread over all devices, as the source's MoE runs")
        replicated, expert_ranks = True, tp
    if replicated:
        return {"tp": 1, "pp": pp, "dp": tp, "expert": expert_ranks > 1}
    if expert_ranks not in (1, tp):
        raise Skip(f"experts over {expert_ranks} of {tp} ranks")
    return {"tp": tp, "pp": pp, "dp": 1, "expert": expert_ranks > 1}


def _workload(point: Point, engine: str, assumed: list[str]) -> dict[str, Any]:
    """Who asks for how much, and when."""
    if point.load == "startup profile":
        return _closed(1, 1, 128, 128)
    if point.load == "single" or not point.load:
        return _single(point, assumed)
    queued = re.match(r"(\d+) requests queued at once", point.concurrency_or_rate)
    if point.load.startswith("offline") and queued:
        return _closed(int(queued[1]), int(queued[1]), _length(point.isl), _length(point.osl))
    users = re.match(r"(\d+)(?: \((\d+) requests\))?$", point.concurrency_or_rate)
    if point.load != "closed" or users is None:
        raise Skip(f"load '{point.load} {point.concurrency_or_rate}' is not stated well enough to run")
    guided = _guided(point)
    requests = int(users[2] or 0) or (guided.requests if guided else ROUNDS * int(users[1]))
    prompt, output = _length(point.isl), _length(point.osl)
    if "uniform in [0.8L,L]" in point.notes:
        prompt, output = (
            _uniform(round(LOWEST_SHARE * _number(text)), _number(text)) for text in (point.isl, point.osl)
        )
    elif users[2] is None and guided is None:
        assumed.append(f"closed loop of {ROUNDS} requests a user, lengths as stated")
    return _closed(int(users[1]), requests, prompt, output)


def _single(point: Point, assumed: list[str]) -> dict[str, Any]:
    prompt = _tokens(point.isl) or next(iter(contexts(point) or ()), None)
    if prompt is None:
        raise Skip(f"prompt length '{point.isl}' is a range or not stated")
    output = _tokens(point.osl)
    if output is None:
        assumed.append(f"answers of {SINGLE_ANSWERS} tokens")
    return _closed(1, 1, prompt, output or SINGLE_ANSWERS)


def _closed(users: int, requests: int, prompt: Any, output: Any) -> dict[str, Any]:
    return {
        "arrival": {"kind": "closed", "users": users}, "requests": requests, "warmup_requests": 0,
        "prompt_tokens": prompt, "output_tokens": output,
    }  # fmt: skip


def _length(text: str) -> Any:
    if spread := SPREAD.match(text):
        mean, percent = int(spread[1]), int(spread[2])
        return _uniform(mean * (100 - percent) // 100, mean * (100 + percent) // 100)
    return _number(text)


def _uniform(low: int, high: int) -> dict[str, Any]:
    return {"kind": "uniform", "low": low, "high": high}


def _number(text: str) -> int:
    tokens = _tokens(text)
    if tokens is None:
        raise Skip(f"length '{text}' is not stated well enough to run")
    return tokens


def _tokens(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _trtllm_limits(
    point: Point, model: str, weights: str, kv_format: str, device: str, layout: dict[str, Any], assumed: list[str]
) -> dict[str, int]:
    """The most sequences and tokens of a step: as the source states, as its benchmark sets them, else assumed."""
    if guided := _guided(point):
        return {"max_num_seqs": guided.max_num_seqs, "max_num_batched_tokens": guided.max_num_batched_tokens}
    if point.load.startswith("offline"):
        catalog = load_catalog()
        kv_bytes = catalog.kv_formats[kv_format].key_bits / 8
        assumed.append("TensorRT-LLM's max_batch_size and max_num_tokens: as trtllm-bench 1.0 tunes them")
        batch, tokens = tuned(
            catalog.models[model], weights, kv_bytes, catalog.devices[device].memory_bytes, layout["tp"] * layout["dp"],
            layout["pp"], _number(point.isl), _number(point.osl),
        )  # fmt: skip
        return {"max_num_seqs": batch, "max_num_batched_tokens": tokens}
    if point.source.startswith("InferenceX"):  # benchmarks/dsr1_fp8_h200_trt_slurm.sh and its like
        users = int(point.concurrency_or_rate)
        return {"max_num_seqs": users, "max_num_batched_tokens": 64 + -(-(users + _number(point.isl)) // 64) * 64}
    assumed.append("TensorRT-LLM's max_num_tokens: 8,192, or a prompt and 2,048 where that is more")
    return {"max_num_batched_tokens": max(8192, (_tokens(point.isl) or 0) + BATCH_BESIDE_PROMPT)}


def _guided(point: Point) -> Guided | None:
    """What NVIDIA's guide to DeepSeek-R1 states of a run."""
    stated = point.source == GUIDE and point.concurrency_or_rate.isdigit()
    return GUIDED.get(int(point.concurrency_or_rate)) if stated else None


def _memory_fraction(point: Point, engine: str, assumed: list[str]) -> float | None:
    """What the source says that the engine filled of its memory."""
    if stated := re.search(r"gpu_memory_utilization (0\.\d+)", point.concurrency_or_rate):
        return float(stated[1])
    if guided := _guided(point):
        return guided.memory_fraction
    if "kv_cache_free_gpu_mem_fraction 0.95" in point.notes:
        assumed.append("0.95 of free memory for KV (the source: typically)")
        return 0.95
    if engine == "tensorrt-llm":
        assumed.append("0.9 of free memory for KV, the engine's default")
    return None
