"""Distributions of lengths and times, drawn by inverse transform.

A draw turns two uniforms into a value, so that request ``i`` uses row ``i`` of its stream whatever is drawn around
it, and a changed parameter moves every value in the same direction.
"""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from scipy.special import ndtri

from capsim import units

Uniforms = np.ndarray
"""Shape (n, 2), each in [0, 1)."""


MAX_TOKENS = 10**9
"""Beyond any context: what a distribution's wildest draw is cut at."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Constant(_Spec):
    """Always ``value``."""

    kind: Literal["constant"]
    value: float = Field(gt=0)

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        return np.full(len(uniforms), self.value)


class Uniform(_Spec):
    """Between ``low`` and ``high``."""

    kind: Literal["uniform"]
    low: float = Field(gt=0)
    high: float = Field(gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Uniform":
        if self.high < self.low:
            raise ValueError(f"high {self.high:g} is below low {self.low:g}")
        return self

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        return self.low + (self.high - self.low) * uniforms[:, 0]


class Exponential(_Spec):
    """Exponential with ``mean``."""

    kind: Literal["exponential"]
    mean: float = Field(gt=0)

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        return -self.mean * np.log1p(-uniforms[:, 0])


class Geometric(_Spec):
    """Whole numbers from 1 with ``mean``: the chance to stop is the same after each."""

    kind: Literal["geometric"]
    mean: float = Field(ge=1)

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        if self.mean == 1:
            return np.ones(len(uniforms))
        return 1 + np.floor(np.log1p(-uniforms[:, 0]) / np.log1p(-1 / self.mean))


class Lognormal(_Spec):
    """Lognormal with parameters ``mu`` and ``sigma`` of the logarithm, cut at ``maximum``."""

    kind: Literal["lognormal"]
    mu: float = Field(ge=-50, le=50)
    sigma: float = Field(gt=0, le=10)
    maximum: float | None = Field(None, gt=0)

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        values = np.exp(self.mu + self.sigma * ndtri(np.clip(uniforms[:, 0], 1e-12, 1 - 1e-12)))
        return values if self.maximum is None else np.minimum(values, self.maximum)


class Grid(_Spec):
    """An empirical distribution: ``values`` at ``quantiles`` (first 0, last 1), linear between."""

    kind: Literal["grid"]
    quantiles: tuple[float, ...] = Field(min_length=2)
    values: tuple[float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _inverse_cdf(self) -> "Grid":
        if len(self.quantiles) != len(self.values):
            raise ValueError(f"{len(self.quantiles)} quantiles but {len(self.values)} values")
        if self.quantiles[0] != 0 or self.quantiles[-1] != 1 or list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError("quantiles must rise from 0 to 1")
        if list(self.values) != sorted(self.values) or self.values[0] <= 0:
            raise ValueError("values must be positive and must not fall")
        return self

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        return np.interp(uniforms[:, 0], self.quantiles, self.values)


class Part(_Spec):
    """One part of a mixture and its weight."""

    weight: float = Field(gt=0)
    of: "Distribution"


class Mixture(_Spec):
    """One of several distributions, chosen by weight."""

    kind: Literal["mixture"]
    parts: tuple[Part, ...] = Field(min_length=1)

    def draw(self, uniforms: Uniforms) -> np.ndarray:
        weights = np.array([part.weight for part in self.parts])
        edges = np.cumsum(weights / weights.sum())
        chosen = np.minimum(np.searchsorted(edges, uniforms[:, 1], side="right"), len(edges) - 1)
        values = np.empty(len(uniforms))
        for index, part in enumerate(self.parts):
            mine = chosen == index
            values[mine] = part.of.draw(uniforms[mine])
        return values


Distribution = Annotated[
    Constant | Uniform | Exponential | Geometric | Lognormal | Grid | Mixture, Field(discriminator="kind")
]
Part.model_rebuild()


def _number_as_constant(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"kind": "constant", "value": value}
    return value


def _duration_as_constant(value: Any) -> Any:
    return _number_as_constant(units.parse(value, "s") if isinstance(value, str) else value)


Tokens = Annotated[Distribution, BeforeValidator(_number_as_constant, json_schema_input_type=float | Distribution)]
"""A distribution of token counts; a bare number is always that many."""
ThinkTime = Annotated[
    Distribution, BeforeValidator(_duration_as_constant, json_schema_input_type=float | str | Distribution)
]
"""A distribution of seconds; a bare duration is always that long."""


def draw_tokens(distribution: Distribution, uniforms: Uniforms) -> np.ndarray:
    """Whole tokens, at least one and at most ``MAX_TOKENS``. Shape (n,), int64."""
    return np.clip(np.rint(distribution.draw(uniforms)), 1, MAX_TOKENS).astype(np.int64)
