"""Instant answers for every fleet that a plan may choose from, by the closed form alone."""

import math
from typing import Any

from capsim import cost
from capsim.capacity.binds import NOTHING, relax, relaxable
from capsim.capacity.candidates import candidates
from capsim.capacity.fleet import with_nodes
from capsim.capacity.growth import nodes_for
from capsim.capacity.instant import Instant, fleet_of
from capsim.capacity.sessions import guess
from capsim.capacity.traced import with_drawn_sessions
from capsim.errors import Infeasible
from capsim.estimate.replica import COARSE
from capsim.scenario import Resolved
from capsim.scenario.lock import basis_of

JUST_BEYOND = 1.05


def answers(resolved: Resolved) -> dict[str, list[dict[str, Any]]]:
    """``{estimates, excluded}``: what each candidate carries and costs, the cheapest first, and what cannot serve.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or too many candidates.
    """
    found, excluded = candidates(resolved, answer)
    return {"estimates": sorted(found, key=rank), "excluded": excluded}


def rank(row: dict[str, Any]) -> tuple[bool, float, int]:
    """The cheapest first, unknown prices last."""
    usd = cost_of(row)
    return usd is None, usd or 0.0, -row["sessions"]


def cost_of(row: dict[str, Any]) -> float | None:
    """Monthly dollars of the fleet for the users asked for, else of a session on one node; None if unknown."""
    monthly_usd = row["monthly_usd"]
    return None if monthly_usd is None else float(monthly_usd / (1 if row["nodes"] is not None else row["sessions"]))


def answer(resolved: Resolved) -> dict[str, Any]:
    """One candidate by the closed form.

    ``sessions``, ``in_flight``, ``latency``, ``goodput`` and ``usd_per_million_output_tokens`` are those of one node at
    its limit; ``nodes`` are for ``plan.users`` with one of them down, None without; ``monthly_usd`` is of all these, or
    of one node.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or no number of users misses it.
    Infeasible
        Not even one session is served inside the SLO.
    """
    one_node = with_nodes(with_drawn_sessions(resolved), 1)
    fleet = fleet_of(one_node)
    first = guess(fleet)
    if first.sessions == 0:
        raise Infeasible(_missed(one_node, first), remedies=["relax the threshold that is missed", "use a faster node"])
    users = resolved.scenario.plan.users
    nodes = None if users is None else nodes_for(one_node, fleet, users, first.sessions)
    output_tokens_per_s = first.requests_per_s * float(one_node.lengths[1].mean())
    alone_usd = cost.monthly_cost(resolved.price, 1)["monthly_usd"]
    return {
        "node": resolved.scenario.node,
        "kv_format": resolved.scenario.kv_format,
        "parallelism": str(resolved.layout),
        "max_num_seqs": resolved.engine.max_num_seqs,
        "sessions": first.sessions,
        "in_flight": first.in_flight,
        "nodes": nodes,
        "latency": first.latency,
        "goodput": first.goodput,
        "monthly_usd": alone_usd if nodes is None else cost.monthly_cost(resolved.price, nodes)["monthly_usd"],
        **cost.unit_costs(alone_usd, {"output_tokens": output_tokens_per_s}),
        "limited_by": limited_by(one_node, first),
        "basis": basis_of(resolved),
    }


def limited_by(resolved: Resolved, first: Instant) -> str:
    """The resource of which a tenth more keeps most requests inside the SLO just beyond the limit."""
    beyond = math.ceil(first.sessions * JUST_BEYOND)
    as_it_is = fleet_of(resolved, COARSE).goodput(beyond)
    names = relaxable(resolved)
    goodput = {name: fleet_of(relax(resolved, name), COARSE).goodput(beyond) for name in names}
    best = max(goodput, key=goodput.__getitem__)
    return best if goodput[best] > as_it_is else NOTHING


def _missed(resolved: Resolved, alone: Instant) -> str:
    slo = resolved.scenario.slo
    assert slo is not None
    seen = ", ".join(
        f"{name} p95 {alone.latency[name]['p95']:.3g} s against {limit:.3g} s"
        for name, limit in slo.thresholds.items()
        if name in alone.latency
    )
    return f"not even one session is served inside the SLO: goodput {alone.goodput:.1%} ({seen})"
