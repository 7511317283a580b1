"""The document of a plan: fleets to choose from, those near the cheapest simulated, and what would change it."""

from contextlib import suppress
from typing import Any

from capsim.capacity.answers import answer, cost_of, rank
from capsim.capacity.candidates import candidates, is_one
from capsim.capacity.fleet import with_nodes
from capsim.capacity.sessions import session_trials
from capsim.capacity.simulated import simulated
from capsim.capacity.tornado import would_change
from capsim.capacity.traced import with_drawn_sessions
from capsim.capacity.trials import OnTrial
from capsim.errors import Infeasible
from capsim.experiment import SCHEMA_VERSION, Interrupted, Run
from capsim.scenario import Resolved
from capsim.scenario.lock import locked

NEAR = 1.3
MOST_SIMULATED = 4
"""What is simulated: fleets whose estimated cost is within ``NEAR`` times the cheapest's, twice what the closed form is
usually off by, and no more than so many of them."""


def plan(resolved: Resolved, on_point: OnTrial) -> tuple[dict[str, Any], Run | None]:
    """The JSON document of a plan, and the run of its first candidate at the last passing number of sessions.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, or is pinned to something a search over sessions cannot keep.
    Infeasible
        Not even one session is served inside the SLO, by any candidate.
    """
    fleets, rows, excluded = _chosen(resolved)
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "scenario": locked(resolved),
        "users": resolved.scenario.plan.users,
        "interrupted": False,
        "candidates": [],
        "estimates": rows,
        "excluded": excluded,
        "would_change": [],
    }
    found: list[tuple[dict[str, Any], Run, Resolved]] = []
    for number, fleet in enumerate(fleets):
        one_node = with_nodes(with_drawn_sessions(fleet), 1)
        trials = session_trials(one_node, on_point)
        try:
            found.append((*simulated(fleet, one_node, trials), fleet))
        except Interrupted:
            passing, failing = trials.bracket()
            document |= {"interrupted": True, "bracket": [passing, failing]}
            document["candidates"] = [candidate for candidate, *_ in found]
            return document, trials.run(passing) if passing else None
        except Infeasible as error:
            if not found and number == len(fleets) - 1:
                raise
            excluded.append(_excluded(rows[number], error))
    found.sort(key=lambda one: _rank(one[0]))
    document["candidates"] = [candidate for candidate, *_ in found]
    with suppress(KeyboardInterrupt):  # what was simulated is worth more
        document["would_change"] = would_change(found[0][2])
    return document, found[0][1]


def _rank(candidate: dict[str, Any]) -> tuple[bool, float, int]:
    """As estimates are ranked."""
    sized = candidate["fleet"] is not None or candidate["loads"]
    return rank({
        "monthly_usd": candidate["monthly_usd"], "nodes": candidate["nodes"] if sized else None,
        "sessions": candidate["sessions"]["attached"][0],
    })  # fmt: skip


def _chosen(resolved: Resolved) -> tuple[list[Resolved], list[dict[str, Any]], list[dict[str, Any]]]:
    """The fleets to simulate, all estimates, and what is excluded; a single one is simulated whatever is estimated."""
    if is_one(resolved):
        try:
            return [resolved], [answer(resolved) | {"simulated": True}], []
        except Infeasible:
            return [resolved], [], []
    found, excluded = candidates(resolved, lambda one: (answer(one), one))
    if not found:
        reasons = [f"{row['node']}, {row['kv_format']} KV: {row['reason']}" for row in excluded]
        remedies = list(dict.fromkeys(remedy for row in excluded for remedy in row["remedies"]))
        raise Infeasible("\n".join(["no candidate serves inside the SLO", *reasons]), remedies=remedies)
    found.sort(key=lambda pair: rank(pair[0]))
    cheapest = cost_of(found[0][0])
    near = [
        cheapest is None or ((usd := cost_of(row)) is not None and usd <= NEAR * cheapest)
        for row, _ in found[:MOST_SIMULATED]
    ]
    rows = [row | {"simulated": number < sum(near)} for number, (row, _) in enumerate(found)]
    return [one for _, one in found[: sum(near)]], rows, excluded


def _excluded(row: dict[str, Any], error: Infeasible) -> dict[str, Any]:
    what = {name: row[name] for name in ("node", "kv_format", "parallelism", "max_num_seqs")}
    return {**what, "reason": error.message, "remedies": error.remedies}
