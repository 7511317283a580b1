"""Medians that a disturbed machine does not spoil: windows of calls between two canaries, and again when one moved.

A busy neighbour, a throttled clock or a hypervisor can slow a machine down tenfold for a minute, CPU time included. So
fixed work, the canary, runs before and after every window of calls; where it takes 10 % longer than it does in quiet
minutes, the window is rejected and repeated.
"""

import statistics
import time
from collections import deque
from collections.abc import Iterator

from kernels_bench.case import Case
from kernels_bench.clocks import Clock, Run

MOVED = 1.10  # × the quiet canary
WINDOW_S = 0.02
ENOUGH_S = 0.1  # quiet seconds of a case
FEWEST_CALLS, MOST_CALLS = 5, 500
STEADY = 0.10  # × the median: an interquartile range beyond it is a disturbance that no canary saw
MOST_REPEATS = 20  # windows that may be rejected before a case is given up
_FIRST_CANARIES, _REMEMBERED_CANARIES = 50, 1000


class Canary:
    """Fixed work, timed again and again; quiet is the fastest quarter of what was seen of late."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        clock.time_s(clock.canary)
        self._seen = deque((self._time_s() for _ in range(_FIRST_CANARIES)), _REMEMBERED_CANARIES)

    def moved(self) -> bool:
        seconds = self._time_s()
        self._seen.append(seconds)
        return seconds > MOVED * sorted(self._seen)[len(self._seen) // 4]

    def _time_s(self) -> float:
        return self._clock.time_s(self._clock.canary)


def measure(case: Case, clock: Clock, canary: Canary, deadline: float) -> dict[str, object] | None:
    """The case's line of the measurements file; None where no quiet windows were found for it before `deadline` (of
    time.monotonic), at which it ends with what it has if that is calls enough."""
    run = case.prepare()
    for _ in range(2):
        clock.time_s(run)  # compiles, and fills what is no part of the pool
    times_s: list[float] = []
    repeated, disturbed = 0, canary.moved()
    while not _enough(times_s):
        if time.monotonic() > deadline:
            if len(times_s) < FEWEST_CALLS:
                return None
            break
        window = list(_window(run, clock))
        before, disturbed = disturbed, canary.moved()
        if before or disturbed:
            repeated += 1
            if repeated > MOST_REPEATS:
                return None
        else:
            times_s += window
    lower, median, upper = statistics.quantiles(times_s, n=4)
    return {
        "kind": "kernel",
        "op": case.op,
        "backend": case.backend,
        "kernel": case.kernel,
        "shape": case.shape,
        "median_s": median,
        "iqr_s": upper - lower,
        "runs": len(times_s),
        "repeated_windows": repeated,
        "bytes": case.bytes,
        "flops": case.flops,
    }


def steady(line: dict[str, object]) -> bool:
    """Whether the calls of a line took about the same time."""
    return float(str(line["iqr_s"])) <= STEADY * float(str(line["median_s"]))


def _enough(times_s: list[float]) -> bool:
    return len(times_s) >= FEWEST_CALLS and (sum(times_s) >= ENOUGH_S or len(times_s) >= MOST_CALLS)


def _window(run: Run, clock: Clock) -> Iterator[float]:
    left_s = WINDOW_S
    for _ in range(MOST_CALLS):
        seconds = clock.time_s(run)
        yield seconds
        left_s -= seconds
        if left_s <= 0:
            return
