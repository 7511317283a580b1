"""How many nodes an open load takes: the smallest fleet that keeps the SLO, simulated whole behind its router.

A load that follows the clock is sized for its peak hour; the same for its mean shows what averaging would have missed.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from capsim import cost
from capsim.errors import Infeasible
from capsim.experiment import Run, run_whole
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved
from capsim.workload.arrivals import Poisson, Profile, Ramp, Spike, Windows
from capsim.workload.classes import Superposed
from capsim.workload.sessions import Users
from capsim.workload.spec import Closed

HOUR_S = 3600.0
MIN_REQUESTS = 2000
TURNOVERS = 10
MOST_NODES = 1 << 14
LONG_ENOUGH = {"duration_s": None, "requests": None, "warmup_requests": None}
"""What a scenario says of a run's length is of its own load: fleets are judged by runs as long as they need."""


def is_open(resolved: Resolved) -> bool:
    """Whether requests come by themselves, so that nodes can be counted for them."""
    return not isinstance(resolved.workload.arrival, Closed)


def loads(resolved: Resolved) -> dict[str, Resolved]:
    """The loads to size for: ``mean`` and ``peak hour`` where the rate follows the clock, else ``as it comes``.

    Both are met as a Poisson stream at that rate, for as long as it takes to judge the SLO.
    """
    arrival = resolved.workload.arrival
    family = arrival.arrivals if isinstance(arrival, Users) else arrival
    if not isinstance(family, Profile):
        return {"as it comes": resolved}
    rates = {"mean": float(np.mean(family.rates_per_s)), "peak hour": peak_hour_per_s(family)}
    return {name: _at_rate(resolved, rate) for name, rate in rates.items()}


def unseen(resolved: Resolved, sized: dict[str, Any]) -> list[str]:
    """That a load which changes later on was met at its beginning only."""
    arrival = resolved.workload.arrival
    if "as it comes" not in sized or not isinstance(arrival, Windows | Spike | Ramp | Superposed):
        return []
    return [f"nodes are those for the beginning of {arrival.kind} arrivals: give a duration_s that covers their peak"]


def peak_hour_per_s(profile: Profile) -> float:
    """The highest mean rate of any hour of a profile, its parts taken as they are."""
    assert profile.period_s is not None
    rates = np.array(profile.rates_per_s)
    parts = min(len(rates), max(1, round(HOUR_S * len(rates) / profile.period_s)))
    around = np.concatenate([rates, rates[: parts - 1]])
    return float(np.convolve(around, np.full(parts, 1 / parts), "valid").max())


def _at_rate(resolved: Resolved, rate_per_s: float) -> Resolved:
    arrival = Poisson(kind="poisson", rate_per_s=rate_per_s)
    workload = resolved.workload.model_copy(update={"arrival": arrival, **LONG_ENOUGH})
    return replace(resolved, workload=workload)


def size(resolved: Resolved, on_fleet: Callable[[int, Run], None]) -> dict[str, Any]:
    """The smallest fleet for a load: ``{nodes, requests_per_s, monthly_usd, goodput, goodput_ci95, latency}``.

    Raises
    ------
    Interrupted
        Ctrl-C.
    Infeasible
        No fleet up to ``MOST_NODES`` keeps the SLO.
    """
    fleets: dict[int, Run] = {}

    def passes(nodes: int) -> bool:
        if nodes not in fleets:
            fleets[nodes] = run_whole(_fleet(resolved, nodes))
            on_fleet(nodes, fleets[nodes])
        summary = fleets[nodes].summary
        return bool(summary["slo"]["passed"]) and not summary["saturated"]

    low, high = 0, 1
    while not passes(high):
        low, high = high, high * 2
        if high > MOST_NODES:
            raise Infeasible("no fleet keeps the SLO under these arrivals", remedies=["relax the SLO"])
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    summary = fleets[high].summary
    return {
        "nodes": high,
        "requests_per_s": summary["throughput"]["requests_per_s"],
        "monthly_usd": cost.monthly_cost(resolved.price, high)["monthly_usd"],
        "goodput": summary["goodput"],
        "goodput_ci95": summary["goodput_ci95"],
        "latency": {name: summary[name] for name in LATENCIES},
    }


def _fleet(resolved: Resolved, nodes: int) -> Resolved:
    """So many nodes, and a load long enough for their batches to turn over many times."""
    workload = resolved.workload
    if workload.requests is None and workload.duration_s is None and workload.trace is None:
        batch = resolved.saturation(_tpot_s(resolved)).batch * resolved.layout.replicas * nodes
        requests = max(MIN_REQUESTS, math.ceil(TURNOVERS * batch))
        workload = workload.model_copy(update={**LONG_ENOUGH, "requests": requests})
    return replace(resolved, scenario=resolved.scenario.model_copy(update={"nodes": nodes}), workload=workload)


def _tpot_s(resolved: Resolved) -> float:
    slo = resolved.scenario.slo
    return (slo.tpot_s if slo else None) or math.inf
