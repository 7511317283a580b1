"""The fleets that a plan may choose from, each resolved, and those that cannot serve, with reason and remedy."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from capsim.errors import Infeasible, ScenarioError
from capsim.parallelism import Parallelism, layouts
from capsim.scenario import Resolved, variant
from capsim.scenario.spec import ALL

MOST = 512
OTHER_NODE = ("price=null", "engine=null", "kv_capacity_tokens=null")
OTHER_ENGINE = ("scheduler.max_num_seqs=null", "scheduler.max_num_batched_tokens=null", "memory.fraction=null")
"""What a scenario says of its own node or engine holds for no other one, which then has its defaults."""


@dataclass(frozen=True)
class Choice:
    """One combination, and the overrides that make it of the scenario."""

    node: str
    kv_format: str
    parallelism: str | None
    max_num_seqs: int | None
    overrides: tuple[str, ...]

    def excluded(self, reason: str, remedies: list[str]) -> dict[str, Any]:
        return {
            "node": self.node, "kv_format": self.kv_format, "parallelism": self.parallelism,
            "max_num_seqs": self.max_num_seqs, "reason": reason, "remedies": remedies,
        }  # fmt: skip


def candidates(resolved: Resolved, look: Callable[[Resolved], Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """``look`` at each fleet of ``plan``, and the excluded ones: ``{node, kv_format, parallelism, max_num_seqs, reason,
    remedies}``. A fleet is excluded if it cannot be resolved or looked at.

    Raises
    ------
    ScenarioError
        More than ``MOST`` of them.
    """
    choices = list(_choices(resolved))
    if len(choices) > MOST:
        message = f"{len(choices):,} combinations to choose from: at most {MOST:,}"
        raise ScenarioError.one(message, path=resolved.path, key="plan", hint="shorten one of its lists")
    found, excluded = [], []
    for choice in choices:
        try:
            one = variant(resolved, choice.overrides) if choice.overrides else resolved
            found.append(look(one))
        except Infeasible as error:
            excluded.append(choice.excluded(error.message, error.remedies))
        except ScenarioError as error:
            hints = [problem.hint for problem in error.problems if problem.hint]
            excluded.append(choice.excluded("; ".join(problem.message for problem in error.problems), hints))
    return found, excluded


def is_one(resolved: Resolved) -> bool:
    """Whether there is nothing to choose."""
    plan = resolved.scenario.plan
    return not (plan.nodes or plan.kv_formats or plan.max_num_seqs or plan.parallelism is not None)


def _choices(resolved: Resolved) -> Iterator[Choice]:
    scenario, catalog = resolved.scenario, resolved.catalog
    nodes = _named(scenario.plan.nodes, scenario.node, list(catalog.nodes))
    formats = _named(scenario.plan.kv_formats, scenario.kv_format, list(catalog.kv_formats))
    for node, kv_format, cap in product(nodes, formats, scenario.plan.max_num_seqs or (None,)):
        overrides: list[str] = []
        if node != scenario.node:
            overrides += [f"node={node}", *OTHER_NODE]
            if catalog.nodes[node].engine != resolved.engine_key:
                overrides += OTHER_ENGINE
        overrides += [f"kv_format={kv_format}"] * (kv_format != scenario.kv_format)
        overrides += [f"scheduler.max_num_seqs={cap}"] * (cap is not None)
        for name, pinned in _layouts(resolved, node).items():
            yield Choice(node, kv_format, name, cap, (*overrides, *pinned))


def _named(asked: tuple[str, ...], own: str, known: list[str]) -> list[str]:
    return known if ALL in asked else list(asked) or [own]


def _layouts(resolved: Resolved, node: str) -> dict[str | None, list[str]]:
    """Overrides by the layout's name; without a name where one is chosen. The scenario's own is of its own node."""
    asked, own = resolved.scenario.plan.parallelism, node == resolved.scenario.node
    if asked is None:
        return {None: [] if own else ["parallelism=auto"]}
    named = [Parallelism(one.tp, one.dp, one.expert, one.pp) for one in asked]
    every = named or layouts(resolved.model, resolved.catalog.nodes[node].devices)
    return {str(layout): [f"parallelism={json.dumps(asdict(layout))}"] for layout in every}
