"""Values of one latency, and what is said of them."""

from dataclasses import dataclass

import numpy as np

from capsim.stats import weighted_quantiles

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
BATCHES = 20
RESOLUTION = 0.001
EXACT = 1 << 15


@dataclass(frozen=True)
class Sample:
    """Seconds of one latency with their multiplicities. Arrays of shape (n,)."""

    seconds: np.ndarray
    weights: np.ndarray

    def mean(self) -> float:
        return float(np.average(self.seconds, weights=self.weights)) if self.weights.sum() > 0 else float("nan")

    def summary(self) -> dict[str, float]:
        """Mean and percentiles; NaN where there are no values."""
        if not self.weights.sum() > 0:
            return dict.fromkeys(("mean", *QUANTILES), float("nan"))
        percentiles = weighted_quantiles(self.seconds, self.weights, list(QUANTILES.values()))
        return {"mean": self.mean(), **dict(zip(QUANTILES, map(float, percentiles), strict=True))}

    def batches(self) -> list["Sample"]:
        """Consecutive parts with about as many values each."""
        parts = np.array_split(np.arange(len(self.seconds)), BATCHES)
        return [Sample(self.seconds[part], self.weights[part]) for part in parts if len(part)]


def equally(seconds: np.ndarray) -> Sample:
    """A sample of values that count once each."""
    return Sample(seconds, np.ones(len(seconds)))


def joined(samples: list[Sample]) -> Sample:
    """All values of several samples."""
    if not samples:
        return equally(np.empty(0))
    return Sample(np.concatenate([s.seconds for s in samples]), np.concatenate([s.weights for s in samples]))


def thinned(sample: Sample) -> Sample:
    """Values within ``RESOLUTION`` of each other as their mean: sums stay exact, quantiles move by that at most."""
    bins = np.floor(np.log(np.maximum(sample.seconds, 1e-12)) / RESOLUTION).astype(np.int64)
    _, where = np.unique(bins, return_inverse=True)
    weights = np.bincount(where, sample.weights)
    kept = weights > 0
    seconds = np.bincount(where, sample.weights * sample.seconds)[kept] / weights[kept]
    return Sample(seconds, weights[kept])


class Pool:
    """Values that come part by part. Past ``EXACT`` of them they are thinned, so that memory stays where it is."""

    def __init__(self) -> None:
        self._parts: list[Sample] = []
        self._values = 0

    def add(self, part: Sample) -> None:
        self._parts.append(part)
        self._values += len(part.seconds)
        if self._values > EXACT:
            self._parts = [thinned(joined(self._parts))]
            self._values = len(self._parts[0].seconds)

    def sample(self) -> Sample:
        return joined(self._parts)
