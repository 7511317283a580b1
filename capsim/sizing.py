"""How many nodes an open load takes: the smallest fleet that keeps the SLO, simulated whole behind its router.

A load that moves is sized for its peak; the same for its mean shows what averaging would have missed.
"""

import math
from collections.abc import Callable
from typing import Any

from capsim import cost
from capsim.errors import Infeasible
from capsim.experiment import Run, run_whole
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved
from capsim.scenario.spec import Scenario
from capsim.workload.levels import Open, levels
from capsim.workload.sessions import Users
from capsim.workload.spec import Closed

MIN_REQUESTS = 2000
TURNOVERS = 10
MOST_NODES = 1 << 14
LONG_ENOUGH = {"duration_s": None, "requests": None, "warmup_requests": None}
"""What a scenario says of a run's length is of its own load: fleets are judged by runs as long as they need."""


def is_open(resolved: Resolved) -> bool:
    """Whether requests come by themselves, so that nodes can be counted for them."""
    return not isinstance(resolved.workload.arrival, Closed)


def loads(resolved: Resolved) -> dict[str, Resolved]:
    """The loads to size for, by name: those of ``levels`` where the rate moves, else ``as it comes``.

    Each is met as a steady stream, for as long as it takes to judge the SLO.
    """
    arrival = resolved.workload.arrival
    if arrival is None or isinstance(arrival, Closed):
        return {"as it comes": resolved}
    steady = levels(arrival.arrivals if isinstance(arrival, Users) else arrival)
    return {name: _under(resolved, one) for name, one in steady.items()} or {"as it comes": resolved}


def _under(resolved: Resolved, arrival: Open) -> Resolved:
    return resolved.changed(workload=resolved.workload.changed(arrival=arrival, **LONG_ENOUGH))


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
        workload = workload.changed(**{**LONG_ENOUGH, "requests": requests})
    scenario = Scenario.model_validate({**dict(resolved.scenario), "nodes": nodes})
    return resolved.changed(scenario=scenario, workload=workload)


def _tpot_s(resolved: Resolved) -> float:
    slo = resolved.scenario.slo
    return (slo.tpot_s if slo else None) or math.inf
