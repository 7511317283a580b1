"""A workload fitted to a trace: the family of arrivals by its dispersion, the lengths by their distribution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from capsim.workload.arrivals import Single, weibull_shape
from capsim.workload.distributions import Tokens, draw_tokens
from capsim.workload.figures import Figures, distribution_distance, figures
from capsim.workload.generated import generated
from capsim.workload.spec import Workload
from capsim.workload.streams import stream
from capsim.workload.traces import Trace

QUANTILES = (
    0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9,
    0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1,
)  # fmt: skip
SILENCES_S = (2.0, 5.0, 10.0)
"""Gaps from which on a burst counts as ended: each is tried."""
FEWEST_SILENCES = 10
SIMPLER_BY = 0.1
"""A family is taken over a simpler one if it is closer by so much."""
MOST_PARTS = 10_080
NARROWEST = 0.01
ROUNDS, SAMPLE = 300, 100_000


@dataclass(frozen=True)
class Fit:
    """A preset's values, and how well they do: the trace's figures beside those of generated streams.

    ``arrivals`` has for each family tried its dispersion at 1, 10 and 60 s and its distance, the mean |ln| of the
    ratios to the trace's. ``prompt_distance`` and ``output_distance`` are Kolmogorov–Smirnov's.
    """

    values: dict[str, Any]
    trace: Figures
    generated: Figures
    arrivals: dict[str, tuple[tuple[float | None, ...], float]]
    prompt_distance: float
    output_distance: float


def fit(trace: Trace) -> Fit:
    """The simplest family of arrivals that is as close as any, and the closer of two ways to write each length."""
    seen = figures(trace.arrival_s, trace.prompt_tokens, trace.output_tokens)
    if seen.rate_per_s is None:
        raise ValueError("all requests come at once: there is no rate to fit")
    prompt, prompt_distance = fit_tokens(trace.prompt_tokens)
    output, output_distance = fit_tokens(trace.output_tokens)
    lengths = {"prompt_tokens": prompt, "output_tokens": output}
    tried: dict[str, tuple[dict[str, Any], Figures, float]] = {}
    for arrival in _families(trace.arrival_s, seen):
        workload = Workload.model_validate({"arrival": arrival, **lengths})
        found = generated(workload, float(trace.arrival_s[-1]))
        apart, kind = _apart(found, seen), arrival["kind"]
        if kind not in tried or apart < tried[kind][2]:
            tried[kind] = arrival, found, apart
    nearest = min(apart for _, _, apart in tried.values())
    arrival, found, _ = next(one for one in tried.values() if one[2] <= nearest + SIMPLER_BY)
    arrivals = {kind: (found.idc, apart) for kind, (_, found, apart) in tried.items()}
    return Fit({"arrival": arrival, **lengths}, seen, found, arrivals, prompt_distance, output_distance)


def _apart(found: Figures, seen: Figures) -> float:
    """Mean |ln| of the ratios of the dispersions that are known."""
    pairs = [(mine, theirs) for mine, theirs in zip(found.idc, seen.idc, strict=True) if mine and theirs]
    return float(np.mean([abs(np.log(mine / theirs)) for mine, theirs in pairs])) if pairs else 0.0


def _families(arrival_s: np.ndarray, seen: Figures) -> list[dict[str, Any]]:
    """Each family with parameters taken from the trace, the simplest first."""
    rate_per_s = _rounded(seen.rate_per_s or 0.0)
    families: list[dict[str, Any]] = [{"kind": "poisson", "rate_per_s": rate_per_s}]
    if seen.cv:
        families.append({"kind": "gamma", "rate_per_s": rate_per_s, "cv": _rounded(seen.cv)})
        families.append({"kind": "weibull", "rate_per_s": rate_per_s, "cv": _rounded(seen.cv)})
    families += [found for silence_s in SILENCES_S for found in _bursts(arrival_s, silence_s, rate_per_s)]
    families += by_the_minute(arrival_s)
    return [family for family in families if _possible(family)]


def _possible(family: dict[str, Any]) -> bool:
    try:
        if family["kind"] == "weibull":
            weibull_shape(family["cv"])
        TypeAdapter(Single).validate_python(family)
    except ValueError:
        return False
    return True


def _bursts(arrival_s: np.ndarray, silence_s: float, rate_per_s: float) -> list[dict[str, Any]]:
    """Bursts between silences: their mean lengths, and the variation of the gaps inside them."""
    gaps_s = np.diff(arrival_s)
    silent = gaps_s > silence_s
    inside_s = gaps_s[~silent]
    if silent.sum() < FEWEST_SILENCES or not inside_s.any():
        return []
    on_s, off_s = inside_s.sum() / (silent.sum() + 1), gaps_s[silent].mean()
    cv = inside_s.std() / inside_s.mean()
    times = {"on_s": _rounded(on_s), "off_s": _rounded(off_s)}
    return [{"kind": "on_off", "rate_per_s": rate_per_s, **times, "cv": _rounded(cv)}]


def by_the_minute(arrival_s: np.ndarray) -> list[dict[str, Any]]:
    """Poisson arrivals at each minute's own rate, or that of a longer part where there would be too many.

    A minute's count has Poisson noise of its own, which the rates must not repeat: they are drawn to the mean until
    their variance is what is left of the counts' without it.
    """
    span_s = float(arrival_s[-1])
    part_s = 60.0 * max(1, int(np.ceil(span_s / 60 / MOST_PARTS)))
    parts = int(span_s // part_s)
    if parts < 2:
        return []
    counts = np.bincount((arrival_s // part_s).astype(np.int64))[:parts]
    mean, variance = counts.mean(), counts.var()
    moved = np.sqrt(max(0.0, 1 - mean / variance)) if variance else 0.0
    rates = [_rounded(float(rate)) for rate in (mean + moved * (counts - mean)) / part_s]
    return [{"kind": "profile", "period_s": parts * part_s, "rates": rates}]


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


def quantile_grid(tokens: np.ndarray) -> dict[str, Any]:
    values = [_rounded(value, 6) for value in np.quantile(tokens, QUANTILES).tolist()]
    return {"kind": "grid", "quantiles": list(QUANTILES), "values": values}


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
        {"weight": _rounded(float(w)),
         "of": {"kind": "lognormal", "mu": _rounded(float(m)), "sigma": _rounded(float(s)),
                "maximum": float(tokens.max())}}
        for w, m, s in zip(weight, mean, spread, strict=True)
    ]  # fmt: skip
    return {"kind": "mixture", "parts": parts}


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
