"""Weight formats of a checkpoint: its own first, then the narrower ones it is commonly converted to."""

from capsim.errors import ScenarioError
from capsim.hugging_face.keys import Keys

_FROM_BF16 = ("bf16", "fp8", "int4")
_FROM_FP8 = ("fp8", "int4")
_FROM_BLOCKS = ("fp8_block", *_FROM_FP8)
_COMPRESSED = {
    "float-quantized": _FROM_FP8,
    "nvfp4-pack-quantized": ("nvfp4",),
    "mxfp4-pack-quantized": ("mxfp4-packed",),
}


def weight_formats(text: Keys) -> tuple[str, ...]:
    """Catalog keys of weight formats, by ``quantization_config`` and ``torch_dtype``."""
    dtype = text.need("torch_dtype", "dtype")
    experts = text.get("expert_dtype")
    if not text.get("quantization_config"):
        if dtype not in ("bfloat16", "float16"):
            raise text.refuse("torch_dtype", f"weights in {dtype} are not understood", "known: bfloat16, float16")
        return ("fp4-fp8",) if experts == "fp4" else _FROM_BF16
    found = text.nested("quantization_config")
    method = found.need("quant_method")
    if method == "fp8":
        return ("fp4-fp8",) if experts == "fp4" else _FROM_BLOCKS if found.get("weight_block_size") else _FROM_FP8
    if method == "mxfp4":
        return ("mxfp4",)
    if method in ("awq", "gptq"):
        return _grouped(found, found.need("bits"), found.need("group_size"))
    if method == "modelopt":
        formats = {"NVFP4": ("nvfp4",), "FP8": _FROM_FP8}
        if (algorithm := str(found.need("quant_algo"))) in formats:
            return formats[algorithm]
        raise found.refuse("quant_algo", f"'{algorithm}' is not understood", f"known: {', '.join(formats)}")
    if method == "compressed-tensors":
        return _compressed(found)
    raise found.refuse(
        "quant_method",
        f"'{method}' is not understood",
        "known: fp8, mxfp4, awq, gptq, modelopt, compressed-tensors",
    )


def _compressed(found: Keys) -> tuple[str, ...]:
    layout = str(found.need("format"))
    if layout in _COMPRESSED:
        return _COMPRESSED[layout]
    if layout != "pack-quantized":
        known = ", ".join([*_COMPRESSED, "pack-quantized"])
        raise found.refuse("format", f"'{layout}' is not understood", f"known: {known}")
    groups = found.nested("config_groups")
    if len(groups.values) != 1:
        raise found.refuse("config_groups", "several groups are not understood")
    weights = groups.nested(next(iter(groups.values))).nested("weights")
    bits, size = weights.need("num_bits"), weights.need("group_size")
    experts_only = any("self_attn" in str(pattern) for pattern in found.items("ignore"))
    if (bits, size) == (4, 32) and experts_only:
        return ("int4-experts",)
    return _grouped(weights, bits, size, experts_only)


def _grouped(keys: Keys, bits: int, size: int, experts_only: bool = False) -> tuple[str, ...]:
    if (bits, size) != (4, 128) or experts_only:
        raise _unknown_group(keys, bits, size)
    return ("int4-g128",)


def _unknown_group(keys: Keys, bits: int, size: int) -> ScenarioError:
    message = f"{bits} bits in groups of {size} are not understood"
    return keys.refuse("group_size", message, "known: 4 bits in groups of 128, or of 32 for the experts alone")
