"""What one class costs on one tier, and how good its answers are there."""

from dataclasses import dataclass
from math import ceil

import numpy as np

from capsim import cost
from capsim.catalog import Catalog
from capsim.errors import Infeasible, ScenarioError
from capsim.levers.step import Step, step_of
from capsim.prices import Price
from capsim.scenario import resolve
from capsim.source import Source
from capsim.sweep.spec import assignments
from capsim.tiers.spec import RequestClass, Tier
from capsim.workload.distributions import draw_tokens

SAMPLE = 4096
THINK_S = 30.0
"""Users of nodes are searched in a closed loop; how long they think moves their number and not what a node serves."""


@dataclass(frozen=True)
class Option:
    """A class on a tier: a bill by the token, or a number of nodes that need not be whole; ``why`` it cannot be."""

    quality: float | None
    quality_source: str
    api_usd: float = 0.0
    nodes: float = 0.0
    price: Price | None = None
    why: str | None = None


def option_of(kind: RequestClass, tier: Tier, index: int, benchmark: str, catalog: Catalog, source: Source) -> Option:
    """The option; below the class's floor, or where a price or a score is unknown, one that cannot be.

    Raises
    ------
    ScenarioError
        Unknown names, or mistakes in the tier's scenario.
    """
    if tier.api is not None:
        return _refused(_on_api(kind, tier, catalog, source.problem(("tiers", index, "api"), "").line, source), kind)
    return _refused(_on_nodes(kind, tier, index, benchmark, source), kind)


def _refused(option: Option, kind: RequestClass) -> Option:
    why = option.why
    if why is None and option.quality is None:
        why = "quality unknown: give quality and quality_source"
    if why is None and option.quality is not None and option.quality < kind.quality_floor:
        why = f"quality {option.quality:.3g} is below the floor of {kind.quality_floor:g}"
    return Option(option.quality, option.quality_source, option.api_usd, option.nodes, option.price, why)


def _on_api(kind: RequestClass, tier: Tier, catalog: Catalog, line: int | None, source: Source) -> Option:
    assert tier.api is not None
    try:
        listed = catalog.get("api_tiers", tier.api)
    except ScenarioError as error:
        problem = error.problems[0]
        raise ScenarioError.one(problem.message, path=source.path, line=line, hint=problem.hint) from error
    prompt, output = mean_tokens(kind)
    flow = {"input": prompt, "cached": kind.hit_rate * prompt, "output": output}
    rates = {f"{name}_tokens_per_s": tokens * kind.requests_per_s for name, tokens in flow.items()}
    monthly_usd = cost.api_bill(listed, rates)["monthly_usd"]
    why = "price unknown" if monthly_usd is None else None
    return Option(tier.quality, tier.quality_source or "", api_usd=monthly_usd or 0.0, why=why)


def _on_nodes(kind: RequestClass, tier: Tier, index: int, benchmark: str, source: Source) -> Option:
    assert tier.scenario is not None
    place = source.file(tier.scenario, f"tiers.{index}.scenario")
    try:
        step = _step(kind, tier, place)
    except Infeasible as error:
        return Option(tier.quality, tier.quality_source or "", why=error.message)
    except ScenarioError as error:
        at = ("tiers", index, "set" if tier.set else "scenario")
        raise ScenarioError([source.problem(at, f"{p.key}: {p.message}", p.hint) for p in error.problems]) from error
    quality, told = _quality(step, tier, benchmark)
    return Option(quality, told, nodes=kind.requests_per_s / step.carried.requests_per_s, price=step.resolved.price)


def _step(kind: RequestClass, tier: Tier, place: object) -> Step:
    """A node that serves this class alone, by the closed form."""
    workload = {
        "arrival": {"kind": "closed", "users": 1}, "think_s": {"kind": "exponential", "mean": THINK_S},
        "prompt_tokens": kind.prompt_tokens.model_dump(exclude_none=True),
        "output_tokens": kind.output_tokens.model_dump(exclude_none=True),
    }  # fmt: skip
    mine = {"workload": workload, "slo": kind.slo.model_dump(exclude_none=True), "plan": {"users": 1}, "nodes": 1}
    return step_of((), resolve(str(place), assignments({**tier.set, **mine})))


def _quality(step: Step, tier: Tier, benchmark: str) -> tuple[float | None, str]:
    """The model's score, less what its KV format loses where that was measured."""
    resolved = step.resolved
    score, told = tier.quality, tier.quality_source or ""
    if score is None:
        score = (resolved.model.quality or {}).get(benchmark)
        fact = resolved.basis["model"][1]
        provenance = resolved.catalog.provenance.get(("models", resolved.scenario.model))
        told = (provenance.of("quality") if provenance is not None else fact).source
    kept = resolved.kv_format.quality_kept
    if score is None or kept == 1:
        return score, told
    if kept is None:
        return None, f"nobody measured what {resolved.kv_format.name} KV loses"
    return score * kept, f"{told}; {resolved.kv_format.name} KV keeps {kept:.1%}"


def mean_tokens(kind: RequestClass) -> tuple[float, float]:
    """Mean prompt and output tokens, of a fixed sample."""
    uniforms = np.random.default_rng(1).random((SAMPLE, 2))
    prompt, output = (draw_tokens(lengths, uniforms).mean() for lengths in (kind.prompt_tokens, kind.output_tokens))
    return float(prompt), float(output)


def monthly_usd(options: list[Option], tiers: list[str]) -> float:
    """What chosen options cost together: bills, and whole nodes of each tier for all classes that it serves."""
    total = sum(option.api_usd for option in options)
    for name in dict.fromkeys(tiers):
        mine = [
            option for option, tier in zip(options, tiers, strict=True) if tier == name and option.price is not None
        ]
        if mine:
            nodes = ceil(sum(option.nodes for option in mine) - 1e-9)
            total += cost.monthly_cost(mine[0].price, nodes)["monthly_usd"]
    return total
