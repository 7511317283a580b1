"""The document of a contract: what signing and staying flexible cost under each price path, and what would make them
even."""

from typing import Any

import numpy as np

from capsim import cost
from capsim.breakeven.load import Load, load_of
from capsim.breakeven.node import Carried, estimated, simulated, with_model_error
from capsim.capacity.fleet import with_nodes
from capsim.capacity.trials import OnTrial
from capsim.contract.costs import World, committed_usd, flexible_usd
from capsim.contract.indifference import indifferent
from capsim.contract.paths import load_factors, paths_of, price_factors
from capsim.errors import ScenarioError, did_you_mean
from capsim.experiment import SCHEMA_VERSION
from capsim.prices import HOURS_PER_MONTH, Price, Quote, stale_notes
from capsim.scenario import Resolved
from capsim.scenario.lock import locked
from capsim.stats import bounded, quantile_interval, t_interval

FLEXIBLE = "flexible"
QUOTED = "the scenario's quote"
PERCENTILES = {"p5": 5, "p50": 50, "p95": 95}


def contract(
    resolved: Resolved,
    *,
    estimate: bool = False,
    spare_nodes: int = 1,
    on_trial: OnTrial = lambda sessions, run: None,
) -> dict[str, Any]:
    """The JSON document: ``{flexible, offers, paths, least_regret, ...}``, described in docs/results.md.

    Parameters
    ----------
    estimate
        Take what a node carries from the closed form, at once, instead of a simulated search.
    spare_nodes
        Nodes beyond those that carry the load.

    Raises
    ------
    ScenarioError
        No quote or no flexible price to set beside one another, or the scenario has no SLO.
    Infeasible
        Not even one session is served inside the SLO.
    KeyboardInterrupt
        Ctrl-C.
    """
    offers = _offers(resolved)
    key, price, hosted = _flexible(resolved)
    one_node = with_nodes(resolved, 1)
    carried = estimated(one_node) if estimate else simulated(one_node, on_trial)
    load = load_of(resolved, carried)
    spec, seed = resolved.scenario.contract, resolved.scenario.seed
    loads = load.requests_per_s * load_factors(spec, seed)
    nodes = _nodes(loads, load, carried, spare_nodes)
    today_usd = _flexible_today(resolved, price, key, carried, loads, nodes)
    per_hour_usd = float(today_usd[:, 0].mean() / nodes[:, 0].mean() / HOURS_PER_MONTH)
    if not per_hour_usd > 0:
        raise ScenarioError.one(f"'{key}' costs nothing: there is nothing to sign against", key="contract.flexible")
    discount = (1 + spec.discount_rate) ** (-np.arange(spec.horizon_months) / 12)
    paths = []
    for name, (path, source) in paths_of(spec).items():
        factors = price_factors(spec, name, path, seed)
        quotes = np.ones_like(factors) if hosted else factors
        world = World(nodes, today_usd * factors, quotes, discount)
        paths.append({"name": name, "source": source, **_told(factors), **_strategies(world, offers, per_hour_usd)})
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": locked(resolved),
        "seed": seed, "samples": spec.samples, "horizon_months": spec.horizon_months,
        "node": {"how": carried.how, "sessions": list(carried.sessions), "requests_per_s": carried.requests_per_s,
                 "model_error": with_model_error(one_node, carried)[0]},
        "load": {
            "requests_per_s": load.requests_per_s, "peak_over_mean": load.peak, "spare_nodes": spare_nodes,
            "nodes": int(nodes[0, 0]), "nodes_at_the_end": _spread(nodes[:, -1]),
        },
        "flexible": {"name": key, "by_the_token": hosted, "usd_per_node_hour": per_hour_usd,
                     "monthly_usd": float(today_usd[0, 0])},
        "offers": {
            name: {**quote.model_dump(), "discount": 1 - quote.usd_per_hour / per_hour_usd}
            for name, quote in offers.items()
        },
        "paths": paths,
        "least_regret": _least_regret(paths),
        "warnings": _warnings(resolved, [key, *offers]),
    }  # fmt: skip


def _offers(resolved: Resolved) -> dict[str, Quote]:
    """The scenario's quotes, else the catalog's for the node type.

    Raises
    ------
    ScenarioError
        There are none.
    """
    offers = dict(resolved.scenario.contract.offers)
    if resolved.scenario.price is not None and resolved.scenario.price.quote is not None:
        offers[QUOTED] = resolved.scenario.price.quote
    prices = resolved.catalog.prices.items()
    node = resolved.scenario.node
    offers = offers or {key: price.quote for key, price in prices if price.node == node and price.quote is not None}
    if not offers:
        hint = "such as {one year: {usd_per_hour: 2, term_months: 12}}"
        raise ScenarioError.one(f"no quote to sign for {node}", key="contract.offers", hint=hint)
    return offers


def _flexible(resolved: Resolved) -> tuple[str, Price | None, bool]:
    """Key and price of nodes by the hour, or the key of an API's price list and True.

    Raises
    ------
    ScenarioError
        There is none, or the one named is not such a price.
    """
    asked, node, catalog = resolved.scenario.contract.flexible, resolved.scenario.node, resolved.catalog
    hourly = {key: price for key, price in catalog.prices.items() if price.node == node and price.by_the_hour}
    if resolved.price is not None and resolved.price.by_the_hour:
        key = resolved.basis["price"][0] if "price" in resolved.basis else resolved.price.name
        hourly = {key: resolved.price, **hourly}
    if asked is None and hourly:
        return (*next(iter(hourly.items())), False)
    if asked in hourly:
        return asked, hourly[asked], False
    if asked is not None and asked in catalog.api_tiers:
        if catalog.api_tiers[asked].output_usd_per_million is None:
            raise ScenarioError.one(f"price unknown: '{asked}' has none for output", key="contract.flexible")
        return asked, None, True
    known = did_you_mean(asked or "", [*hourly, *catalog.api_tiers]) if asked else "name an API tier of the catalog"
    message = (
        f"'{asked}' is no price by the hour of {node} and no API tier" if asked else f"{node} has none by the hour"
    )
    raise ScenarioError.one(message, key="contract.flexible", hint=known)


def _nodes(loads: np.ndarray, load: Load, carried: Carried, spare_nodes: int) -> np.ndarray:
    """Whole nodes for the busiest hour of each month, and the spares."""
    return np.ceil(loads * load.peak / carried.requests_per_s * (1 - 1e-9)) + spare_nodes


def _flexible_today(
    resolved: Resolved, price: Price | None, key: str, carried: Carried, loads: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """What each month would cost flexibly at today's prices, shape (samples, months)."""
    if price is not None:
        assert price.usd_per_hour is not None
        return nodes * HOURS_PER_MONTH * price.usd_per_hour
    bill = cost.api_bill(resolved.catalog.api_tiers[key], carried.tokens_per_s(1.0))
    return np.asarray(loads * bill["monthly_usd"])


def _told(factors: np.ndarray) -> dict[str, Any]:
    """Prices relative to today's, each year from now on and in the last month."""
    last = factors.shape[1] - 1
    return {"factors": {str(month): _spread(factors[:, month]) for month in [*range(12, last, 12), last]}}


def _spread(values: np.ndarray) -> dict[str, float]:
    return {name: float(np.percentile(values, share)) for name, share in PERCENTILES.items()}


def _strategies(world: World, offers: dict[str, Quote], per_hour_usd: float) -> dict[str, Any]:
    """Each strategy in the same samples; regret is what it costs more than the one that turns out cheapest."""
    costs = {FLEXIBLE: flexible_usd(world)} | {name: committed_usd(world, quote) for name, quote in offers.items()}
    cheapest = np.min(list(costs.values()), axis=0)
    rows = []
    for name, usd in costs.items():
        mean, half_width = t_interval(usd)
        regret = usd - cheapest
        rows.append({
            "name": name, "expected_usd": mean, "expected_usd_ci95": bounded(mean, half_width),
            **{f"{key}_usd": value for key, value in _spread(usd).items()}, "p95_usd_ci95": _ends_of_p95(usd),
            "regret_usd": float(regret.mean()), "regret_p95_usd": float(np.percentile(regret, 95)),
            "cheapest_share": float((regret <= 1e-9 * cheapest).mean()),
            "indifferent": indifferent(world, offers[name], per_hour_usd) if name in offers else None,
        })  # fmt: skip
    return {"strategies": sorted(rows, key=lambda row: row["expected_usd"])}


def _ends_of_p95(usd: np.ndarray) -> list[float] | None:
    """Its 95 % interval by order statistics, as samples are independent; None where they are too few to bound it."""
    _, low, high = quantile_interval(usd, 0.95)
    return None if np.isnan([low, high]).any() else [low, high]


def _least_regret(paths: list[dict[str, Any]]) -> dict[str, Any]:
    """The strategy whose expected regret is least under the path that is worst for it (Savage's criterion, 1951)."""
    worst: dict[str, float] = {}
    for path in paths:
        for row in path["strategies"]:
            worst[row["name"]] = max(row["regret_usd"], worst.get(row["name"], 0.0))
    name = min(worst, key=lambda one: worst[one])
    return {"name": name, "regret_usd": worst[name]}


def _warnings(resolved: Resolved, prices: list[str]) -> list[str]:
    """What is old of the catalog's prices among these; the scenario's own are as new as it is."""
    known, own = resolved.catalog.provenance, resolved.scenario.contract.offers
    dates = {
        key: known[kind, key].as_of
        for key in prices if key not in own
        for kind in ("prices", "api_tiers") if (kind, key) in known
    }  # fmt: skip
    return list(dict.fromkeys([*resolved.warnings, *stale_notes(dates, resolved.scenario.as_of)]))
