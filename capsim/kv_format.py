"""KV cache formats: bytes per entry, and the time they add per KV token written and read."""

from pydantic import BaseModel, ConfigDict, Field

from capsim.hardware import Precision
from capsim.llm import KVStream, ModelSpec


class KVFormat(BaseModel):
    """How one KV head stores one token.

    ``key_bits`` and ``value_bits`` an element, and ``key_overhead_bytes`` and ``value_overhead_bytes`` (norms, scales
    and zeros) of one head's vector give its size; a latent that serves as K and V counts as a key.
    ``uncompressed_layers`` at the ends of the stack stay bf16, as vLLM's TurboQuant presets do. ``engines`` are those
    that serve it, None where nothing stands against it: all do, or none does and it is a what-if. ``arithmetic`` is
    the precision that a device must compute in, None where any device serves it. ``quality_kept`` is the share of a
    model's score at full precision that is left, None where nobody measured it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    key_bits: float = Field(gt=0)
    value_bits: float = Field(gt=0)
    key_overhead_bytes: int = Field(0, ge=0)
    value_overhead_bytes: int = Field(0, ge=0)
    uncompressed_layers: int = Field(0, ge=0)
    engines: tuple[str, ...] | None = None
    arithmetic: Precision | None = None
    quality_kept: float | None = Field(None, gt=0, le=1)


def pair_bytes(kv_format: KVFormat, head_dim: int) -> float:
    """Bytes of one KV head's K and V vectors of one token."""
    keys = head_dim * kv_format.key_bits / 8 + kv_format.key_overhead_bytes
    return keys + head_dim * kv_format.value_bits / 8 + kv_format.value_overhead_bytes


def entry_bytes(stream: KVStream, kv_format: KVFormat) -> float:
    """Bytes of one entry of one KV head in a compressed layer."""
    if not stream.quantisable:
        return stream.elements * stream.element_bytes
    if stream.value_elements:
        return pair_bytes(kv_format, stream.value_elements)
    return stream.elements * kv_format.key_bits / 8 + kv_format.key_overhead_bytes


def heads_per_rank(stream: KVStream, tp: int) -> int:
    """KV heads that the fullest tensor-parallel rank holds: its share, in whole heads."""
    return -(-stream.heads // tp)


def stream_bytes(model: ModelSpec, stream: KVStream, kv_format: KVFormat, tp: int = 1) -> float:
    """Bytes of one entry of ``stream`` on one rank, summed over the stream's layers.

    The uncompressed layers are shared out over the streams by their number of layers.
    """
    heads = heads_per_rank(stream, tp)
    plain = kv_format.uncompressed_layers * stream.layers / model.layers
    compressed = max(0.0, stream.layers - plain)
    plain = stream.layers - compressed
    return heads * (compressed * entry_bytes(stream, kv_format) + plain * stream.elements * stream.element_bytes)


def kv_bytes(
    model: ModelSpec, kv_format: KVFormat, context_tokens: float, tp: int = 1, keeps_windows: bool = False
) -> float:
    """KV bytes that a sequence of ``context_tokens`` holds on each rank; of all tokens if the engine keeps windows."""
    streams = _streams(model, keeps_windows)
    return sum(stream_bytes(model, s, kv_format, tp) * s.stored(context_tokens) for s in streams)


def growth_bytes_per_token(model: ModelSpec, kv_format: KVFormat, tp: int = 1, keeps_windows: bool = False) -> float:
    """KV bytes per further token on each rank, once every window is full."""
    streams = _streams(model, keeps_windows)
    return sum(stream_bytes(model, s, kv_format, tp) / s.ratio for s in streams if s.grows)


def window_bytes(model: ModelSpec, kv_format: KVFormat, tp: int = 1, keeps_windows: bool = False) -> float:
    """KV bytes of a sequence's full windows and states on each rank: the part that does not grow."""
    streams = [s for s in _streams(model, keeps_windows) if not s.grows]
    return sum(stream_bytes(model, s, kv_format, tp) * s.stored(s.window_tokens or 0) for s in streams)


def _streams(model: ModelSpec, keeps_windows: bool) -> tuple[KVStream, ...]:
    return tuple(stream.whole for stream in model.streams) if keeps_windows else model.streams
