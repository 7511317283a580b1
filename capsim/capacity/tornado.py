"""What would change the answer: one step on each knob, by the closed form."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from capsim import cost
from capsim.capacity.answers import answer
from capsim.errors import Infeasible, ScenarioError
from capsim.parallelism import Parallelism, layouts
from capsim.scenario import Resolved, variant

TIGHTER, LOOSER = 0.8, 1.25


@dataclass(frozen=True)
class Step:
    """One knob by its path in the scenario, from what to what."""

    knob: str
    old: Any
    new: Any

    @property
    def override(self) -> str:
        return f"{self.knob}={json.dumps(asdict(self.new) if isinstance(self.new, Parallelism) else self.new)}"


def would_change(resolved: Resolved) -> list[dict[str, Any]]:
    """``[{knob, from, to, sessions, nodes, monthly_usd, change}]``, the largest change first.

    ``change`` is that of the sessions that the fleet carries, relative to the closed form's answer as it is; a step
    that cannot be taken is left out, one that leaves no session inside the SLO is a change of -1.
    """
    try:
        now = answer(resolved)
    except Infeasible:
        return []
    rows = [row for step in _steps(resolved) if (row := _after(resolved, step, now)) is not None]
    if now["nodes"] is not None:
        rows += _node_steps(resolved, now)
    return sorted(rows, key=lambda row: abs(row["change"]), reverse=True)


def _after(resolved: Resolved, step: Step, now: dict[str, Any]) -> dict[str, Any] | None:
    named = {"knob": step.knob, "from": _said(step.old), "to": _said(step.new)}
    try:
        there = answer(variant(resolved, [step.override]))
    except ScenarioError:
        return None
    except Infeasible:
        return named | {"sessions": 0, "nodes": None, "monthly_usd": None, "change": -1.0}
    kept = {name: there[name] for name in ("sessions", "nodes", "monthly_usd")}
    return named | kept | {"change": there["sessions"] / now["sessions"] - 1}


def _said(value: Any) -> Any:
    return str(value) if isinstance(value, Parallelism) else value


def _node_steps(resolved: Resolved, now: dict[str, Any]) -> list[dict[str, Any]]:
    """A node more or less at each site: what is there with one of them down carries."""
    nodes, sites, rows = now["nodes"], resolved.scenario.plan.sites, []
    for there in (nodes - sites, nodes + sites):
        if there > sites:
            monthly = cost.monthly_cost(resolved.price, there)["monthly_usd"]
            rows.append({
                "knob": "nodes", "from": nodes, "to": there, "sessions": now["sessions"], "nodes": there,
                "monthly_usd": monthly, "change": (there - sites) / (nodes - sites) - 1,
            })  # fmt: skip
    return rows


def _steps(resolved: Resolved) -> Iterator[Step]:
    scenario, engine = resolved.scenario, resolved.engine
    for other in _beside(_kv_formats(resolved), scenario.kv_format):
        yield Step("kv_format", scenario.kv_format, other)
    own = next(key for key in resolved.model.weight_formats if resolved.catalog.weight_formats[key] == resolved.weights)
    for other in _beside(list(resolved.model.weight_formats), own):
        yield Step("weights", own, other)
    if engine.prefix_caching is not None:
        yield Step("scheduler.enable_prefix_caching", engine.prefix_caching, not engine.prefix_caching)
    if not engine.serial:
        for cap in (engine.max_num_seqs // 2, 2 * engine.max_num_seqs):
            yield Step("scheduler.max_num_seqs", engine.max_num_seqs, max(1, cap))
    assert scenario.slo is not None
    for name, limit in scenario.slo.thresholds.items():
        for factor in (TIGHTER, LOOSER):
            yield Step(f"slo.{name}", limit, round(limit * factor, 9))
    for layout in layouts(resolved.model, resolved.node.devices):
        if _is_next(layout, resolved.layout):
            yield Step("parallelism", resolved.layout, layout)


def _kv_formats(resolved: Resolved) -> list[str]:
    """Formats that the engine and the device serve, the largest first; what nobody serves is no step."""
    catalog = resolved.catalog
    served = {
        key: one.key_bits + one.value_bits
        for key, one in catalog.kv_formats.items()
        if (one.engines is None or resolved.engine_key in one.engines)
        and (one.arithmetic is None or resolved.device.computes_in(one.arithmetic))
        and catalog.provenance["kv_formats", key].basis != "assumed"
    }
    return sorted(served, key=served.__getitem__, reverse=True)


def _beside(names: list[str], own: str) -> list[str]:
    """The neighbours of one in a list."""
    if own not in names:
        return []
    at = names.index(own)
    return names[max(0, at - 1) : at] + names[at + 1 : at + 2]


def _is_next(one: Parallelism, own: Parallelism) -> bool:
    if own.pp > 1:
        return False
    steps = one.tp / own.tp
    return (steps in (0.5, 2) and one.expert == own.expert) or (steps == 1 and one.expert != own.expert)
