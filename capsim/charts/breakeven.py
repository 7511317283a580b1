"""Monthly cost against load: steps of whole nodes, and the straight lines of price lists."""

from typing import Any

import altair as alt

from capsim.charts.theme import NEUTRAL, colours, styled

MOST_TIERS = 4
LOAD = "requests a second, on average"


def monthly_cost(document: dict[str, Any], tiers: list[str] | None = None) -> Any:
    """The chart of a document of ``capsim.breakeven``, with these price lists (keys) or a few that span the others.

    Both axes are logarithmic: lines of price lists are parallel. The dashed rule is the scenario's load.
    """
    names = {tier["key"]: tier["name"] for tier in document["tiers"]}
    chosen = _some(document) if tiers is None else tiers
    curve = document["curve"]
    hosted = {name: curve["self_host"][name] for name in _some_offers(document)}
    lines = {**hosted, **{names[key]: curve["tiers"][key] for key in chosen}}
    rows = [
        {"load": per_s, "usd": usd, "name": name, "kind": "nodes" if name in hosted else "API"}
        for name, costs in lines.items()
        for per_s, usd in zip(curve["requests_per_s"], costs, strict=True)
    ]
    scale = alt.Scale(type="log", nice=False)
    shown = [min(map(min, hosted.values())) / 5, max(map(max, hosted.values())) * 5]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("load:Q", title=LOAD, scale=scale, axis=alt.Axis(format="~g")),
        y=alt.Y("usd:Q", title="USD a month, for all of the load", scale=alt.Scale(type="log", domain=shown),
                axis=alt.Axis(format="$~s")),
        color=alt.Color("name:N", scale=colours(list(lines)), legend=alt.Legend(columns=3, labelLimit=260)),
        tooltip=[alt.Tooltip("name:N", title="price"), alt.Tooltip("load:Q", title=LOAD, format=".3g"),
                 alt.Tooltip("usd:Q", title="USD a month", format="$,.0f")],
    )  # fmt: skip
    nodes = base.transform_filter("datum.kind == 'nodes'").mark_line(
        interpolate="step-before", strokeWidth=2, clip=True
    )
    priced = base.transform_filter("datum.kind == 'API'").mark_line(strokeDash=[6, 3], strokeWidth=2, clip=True)
    load = alt.Data(values=[{"load": document["load"]["requests_per_s"]}])
    rule = alt.Chart(load).mark_rule(color=NEUTRAL, strokeDash=[2, 2]).encode(x=alt.X("load:Q", scale=scale))
    return styled(nodes + priced + rule, "Monthly cost against load", height=360)


def _some_offers(document: dict[str, Any]) -> list[str]:
    """The scenario's price, by the hour too, and the cheapest others to rent and to own."""
    asked, *others = document["curve"]["self_host"]
    cheapest = {row["kind"]: row["name"] for row in reversed(document["self_host"]) if row["name"] != asked}
    hourly = [name for name in others if name.startswith(f"{asked},")]
    return list(dict.fromkeys([asked, *hourly, *cheapest.values()]))


def _some(document: dict[str, Any]) -> list[str]:
    """The scenario's tier and those of its model, the cheapest and the dearest; else a few from cheap to dear."""
    asked = document["scenario"]["scenario"].get("api_tier")
    known = [tier for tier in document["tiers"] if tier["bill"]["monthly_usd"] is not None]
    near = [tier["key"] for tier in known if tier["key"] == asked or tier["same_model"]]
    keys = near or [tier["key"] for tier in known]
    places = {round(index * (len(keys) - 1) / (MOST_TIERS - 1)) for index in range(MOST_TIERS)}
    chosen = [keys[place] for place in sorted(places)]
    return chosen if asked is None or asked in chosen else [asked, *chosen[1:]]
