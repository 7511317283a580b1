"""Weight formats: their bytes.

``int8`` has one bf16 scale an output channel. ``int4`` has a bf16 scale and a bf16 zero for each group of 64 inputs of
an output channel, 4.5 bits a weight in all. MLX stores both groupwise.
"""

GROUP = 64  # inputs that share a scale: the default of MLX, and one that torch's packed CPU kernel takes
BITS = {"fp32": 32, "bf16": 16, "int8": 8, "int4": 4}
_SCALE_BYTES = 2


def weight_bytes(out_features: int, in_features: int, weight_format: str, backend: str) -> float:
    """Bytes of a weight matrix (out_features, in_features) with its scales."""
    scales = 0.0
    if weight_format == "int4" or (weight_format == "int8" and backend == "mlx"):
        scales = out_features * in_features / GROUP * 2 * _SCALE_BYTES
    elif weight_format == "int8":
        scales = out_features * _SCALE_BYTES
    return out_features * in_features * BITS[weight_format] / 8 + scales
