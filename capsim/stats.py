"""Estimates from simulation output, each with the uncertainty it carries."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit  # scipy.stats has it as t.ppf, and is slow to import

MSER_BATCH = 5


def t_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values and the half width of its confidence interval, NaN for a single value."""
    _require_share(level=level)
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise ValueError("values is empty")
    if sample.size == 1:
        return float(sample[0]), float("nan")
    error = sample.std(ddof=1) / np.sqrt(sample.size)
    return float(sample.mean()), float(stdtrit(sample.size - 1, (1 + level) / 2) * error)


def bounded(mean: float, half_width: float, most: float = np.inf) -> list[float] | None:
    """[low, high] of an interval around what lies between 0 and ``most``; None where its half width is NaN.

    A t interval of few values can reach below 0, or a share beyond 1, where the truth cannot be.
    """
    return None if np.isnan(half_width) else [max(0.0, mean - half_width), min(most, mean + half_width)]


def difference_interval(one: ArrayLike, other: ArrayLike, *, paired: bool, level: float = 0.95) -> tuple[float, float]:
    """Mean of ``other`` - ``one`` and the half width of its confidence interval, NaN where either is a single value.

    Paired values met the same random numbers: their differences are one sample. Else Welch's interval, whose degrees
    of freedom are Satterthwaite's (Welch 1947).
    """
    _require_share(level=level)
    first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if paired:
        if first.shape != second.shape:
            raise ValueError("paired samples must be of one length")
        return t_interval(second - first, level)
    mean = float(second.mean() - first.mean())
    if min(first.size, second.size) < 2:
        return mean, float("nan")
    errors = np.array([first.var(ddof=1) / first.size, second.var(ddof=1) / second.size])
    if not errors.sum() > 0:
        return mean, 0.0
    freedom = errors.sum() ** 2 / (errors**2 / [first.size - 1, second.size - 1]).sum()
    return mean, float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(errors.sum()))


def quantile_interval(values: ArrayLike, q: float, level: float = 0.95) -> tuple[float, float, float]:
    """A quantile of independent values and the order statistics that enclose it: (quantile, low, high).

    How many of n values lie below the true quantile is binomial(n, q): the ranks are that distribution's quantiles
    (David and Nagaraja 2003, §7.1). Where a rank would lie outside the sample the bound is NaN: there are too few.
    """
    from scipy.stats import binom  # slow to import

    _require_share(q=q, level=level)
    sample = np.sort(np.asarray(values, dtype=float))
    if sample.size == 0:
        raise ValueError("values is empty")
    tail = (1 - level) / 2
    low, high = int(binom.ppf(tail, sample.size, q)), int(binom.ppf(1 - tail, sample.size, q)) + 1
    at = float(np.quantile(sample, q, method="inverted_cdf"))
    return (
        at,
        float(sample[low - 1]) if low >= 1 else float("nan"),
        float(sample[high - 1]) if high <= sample.size else float("nan"),
    )


def mser5(series: ArrayLike) -> int:
    """Observations to cut from the front as warm-up: MSER-5 (White, Cobb and Spratt 2000).

    Of the cuts up to half of the series, the one that minimises the squared standard error of the rest, taken in
    batches of 5. A cut at half means that the series is too short to tell.
    """
    sample = np.asarray(series, dtype=float)
    batches = len(sample) // MSER_BATCH
    if batches < 2:
        return 0
    means = sample[: batches * MSER_BATCH].reshape(batches, MSER_BATCH).mean(axis=1)
    means -= np.median(means)
    kept = np.arange(batches, 0, -1)
    sums, squares = (np.cumsum(powers[::-1])[::-1] for powers in (means, means**2))
    statistic = (squares - sums**2 / kept) / kept**2
    return MSER_BATCH * int(np.argmin(statistic[: batches // 2 + 1]))


def warmup_length(series: ArrayLike, floor: float = 0.1) -> int:
    """Observations to cut from the front as warm-up: what MSER-5 says, and at least the share ``floor``.

    MSER-5 alone often keeps the empty start of a short run.
    """
    if not 0 <= floor < 1:
        raise ValueError(f"floor must be in [0, 1), not {floor:g}")
    return max(mser5(series), round(floor * len(np.asarray(series))))


def weighted_quantiles(values: ArrayLike, weights: ArrayLike, qs: ArrayLike) -> np.ndarray:
    """Smallest values whose cumulative weight reaches each share ``qs`` of the total weight, shape of ``qs``."""
    points, mass, shares = (np.asarray(given, dtype=float) for given in (values, weights, qs))
    if mass.shape != points.shape or not np.all((mass >= 0) & np.isfinite(mass)) or not mass.sum() > 0:
        raise ValueError("weights must be finite, not negative, not all zero, and one for each of values")
    if not np.all((shares >= 0) & (shares <= 1)):
        raise ValueError("qs must be in [0, 1]")
    if np.all(mass == mass[0]):
        return np.sort(points)[np.searchsorted(np.arange(1.0, len(points) + 1), shares * len(points))]
    points, mass = points[mass > 0], mass[mass > 0]
    order = np.argsort(points)
    cumulative = np.cumsum(mass[order])
    return points[order][np.searchsorted(cumulative, shares * cumulative[-1])]


def growth_per_s(times_s: ArrayLike, counts: ArrayLike, groups: int = 10, level: float = 0.95) -> tuple[float, float]:
    """Slope of a level, such as requests in system, per second, and the half width of its confidence interval.

    The time averages over ``groups`` equal spans are regressed on time. The half width takes them as independent: it
    is too small where the level remembers longer than a span, as a queue near or past saturation does.

    Parameters
    ----------
    times_s, counts
        Rising times and the level from each to the next; the last level closes the span and lasts no time.
    """
    _require_share(level=level)
    at_s, held = np.asarray(times_s, dtype=float), np.asarray(counts, dtype=float)
    if held.shape != at_s.shape or len(at_s) < 2 or np.any(np.diff(at_s) < 0) or at_s[-1] <= at_s[0]:
        raise ValueError("times_s must rise and counts must have one value for each of them")
    if groups < 3:
        raise ValueError(f"groups must be at least 3, not {groups}")
    area = np.concatenate([[0.0], np.cumsum(held[:-1] * np.diff(at_s))])
    edges = np.linspace(at_s[0], at_s[-1], groups + 1)
    levels = np.diff(np.interp(edges, at_s, area)) / np.diff(edges)
    middles = (edges[1:] + edges[:-1]) / 2
    middles -= middles.mean()
    slope = middles @ levels / (middles @ middles)
    rest = levels - levels.mean() - slope * middles
    error = np.sqrt(rest @ rest / (groups - 2) / (middles @ middles))
    return float(slope), float(stdtrit(groups - 2, (1 + level) / 2) * error)


def _require_share(**arguments: float) -> None:
    for name, value in arguments.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, not {value:g}")
