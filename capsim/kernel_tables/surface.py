"""Reading a kernel table: between its points by interpolation, beyond them by its sum-roofline.

Seconds are straight lines in context. In tokens, sequences and bytes the ratio of measured to fitted seconds is a
straight line in logarithms, so that coarse tables bend as the sum-roofline does; never outside the two measured times.
Beyond the measured sizes the ratio stays that of the nearest one, so that nothing jumps at the edge.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp, inf, log

from capsim.kernel_tables.table import AXES, CONTEXT, Curve, KernelTable
from capsim.kernel_tables.work import work


class Polyline:
    """Seconds over a size: straight between knots, and on along the last piece."""

    def __init__(self, sizes: Sequence[float], seconds: Sequence[float]) -> None:
        self.sizes = list(sizes)
        self._seconds = list(seconds)
        pairs = list(zip(self.sizes, self._seconds, strict=True))
        self._slopes = [(t1 - t0) / (x1 - x0) for (x0, t0), (x1, t1) in pairwise(pairs)]

    def scaled(self, factor: Callable[[float], float]) -> "Polyline":
        """The seconds of every knot by a factor of its size."""
        return Polyline(self.sizes, [t * factor(size) for size, t in zip(self.sizes, self._seconds, strict=True)])

    def at(self, size: float) -> tuple[float, float, float]:
        """Seconds, by how much they grow, and the size up to which that holds."""
        last = len(self._slopes) - 1
        piece = min(bisect_right(self.sizes, size, lo=1) - 1, last)
        slope = self._slopes[piece]
        seconds = self._seconds[piece] + slope * (size - self.sizes[piece])
        return seconds, slope, inf if piece == last else self.sizes[piece + 1]


class Surface:
    """A kernel table as a function of its sizes."""

    def __init__(self, table: KernelTable) -> None:
        self.table = table
        self._outer, self._inner = AXES[table.op]
        self._curves = table.curves
        self._lines: dict[float, Polyline] = {}

    def line(self, at: float) -> Polyline:
        """Seconds over context for ``at`` sequences or new tokens."""
        if at not in self._lines:
            knots = sorted({0.0, *(size for curve in self._around(at) for size in curve.sizes)})
            knots.append(2 * knots[-1] or 1.0)
            self._lines[at] = Polyline(knots, [self.seconds(size, at) for size in knots])
        return self._lines[at]

    def seconds(self, size: float, at: float = 1.0) -> float:
        """Seconds at a size; ``at`` is the other size, where the operation has one."""
        low, high = self._around(at)
        if low is high:
            seconds = self._on(low, size)
            return seconds if low.at == at else seconds * self._fitted(at, size) / self._fitted(low.at, size)
        share = log(at / low.at) / log(high.at / low.at)
        ends = (self._on(low, size), self._fitted(low.at, size)), (self._on(high, size), self._fitted(high.at, size))
        return _between(share, *ends, self._fitted(at, size))

    def last_size(self, at: float) -> float:
        """The largest size measured at ``at`` or next to it."""
        return max(curve.sizes[-1] for curve in self._around(at))

    def _around(self, at: float) -> tuple[Curve, Curve]:
        """The curves on both sides; twice the same where one is there or ``at`` lies outside."""
        index = bisect_right([curve.at for curve in self._curves], at)
        low = self._curves[max(0, index - 1)]
        inside = 0 < index < len(self._curves) and low.at != at
        return low, self._curves[index] if inside else low

    def _on(self, curve: Curve, size: float) -> float:
        """Seconds along one curve."""
        sizes, seconds = curve.sizes, curve.seconds
        if not sizes[0] <= size <= sizes[-1]:
            edge = 0 if size < sizes[0] else -1
            return seconds[edge] * self._fitted(curve.at, size) / self._fitted(curve.at, sizes[edge])
        high = bisect_right(sizes, size)
        if sizes[high - 1] == size:
            return seconds[high - 1]
        (x0, x1), (t0, t1) = sizes[high - 1 : high + 1], seconds[high - 1 : high + 1]
        if self._inner == CONTEXT:
            return t0 + (t1 - t0) * (size - x0) / (x1 - x0)
        ends = (t0, self._fitted(curve.at, x0)), (t1, self._fitted(curve.at, x1))
        return _between(log(size / x0) / log(x1 / x0), *ends, self._fitted(curve.at, size))

    def _fitted(self, at: float, size: float) -> float:
        shape = {**self.table.shape, self._inner: size}
        if self._outer is not None:
            shape[self._outer] = at
        return self.table.fit.seconds(work(self.table.op, shape))


def _between(share: float, low: tuple[float, float], high: tuple[float, float], fitted: float) -> float:
    """Seconds at ``share`` of the way between two points, each (seconds, fitted), by the ratio of the two there."""
    ratio = exp((1 - share) * log(low[0] / low[1]) + share * log(high[0] / high[1]))
    least, most = sorted((low[0], high[0]))
    return min(most, max(least, ratio * fitted))
