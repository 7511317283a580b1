"""How many sessions a node carries inside the SLO: users in a closed loop, their number searched."""

import math
from dataclasses import dataclass

from capsim.capacity.instant import Instant, at_limit, fleet_of, met_pause_s
from capsim.capacity.traced import with_drawn_sessions
from capsim.capacity.trials import OnTrial, Trials, find
from capsim.errors import Infeasible, ScenarioError
from capsim.estimate.users import Fleet
from capsim.experiment import Run
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved
from capsim.workload.requests import with_users
from capsim.workload.spec import check_turned_away

MIN_REQUESTS = 2000
WARMUP_SHARE = 0.25
TURNOVERS, ENOUGH = 12, 10_000
"""How long a run is: so many times what it remembers, the first share of it unmeasured. No more requests than enough
are measured, as a large fleet tells in a short time what it does."""


@dataclass(frozen=True)
class Capacity:
    """Sessions of one fleet inside its SLO: [last passing, first failing], and the trials behind them."""

    low: int
    high: int
    trials: Trials

    @property
    def decided(self) -> bool:
        """Whether the intervals of goodput lie on their sides of the target, at both ends."""
        return self.trials.sure(self.low) and self.trials.sure(self.high)

    @property
    def at_limit(self) -> Run:
        return self.trials.run(self.low)

    @property
    def beyond(self) -> Run:
        return self.trials.run(self.high)


def find_capacity(resolved: Resolved, on_trial: OnTrial = lambda sessions, run: None) -> Capacity:
    """The most sessions that the fleet carries inside its SLO, simulated near the closed form's answer.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or no number of users misses it.
    Infeasible
        Not even one session is served inside the SLO.
    Interrupted
        Ctrl-C.
    """
    resolved = with_drawn_sessions(resolved)
    return search(resolved, guess(fleet_of(resolved)), session_trials(resolved, on_trial))


def guess(fleet: Fleet) -> Instant:
    """The closed form's answer.

    Raises
    ------
    ScenarioError
        No number of users misses the SLO.
    """
    first = at_limit(fleet)
    if first is None:
        message = "no number of users misses it: the batch cap keeps every answer inside"
        raise ScenarioError.one(message, key="slo", hint="add ttft_s or e2e_s")
    return first


def session_trials(resolved: Resolved, on_trial: OnTrial) -> Trials:
    """Trials of the fleet by number of sessions."""
    return Trials(lambda sessions: with_sessions(resolved, sessions), on_trial)


def search(resolved: Resolved, first: Instant, trials: Trials) -> Capacity:
    """``find_capacity`` from a first guess on, with trials that a caller may look at if it is interrupted."""
    try:
        return Capacity(*find(trials, first.sessions), trials)
    except Infeasible as error:
        if 1 in trials.done and not trials.passes(1):
            raise Infeasible(_missed(trials.run(1)), remedies=_remedies()) from error
        raise


def with_sessions(resolved: Resolved, sessions: int) -> Resolved:
    """The same fleet under a closed loop of ``sessions``, long enough to forget how it began and to be measured.

    Raises
    ------
    ScenarioError
        The sessions would ask without end where they are turned away.
    """
    memory = _memory_requests(resolved, sessions)
    requests = max(MIN_REQUESTS, round(TURNOVERS * memory))
    warmup = int(WARMUP_SHARE * requests)
    workload = with_users(resolved.workload, sessions, min(requests, warmup + ENOUGH), warmup)
    try:
        check_turned_away(workload, resolved.scenario.scheduler.queue_limit)
    except ValueError as error:
        hint = "a plan has closed-loop users: give think_s, or leave queue_limit out"
        raise ScenarioError.one(str(error), key="workload", hint=hint) from error
    return resolved.changed(workload=workload)


def _memory_requests(resolved: Resolved, sessions: int) -> float:
    """How many requests pass until a run has forgotten how it began.

    A batch turns over in as many requests as it has places. All users begin in a pause: that those in flight are not
    there yet is forgotten with the pauses, which are met with mean E[Z²] / E[Z].
    """
    assert resolved.scenario.slo is not None
    most = resolved.saturation(resolved.scenario.slo.tpot_s or math.inf)
    inside = min(sessions, most.batch * resolved.replicas, fleet_of(resolved).in_flight(sessions) + 1)
    per_s = min(sessions / (resolved.mean_think_s + most.service_s), most.requests_per_s * resolved.replicas)
    return max(inside, inside / sessions * per_s * met_pause_s(resolved))


def _missed(alone: Run) -> str:
    target = alone.summary["slo"]
    seen = ", ".join(
        f"{name} p95 {alone.summary[name]['p95']:.3g} s against {target[name]:.3g} s"
        for name in LATENCIES
        if name in target and alone.summary[name]["p95"] is not None
    )
    return f"not even one session is served inside the SLO: goodput {alone.summary['goodput']:.1%} ({seen})"


def _remedies() -> list[str]:
    return [
        "relax the threshold that is missed, or slo.attained",
        "shorten the prompts, where TTFT is missed",
        "use smaller weights or a faster node",
    ]
