"""How prices and the load may move: samples by month, from named random streams."""

from collections.abc import Mapping

import numpy as np

from capsim.scenario.spec import ContractSpec, PricePath
from capsim.workload.streams import stream

PATHS: Mapping[str, tuple[PricePath, str]] = {
    "flat": (PricePath(factor=1), "prices stay as they are"),
    "same tier as seen": (
        PricePath(factor=(1 / 3, 4.7)),
        "a vendor's price of one tier within a year, 2025 to 2026: Claude Opus 15 to 5 USD, DeepSeek 0.28 to 1.32",
    ),
    "10x in 12 months": (PricePath(factor=0.1), "an article of 17 April 2026; no single tier has done so"),
}
"""Prices relative to today's, and what speaks for each. Paths to think with, none of them a forecast."""


def paths_of(spec: ContractSpec) -> dict[str, tuple[PricePath, str]]:
    """The scenario's own paths, else those above."""
    return {name: (path, "the scenario's own") for name, path in spec.paths.items()} or dict(PATHS)


def price_factors(spec: ContractSpec, name: str, path: PricePath, seed: int) -> np.ndarray:
    """Prices by month relative to today's, shape (samples, months)."""
    months = np.arange(spec.horizon_months)
    draws = stream(seed, 0, f"prices of contract, {name}")
    if path.monthly is not None:
        trend = np.log(np.array(path.monthly)[np.minimum(months, len(path.monthly) - 1)])[None, :]
    else:
        assert path.factor is not None
        low, high = path.factor if isinstance(path.factor, tuple) else (path.factor, path.factor)
        goal = np.log(low) + draws.random((spec.samples, 1)) * np.log(high / low)
        trend = goal * np.minimum(months / path.over_months, 1)
    return np.exp(trend + _walk(draws, spec, path.volatility))


def load_factors(spec: ContractSpec, seed: int) -> np.ndarray:
    """The load by month relative to today's, shape (samples, months): the same for all prices and all contracts."""
    trend = np.arange(spec.horizon_months) / 12 * np.log1p(spec.growth_per_year)
    return np.exp(trend + _walk(stream(seed, 0, "load of contract"), spec, spec.growth_volatility))


def _walk(draws: np.random.Generator, spec: ContractSpec, volatility: float) -> np.ndarray:
    """A random walk of logs from 0 on whose exponential is 1 on average, shape (samples, months)."""
    months = np.arange(spec.horizon_months)
    steps = draws.standard_normal((spec.samples, spec.horizon_months))
    steps[:, 0] = 0
    return steps.cumsum(axis=1) * volatility / np.sqrt(12) - volatility**2 * months / 24
