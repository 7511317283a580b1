"""The document of a break-even: what the scenario's load costs on nodes and by the token, and from which load on nodes
are cheaper."""

from datetime import date
from typing import Any

import numpy as np

from capsim import cost
from capsim.api_tiers import ApiTier
from capsim.breakeven.fleet import MOST_NODES, NODE_AVAILABILITY, Fleet, cheaper_from
from capsim.breakeven.load import Load, load_of
from capsim.breakeven.node import Carried, estimated, simulated, with_model_error
from capsim.capacity.fleet import with_nodes
from capsim.capacity.trials import OnTrial
from capsim.catalog import Fact
from capsim.errors import ScenarioError
from capsim.experiment import SCHEMA_VERSION
from capsim.prices import STALE, Price, is_stale
from capsim.scenario import Resolved
from capsim.scenario.lock import locked

API_AVAILABILITY = 0.9954
"""Of a tier that has none of its own: OpenAI's API by all outages on its status page up to August 2024 (Anthropic's:
0.9972), atlarge-research "An Empirical Characterization of Outages and Incidents in Public Services for LLMs"."""
CURVE_POINTS = 240
OFFER = "the scenario's"


def breakeven(
    resolved: Resolved,
    *,
    estimate: bool = False,
    spare_nodes: int = 1,
    hit_rate: float | None = None,
    on_trial: OnTrial = lambda sessions, run: None,
) -> dict[str, Any]:
    """The JSON document: ``{node, load, self_host, tiers, curve, warnings, ...}``, described in docs/results.md.

    Parameters
    ----------
    estimate
        Take what a node carries from the closed form, at once, instead of a simulated search.
    spare_nodes
        Nodes beyond those that carry the load, at every hour.
    hit_rate
        Share of input tokens that the API's cache holds; by default what ours held.

    Raises
    ------
    ScenarioError
        The scenario has no SLO, no number of users misses it, or its node type has no price.
    Infeasible
        Not even one session is served inside the SLO.
    KeyboardInterrupt
        Ctrl-C.
    """
    one_node = with_nodes(resolved, 1)
    offers = _offers(resolved)
    carried = estimated(one_node) if estimate else simulated(one_node, on_trial)
    load = load_of(resolved, carried)
    fleets = _fleets(offers, load, carried, spare_nodes)
    error, ends = with_model_error(one_node, carried)
    bounds = [{} if end is None else _fleets(offers, load, end, spare_nodes) for end in reversed(ends)]
    rated = {key: _rated(tier, carried, hit_rate) for key, tier in resolved.catalog.api_tiers.items()}
    hosted = [
        _self_host(name, fleet, offers, load, carried) | {"monthly_usd_model_error": _bracket(name, bounds, load)}
        for name, fleet in fleets.items()
    ]
    tiers = [_tier(key, resolved, usd, load, carried, hit_rate, fleets, bounds) for key, usd in rated.items()]
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": locked(resolved),
        "node": {
            "how": carried.how, "sessions": list(carried.sessions), "requests_per_s": carried.requests_per_s,
            "model_error": error, "hit_rate": carried.hit_rate, "availability": NODE_AVAILABILITY,
            "tokens_per_request": {
                "input": carried.input_tokens, "cached": carried.cached_tokens, "output": carried.output_tokens,
            },
        },
        "load": {
            "requests_per_s": load.requests_per_s, "hours": list(load.hours), "peak_over_mean": load.peak,
            "tokens_per_month": _tokens_per_month(load.requests_per_s, carried),
        },
        "spare_nodes": spare_nodes,
        "api_hit_rate": carried.hit_rate if hit_rate is None else hit_rate,
        "self_host": sorted(hosted, key=lambda row: cost.known_first(row["cost"]["monthly_usd"])),
        "tiers": sorted(tiers, key=lambda row: cost.known_first(row["bill"]["monthly_usd"])),
        "curve": _curve(fleets, rated, load, carried),
        "warnings": _warnings(resolved, offers, load, hosted),
    }  # fmt: skip


def _offers(resolved: Resolved) -> dict[str, tuple[Price, Fact | None]]:
    """Ways to pay for the node: the scenario's first, then the catalog's others for that type.

    Raises
    ------
    ScenarioError
        There is none.
    """
    key, fact = resolved.basis.get("price", (OFFER, None))
    offers = {} if resolved.price is None else {key: (resolved.price, fact)}
    catalog = resolved.catalog
    for other, price in catalog.prices.items():
        if price.node == resolved.scenario.node:
            offers.setdefault(other, (price, catalog.provenance["prices", other].of("usd_per_hour")))
    if not offers:
        message = f"price unknown: the catalog has none for {resolved.scenario.node}"
        raise ScenarioError.one(message, key="price", hint="give one, such as price: {usd_per_hour: 2.5}")
    return offers


def _fleets(
    offers: dict[str, tuple[Price, Fact | None]], load: Load, carried: Carried, spare_nodes: int
) -> dict[str, Fleet]:
    """Each offer for the busiest hour; what can be rented by the hour, for each hour too where they differ."""
    fleets = {}
    for key, (price, _) in offers.items():
        fleets[key] = Fleet(price, (load.peak,), carried.requests_per_s, spare_nodes)
        if price.by_the_hour and len(load.hours) > 1:
            fleets[f"{key}, by the hour"] = Fleet(price, load.hours, carried.requests_per_s, spare_nodes)
    return fleets


def _self_host(
    name: str, fleet: Fleet, offers: dict[str, tuple[Price, Fact | None]], load: Load, carried: Carried
) -> dict[str, Any]:
    """What the load takes and costs on that fleet."""
    fact = offers[name.removesuffix(", by the hour")][1]
    nodes = fleet.nodes(load.requests_per_s)
    mean_nodes = float(nodes.mean())
    standing = np.maximum(nodes * carried.requests_per_s, np.finfo(float).tiny)  # an idle hour may have no node
    used = load.requests_per_s * np.array(load.hours) / standing
    monthly = cost.monthly_cost(fleet.price, mean_nodes)
    flow = carried.tokens_per_s(load.requests_per_s)
    output = flow["output_tokens_per_s"]
    kinds = {"output_tokens": output, "tokens": output + flow["input_tokens_per_s"]}
    return {
        "name": name, "kind": fleet.price.kind, "by_the_hour": fleet.by_the_hour,
        "basis": fact.basis if fact else "the scenario's own", "as_of": str(fact.as_of) if fact else None,
        "nodes": int(nodes.max()), "mean_nodes": mean_nodes,
        "utilisation": load.requests_per_s / (mean_nodes * carried.requests_per_s),
        "utilisation_by_hour": used.tolist(),
        "served_share": float(fleet.served_share(np.array(mean_nodes))),
        "cost": {**monthly, **cost.unit_costs(monthly["monthly_usd"], kinds)},
    }  # fmt: skip


def _bracket(name: str, bounds: list[dict[str, Fleet]], load: Load) -> list[float | None]:
    """Monthly cost where a node carries the most, and the least, that model error allows."""
    ends = [fleets.get(name) for fleets in bounds]
    return [
        None if fleet is None else float(fleet.monthly_usd(fleet.nodes(load.requests_per_s).mean())) for fleet in ends
    ]


def _rated(tier: ApiTier, carried: Carried, hit_rate: float | None) -> float | None:
    """USD for a mean request; None where the tier has no price for a part of it."""
    monthly_usd = cost.api_bill(tier, carried.tokens_per_s(1.0, hit_rate))["monthly_usd"]
    return None if monthly_usd is None else monthly_usd / cost.SECONDS_PER_MONTH


def _tier(
    key: str, resolved: Resolved, usd_per_request: float | None, load: Load, carried: Carried,
    hit_rate: float | None, fleets: dict[str, Fleet], bounds: list[dict[str, Fleet]],
) -> dict[str, Any]:  # fmt: skip
    """A tier's bill for what it serves of the load, and from which loads on each fleet is cheaper."""
    tier, fact = resolved.catalog.api_tiers[key], resolved.catalog.provenance["api_tiers", key]
    served = API_AVAILABILITY if tier.availability is None else tier.availability
    return {
        "key": key, "name": tier.name, "basis": fact.basis, "as_of": str(fact.as_of),
        "same_model": tier.model == resolved.scenario.model,
        "served_share": served, "served_share_assumed": tier.availability is None,
        "usd_per_request": usd_per_request,
        "bill": cost.api_bill(tier, carried.tokens_per_s(load.requests_per_s * served, hit_rate)),
        "break_even": {
            name: None if usd_per_request is None else _break_even(fleet, usd_per_request, carried)
            | {"always_model_error": [_always(fleets.get(name), usd_per_request) for fleets in bounds]}
            for name, fleet in fleets.items()
        },
    }  # fmt: skip


def _break_even(fleet: Fleet, usd_per_request: float, carried: Carried) -> dict[str, Any]:
    names = ("first", "always")
    return {
        name: None
        if per_s is None
        else {"requests_per_s": per_s, "tokens_per_month": _tokens_per_month(per_s, carried)}
        for name, per_s in zip(names, cheaper_from(fleet, usd_per_request), strict=True)
    }


def _always(fleet: Fleet | None, usd_per_request: float) -> float | None:
    return None if fleet is None else cheaper_from(fleet, usd_per_request)[1]


def _tokens_per_month(requests_per_s: float, carried: Carried) -> float:
    """Input and output."""
    return requests_per_s * (carried.input_tokens + carried.output_tokens) * cost.SECONDS_PER_MONTH


def _curve(fleets: dict[str, Fleet], rated: dict[str, float | None], load: Load, carried: Carried) -> dict[str, Any]:
    """Monthly cost of all of a load, by load: from that of a hundredth of a node to that of a hundred."""
    per_s = np.geomspace(carried.requests_per_s / 100, carried.requests_per_s * 100, CURVE_POINTS)
    per_s = np.union1d(per_s, [load.requests_per_s])
    hosted = {}
    for name, fleet in fleets.items():
        nodes = np.array([fleet.nodes(rate).mean() for rate in per_s])
        hosted[name] = fleet.usd_for_all(nodes).tolist()
    month_s = cost.SECONDS_PER_MONTH
    tiers = {key: (per_s * usd * month_s).tolist() for key, usd in rated.items() if usd is not None}
    return {"requests_per_s": per_s.tolist(), "self_host": hosted, "tiers": tiers}


def _warnings(
    resolved: Resolved, offers: dict[str, tuple[Price, Fact | None]], load: Load, hosted: list[dict[str, Any]]
) -> list[str]:
    on, catalog = resolved.scenario.as_of, resolved.catalog
    facts = {key: fact for key, (_, fact) in offers.items() if fact is not None}
    facts |= {key: catalog.provenance["api_tiers", key] for key in catalog.api_tiers}
    told = [resolved.basis[place][0] for place in ("price", "api_tier") if place in resolved.basis]
    day = on or date.today()
    old = [key for key, fact in facts.items() if key not in told and is_stale(fact.as_of, day)]
    notes = list(resolved.warnings)
    if old:
        notes.append(f"other prices more than {STALE.days} days old{f' on {on}' if on else ''}: {', '.join(old)}")
    if max(row["nodes"] for row in hosted) > MOST_NODES:
        notes.append(f"break-even is sought up to {MOST_NODES:,} nodes, and the load takes more")
    return notes
