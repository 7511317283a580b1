"""One set of levers pulled: what a node carries then, what a million tokens cost, and what binds."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from capsim import cost
from capsim.breakeven.node import Carried, estimated, simulated, with_model_error
from capsim.capacity.answers import limited_by
from capsim.capacity.fleet import with_nodes
from capsim.capacity.instant import at_limit, fleet_of
from capsim.capacity.sessions import guess
from capsim.capacity.trials import OnTrial
from capsim.errors import Infeasible, ScenarioError
from capsim.estimate.replica import COARSE
from capsim.estimate.users import MOST_USERS
from capsim.levers.spec import Lever
from capsim.parallelism import Parallelism, layouts
from capsim.scenario import Resolved, variant


@dataclass(frozen=True)
class Step:
    """A fleet with some levers pulled; ``resolved`` is one node of it, ``users`` the load that all steps carry."""

    levers: tuple[str, ...]
    resolved: Resolved
    carried: Carried
    users: int

    @property
    def usd_per_million_tokens(self) -> float:
        """Input and output, of a node at its limit."""
        return self._unit_costs["usd_per_million_tokens"]

    @property
    def _unit_costs(self) -> dict[str, float]:
        monthly_usd = cost.monthly_cost(self.resolved.price, 1)["monthly_usd"]
        flow = self.carried.tokens_per_s(self.carried.requests_per_s)
        output = flow["output_tokens_per_s"]
        costs = cost.unit_costs(monthly_usd, {"tokens": flow["input_tokens_per_s"] + output, "output_tokens": output})
        return {name: usd for name, usd in costs.items() if usd is not None}

    def row(self, base: "Step") -> dict[str, Any]:
        """What a reader sees of it, its gain being that over ``base``."""
        nodes = -(-self.users // self.carried.sessions[0])
        return {
            "levers": list(self.levers), "node": self.resolved.scenario.node, "parallelism": str(self.resolved.layout),
            "model": self.resolved.scenario.model, "weights": self.resolved.weights.name,
            "kv_format": self.resolved.scenario.kv_format, "how": self.carried.how,
            "sessions": list(self.carried.sessions), "requests_per_s": self.carried.requests_per_s,
            "hit_rate": self.carried.hit_rate, "nodes": nodes,
            "monthly_usd": cost.monthly_cost(self.resolved.price, nodes)["monthly_usd"], **self._unit_costs,
            "gain": base.usd_per_million_tokens / self.usd_per_million_tokens,
            "sessions_gain": self.carried.sessions[0] / base.carried.sessions[0],
            "binds": limited_by(self.resolved, guess(fleet_of(self.resolved))),
        }  # fmt: skip

    def simulated(self, on_trial: OnTrial) -> "Step":
        """The same by simulation."""
        return replace(self, carried=simulated(self.resolved, on_trial))


def step_of(levers: tuple[Lever, ...], resolved: Resolved) -> Step:
    """The step by the closed form, laid out as carries most sessions where the scenario leaves that open.

    Raises
    ------
    ScenarioError
        No SLO, no number of users misses it, or no users to carry.
    Infeasible
        Not even one session is served inside the SLO, or the price is unknown.
    """
    users = resolved.scenario.plan.users
    if users is None:
        message = "levers are compared at the same load: say how many users"
        raise ScenarioError.one(message, key="plan.users", hint="such as plan: {users: 10000}")
    if resolved.price is None:
        raise Infeasible(f"price unknown: the catalog has none for {resolved.scenario.node}")
    one_node = _best_layout(with_nodes(resolved, 1))
    return Step(tuple(lever.name for lever in levers), one_node, estimated(one_node), users)


def _best_layout(resolved: Resolved) -> Resolved:
    """A lever that moves what binds moves the best layout too: each step has its own, sought on a coarse sample.

    Replicas that share experts wait for the slowest of them at every step, which the closed form does not see: they
    are taken where the model fits no other way.
    """
    if resolved.scenario.parallelism is not None:
        return resolved
    every = layouts(resolved.model, resolved.node.devices)
    alone = [layout for layout in every if not layout.in_lockstep]
    fitting = _fitting(resolved, alone) or _fitting(resolved, every)
    return max(fitting, key=_sessions)


def _fitting(resolved: Resolved, some: list[Parallelism]) -> list[Resolved]:
    found = []
    for layout in some:
        with suppress(Infeasible):
            found.append(variant(resolved, [f"parallelism={json.dumps(asdict(layout))}"]))
    return found


def _sessions(resolved: Resolved) -> int:
    at = at_limit(fleet_of(resolved, COARSE))
    return MOST_USERS if at is None else at.sessions


def conflict(levers: tuple[Lever, ...]) -> str | None:
    """Why levers exclude each other: two of them set the same thing to different values."""
    for index, one in enumerate(levers):
        for other in levers[index + 1 :]:
            for path, value in one.set.items():
                if other.set.get(path, value) != value:
                    return f"{one.name} sets {path} to {value}, {other.name} to {other.set[path]}"
    return None


def gain_brackets(base: Step, joint: Step) -> dict[str, Any]:
    """The gain of ``joint`` over ``base`` with what is not known of it.

    ``gain_bracket``: as the sessions of both lie between [last passing, first failing], None by the closed form.
    ``gain_with_model_error``: both nodes at the ends of their model error, each for itself; an end is None where a
    node serves nobody, or no number of users misses the SLO.
    """
    gain = base.usd_per_million_tokens / joint.usd_per_million_tokens
    spread = [_spread(step.carried) for step in (base, joint)]
    bracket = [gain / spread[0], gain * spread[1]] if all(spread) else None
    told, ends = zip(*(with_model_error(step.resolved, step.carried) for step in (base, joint)), strict=True)
    (base_low, base_high), (joint_low, joint_high) = ends

    def between(of_joint: Carried | None, of_base: Carried | None) -> float | None:
        if of_joint is None or of_base is None:
            return None
        moved = replace(joint, carried=of_joint).usd_per_million_tokens
        return replace(base, carried=of_base).usd_per_million_tokens / moved

    return {
        "gain": gain, "gain_bracket": bracket,
        "gain_with_model_error": [between(joint_low, base_high), between(joint_high, base_low)],
        "model_error": dict(zip(("base", "joint"), told, strict=True)),
    }  # fmt: skip


def _spread(carried: Carried) -> float:
    """First failing over last passing sessions; 0 by the closed form."""
    return (carried.sessions[1] or 0) / carried.sessions[0]
