"""What a stream of requests looks like from outside: its rate, how it clumps, how long its requests are."""

import numpy as np
from pydantic import BaseModel, ConfigDict

SMALLEST_SAMPLE = 10


class Lengths(BaseModel):
    """Tokens of prompts or of answers, turns of sessions or seconds between two; what is not known is None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Figures(BaseModel):
    """Arrivals and lengths in figures; what is not known, or needs a longer stream, is None.

    ``cv`` is the coefficient of variation of the gaps, ``cv_in_minute`` that of the gaps inside one minute (its mean
    over minutes, weighted by gaps). ``idc_…`` is the variance of the counts in windows of that length over their mean:
    1 for Poisson arrivals at every length. ``turns`` are the requests of a session, ``gap_s`` the time from one to the
    next, ``reuse`` the share of prompt tokens that a prefix cache would hold which forgets nothing. Where a source was
    seen through a span only, its sessions ``cut_off_s`` from its beginning are cut off. ``note`` says why a stream made
    after a source differs from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_per_s: float | None = None
    cv: float | None = None
    cv_in_minute: float | None = None
    idc_1s: float | None = None
    idc_10s: float | None = None
    idc_60s: float | None = None
    peak_to_mean_minute: float | None = None
    prompt_tokens: Lengths = Lengths()
    output_tokens: Lengths = Lengths()
    turns: Lengths = Lengths()
    gap_s: Lengths = Lengths()
    reuse: float | None = None
    cut_off_s: float | None = None
    note: str | None = None

    @property
    def idc(self) -> tuple[float | None, ...]:
        return self.idc_1s, self.idc_10s, self.idc_60s


def figures(
    arrival_s: np.ndarray, prompt_tokens: np.ndarray, output_tokens: np.ndarray, span_s: float | None = None
) -> Figures:
    """Figures of a stream observed for ``span_s`` from zero, by default until its last arrival."""
    span_s = float(arrival_s[-1]) if span_s is None else span_s
    idc_1s, idc_10s, idc_60s = (index_of_dispersion(arrival_s, window_s, span_s) for window_s in (1.0, 10.0, 60.0))
    return Figures(
        rate_per_s=len(arrival_s) / span_s if span_s > 0 else None,
        cv=variation(np.diff(arrival_s)),
        cv_in_minute=_variation_in_minutes(arrival_s),
        idc_1s=idc_1s,
        idc_10s=idc_10s,
        idc_60s=idc_60s,
        peak_to_mean_minute=_peak_to_mean(arrival_s, span_s),
        prompt_tokens=lengths(prompt_tokens),
        output_tokens=lengths(output_tokens),
    )


def lengths(values: np.ndarray) -> Lengths:
    if not len(values):
        return Lengths()
    p50, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99]).tolist()
    return Lengths(mean=float(values.mean()), p50=p50, p95=p95, p99=p99)


def variation(gaps_s: np.ndarray) -> float | None:
    """Standard deviation over mean."""
    if len(gaps_s) < SMALLEST_SAMPLE or gaps_s.mean() == 0:
        return None
    return float(gaps_s.std() / gaps_s.mean())


def index_of_dispersion(arrival_s: np.ndarray, window_s: float, span_s: float) -> float | None:
    """Variance over mean of the counts in the whole windows of the span; None where there are too few."""
    counts = _counts(arrival_s, window_s, span_s)
    if len(counts) < SMALLEST_SAMPLE or not counts.any():
        return None
    return float(counts.var() / counts.mean())


def _counts(arrival_s: np.ndarray, window_s: float, span_s: float) -> np.ndarray:
    windows = int(span_s // window_s)
    inside = arrival_s[arrival_s < windows * window_s]
    # A span of years in windows of seconds would not fit in memory, and says nothing.
    if windows > 10**8:
        return np.empty(0)
    return np.bincount((inside / window_s).astype(np.int64), minlength=windows)[:windows]


def _variation_in_minutes(arrival_s: np.ndarray) -> float | None:
    minutes = np.unique(arrival_s // 60, return_inverse=True)[1]
    inside = minutes[1:] == minutes[:-1]
    gaps_s, minutes = np.diff(arrival_s)[inside], minutes[1:][inside]
    counts = np.bincount(minutes)
    means = np.bincount(minutes, gaps_s) / np.maximum(counts, 1)
    variances = np.bincount(minutes, (gaps_s - means[minutes]) ** 2) / np.maximum(counts, 1)
    kept = (counts >= SMALLEST_SAMPLE) & (means > 0)
    if not kept.any():
        return None
    return float(np.average(np.sqrt(variances[kept]) / means[kept], weights=counts[kept]))


def _peak_to_mean(arrival_s: np.ndarray, span_s: float) -> float | None:
    counts = _counts(arrival_s, 60.0, span_s)
    return None if not counts.any() else float(counts.max() / counts.mean())


def distribution_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov–Smirnov distance of two samples: the largest gap between their distribution functions."""
    first, second = np.sort(first), np.sort(second)
    both = np.concatenate([first, second])
    shares = (np.searchsorted(sample, both, side="right") / len(sample) for sample in (first, second))
    return float(np.abs(np.subtract(*shares)).max())
