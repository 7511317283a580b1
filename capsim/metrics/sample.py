"""Values of one latency, and what is said of them."""

from dataclasses import dataclass

import numpy as np

from capsim.stats import weighted_quantiles

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
BATCHES = 20
RESOLUTION = 0.001
ROOM = 1 << 16
"""Values kept as they are. Thinned ones are fewer, wherever they lie between a picosecond and a year."""


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
    return Sample(seconds, np.broadcast_to(1.0, len(seconds)))


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
    """Values that come part by part. Past ``ROOM`` of them they are thinned, so that memory stays where it is."""

    def __init__(self) -> None:
        self._seconds, self._weights = np.empty(ROOM), np.empty(ROOM)
        self._values = 0

    def add(self, part: Sample) -> None:
        if self._values + len(part.seconds) > ROOM:
            part = thinned(joined([self.sample(), part]))
            self._values = 0
        end = self._values + len(part.seconds)
        self._seconds[self._values : end] = part.seconds
        self._weights[self._values : end] = part.weights
        self._values = end

    def sample(self) -> Sample:
        return Sample(self._seconds[: self._values], self._weights[: self._values])
