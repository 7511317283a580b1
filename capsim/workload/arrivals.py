"""When requests come: families of open arrivals, each a small spec."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.special import gamma as gamma_function

from capsim.hardware import PositiveSeconds, Seconds

Rate = Annotated[float, Field(gt=0)]
RateOrNone = Annotated[float, Field(ge=0)]
Variation = Annotated[float, Field(gt=0, le=100)]
SHORTEST_WINDOW_S = 1.0
SMALLEST_SHAPE, LARGEST_SHAPE = 0.1, 100.0


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Poisson(_Spec):
    """Arrivals at random, ``rate_per_s`` on average."""

    kind: Literal["poisson"]
    rate_per_s: Rate


class ConstantRate(_Spec):
    """Arrivals every ``1 / rate_per_s`` seconds."""

    kind: Literal["constant"]
    rate_per_s: Rate


class Gamma(_Spec):
    """Independent gamma gaps with coefficient of variation ``cv``: 1 is Poisson, more comes in clumps."""

    kind: Literal["gamma"]
    rate_per_s: Rate
    cv: Variation


class Weibull(_Spec):
    """Independent Weibull gaps, of a ``cv`` or of a ``shape`` (1 is Poisson, less comes in clumps)."""

    kind: Literal["weibull"]
    rate_per_s: Rate
    cv: Variation | None = None
    shape: float | None = Field(None, ge=SMALLEST_SHAPE, le=LARGEST_SHAPE)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Weibull":
        if (self.cv is None) == (self.shape is None):
            raise ValueError("give one of cv and shape")
        if self.cv is not None:
            weibull_shape(self.cv)
        return self


class OnOff(_Spec):
    """Bursts: gamma gaps while on, nothing while off; both last exponential times of means ``on_s`` and ``off_s``.

    ``rate_per_s`` is the average over both, so a burst runs at ``rate_per_s · (on_s + off_s) / on_s``.
    """

    kind: Literal["on_off"]
    rate_per_s: Rate
    on_s: PositiveSeconds
    off_s: PositiveSeconds
    cv: Variation = 1.0


class Profile(_Spec):
    """Poisson arrivals whose rate follows ``rates``, equal parts of ``period_s``, over and over.

    The rates are per second, or only a shape where ``mean_rate_per_s`` is given. They stand here, in a ``column`` of a
    CSV ``file``, or under a catalog key (``profile``). The first request comes after ``start_s`` of the period.
    """

    kind: Literal["profile"]
    rates: tuple[RateOrNone, ...] | None = Field(None, min_length=1)
    profile: str | None = None
    file: Path | None = None
    column: str = "rate_per_s"
    period_s: PositiveSeconds | None = None
    mean_rate_per_s: Rate | None = None
    start_s: Seconds = 0.0

    @model_validator(mode="after")
    def _one_source(self) -> "Profile":
        if sum(source is not None for source in (self.rates, self.profile, self.file)) != 1:
            raise ValueError("give one of: rates, a profile of the catalog, a file")
        if self.period_s is None and self.profile is None:
            raise ValueError("needs a period_s, such as 24h")
        if self.rates is not None and not sum(self.rates):
            raise ValueError("no rate is above zero")
        return self

    @property
    def rates_per_s(self) -> list[float]:
        """The rate in each part of the period."""
        if self.rates is None:
            raise ValueError("a profile's rates must be looked up before it is drawn")
        if self.mean_rate_per_s is None:
            return list(self.rates)
        scale = self.mean_rate_per_s * len(self.rates) / sum(self.rates)
        return [rate * scale for rate in self.rates]


class Window(_Spec):
    """Gaps in one window: gamma or Weibull, of that rate and ``cv``."""

    rate_per_s: RateOrNone
    cv: Variation = 1.0
    gaps: Literal["gamma", "weibull"] = "gamma"

    @model_validator(mode="after")
    def _reachable(self) -> "Window":
        if self.gaps == "weibull":
            weibull_shape(self.cv)
        return self


class Windows(_Spec):
    """Windows of ``window_s``, each with gaps of its own, over and over: how ServeGen describes one client."""

    kind: Literal["windows"]
    window_s: Annotated[PositiveSeconds, Field(ge=SHORTEST_WINDOW_S)]
    windows: tuple[Window, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _some_rate(self) -> "Windows":
        if not sum(window.rate_per_s for window in self.windows):
            raise ValueError("no window has a rate above zero")
        return self


class Spike(_Spec):
    """Poisson arrivals at ``rate_per_s``, and at ``factor`` times that for ``for_s`` from ``at_s`` on."""

    kind: Literal["spike"]
    rate_per_s: Rate
    factor: Rate
    at_s: Seconds
    for_s: PositiveSeconds


class Ramp(_Spec):
    """Poisson arrivals whose rate moves evenly between two rates over ``over_s``, then stays."""

    kind: Literal["ramp"]
    from_per_s: RateOrNone
    to_per_s: Rate
    over_s: PositiveSeconds


Single = Annotated[
    Poisson | ConstantRate | Gamma | Weibull | OnOff | Profile | Windows | Spike | Ramp, Field(discriminator="kind")
]
"""Open arrivals of one client or of clients alike."""


def long_run_rate_per_s(arrival: Single) -> float:
    """Requests a second over a long time; a spike passes, and a ramp has arrived."""
    if isinstance(arrival, Profile | Windows):
        rates = cycle(arrival)[0]
        return sum(rates) / len(rates)
    return arrival.to_per_s if isinstance(arrival, Ramp) else arrival.rate_per_s


def cycle(arrival: Profile | Windows) -> tuple[list[float], float, float]:
    """The rates of equal parts of a period, its length, and where in it the run begins, in seconds."""
    if isinstance(arrival, Windows):
        return [one.rate_per_s for one in arrival.windows], arrival.window_s * len(arrival.windows), 0.0
    assert arrival.period_s is not None
    return arrival.rates_per_s, arrival.period_s, arrival.start_s


def weibull_shape(cv: float) -> float:
    """The shape of a Weibull distribution whose coefficient of variation is ``cv``."""
    from scipy.optimize import brentq  # slow to import, and few workloads need it

    def excess(shape: float) -> float:
        first, second = gamma_function(1 + 1 / shape), gamma_function(1 + 2 / shape)
        return float(second / first**2 - 1 - cv**2)

    if excess(SMALLEST_SHAPE) < 0 or excess(LARGEST_SHAPE) > 0:
        raise ValueError(f"no Weibull of shape {SMALLEST_SHAPE:g} to {LARGEST_SHAPE:g} has a cv of {cv:g}")
    return float(brentq(excess, SMALLEST_SHAPE, LARGEST_SHAPE))
