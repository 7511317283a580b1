"""Lengths of a trace as a distribution: quantiles, or two lognormals."""

from typing import Any

import numpy as np
from pydantic import TypeAdapter

from capsim.workload.distributions import Tokens, draw_tokens
from capsim.workload.figures import distribution_distance
from capsim.workload.streams import stream

QUANTILES = (
    0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9,
    0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1,
)  # fmt: skip
NARROWEST = 0.01
ROUNDS, SAMPLE = 300, 100_000


def fit_tokens(tokens: np.ndarray) -> tuple[dict[str, Any], float]:
    """A grid of quantiles or a mixture of two lognormals, whichever is closer, and its distance from the tokens."""
    uniforms = stream(0, 0, "fit").random((SAMPLE, 2))
    written = [quantile_grid(tokens)]
    if np.ptp(tokens) > 0:
        written.append(_two_lognormals(tokens))
    adapter: TypeAdapter[Tokens] = TypeAdapter(Tokens)
    draws = [draw_tokens(adapter.validate_python(one), uniforms) for one in written]
    apart = [distribution_distance(tokens, drawn) for drawn in draws]
    best = int(np.argmin(apart))
    return written[best], apart[best]


def quantile_grid(values: np.ndarray, weights: np.ndarray | None = None) -> dict[str, Any]:
    """The values as a distribution; each counts ``weights`` times."""
    if weights is None:
        found = np.quantile(values, QUANTILES)
    else:
        found = np.quantile(values, QUANTILES, method="inverted_cdf", weights=weights)
    return {"kind": "grid", "quantiles": list(QUANTILES), "values": [rounded(one, 6) for one in found.tolist()]}


def _two_lognormals(tokens: np.ndarray) -> dict[str, Any]:
    """Two lognormals by expectation and maximisation, cut at the longest."""
    logs = np.log(tokens)
    if len(logs) > SAMPLE:
        logs = np.quantile(logs, (np.arange(SAMPLE) + 0.5) / SAMPLE)
    weight, mean, spread = np.full(2, 0.5), np.quantile(logs, [0.25, 0.75]), np.full(2, logs.std())
    for _ in range(ROUNDS):
        density = weight / spread * np.exp(-0.5 * ((logs[:, None] - mean) / spread) ** 2)
        share = (density + 1e-300) / (density + 1e-300).sum(axis=1, keepdims=True)
        total = share.sum(axis=0) + 1e-9
        weight, mean = total / total.sum(), (share * logs[:, None]).sum(axis=0) / total
        spread = np.sqrt((share * (logs[:, None] - mean) ** 2).sum(axis=0) / total)
        spread = np.maximum(spread, NARROWEST)
    parts = [
        {"weight": rounded(float(w)),
         "of": {"kind": "lognormal", "mu": rounded(float(m)), "sigma": rounded(float(s)),
                "maximum": float(tokens.max())}}
        for w, m, s in zip(weight, mean, spread, strict=True)
    ]  # fmt: skip
    return {"kind": "mixture", "parts": parts}


def rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
