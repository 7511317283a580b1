"""What was measured on a device under an engine: kernels, whole steps, and how far the fits to them are off."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from capsim.hardware import Seconds
from capsim.kernel_tables import KernelTable


class StepCoefficients(BaseModel):
    """Seconds of a whole engine step, linear in what it does; of one model on one device under one engine.

    Attributes
    ----------
    base_s
        Every step.
    decode_s
        Per decoding sequence.
    kv_token_s
        Per token of context that a decoding sequence reads.
    prefill_token_s
        Per prefilled token.
    prefill_read_s
        Per pair of a prefilled token and one before it: Σ new · (context + new / 2).
    prefill_s
        A step that prefills at all.
    expert_s
        Per distinct expert that a layer touches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    base_s: Seconds
    decode_s: Seconds
    kv_token_s: Seconds
    prefill_token_s: Seconds
    prefill_read_s: Seconds
    prefill_s: Seconds
    expert_s: Seconds = 0.0


class MeasuredSteps(BaseModel):
    """The fit to whole steps of a model as an engine served it, by the names of the model and of its formats.

    ``domain`` has the least and the most that steps were measured at: ``sequences`` that decode, ``kv_tokens`` that
    those read together, ``tokens`` of a step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: str
    kv_format: str
    coefficients: StepCoefficients
    domain: dict[str, tuple[float, float]] = Field(default_factory=dict)


class Error(BaseModel):
    """Relative errors of predictions at points held out: mean and largest magnitude, and mean with sign."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mape: float = Field(ge=0)
    largest: float = Field(ge=0)
    bias: float


class Residual(BaseModel):
    """How far a kernel's table and its fit, or a fit to steps, are off; None where nothing was held out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    by: str
    shape: str
    points: int
    held_out: int
    table: Error | None = None
    fit: Error | None = None


class Measured(BaseModel):
    """Everything that was measured on a device under an engine.

    Attributes
    ----------
    kernels
        Of each operation and shape the fastest implementation.
    whole_steps
        Fits to whole steps, for the models they were measured on.
    residuals
        Errors of kernels and steps at points held out.
    environment
        Where it was measured: hardware, versions, settings, as the measurements say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernels: tuple[KernelTable, ...] = ()
    whole_steps: tuple[MeasuredSteps, ...] = ()
    residuals: tuple[Residual, ...] = ()
    environment: dict[str, Any] = Field(default_factory=dict)
