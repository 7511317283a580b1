"""Language models: shapes, parameters, and what their attention stores and reads per token.

Every kind of attention reduces to *KV streams*. A stream is one kind of cache entry of a group of like layers:
how wide an entry is, how many tokens it covers, how much of the context is kept, and how much a decode step reads.
Capacity, bandwidth and arithmetic are sums over streams, so a new kind of attention is a few lines in
``Attention.streams`` and nothing elsewhere.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

AttentionKind = Literal["full", "sliding", "mla", "csa", "hca"]

_NEEDS: dict[str, tuple[str, ...]] = {
    "full": ("heads", "kv_heads", "head_dim"),
    "sliding": ("heads", "kv_heads", "head_dim", "window_tokens"),
    "mla": ("heads", "latent_dim", "rope_dim", "nope_dim", "value_dim", "query_rank"),
    "csa": ("heads", "head_dim", "window_tokens", "ratio", "top_k", "index_heads", "index_dim", "query_rank"),
    "hca": ("heads", "head_dim", "window_tokens", "ratio", "query_rank"),
}


@dataclass(frozen=True)
class KVStream:
    """One kind of cache entry of ``layers`` like layers.

    A sequence with ``c`` tokens of context stores ``stored(c)`` entries in each layer and a decode step reads
    ``read(c)`` of them. An entry has ``elements`` numbers in each of ``heads`` KV heads; ``flops_per_read`` is the
    arithmetic of one query token against one entry, all query heads together.
    """

    name: str
    layers: int
    heads: int
    elements: int
    flops_per_read: float
    flops_per_prefill_read: float
    ratio: int = 1
    window_tokens: int | None = None
    top_k: int | None = None
    quantisable: bool = True

    def stored(self, context_tokens: float) -> float:
        kept = context_tokens if self.window_tokens is None else min(context_tokens, self.window_tokens)
        return kept / self.ratio

    def read(self, context_tokens: float) -> float:
        stored = self.stored(context_tokens)
        return stored if self.top_k is None else min(stored, self.top_k)

    def prefill_reads(self, new_tokens: float, context_tokens: float) -> float:
        """Σ read(c) over the new tokens of a prefill chunk that follows ``context_tokens`` cached ones."""
        knee = self.knee_tokens or math.inf
        last = context_tokens + new_tokens
        growing = max(0.0, min(last, knee) - context_tokens)
        ramp = growing * (context_tokens + (growing + 1) / 2) / self.ratio
        flat = (new_tokens - growing) * self.read(knee) if growing < new_tokens else 0.0
        return ramp + flat

    @property
    def has_kinks(self) -> bool:
        """Whether a decode step reads something else than the whole context."""
        return self.window_tokens is not None or self.top_k is not None

    @property
    def knee_tokens(self) -> int | None:
        """Context from which on a decode step reads no more, None where it always does."""
        window = [] if self.window_tokens is None else [self.window_tokens]
        chosen = [] if self.top_k is None else [self.top_k * self.ratio]
        return min(window + chosen, default=None)

    def piece(self, context_tokens: int) -> tuple[int, int, int | None]:
        """The straight piece of ``read`` at a context, as (slope, level, last context; None where it has no end).

        On it, read(c) · ratio = slope · c + level.
        """
        knee = self.knee_tokens
        if knee is None:
            return 1, 0, None
        return (1, 0, knee) if context_tokens < knee else (0, knee, None)

    @property
    def grows(self) -> bool:
        return self.window_tokens is None


class Attention(BaseModel):
    """A group of like attention layers, in the words of the model's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AttentionKind
    layers: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    window_tokens: PositiveInt | None = None
    latent_dim: PositiveInt | None = None
    rope_dim: PositiveInt | None = None
    nope_dim: PositiveInt | None = None
    value_dim: PositiveInt | None = None
    query_rank: PositiveInt | None = None
    output_rank: PositiveInt | None = None
    output_groups: PositiveInt | None = None
    ratio: PositiveInt | None = None
    top_k: PositiveInt | None = None
    index_heads: PositiveInt | None = None
    index_dim: PositiveInt | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Attention":
        missing = [name for name in _NEEDS[self.kind] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.kind} attention needs {', '.join(missing)}")
        return self

    def _of(self, name: str) -> int:
        value = getattr(self, name)
        assert value is not None
        return int(value)

    def streams(self) -> list[KVStream]:
        if self.kind in ("full", "sliding"):
            heads_dim = self.heads * self._of("head_dim")
            return [
                KVStream(
                    self.kind, self.layers, self._of("kv_heads"), 2 * self._of("head_dim"),
                    4.0 * heads_dim, 4.0 * heads_dim, window_tokens=self.window_tokens,
                )
            ]  # fmt: skip
        if self.kind == "mla":
            latent, rope = self._of("latent_dim"), self._of("rope_dim")
            # Decode attends in the latent space (weights absorbed), prefill in the expanded one.
            decode = 2.0 * self.heads * (2 * latent + rope)
            prefill = 2.0 * self.heads * (self._of("nope_dim") + rope + self._of("value_dim"))
            return [KVStream("mla", self.layers, 1, latent + rope, decode, prefill)]
        return self._compressed_streams()

    def _compressed_streams(self) -> list[KVStream]:
        """DeepSeek V4: one shared entry per ``ratio`` tokens, K = V, and a window of raw ones on every layer."""
        dim, ratio, window = self._of("head_dim"), self._of("ratio"), self._of("window_tokens")
        flops = 4.0 * self.heads * dim
        streams = [KVStream("window", self.layers, 1, dim, flops, flops, window_tokens=window)]
        if ratio > 1:
            streams.append(KVStream(self.kind, self.layers, 1, dim, flops, flops, ratio=ratio, top_k=self.top_k))
        if self.kind == "csa":
            index = 2.0 * self._of("index_heads") * self._of("index_dim")
            streams.append(KVStream("indexer", self.layers, 1, self._of("index_dim"), index, index, ratio=ratio))
        return streams

    def parameters(self, hidden: int) -> int:
        """Weights of one layer's projections (norms left out)."""
        if self.kind in ("full", "sliding"):
            query = self.heads * self._of("head_dim")
            return hidden * (2 * query + 2 * self._of("kv_heads") * self._of("head_dim"))
        if self.kind == "mla":
            latent, rope, rank = self._of("latent_dim"), self._of("rope_dim"), self._of("query_rank")
            nope, value = self._of("nope_dim"), self._of("value_dim")
            query = hidden * rank + rank * self.heads * (nope + rope)
            key_value = hidden * (latent + rope) + latent * self.heads * (nope + value)
            return query + key_value + self.heads * value * hidden
        return self._compressed_parameters(hidden)

    def _compressed_parameters(self, hidden: int) -> int:
        dim, rank = self._of("head_dim"), self._of("query_rank")
        total = hidden * rank + rank * self.heads * dim + hidden * dim
        if self.output_rank is not None:
            total += self.heads * dim * self.output_rank + self.output_rank * (self.output_groups or 1) * hidden
        else:
            total += self.heads * dim * hidden
        if self._of("ratio") > 1:
            total += 2 * hidden * dim  # compressor: values and their gate
        if self.kind == "csa":
            index_heads, index_dim = self._of("index_heads"), self._of("index_dim")
            total += rank * index_heads * index_dim + 2 * hidden * index_dim + hidden * index_heads
        return total


class Experts(BaseModel):
    """Mixture-of-experts feed-forward layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: PositiveInt
    count: PositiveInt
    top_k: PositiveInt
    shared: int = Field(0, ge=0)
    intermediate: PositiveInt

    @model_validator(mode="after")
    def _routable(self) -> "Experts":
        if self.top_k > self.count:
            raise ValueError(f"top_k {self.top_k} is more than the {self.count} experts")
        return self

    def touched(self, tokens: float) -> float:
        """Distinct experts one layer touches for ``tokens`` tokens under even routing: E(1 − (1 − k/E)^n)."""
        return self.count * (1.0 - (1.0 - self.top_k / self.count) ** tokens)


class DenseLayers(BaseModel):
    """Gated feed-forward layers (three matrices)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: PositiveInt
    intermediate: PositiveInt


class WeightFormat(BaseModel):
    """Bytes per parameter of each part of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dense_bytes: float = Field(gt=0)
    experts_bytes: float = Field(gt=0)
    embedding_bytes: float = Field(gt=0)
    compute: Literal["bf16", "fp8", "fp4"] = "bf16"


class ModelSpec(BaseModel):
    """A decoder-only language model.

    ``tower_parameters`` are those of encoders in front of the decoder (vision): they take memory, in the format of the
    embeddings and whole on every rank, and no text token passes through them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hidden: PositiveInt
    vocab: PositiveInt
    max_context_tokens: PositiveInt
    attention: tuple[Attention, ...] = Field(min_length=1)
    dense: DenseLayers | None = None
    experts: Experts | None = None
    tied_embedding: bool = False
    tower_parameters: int = Field(0, ge=0)
    weight_formats: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _layers_agree(self) -> "ModelSpec":
        ffn = (self.dense.layers if self.dense else 0) + (self.experts.layers if self.experts else 0)
        if ffn != self.layers:
            raise ValueError(f"{self.layers} attention layers but {ffn} feed-forward layers")
        return self

    @property
    def layers(self) -> int:
        return sum(group.layers for group in self.attention)

    @cached_property
    def streams(self) -> tuple[KVStream, ...]:
        return tuple(stream for group in self.attention for stream in group.streams())

    @cached_property
    def attention_parameters(self) -> int:
        return sum(group.layers * group.parameters(self.hidden) for group in self.attention)

    @cached_property
    def dense_parameters(self) -> int:
        """Dense feed-forward, shared experts and routers, all layers."""
        total = 3 * self.hidden * self.dense.intermediate * self.dense.layers if self.dense else 0
        if self.experts:
            shared = 3 * self.hidden * self.experts.intermediate * self.experts.shared
            total += self.experts.layers * (shared + self.hidden * self.experts.count)
        return total

    @cached_property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert of one layer."""
        return 3 * self.hidden * self.experts.intermediate if self.experts else 0

    @cached_property
    def routed_parameters(self) -> int:
        return self.expert_parameters * self.experts.count * self.experts.layers if self.experts else 0

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def total_parameters(self) -> int:
        embeddings = self.embedding_parameters * (1 if self.tied_embedding else 2)
        decoder = embeddings + self.attention_parameters + self.dense_parameters + self.routed_parameters
        return decoder + self.tower_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters one token passes through, both embeddings included."""
        text = self.total_parameters - self.tower_parameters
        if not self.experts:
            return text
        idle = self.experts.count - self.experts.top_k
        return text - self.expert_parameters * idle * self.experts.layers
