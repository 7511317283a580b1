"""What arrives: when, how long the prompts and the answers are, and when it ends."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from capsim import units
from capsim.hardware import PositiveSeconds
from capsim.workload.distributions import Distribution


def _number_as_constant(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"kind": "constant", "value": value}
    return value


def _duration_as_constant(value: Any) -> Any:
    return _number_as_constant(units.parse(value, "s") if isinstance(value, str) else value)


Tokens = Annotated[Distribution, BeforeValidator(_number_as_constant)]
"""A distribution of token counts; a bare number is always that many."""
ThinkTime = Annotated[Distribution, BeforeValidator(_duration_as_constant)]
"""A distribution of seconds; a bare duration is always that long."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Poisson(_Spec):
    """Arrivals at random, ``rate_per_s`` on average."""

    kind: Literal["poisson"]
    rate_per_s: float = Field(gt=0)


class ConstantRate(_Spec):
    """Arrivals every ``1 / rate_per_s`` seconds."""

    kind: Literal["constant"]
    rate_per_s: float = Field(gt=0)


class Closed(_Spec):
    """``users`` who each wait for their answer, think, and ask again. A closed loop throttles itself."""

    kind: Literal["closed"]
    users: PositiveInt


Arrival = Annotated[Poisson | ConstantRate | Closed, Field(discriminator="kind")]


class TraceColumns(_Spec):
    """Column names of a trace that fits no known schema; arrivals in seconds or as timestamps."""

    arrival: str
    prompt_tokens: str
    output_tokens: str


class Workload(_Spec):
    """The request stream, either drawn from distributions or replayed from a trace.

    ``requests`` is how many are offered in all, the first ``warmup_requests`` of them outside the statistics (by
    default a tenth or what MSER-5 finds; none for a trace). ``max_tokens`` is what the client asks for at most; by
    default just what it gets, as benchmarks ask. ``max_in_flight`` turns away open arrivals that find as many inside.
    ``think_s`` is the pause of a closed-loop user between an answer and the next request.
    """

    preset: str | None = None
    arrival: Arrival | None = None
    prompt_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    think_s: ThinkTime | None = None
    trace: Path | None = None
    columns: TraceColumns | None = None
    max_tokens: PositiveInt | None = None
    max_in_flight: PositiveInt | None = None
    requests: PositiveInt | None = None
    duration_s: PositiveSeconds | None = None
    warmup_requests: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Workload":
        if self.columns is not None and self.trace is None:
            raise ValueError("columns name a trace's columns, but there is no trace")
        if self.requests is not None and self.duration_s is not None:
            raise ValueError("requests and duration_s exclude each other: give one")
        if self.requests is not None and (self.warmup_requests or 0) >= self.requests:
            raise ValueError(f"warmup_requests {self.warmup_requests} leave none of {self.requests} requests to count")
        if isinstance(self.arrival, Closed) and self.max_in_flight is not None:
            raise ValueError("max_in_flight caps open arrivals; a closed loop has never more than its users inside")
        return self
