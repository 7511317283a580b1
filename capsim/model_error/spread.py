"""How errors are spread: of published figures that judge, and of what was held out of a calibration."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp, log1p, sqrt

from scipy.stats import norm
from scipy.stats import t as student_t

from capsim.measured import Error

SHARE = 0.8
"""Of the figures that an error is told by, so many lie inside its bracket; a real engine should as often."""
LEAST = -0.99  # an error of -1, a simulated figure of 0, has no logarithm
NORMAL_SD_OF_MEAN = 1.2533  # standard deviation over the mean size of a normal deviation


@dataclass(frozen=True)
class Spread:
    """Logarithms of real over simulated: mean, standard deviation, and how many figures tell them."""

    mean: float
    sd: float
    figures: int

    @property
    def factors(self) -> tuple[float, float]:
        """Bracket of real over simulated by Student's t; the simulated figure itself always lies inside."""
        reach = self.sd * float(student_t.ppf((1 + SHARE) / 2, max(1, self.figures - 1)))
        return min(1.0, exp(self.mean - reach)), max(1.0, exp(self.mean + reach))

    @property
    def inverted(self) -> "Spread":
        """Of rates where these are of times, and the other way round."""
        return Spread(-self.mean, self.sd, self.figures)


def pooled(spreads: Iterable[Spread]) -> Spread | None:
    """Several groups as one: the variance inside them and between them, by number of figures; None of nothing."""
    parts = list(spreads)
    figures = sum(one.figures for one in parts)
    if not figures:
        return None
    mean = sum(one.mean * one.figures for one in parts) / figures
    variance = sum((one.sd**2 + (one.mean - mean) ** 2) * one.figures for one in parts) / figures
    return Spread(mean, sqrt(variance), figures)


def of_residual(error: Error, figures: int) -> Spread:
    """Of points held out of a calibration, from their mean error and its mean size."""
    return Spread(-log1p(max(error.bias, LEAST)), NORMAL_SD_OF_MEAN * error.mape, figures)


@cache
def judged() -> dict[tuple[str, str, str], tuple[Spread, ...]]:
    """Spreads of the published figures that judge and that nothing was fitted on, by device, engine and metric."""
    found: dict[tuple[str, str, str], tuple[Spread, ...]] = {}
    with (files("capsim.validate") / "cited.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if row["use"] == "judge":
                key = (row["device"], row["engine"], row["metric"])
                found[key] = (*found.get(key, ()), _of_cited(row))
    return found


def judged_of(metric: str, keep: Callable[[str, str], bool]) -> Spread | None:
    """The spread of a metric's figures on every device and engine to ``keep``."""
    return pooled(
        spread for (device, engine, what), spreads in judged().items() if what == metric and keep(device, engine)
        for spread in spreads
    )  # fmt: skip


def _of_cited(row: dict[str, str]) -> Spread:
    """A group of figures by their median error and by how far the worst of so many lies from it."""
    figures = int(row["figures"])
    middle, worst = (log1p(max(float(row[name]), LEAST)) for name in ("bias", "worst_error"))
    return Spread(-middle, abs(worst - middle) / _largest_of(figures), figures)


def _largest_of(figures: int) -> float:
    """The size to be expected of the largest of so many standard normal deviations (Blom, 1958)."""
    rank = (figures - 0.375) / (figures + 0.25)
    return float(norm.ppf((1 + rank) / 2))
