"""What the rows of NVIDIA's kernel tables say: operation, shape and seconds, without those that say something else.

Each reader takes one table as a data frame, and yields rows for the sizes that capsim's tables have. Where the same
sizes were measured more than once, with other kernels or again, the fastest counts: the engine would choose it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import median
from typing import Any

Read = tuple[str, dict[str, Any], float]
LeftOut = Counter[str]

MS = 1e-3
KV_FORMATS = {"bfloat16": "bf16", "fp8": "fp8"}
WEIGHT_FORMATS = {
    "bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "int8_wo": "int8",
    "int4_wo": "int4-g128", "w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "mxfp4",
}  # fmt: skip
"""Formats of weights; MXFP4 is multiplied in 16 bits, or with MXFP8 activations where that is faster."""
MLA = {"latent_dim": 512, "rope_dim": 64}  # DeepSeek's, the only ones in the tables
ELEMENT_BYTES = {"half": 2, "bfloat16": 2}
EVEN = "balanced"
BUSY_TOKENS = 64  # of each expert, where all experts are touched either way, so that uneven routing can only cost
CONTRADICTION = 0.95
UNCHOSEN = 1.5  # assumed: times as long as what does no less; nine shapes of ten are below 1


def gemm(frame: Any, engine: str, left_out: LeftOut) -> Iterator[Read]:
    frame = _keep(frame, frame["gemm_dtype"].isin(list(WEIGHT_FORMATS)), left_out, "gemm: a format not known here")
    launched = (frame["gemm_dtype"] == "fp8_block") & (engine == "vllm")
    frame = _keep(frame, ~launched, left_out, "gemm: vLLM's fp8_block rows are times of the host to launch them")
    for m, n, k, dtype, ms in _fastest(frame, ["m", "n", "k", "gemm_dtype"], left_out):
        shape = {"tokens": int(m), "in_features": int(k), "out_features": int(n)}
        yield "gemm", {**shape, "weight_format": WEIGHT_FORMATS[dtype]}, ms * MS


def decode_attention(frame: Any, engine: str, left_out: LeftOut) -> Iterator[Read]:
    """``step`` is the context before the token that is decoded; attention reads that one too."""
    frame = _plain(frame, left_out, "decode_attention")
    sizes = ["batch_size", "step", "num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype"]
    for sequences, step, heads, kv_heads, dim, dtype, ms in _fastest(frame, sizes, left_out):
        shape = {
            "sequences": int(sequences), "context_tokens": int(step) + 1, "q_heads": int(heads),
            "kv_heads": int(kv_heads), "head_dim": int(dim), "kv_format": KV_FORMATS[dtype],
        }  # fmt: skip
        yield "decode_attention", shape, ms * MS


def prefill_attention(frame: Any, engine: str, left_out: LeftOut) -> Iterator[Read]:
    frame = _plain(frame, left_out, "prefill_attention")
    one = frame["batch_size"] == 1
    frame = _keep(frame, one, left_out, "prefill_attention: several prompts at once, which a step adds up one by one")
    plain = frame["kv_cache_dtype"] == "bfloat16"
    frame = _keep(frame, plain, left_out, "prefill_attention: over an fp8 cache, as its table is of bf16")
    sizes = ["isl", "step", "num_heads", "num_key_value_heads", "head_dim"]
    for new, context, heads, kv_heads, dim, ms in _fastest(frame, sizes, left_out):
        shape = {
            "new_tokens": int(new), "context_tokens": int(context), "q_heads": int(heads), "kv_heads": int(kv_heads),
            "head_dim": int(dim),
        }  # fmt: skip
        yield "prefill_attention", shape, ms * MS


def mla_decode(frame: Any, engine: str, left_out: LeftOut) -> Iterator[Read]:
    sizes = ["batch_size", "step", "num_heads", "kv_cache_dtype"]
    for sequences, step, heads, dtype, ms in _fastest(frame, sizes, left_out):
        shape = {
            "sequences": int(sequences), "context_tokens": int(step) + 1, "q_heads": int(heads), **MLA,
            "kv_format": KV_FORMATS[dtype],
        }  # fmt: skip
        yield "mla_decode", shape, ms * MS


def experts(frame: Any, engine: str, left_out: LeftOut) -> Iterator[Read]:
    """Routed experts as one rank computes them: its share of the width, or of the experts and so of a token's.

    Even routing, as the tables of capsim hold; where only uneven routing was measured, the least uneven.
    """
    frame = _keep(frame, frame["moe_dtype"].isin(list(WEIGHT_FORMATS)), left_out, "experts: a format not known here")
    whole = (frame["num_experts"] % frame["moe_ep_size"] == 0) & (frame["inter_size"] % frame["moe_tp_size"] == 0)
    frame = _keep(frame, whole, left_out, "experts: ranks that do not share evenly")
    model = ["hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "moe_dtype"]
    frame = _without_contradictions(frame, model, left_out)
    frame = _without_unchosen(frame, model, left_out)
    evenest = frame.groupby(model)["distribution"].transform("min")  # "balanced" sorts before "power_law_1.01"
    even = frame["distribution"] == evenest
    frame = _keep(frame, even, left_out, "experts: uneven routing, where even routing is there")
    frame = frame.assign(moe_dtype=frame["moe_dtype"].map(WEIGHT_FORMATS))
    sizes = [*model, "num_tokens", "distribution"]
    for hidden, width, top_k, count, tp, ep, dtype, tokens, routing, ms in _fastest(frame, sizes, left_out):
        shape = {
            "tokens": int(tokens), "hidden": int(hidden), "intermediate": int(width // tp), "experts": int(count // ep),
            "top_k": _whole(top_k / ep), "shared_experts": 0,
            "active_experts": _active(count // ep, tokens * top_k / ep, routing), "skew": _skew(routing),
            "weight_format": dtype,
        }  # fmt: skip
        yield "experts", shape, ms * MS


def all_reduce(frame: Any, engine: str, left_out: LeftOut) -> Iterator[Read]:
    """An engine's own all-reduce, replayed from a graph as decoding does; ``message_size`` counts elements."""
    eager = frame["kernel_source"].str.endswith("_eager")
    frame = _keep(frame, ~eager, left_out, "all_reduce: launched by the host each time, where a graph replays it")
    frame = _keep(frame, frame["allreduce_dtype"] == "bfloat16", left_out, "all_reduce: a format not known here")
    for devices, elements, ms in _fastest(frame, ["num_gpus", "message_size"], left_out):
        yield "all_reduce", {"bytes": int(elements) * ELEMENT_BYTES["bfloat16"], "devices": int(devices)}, ms * MS


def nccl(frame: Any, left_out: LeftOut) -> Iterator[Read]:
    """NCCL's all-reduces and all-to-alls; ``message_size`` counts elements."""
    ops = {"all_reduce": "all_reduce", "alltoall": "all_to_all"}
    known = frame["op_name"].isin(list(ops)) & frame["nccl_dtype"].isin(list(ELEMENT_BYTES))
    frame = _keep(frame, known, left_out, "collectives: other operations, and int8, whose bytes 16 bits measure too")
    sizes = ["op_name", "num_gpus", "message_size", "nccl_dtype"]
    for op, devices, elements, dtype, ms in _fastest(frame, sizes, left_out):
        yield ops[op], {"bytes": int(elements) * ELEMENT_BYTES[dtype], "devices": int(devices)}, ms * MS


def _plain(frame: Any, left_out: LeftOut, op: str) -> Any:
    """Attention over the whole context, one beam, in 16-bit arithmetic; some versions have no windows."""
    if "window_size" in frame:
        whole = frame["window_size"] == 0
        frame = _keep(frame, whole, left_out, f"{op}: windows, which are read from the table of whole contexts")
    known = (frame["beam_width"] == 1) & frame["kv_cache_dtype"].isin(list(KV_FORMATS))
    return _keep(frame, known & (frame["attn_dtype"] == "bfloat16"), left_out, f"{op}: not in 16-bit arithmetic")


def _without_contradictions(frame: Any, model: list[str], left_out: LeftOut) -> Any:
    """Without kernels whose uneven routing is faster than their even one although all experts are busy.

    A shape of which another kernel is consistent loses that kernel's busy sizes only: there the other one stands in,
    and of fewer tokens nothing speaks against it.
    """
    kernel = [*model, "kernel_source"]
    busy = frame["num_tokens"] * frame["topk"] / frame["num_experts"] >= BUSY_TOKENS
    times = frame[busy].groupby([*kernel, "num_tokens", "distribution"])["latency"].min().unstack()
    if EVEN not in times or times.shape[1] < 2:
        return frame
    uneven = times.drop(columns=EVEN).max(axis=1) / times[EVEN]
    ratio = uneven.groupby(level=kernel).median()
    wrong = set(ratio[ratio < CONTRADICTION].index)
    sound = {key[:-1] for key in ratio[ratio >= CONTRADICTION].index}
    keys = frame[kernel].itertuples(index=False, name=None)
    bad = [key in wrong and (many or key[:-1] not in sound) for key, many in zip(keys, busy, strict=True)]
    reason = "experts: uneven routing faster than even routing with all experts busy, so one of the two is wrong"
    return _keep(frame, [not flag for flag in bad], left_out, reason)


def _without_unchosen(frame: Any, model: list[str], left_out: LeftOut) -> Any:
    """Without shapes that take far longer, at most sizes, than one that does no less: the same experts in a format with
    more bits, or in wider slices. No engine would choose such a kernel. Where most shapes of a format do, or take that
    much longer than the same weights with other activations, it goes as a whole."""
    cell, shape = ["moe_tp_size", "moe_dtype"], [name for name in model if name not in ("moe_tp_size", "moe_dtype")]
    if frame.empty:
        return frame
    times = frame.groupby([*shape, "num_tokens", "distribution", *cell])["latency"].min().unstack(cell)
    slow: set[tuple[Any, ...]] = set()
    longer: dict[str, list[float]] = defaultdict(list)
    for slices, dtype in times:
        no_less = [one for one in times if _does_no_less(one, (slices, dtype))]
        ratio = (times[slices, dtype] / times[no_less].min(axis=1)).groupby(level=shape).median()
        slow |= {(*key, slices, dtype) for key in ratio[ratio > UNCHOSEN].index}
        same = [one for one in times if one[0] == slices and _same_weights(one[1], dtype)]
        rivals = no_less + same
        longer[dtype] += list((times[slices, dtype] / times[rivals].min(axis=1)).groupby(level=shape).median().dropna())
    formats = [dtype for dtype, ratios in longer.items() if ratios and median(ratios) > UNCHOSEN]
    keys = frame[[*shape, *cell]].itertuples(index=False, name=None)
    bad = [key in slow or key[-1] in formats for key in keys]
    reason = "experts: takes far longer than what does no less, a kernel that nobody would choose"
    return _keep(frame, [not flag for flag in bad], left_out, reason)


def _does_no_less(one: tuple[int, str], other: tuple[int, str]) -> bool:
    """Whether slices and format are those of more bytes: fewer slices, more bits, or both."""
    slices, bits = one[0] - other[0], _bits(one[1]) - _bits(other[1])
    return slices <= 0 <= bits and (slices, bits) != (0, 0)


def _same_weights(one: str, other: str) -> bool:
    return one != other and WEIGHT_FORMATS[one] == WEIGHT_FORMATS[other]


def _bits(dtype: str) -> int:
    """Of a weight, without its scale."""
    return {"bfloat16": 16, "fp8": 8, "fp8_block": 8, "int8_wo": 8}.get(dtype, 4)


def _keep(frame: Any, mask: Any, left_out: LeftOut, reason: str) -> Any:
    kept = frame[mask]
    if len(kept) < len(frame):
        left_out[reason] += len(frame) - len(kept)
    return kept


def _fastest(frame: Any, sizes: list[str], left_out: LeftOut) -> Iterator[tuple[Any, ...]]:
    """The shortest latency at each size, in order; times that are none are left out."""
    frame = _keep(frame, frame["latency"] > 0, left_out, "no time")
    best = frame.groupby(sizes, sort=True)["latency"].min()
    if len(best) < len(frame):
        left_out["measured faster at the same sizes"] += len(frame) - len(best)
    columns = best.reset_index()
    return columns[[*sizes, "latency"]].itertuples(index=False, name=None)


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _active(experts: int, chosen: float, routing: str) -> int | None:
    """Distinct experts that tokens touch which are dealt out in turn; of an uneven routing nothing is said."""
    return max(1, min(experts, int(chosen))) if routing == EVEN else None


def _skew(distribution: str) -> float:
    return 0.0 if distribution == EVEN else float(distribution.rsplit("_", 1)[1])
