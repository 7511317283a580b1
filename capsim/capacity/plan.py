"""The document of a plan: a node's capacity, the fleet for the load, its cost, and what binds."""

from dataclasses import asdict
from typing import Any

from capsim import cost, sizing
from capsim.capacity.binds import what_binds
from capsim.capacity.fleet import size_for, with_nodes
from capsim.capacity.instant import Instant, fleet_of
from capsim.capacity.model_error import sessions_bracket
from capsim.capacity.sessions import Capacity, guess, search, session_trials
from capsim.capacity.traced import with_drawn_sessions
from capsim.capacity.trials import OnTrial
from capsim.experiment import SCHEMA_VERSION, Interrupted, Run
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved
from capsim.scenario.lock import locked


def plan(resolved: Resolved, on_point: OnTrial) -> tuple[dict[str, Any], Run | None]:
    """The JSON document of a plan for one node type, and the run at the last passing number of sessions.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or is pinned to something a search over sessions cannot keep.
    Infeasible
        Not even one session is served inside the SLO.
    """
    in_sessions = with_drawn_sessions(resolved)
    one_node = with_nodes(in_sessions, 1)
    first, trials = guess(fleet_of(one_node)), session_trials(one_node, on_point)
    document = {
        "schema_version": SCHEMA_VERSION,
        "scenario": locked(resolved),
        "users": resolved.scenario.plan.users,
        "interrupted": False,
    }
    try:
        found = search(one_node, first, trials)
        binds, carried = what_binds(one_node, found)
        fleet = _fleet(in_sessions, found.low, on_point)
        sized = _sized(resolved, on_point)
    except Interrupted:
        passing, failing = trials.bracket()
        document |= {"interrupted": True, "candidates": [], "bracket": [passing, failing]}
        return document, trials.run(passing) if passing else None
    candidate = _candidate(resolved, first, found, fleet, sized)
    candidate["model_error"] = sessions_bracket(one_node, first, (found.low, found.high))
    return document | {"candidates": [candidate | {"binds": binds, "sessions_when_relaxed": carried}]}, found.at_limit


def _fleet(resolved: Resolved, per_node: int, on_trial: OnTrial) -> dict[str, Any] | None:
    """The fleet for the users asked for, if any are."""
    users = resolved.scenario.plan.users
    return None if users is None else size_for(resolved, users, per_node, on_trial)


def _sized(resolved: Resolved, on_fleet: OnTrial) -> dict[str, Any]:
    """Fleets for the arrivals by level of load, where no number of users is asked for."""
    if resolved.scenario.plan.users is not None or not sizing.is_open(resolved):
        return {}
    return {name: sizing.size(load, on_fleet) for name, load in sizing.loads(resolved).items()}


def _candidate(
    resolved: Resolved, first: Instant, found: Capacity, fleet: dict[str, Any] | None, sized: dict[str, Any]
) -> dict[str, Any]:
    at, beyond = found.at_limit.summary, found.beyond.summary
    nodes = max([load["nodes"] for load in sized.values()], default=1) if fleet is None else fleet["nodes"]
    monthly = cost.monthly_cost(resolved.price, nodes)
    return {
        "node": resolved.scenario.node,
        "parallelism": str(resolved.layout),
        "kv_format": resolved.scenario.kv_format,
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
        return []
    notes = [] if sized else ["no users asked for (plan.users): the cost is that of one node"]
    return [*notes, "one node has no redundancy"] if nodes == 1 else notes
