"""Time stamps that were written down on a coarse clock, spread out again."""

import numpy as np

from capsim.workload.streams import stream

COARSE_S = 0.9
"""A finer tick is left alone: it moves no count of a second."""
FINE_S = 0.1
"""One that is finer still is not told of."""
SHARED = 0.2
"""Share of gaps that are zero from which on a tick is looked for."""
ON_TICK = 0.95
"""Share of steps that must be whole ticks, to a hundredth of one."""


def tick_s(arrival_s: np.ndarray) -> float | None:
    """The clock's tick where sorted arrivals fall on one of ``FINE_S`` or more, else None."""
    gaps_s = np.diff(arrival_s)
    steps_s = gaps_s[gaps_s > 0]
    if len(steps_s) < 2 or (gaps_s == 0).mean() < SHARED:
        return None
    tick = float(np.quantile(steps_s, 0.05))
    tick = float(np.median(steps_s[steps_s < 1.5 * tick]))
    off = np.abs(steps_s / tick - np.rint(steps_s / tick))
    return tick if tick >= FINE_S and (off <= 0.01 * np.maximum(steps_s / tick, 1)).mean() >= ON_TICK else None


def spread(arrival_s: np.ndarray, tick: float) -> np.ndarray:
    """Arrivals at random inside their tick, in their order."""
    drawn = arrival_s + tick * stream(0, 0, "ticks").random(len(arrival_s))
    return np.sort(drawn) - drawn.min()
