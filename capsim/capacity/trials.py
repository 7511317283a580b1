"""Simulated trials of a load that grows by whole numbers, and the search for the last number that keeps the SLO.

All numbers are met with the same random numbers. Far from the knee one replication decides; the two ends of the bracket
get more of them until the interval of goodput lies on one side of the target, or there are as many as may be. These
also tell better where goodput meets the target, about which the ends lie.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from capsim.errors import Infeasible
from capsim.experiment import Interrupted, Replication, Run, replicate, summarise
from capsim.scenario import Resolved
from capsim.stats import t_interval

RESOLUTION = 1.05
NEAR, ASIDE, MOVES = 1.12, 1.008, 4
"""How far around the target goodput is taken as a line, how near to it an end may come before both move, and how often
they may."""
FEWEST, MOST = 5, 2
"""Replications that an end of the bracket gets: so many, and then at most so many times the scenario's."""
TOO_MANY = 64
OnTrial = Callable[[int, Run], None]


@dataclass
class Trials:
    """``at`` gives what to simulate at each number; ``on_trial`` is told each result as it stands.

    No number is sure with less than ``fewest`` replications.
    """

    at: Callable[[int], Resolved]
    on_trial: OnTrial
    fewest: int = FEWEST
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
        return len(self.done[number]) >= self.fewest and abs(mean - self._attained(number)) > half_width

    def spent(self, number: int) -> bool:
        """Whether that number has had all the replications that it may."""
        return len(self.done[number]) >= max(self.fewest, MOST * self._resolved[number].scenario.replications)

    def bracket(self) -> tuple[int, int | None]:
        """[last passing, first failing] of the numbers so far: 0 where none passes, None where none fails."""
        first_failing = min((number for number in self.done if not self.passes(number)), default=None)
        passing = [n for n in self.done if self.passes(n) and (first_failing is None or n < first_failing)]
        return max(passing, default=0), first_failing

    def missed(self, number: int) -> float:
        """By how much goodput misses the target, in times of what it may leave out."""
        attained = self._attained(number)
        return (attained - self.goodput(number)[0]) / max(0.01, 1 - attained)

    def middle(self) -> float:
        """Where goodput meets the target: on the line through what is known near there, else between the two ends."""
        low, high = self.bracket()
        if low == 0 or high is None:
            return low * RESOLUTION if high is None else high / RESOLUTION
        target, ends = self._attained(low), (self.goodput(low)[0], self.goodput(high)[0])
        between = low + (high - low) * (ends[0] - target) / (ends[0] - ends[1])
        near = [number for number in self.done if between / NEAR <= number <= between * NEAR]
        if len(near) < 3:
            return between
        goodput, weights = [self.goodput(number)[0] for number in near], [len(self.done[number]) for number in near]
        slope, at_zero = np.polyfit(near, goodput, 1, w=np.sqrt(weights))
        return float(np.clip((target - at_zero) / slope, between / NEAR, between * NEAR)) if slope < 0 else between

    def _attained(self, number: int) -> float:
        slo = self._resolved[number].scenario.slo
        assert slo is not None
        return slo.attained


def find(trials: Trials, guess: int) -> tuple[int, int]:
    """[last passing, first failing], at most 5 % or one apart.

    They lie about where goodput is found to meet the target, and as far apart as they may, as then the fewest
    replications tell on which side of it they are; as more is known they move. Where what they say themselves does not
    agree with that, all that was simulated decides.

    Raises
    ------
    Infeasible
        Not even 1 passes, or nothing fails.
    Interrupted
        Ctrl-C; ``trials`` keeps what was simulated.
    """
    while (number := _outside(trials, max(1, guess))) is not None:
        trials.replicate(number)
    for _ in range(MOVES):
        low, high = ends = _about(trials.middle())
        while (number := _least_known(trials, ends)) is not None and _centred(ends, trials.middle()):
            trials.replicate(number)
        if number is None and trials.passes(low) and not trials.passes(high):
            return ends
    return _narrowed(trials, guess)


def _outside(trials: Trials, guess: int) -> int | None:
    """What to try so that something passes and something fails; None where this is so.

    Upwards as far again as was come, downwards the further the more requests miss the SLO.
    """
    low, high = trials.bracket()
    if not trials.done:
        return guess
    if high is None:
        most = TOO_MANY * max(guess, TOO_MANY)
        if low >= most:
            remedy = "add a threshold that grows with load, such as ttft_s"
            raise Infeasible("no load misses the SLO", remedies=[remedy])
        return min(most, max(low + 1, math.floor(RESOLUTION * low * low / min(trials.done))))
    if low > 0:
        return None
    if high == 1:
        if not (trials.sure(1) or trials.spent(1)):
            return 1
        raise Infeasible("not even one is served inside the SLO")
    return min(high - 1, max(1, math.ceil(high / RESOLUTION ** (1 + trials.missed(high)))))


def _about(middle: float) -> tuple[int, int]:
    """The widest bracket about a number that is narrow enough."""
    one_apart = middle < RESOLUTION / (RESOLUTION - 1)
    low = max(1, math.floor(middle) if one_apart else round(middle / math.sqrt(RESOLUTION)))
    return low, _widest(low)


def _widest(low: int) -> int:
    return max(low + 1, math.floor(RESOLUTION * low))


def _centred(ends: tuple[int, int], middle: float) -> bool:
    """Whether a number lies between two ends, and near neither if they are more than one apart."""
    low, high = ends
    return _about(middle) == ends or (high > low + 1 and low * ASIDE <= middle <= high / ASIDE)


def _least_known(trials: Trials, ends: tuple[int, int]) -> int | None:
    """That of the ends to simulate next; None where both are sure, or have had all that they may."""
    open_ = [end for end in ends if end not in trials.done or not (trials.sure(end) or trials.spent(end))]
    return min(open_, key=lambda end: len(trials.done.get(end, [])), default=None)


def _narrowed(trials: Trials, guess: int) -> tuple[int, int]:
    """The last passing and the first failing of all that was simulated, and of what lies between them."""
    while True:
        number = _outside(trials, guess)
        if number is None:
            low, high = trials.bracket()
            assert high is not None
            wide = high > _widest(low)
            number = (low + high) // 2 if wide else _least_known(trials, (low, high))
            if number is None:
                return low, high
        trials.replicate(number)
