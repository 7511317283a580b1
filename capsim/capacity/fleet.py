"""The fleet for a number of users: simulated whole behind its router, and with one node down at the peak."""

from collections.abc import Callable
from typing import Any

from capsim.capacity.sessions import with_sessions
from capsim.capacity.trials import OnTrial, Trials
from capsim.errors import Infeasible
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved

MOST_NODES = 1 << 14
FEWEST = 3
"""Replications of a fleet that an answer hangs on: large fleets differ less from run to run than a node does."""


def size_for(resolved: Resolved, users: int, guess: int, on_trial: OnTrial) -> dict[str, Any]:
    """The smallest fleet near ``guess`` that keeps the SLO for ``users``, whole and with one of its nodes down.

    ``{nodes, whole, one_down, undecided}``, sought from ``guess`` nodes that are up. ``whole`` and ``one_down`` have
    ``nodes``, ``replications``, ``goodput``, ``goodput_ci95`` and ``latency``. Far from the answer one replication of
    a fleet decides; these two, and the one below that fails with a node down, get more where chance could decide, as
    the ends of a bracket of sessions do. ``undecided`` are the nodes of those that chance alone could have put on the
    other side of the target.

    Raises
    ------
    Infeasible
        No fleet up to ``MOST_NODES`` keeps the SLO.
    Interrupted
        Ctrl-C.
    """
    trials = Trials(lambda nodes: with_sessions(with_nodes(resolved, nodes), users), on_trial, FEWEST)

    def passes(nodes: int) -> bool:
        if nodes not in trials.done:
            trials.replicate(nodes)
        return trials.passes(nodes)

    up = guess
    while True:
        up = smallest(passes, up)
        if not passes(up + 1):
            up += 2
            continue
        unsure = [nodes for nodes in _deciding(up) if not trials.sure(nodes)]
        open_ = [nodes for nodes in unsure if not trials.spent(nodes)]
        if not open_:
            break
        trials.replicate(min(open_, key=lambda nodes: len(trials.done[nodes])))
    return {
        "nodes": up + 1, "whole": _seen(trials, up + 1), "one_down": _seen(trials, up), "undecided": unsure,
    }  # fmt: skip


def _deciding(up: int) -> list[int]:
    """The fleets that an answer hangs on: the first that passes, the one below that fails, and the whole one."""
    return [nodes for nodes in (up - 1, up, up + 1) if nodes]


def doubts(fleet: dict[str, Any]) -> list[str]:
    """Where chance alone could have made the fleet larger or smaller."""
    if not fleet["undecided"]:
        return []
    near = " and ".join(f"{nodes:,}" for nodes in fleet["undecided"])
    message = f"the target lies inside the interval of goodput of {near} nodes: the fleet could be smaller or larger"
    return [f"{message}; more replications would tell"]


def smallest(passes: Callable[[int], bool], guess: int) -> int:
    """The smallest number of nodes that passes, sought from ``guess`` on with strides that double, then between.

    Raises
    ------
    Infeasible
        None up to ``MOST_NODES`` does.
    """
    failing, passing = 0, None
    nodes, stride = max(1, guess), 1
    while passing is None or passing - failing > 1:
        if nodes > MOST_NODES:
            message = f"no fleet of {MOST_NODES:,} nodes or fewer keeps the SLO for these users"
            raise Infeasible(message, remedies=["relax the SLO"])
        failing, passing = (failing, nodes) if passes(nodes) else (nodes, passing)
        if passing is None:
            nodes = max(failing + 1, min(failing + stride, MOST_NODES))
        else:
            nodes = (failing + passing) // 2 if failing else max(1, passing - stride)
        stride *= 2
    return passing


def with_nodes(resolved: Resolved, nodes: int) -> Resolved:
    return resolved.changed(scenario=resolved.scenario.model_copy(update={"nodes": nodes}))


def _seen(trials: Trials, nodes: int) -> dict[str, Any]:
    summary = trials.run(nodes).summary
    return {
        "nodes": nodes, "replications": len(trials.done[nodes]), "goodput": summary["goodput"],
        "goodput_ci95": summary["goodput_ci95"], "latency": {name: summary[name] for name in LATENCIES},
    }  # fmt: skip
