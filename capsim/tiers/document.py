"""The document of tiers: the cheapest way to stage the classes, and the slider from cheap to good."""

from itertools import product
from typing import Any

from capsim.catalog import load_catalog
from capsim.errors import Infeasible
from capsim.experiment import SCHEMA_VERSION
from capsim.source import Source
from capsim.tiers.option import Option, monthly_usd, option_of
from capsim.tiers.spec import Tiers


def tiers(spec: Tiers, source: Source, quality: float = 0.0) -> dict[str, Any]:
    """The JSON document: ``{classes, staged, slider, all_on_one, ...}``, described in docs/levers.md.

    What nodes carry is by the closed form; classes on one tier share its nodes in proportion to what each takes alone.

    Parameters
    ----------
    quality
        Where the slider stands: the least mean score over all requests.

    Raises
    ------
    ScenarioError
        Mistakes in the file, or in a scenario of it.
    Infeasible
        Some class can be served nowhere, or no way to stage them is that good.
    """
    catalog, names = load_catalog(), [tier.name for tier in spec.tiers]
    options = [
        {
            tier.name: option_of(kind, tier, index, spec.benchmark, catalog, source)
            for index, tier in enumerate(spec.tiers)
        }
        for kind in spec.classes
    ]
    for kind, at in zip(spec.classes, options, strict=True):
        if all(option.why for option in at.values()):
            reasons = [f"{name}: {option.why}" for name, option in at.items()]
            raise Infeasible(f"no tier serves {kind.name}", remedies=reasons)
    ways = [
        _way(spec, options, chosen)
        for chosen in product(names, repeat=len(spec.classes))
        if all(at[name].why is None for at, name in zip(options, chosen, strict=True))
    ]
    good = [way for way in ways if way["quality"] >= quality]
    if not good:
        best = max(way["quality"] for way in ways)
        raise Infeasible(f"no way to stage the classes has a mean quality of {quality:g}: the best has {best:.3g}")
    return {
        "schema_version": SCHEMA_VERSION,
        "name": spec.name, "description": spec.description, "benchmark": spec.benchmark, "quality": quality,
        "classes": [
            {
                "name": kind.name, "requests_per_s": kind.requests_per_s, "quality_floor": kind.quality_floor,
                "options": {name: _told(option, name) for name, option in at.items()},
            }
            for kind, at in zip(spec.classes, options, strict=True)
        ],
        "staged": min(good, key=_rank),
        "all_on_one": {name: _all_on(ways, name) for name in names},
        "slider": _slider(ways),
    }  # fmt: skip


def _way(spec: Tiers, options: list[dict[str, Option]], chosen: tuple[str, ...]) -> dict[str, Any]:
    """One tier for each class: monthly cost, and the mean quality of a request."""
    taken = [at[name] for at, name in zip(options, chosen, strict=True)]
    rates = [kind.requests_per_s for kind in spec.classes]
    scores = [option.quality or 0.0 for option in taken]
    return {
        "tiers": dict(zip((kind.name for kind in spec.classes), chosen, strict=True)),
        "monthly_usd": monthly_usd(taken, list(chosen)),
        "quality": sum(score * rate for score, rate in zip(scores, rates, strict=True)) / sum(rates),
    }


def _all_on(ways: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((way for way in ways if set(way["tiers"].values()) == {name}), None)


def _rank(way: dict[str, Any]) -> tuple[float, float]:
    return way["monthly_usd"], -way["quality"]


def _slider(ways: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ways that no other beats in both, the cheapest first."""
    kept: list[dict[str, Any]] = []
    for way in sorted(ways, key=_rank):
        if not kept or way["quality"] > kept[-1]["quality"] + 1e-12:
            kept.append(way)
    return kept


def _told(option: Option, name: str) -> dict[str, Any]:
    alone = None if option.why else monthly_usd([option], [name])
    return {
        "quality": option.quality, "quality_source": option.quality_source, "monthly_usd_alone": alone,
        "nodes": option.nodes or None, "why_not": option.why,
    }  # fmt: skip
