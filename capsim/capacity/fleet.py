"""The fleet for a number of users: simulated whole behind its router, and with one node down at the peak."""

from collections.abc import Callable
from typing import Any

from capsim.capacity.sessions import with_sessions
from capsim.capacity.trials import OnTrial, Trials
from capsim.errors import Infeasible
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved

MOST_NODES = 1 << 14


def size_for(resolved: Resolved, users: int, per_node: int, on_trial: OnTrial) -> dict[str, Any]:
    """The smallest fleet that keeps the SLO for ``users`` with one of its nodes down: ``{nodes, whole, one_down}``.

    Sought from ``per_node``, the sessions that a node carries alone. ``whole`` and ``one_down`` have ``nodes``,
    ``goodput``, ``goodput_ci95`` and ``latency``.

    Raises
    ------
    Infeasible
        No fleet up to ``MOST_NODES`` keeps the SLO.
    Interrupted
        Ctrl-C.
    """
    trials = Trials(lambda nodes: with_sessions(with_nodes(resolved, nodes), users), on_trial)

    def passes(nodes: int) -> bool:
        if nodes not in trials.done:
            trials.replicate(nodes, resolved.scenario.replications)
        return trials.passes(nodes)

    up = smallest(passes, -(-users // per_node))
    passes(up + 1)
    return {"nodes": up + 1, "whole": _seen(trials, up + 1), "one_down": _seen(trials, up)}


def smallest(passes: Callable[[int], bool], guess: int) -> int:
    """The smallest number of nodes that passes, sought from ``guess`` on.

    Raises
    ------
    Infeasible
        None up to ``MOST_NODES`` does.
    """
    down, up = 0, max(1, guess)
    while up > MOST_NODES or not passes(up):
        if up > MOST_NODES:
            message = f"no fleet of {MOST_NODES:,} nodes or fewer keeps the SLO for these users"
            raise Infeasible(message, remedies=["relax the SLO"])
        down, up = up, up + max(1, up // 8)
    while up - down > 1:
        middle = max(down + 1, up - max(1, (up - down) // 4))
        down, up = (down, middle) if passes(middle) else (middle, up)
    return up


def with_nodes(resolved: Resolved, nodes: int) -> Resolved:
    return resolved.changed(scenario=resolved.scenario.model_copy(update={"nodes": nodes}))


def _seen(trials: Trials, nodes: int) -> dict[str, Any]:
    summary = trials.run(nodes).summary
    seen = {name: summary[name] for name in ("goodput", "goodput_ci95")}
    return {"nodes": nodes, **seen, "latency": {name: summary[name] for name in LATENCIES}}
