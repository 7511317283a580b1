"""The rows of a measurements file: kernels, whole engine steps, models, runs and their requests."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from capsim.measurements.shapes import mistakes

SCHEMA, VERSION = "capsim-measurements", 1
Seconds = Annotated[float, Field(ge=1e-10, le=1e7)]  # what is beyond was written in another unit
Instant = Annotated[float, Field(ge=0)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Header(_Row):
    """Where, when and by what the rows were measured. ``device`` is a free name, or a key of the catalog."""

    schema_: Literal["capsim-measurements"] = Field(alias="schema")
    version: Literal[1]
    device: str = Field(min_length=1)
    created: str
    environment: dict[str, Any] = Field(default_factory=dict)
    source: str = Field(min_length=3)

    @field_validator("created")
    @classmethod
    def _dated(cls, created: str) -> str:
        try:
            date.fromisoformat(created[:10])
        except ValueError:
            raise ValueError("must begin with a date as 2026-11-24") from None
        return created


class Kernel(_Row):
    """Median seconds of one call; ``bytes`` and ``flops`` are what the algorithm must at least move and compute."""

    op: str
    backend: str
    kernel: str
    shape: dict[str, int | float | str | None]
    median_s: Seconds
    iqr_s: float = Field(0.0, ge=0)
    runs: PositiveInt = 1
    bytes: float = Field(ge=0)
    flops: float = Field(ge=0)

    @model_validator(mode="after")
    def _whole_shape(self) -> "Kernel":
        if wrong := mistakes(self.op, self.shape):
            raise ValueError("; ".join(wrong))
        return self

    def size(self, key: str) -> float:
        """A number of the shape."""
        return float(self.shape[key] or 0)


class Step(_Row):
    """One engine step: what it did, and how long it took.

    ``kv_tokens`` is Σ context of the decoding sequences, ``prefill_reads`` Σ new · (context + new / 2) of the chunks,
    ``active_experts`` the distinct experts that a layer touched, as a mean over layers.
    """

    engine: str
    model: str
    decode_sequences: NonNegativeInt
    kv_tokens: float = Field(ge=0)
    prefill_tokens: NonNegativeInt
    prefill_reads: float = Field(ge=0)
    prefills: NonNegativeInt
    active_experts: float | None = Field(None, ge=0)
    step_s: Seconds
    episode: int = 0

    @model_validator(mode="after")
    def _does_something(self) -> "Step":
        if not self.decode_sequences and not self.prefills:
            raise ValueError("a step of no sequences: decode_sequences and prefills are both 0")
        if self.prefill_tokens < self.prefills:
            raise ValueError(f"{self.prefills} prefills of {self.prefill_tokens} prefill_tokens: each has one at least")
        if self.kv_tokens < self.decode_sequences:
            raise ValueError(f"kv_tokens {self.kv_tokens:g} is less than one for each decoding sequence")
        return self


class Model(_Row):
    """A model as an engine ran it: a Hugging Face ``config`` and the engine's arguments."""

    engine: str
    name: str
    config: dict[str, Any]
    engine_args: dict[str, Any] = Field(default_factory=dict)


class Run(_Row):
    """One load driven through an engine; ``steps`` and ``preemptions`` are None where only its client saw it."""

    run: str | int
    engine: str
    model: str
    load: str
    rate_per_s: float | None = None
    seed: int = 0
    repeat: int = 0
    concurrency: PositiveInt | None = None
    steps: NonNegativeInt | None = None
    preemptions: NonNegativeInt | None = None
    duration_s: Seconds


class Request(_Row):
    """One request of a run, on the run's clock."""

    run: str | int
    request: NonNegativeInt
    arrival_s: Instant
    prompt_tokens: PositiveInt
    output_tokens: PositiveInt
    first_token_s: Instant
    finished_s: Instant
    preemptions: NonNegativeInt = 0

    @model_validator(mode="after")
    def _in_order(self) -> "Request":
        if not self.arrival_s <= self.first_token_s <= self.finished_s:
            raise ValueError("needs arrival_s <= first_token_s <= finished_s")
        return self


KINDS: dict[str, type[_Row]] = {"kernel": Kernel, "step": Step, "model": Model, "run": Run, "request": Request}
