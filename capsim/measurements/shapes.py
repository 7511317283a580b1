"""Operations, the sizes that the shape of each has, and what is wrong with a shape."""

from collections.abc import Iterator, Mapping
from typing import Any

from capsim.errors import did_you_mean

Shape = Mapping[str, Any]
_HEADS = ("q_heads", "kv_heads", "head_dim")
_EXPERTS = (
    "tokens", "hidden", "intermediate", "experts", "top_k", "shared_experts", "active_experts", "skew",
    "weight_format",
)  # fmt: skip
SHAPES: dict[str, tuple[str, ...]] = {
    "memory_copy": ("bytes",),
    "memory_read": ("bytes",),
    "gemm": ("tokens", "in_features", "out_features", "weight_format"),
    "norm": ("tokens", "hidden"),
    "decode_attention": ("sequences", "context_tokens", *_HEADS, "kv_format"),
    "prefill_attention": ("new_tokens", "context_tokens", *_HEADS),
    "kv_write": ("tokens", "kv_heads", "head_dim", "kv_format"),
    "mla_decode": ("sequences", "context_tokens", "q_heads", "latent_dim", "rope_dim", "kv_format"),
    "sparse_attention": ("sequences", "context_tokens", "top_k", *_HEADS, "kv_format"),
    "experts": _EXPERTS,
    "experts_dense": _EXPERTS,
    "all_reduce": ("bytes", "devices"),
    "all_to_all": ("bytes", "devices"),
    "layer": ("sequences", "context_tokens", "new_tokens", "hidden", "intermediate", *_HEADS, "experts", "top_k"),
}
"""Operations, and the keys that the shape of each has."""
_MAY_BE_NONE = ("active_experts",)
_MAY_BE_ZERO = ("active_experts", "shared_experts", "skew", "rope_dim")
_ZERO_IN = {"prefill_attention": ("context_tokens",), "layer": ("context_tokens", "new_tokens", "experts", "top_k")}
LARGEST = 1e18
OWN = "own_"
FORMATS = {
    "kv_format": (
        "bf16", "fp8", "nvfp4", "q8_0", "q4_0", "turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc",
        "turboquant_3bit_nc", "tq_paper_4b", "tq_paper_3.5b", "tq_paper_3b", "tq_paper_2.5b", "mlx_8bit", "mlx_4bit",
    ),
    "weight_format": (
        "bf16", "fp16", "fp32", "fp8", "fp8_block", "int8", "int4", "int4-g128", "mxfp4", "nvfp4", "mxfp4-packed",
    ),
}  # fmt: skip
"""Names of formats; a format that is not among them is named by its owner, with ``OWN`` before."""


def mistakes(op: str, shape: Shape) -> list[str]:
    """What is wrong with a shape, in words; nothing where it is whole."""
    if op not in SHAPES:
        return [f"unknown op '{op}' ({did_you_mean(op, list(SHAPES))})"]
    if missing := [key for key in SHAPES[op] if key not in shape]:
        return [f"the shape of {op} lacks {', '.join(missing)}"]
    wrong = [text for key, value in shape.items() if (text := _wrong(op, key, value))]
    return wrong or list(_misfits(op, shape))


def _wrong(op: str, key: str, value: Any) -> str:
    """What is wrong with one value of a shape, if anything."""
    if key in FORMATS:
        return _wrong_format(key, value)
    if key not in SHAPES[op] or (value is None and key in _MAY_BE_NONE):
        return ""
    if not isinstance(value, (int, float)):
        return f"shape.{key} must be a number (got {value!r})"
    if value > LARGEST:
        return f"shape.{key} must be <= {LARGEST:g}"
    if value < 0 or (value == 0 and key not in _MAY_BE_ZERO and key not in _ZERO_IN.get(op, ())):
        return f"shape.{key} must be {'>= 0' if key in _MAY_BE_ZERO else '> 0'} (got {value!r})"
    return ""


def _wrong_format(key: str, value: Any) -> str:
    if value in FORMATS[key] or (isinstance(value, str) and value.startswith(OWN)):
        return ""
    known = did_you_mean(str(value), list(FORMATS[key]))
    return f"unknown {key} '{value}' ({known}; the name of a format of your own begins with {OWN})"


def _misfits(op: str, shape: Shape) -> Iterator[str]:
    """Sizes that are sound each and do not fit together."""
    queries, heads = shape.get("q_heads"), shape.get("kv_heads")
    if queries and heads and queries % heads:
        yield f"{queries} q_heads do not share {heads} kv_heads evenly"
    experts, top_k, active = shape.get("experts"), shape.get("top_k"), shape.get("active_experts")
    if experts and top_k and top_k > experts:
        yield f"top_k {top_k} is more than the {experts} experts"
    if experts and active and active > experts:
        yield f"active_experts {active} are more than the {experts} experts"
    if op in ("all_reduce", "all_to_all") and shape["devices"] < 2:
        yield f"a collective of {shape['devices']} device: devices must be 2 or more"
