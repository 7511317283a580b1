"""Users who grow in number, and users of many sites: how many nodes, and when the next one is needed."""

from typing import Any

from capsim.capacity.fleet import smallest
from capsim.capacity.instant import of_nodes
from capsim.errors import Infeasible
from capsim.estimate.users import Fleet
from capsim.scenario import Resolved

MONTHS = 24


def users_of_a_site(resolved: Resolved) -> int | None:
    """Users of the largest of the sites, each of which has a fleet of its own."""
    plan = resolved.scenario.plan
    return None if plan.users is None else -(-plan.users // plan.sites)


def nodes_for(resolved: Resolved, one_node: Fleet, users: int, per_node: int) -> int:
    """The smallest fleets by the closed form that keep the SLO for ``users`` with one node down at each site."""
    sites = resolved.scenario.plan.sites
    return sites * (nodes_up(resolved, one_node, -(-users // sites), per_node) + 1)


def nodes_up(resolved: Resolved, one_node: Fleet, users: int, per_node: int) -> int:
    """The fewest nodes by the closed form that keep the SLO for the ``users`` of one site.

    Raises
    ------
    Infeasible
        More than are looked at.
    """

    def passes(nodes: int) -> bool:
        return of_nodes(resolved, one_node.replica, nodes).goodput(users) >= one_node.slo.attained

    return smallest(passes, -(-users // per_node))


def growth(resolved: Resolved, one_node: Fleet, per_node: int, now: int) -> dict[str, Any] | None:
    """``{per_month, next_node_month, months}``: the months, counted from now, in which the nodes for the users asked
    for change in number within ``MONTHS``, each with ``month``, ``users`` and ``nodes``.

    From ``now`` on, which was simulated, nodes grow in proportion to those of the closed form, at all sites alike. None
    without growth.
    """
    asked = resolved.scenario.plan
    users, rate, sites = asked.users, asked.growth_per_month, asked.sites
    if users is None or rate == 0:
        return None
    months: list[dict[str, Any]] = []
    try:
        first = nodes_for(resolved, one_node, users, per_node)
        for month in range(MONTHS + 1):
            there = round(users * (1 + rate) ** month)
            nodes = sites * -(-now * nodes_for(resolved, one_node, there, per_node) // (first * sites))
            if not months or nodes != months[-1]["nodes"]:
                months.append({"month": month, "users": there, "nodes": nodes})
    except Infeasible:  # more nodes than are looked at
        pass
    later = months[1]["month"] if len(months) > 1 else None
    return {"per_month": rate, "next_node_month": later, "months": months}
