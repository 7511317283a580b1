"""Simulated trials of a load that grows by whole numbers, and the search for the last number that keeps the SLO.

All numbers are met with the same random numbers. Far from the knee one replication decides; the two ends of the bracket
get more of them until the interval of goodput lies on one side of the target, or there are as many as may be.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from capsim.errors import Infeasible
from capsim.experiment import Interrupted, Replication, Run, replicate, summarise
from capsim.scenario import Resolved
from capsim.stats import t_interval

RESOLUTION = 1.05
ASIDE = 1.012
FEWEST, MOST = 5, 2
"""Replications that an end of the bracket gets: at least so many, or at most so many times the scenario's."""
TOO_MANY = 64
OnTrial = Callable[[int, Run], None]


@dataclass
class Trials:
    """``at`` gives what to simulate at each number; ``on_trial`` is told each result as it stands."""

    at: Callable[[int], Resolved]
    on_trial: OnTrial
    done: dict[int, list[Replication]] = field(default_factory=dict)
    _resolved: dict[int, Resolved] = field(default_factory=dict)

    def replicate(self, number: int, replications: int = 1) -> None:
        """So many more replications of that number.

        Raises
        ------
        Interrupted
            Ctrl-C.
        """
        for _ in range(replications):
            self._replicate(number)
        self.on_trial(number, self.run(number))

    def _replicate(self, number: int) -> None:
        past = self.done.get(number, [])
        try:
            if number not in self._resolved:
                self._resolved[number] = self.at(number)
            one = replicate(self._resolved[number], len(past))
        except KeyboardInterrupt as stopped:  # between two simulations
            raise Interrupted from stopped
        if one.records.interrupted:
            raise Interrupted
        self.done[number] = [*past, one]

    def run(self, number: int) -> Run:
        """What is known of that number."""
        resolved, done = self._resolved[number], self.done[number]
        return Run(resolved, done, summarise(resolved, done))

    def goodput(self, number: int) -> tuple[float, float]:
        """Mean over replications and the half width of its interval, NaN for a single one."""
        return t_interval([one.good_share for one in self.done[number]])

    def passes(self, number: int) -> bool:
        """Whether the SLO is kept, as far as is known."""
        return self.goodput(number)[0] >= self._attained(number)

    def sure(self, number: int) -> bool:
        """Whether the interval lies on one side of the target."""
        mean, half_width = self.goodput(number)
        return len(self.done[number]) >= FEWEST and abs(mean - self._attained(number)) > half_width

    def spent(self, number: int) -> bool:
        """Whether that number has had all the replications that it may."""
        return len(self.done[number]) >= max(FEWEST, MOST * self._resolved[number].scenario.replications)

    def bracket(self) -> tuple[int, int | None]:
        """[last passing, first failing] of the numbers so far: 0 where none passes, None where none fails."""
        first_failing = min((number for number in self.done if not self.passes(number)), default=None)
        passing = [n for n in self.done if self.passes(n) and (first_failing is None or n < first_failing)]
        return max(passing, default=0), first_failing

    def missed(self, number: int) -> float:
        """By how much goodput misses the target, in times of what it may leave out."""
        attained = self._attained(number)
        return (attained - self.goodput(number)[0]) / max(0.01, 1 - attained)

    def crossing(self, low: int, high: int) -> float:
        """Where the straight line between the goodput of two numbers meets the target."""
        above, below = self.goodput(low)[0] - self._attained(low), self._attained(high) - self.goodput(high)[0]
        return low + (high - low) * above / (above + below)

    def _attained(self, number: int) -> float:
        slo = self._resolved[number].scenario.slo
        assert slo is not None
        return slo.attained


def find(trials: Trials, guess: int) -> tuple[int, int]:
    """[last passing, first failing], at most 5 % or one apart.

    Raises
    ------
    Infeasible
        Not even 1 passes, or nothing fails.
    Interrupted
        Ctrl-C; ``trials`` keeps what was simulated.
    """
    while True:
        low, high = trials.bracket()
        number = _untried(trials, low, high, max(1, guess))
        if number is None:
            unsure = [end for end in (low, high) if end and not trials.sure(end) and not trials.spent(end)]
            if not unsure:
                break
            number = min(unsure, key=lambda end: len(trials.done[end]))
        if number > TOO_MANY * max(guess, TOO_MANY):
            raise Infeasible(
                "no load misses the SLO", remedies=["add a threshold that grows with load, such as ttft_s"]
            )
        trials.replicate(number)
    if low == 0:
        raise Infeasible("not even one is served inside the SLO")
    assert high is not None
    return low, high


def _untried(trials: Trials, low: int, high: int | None, guess: int) -> int | None:
    """Where to look next; None where the bracket is narrow enough.

    Upwards as far again as was come, downwards the further the more requests miss the SLO. Between two ends the target
    lies about where the line from one to the other crosses it. The bracket is closed about that middle, as wide as it
    may be: the further its ends lie from the target, the fewer replications tell on which side of it they are.
    """
    if not trials.done:
        return guess
    if high is None:
        return max(low + 1, math.floor(RESOLUTION * low * low / min(trials.done)))
    if low == 0:
        stride = RESOLUTION ** (1 + trials.missed(high))
        return None if high == 1 else min(high - 1, max(1, math.ceil(high / stride)))
    if high <= widest(low):
        return None
    middle = trials.crossing(low, high)
    for lower, upper in ((low, widest(low)), (math.ceil(high / RESOLUTION), high)):
        if lower * ASIDE <= middle <= upper / ASIDE:
            return upper if lower == low else lower
    lower = round(middle / math.sqrt(RESOLUTION))
    return max(low + 1, lower) if lower > low else min(high - 1, max(low + 1, round(middle * math.sqrt(RESOLUTION))))


def widest(low: int) -> int:
    """The first failing number that makes the widest bracket which is narrow enough."""
    return max(low + 1, math.floor(RESOLUTION * low))
