"""Language models: attention, feed-forward layers and embeddings, and how many parameters each has."""

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from capsim.llm.attention import Attention
from capsim.llm.stream import KVStream


class Experts(BaseModel):
    """Mixture-of-experts feed-forward layers.

    ``shared_intermediate`` is the size of each shared expert where it is not a routed one's; ``latent_dim`` the width
    in which routed experts work where it is not the model's (one projection down and one up a layer).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: PositiveInt
    count: PositiveInt
    top_k: PositiveInt
    shared: int = Field(0, ge=0)
    intermediate: PositiveInt
    shared_intermediate: PositiveInt | None = None
    latent_dim: PositiveInt | None = None

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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    dense_bytes: float = Field(gt=0)
    experts_bytes: float = Field(gt=0)
    embedding_bytes: float = Field(gt=0)
    compute: Literal["bf16", "fp8", "fp4"] = "bf16"


class ModelSpec(BaseModel):
    """A decoder-only language model.

    ``tower_parameters`` are those of encoders in front of the decoder (vision): they take memory, in the format of the
    embeddings and whole on every rank, and no text token passes through them. ``quality`` has scores by benchmark.
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
    quality: dict[str, float] | None = None

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
        """Dense feed-forward, shared experts, routers and projections to routed experts, all layers."""
        total = 3 * self.hidden * self.dense.intermediate * self.dense.layers if self.dense else 0
        if self.experts:
            size = self.experts.shared_intermediate or self.experts.intermediate
            shared = 3 * self.hidden * size * self.experts.shared
            latent = 2 * self.hidden * (self.experts.latent_dim or 0)
            total += self.experts.layers * (shared + latent + self.hidden * self.experts.count)
        return total

    @property
    def expert_width(self) -> int:
        """Size of a routed expert's input and output."""
        return (self.experts.latent_dim if self.experts else None) or self.hidden

    @cached_property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert of one layer."""
        return 3 * self.expert_width * self.experts.intermediate if self.experts else 0

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
