"""One candidate of a plan, simulated: a node's capacity, the fleet for the load, its cost, and what binds."""

from dataclasses import asdict
from math import inf
from typing import Any

import numpy as np

from capsim import cost, sizing
from capsim.capacity.binds import what_binds
from capsim.capacity.fleet import doubts, size_for
from capsim.capacity.growth import growth, nodes_up, users_of_a_site
from capsim.capacity.instant import Instant, fleet_of
from capsim.capacity.model_error import with_model_error
from capsim.capacity.sessions import Capacity, guess, search
from capsim.capacity.trials import OnTrial, Trials
from capsim.errors import Infeasible
from capsim.estimate.users import Fleet
from capsim.experiment import Run
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved
from capsim.scenario.lock import locked
from capsim.stats import bounded, t_interval

CURVE = ("ttft_s", "tpot_s")


def simulated(resolved: Resolved, one_node: Resolved, trials: Trials) -> tuple[dict[str, Any], Run]:
    """The candidate's document, and its run at the last passing number of sessions.

    Raises
    ------
    ScenarioError
        No number of users misses the SLO.
    Infeasible
        Not even one session is served inside it.
    Interrupted
        Ctrl-C; ``trials``, of one node, keep what was simulated of them.
    """
    estimated = fleet_of(one_node)
    first = guess(estimated)
    found = search(one_node, first, trials)
    binds, carried = what_binds(one_node, found)
    fleet = _fleet(one_node, estimated, found.low, trials.on_trial)
    sized = _sized(resolved, trials.on_trial)
    error, at_limit = with_model_error(one_node, first, (found.low, found.high), found.at_limit)
    candidate = _candidate(resolved, first, found, fleet, sized)
    candidate |= {
        "model_error": error,
        "binds": binds,
        "sessions_when_relaxed": carried,
        "curve": _curve(trials),
        "growth": growth(one_node, estimated, max(1, first.sessions), candidate["nodes"]),
        "scenario": locked(resolved),
    }
    return candidate, at_limit


def _curve(trials: Trials) -> list[dict[str, Any]]:
    """What was simulated of one node, by sessions, with intervals over replications."""
    return [
        {"sessions": sessions, "replications": len(trials.done[sessions])} | _seen(trials, sessions)
        for sessions in sorted(trials.done)
    ]


def _seen(trials: Trials, sessions: int) -> dict[str, Any]:
    done = trials.done[sessions]
    values = {"goodput": [one.good_share for one in done]}
    values |= {f"{name}_p95": [one.latencies[name]["p95"] for one in done] for name in CURVE}
    seen: dict[str, Any] = {}
    for name, each in values.items():
        mean, half_width = t_interval(each)
        mean_or_none = None if np.isnan(mean) else mean
        seen |= {name: mean_or_none, f"{name}_ci95": bounded(mean, half_width, 1.0 if name == "goodput" else inf)}
    return seen


def _fleet(one_node: Resolved, estimated: Fleet, per_node: int, on_trial: OnTrial) -> dict[str, Any] | None:
    """The fleet of one site for the users asked for, if any are, sought from the closed form's on."""
    users = users_of_a_site(one_node)
    if users is None:
        return None
    try:
        nodes = nodes_up(one_node, estimated, users, per_node)
    except Infeasible:
        nodes = -(-users // per_node)
    return size_for(one_node, users, nodes, on_trial)


def _sized(resolved: Resolved, on_fleet: OnTrial) -> dict[str, Any]:
    """Fleets for the arrivals by level of load, where no number of users is asked for."""
    if resolved.scenario.plan.users is not None or not sizing.is_open(resolved):
        return {}
    return {name: sizing.size(load, on_fleet) for name, load in sizing.loads(resolved).items()}


def _candidate(
    resolved: Resolved, first: Instant, found: Capacity, fleet: dict[str, Any] | None, sized: dict[str, Any]
) -> dict[str, Any]:
    at, beyond = found.at_limit.summary, found.beyond.summary
    sites = resolved.scenario.plan.sites
    nodes = max([load["nodes"] for load in sized.values()], default=1) if fleet is None else sites * fleet["nodes"]
    monthly = cost.monthly_cost(resolved.price, nodes)
    return {
        "node": resolved.scenario.node,
        "parallelism": str(resolved.layout),
        "kv_format": resolved.scenario.kv_format,
        "max_num_seqs": resolved.engine.max_num_seqs,
        "estimate": asdict(first),
        "sessions": {
            "attached": [found.low, found.high],
            **{name: [run["sessions"][name]["mean"] for run in (at, beyond)] for name in ("cached", "in_flight")},
        },
        "decided": found.decided,
        "nodes": nodes,
        "fleet": fleet,
        "loads": sized,
        "latency": {name: at[name] for name in LATENCIES},
        "goodput": [at["goodput"], beyond["goodput"]],
        "goodput_ci95": [at["goodput_ci95"], beyond["goodput_ci95"]],
        "throughput": at["throughput"],
        "utilisation": at["utilisation"],
        "busy_fraction": at["busy_fraction"],
        "kv": at["kv"],
        "monthly_usd": monthly["monthly_usd"],
        "cost": {**monthly, "usd_per_million_output_tokens": at["cost"]["usd_per_million_output_tokens"]},
        "basis": at["basis"],
        "warnings": [
            *at["warnings"],
            *_doubts(found),
            *_notes(nodes, fleet, sized),
        ],
    }


def _doubts(found: Capacity) -> list[str]:
    """Where chance alone could have put a number of sessions on the other side of the target."""
    if found.decided:
        return []
    counts = [len(found.trials.done[end]) for end in (found.low, found.high)]
    ends = f"{counts[0]} and {counts[1]} replications at the bracket's ends"
    return [f"the target lies inside the interval of goodput after {ends}: more replications would narrow it"]


def _notes(nodes: int, fleet: dict[str, Any] | None, sized: dict[str, Any]) -> list[str]:
    if fleet is not None:
        return doubts(fleet)
    notes = [] if sized else ["no users asked for (plan.users): the cost is that of one node"]
    return [*notes, "one node has no redundancy"] if nodes == 1 else notes
