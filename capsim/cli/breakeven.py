"""The verb ``breakeven``, and its document as text."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from capsim.cli.options import (
    Calibration,
    Format,
    NoProgress,
    OutputFormat,
    Quiet,
    Replications,
    ScenarioFile,
    Seed,
    Set,
    progress,
    resolved_of,
    trials,
)

Estimate = Annotated[bool, typer.Option("--estimate", help="What a node carries by the closed form, at once.")]
Spares = Annotated[int, typer.Option(min=0, help="Nodes beyond those that carry the load.")]
HitRate = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of input that the API's cache holds; by default as ours.")
]


def breakeven(
    scenario: ScenarioFile,
    set_: Set = None,
    seed: Seed = None,
    replications: Replications = None,
    calibration: Calibration = None,
    estimate: Estimate = False,
    spare_nodes: Spares = 1,
    hit_rate: HitRate = None,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Set nodes, rented or owned, beside the price lists of hosted models: monthly cost, and the load to break even."""
    from capsim.breakeven import breakeven as break_even

    resolved = resolved_of(scenario, set_, seed, replications, None, calibration)
    with progress("searching", quiet or no_progress) as tell:
        document = break_even(
            resolved, estimate=estimate, spare_nodes=spare_nodes, hit_rate=hit_rate,
            on_trial=trials(tell),
        )  # fmt: skip
    print(render(document, format_), end="")


def render(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.breakeven`` in one of the four formats."""
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return tables.csv_text({key: value for key, value in document.items() if key not in ("scenario", "curve")})
    return tables.document_text(blocks(document), lines(document), format_)


def blocks(document: dict[str, Any]) -> list[list[list[str]]]:
    """The document as tables: what is set beside what, nodes, the chosen way to pay, price lists."""
    from capsim.cli import tables

    own = next(iter(document["curve"]["self_host"]))
    return [
        [*tables.what_rows(document), *_head(document)], _self_host_rows(document),
        tables.cost_rows(_chosen(document)["cost"], own), _tier_rows(document, own),
    ]  # fmt: skip


def lines(document: dict[str, Any]) -> list[str]:
    """What a reader should know, and the lines that a planner quotes."""
    from capsim.cli import tables

    return [*tables.notes(document["warnings"]), *_quotable(document, _chosen(document))]


def _chosen(document: dict[str, Any]) -> dict[str, Any]:
    """The scenario's own way to pay."""
    own = next(iter(document["curve"]["self_host"]))
    found: dict[str, Any] = next(row for row in document["self_host"] if row["name"] == own)
    return found


def _head(document: dict[str, Any]) -> list[list[str]]:
    from capsim import units
    from capsim.cli import tables

    node, load, spares = document["node"], document["load"], document["spare_nodes"]
    tokens = {kind: f"{count:,.0f}" for kind, count in node["tokens_per_request"].items()}
    sessions = " to ".join(f"{count:,}" for count in node["sessions"] if count is not None)
    peak = "even" if load["peak_over_mean"] == 1 else f"{load['peak_over_mean']:.3g} times that in the busiest hour"
    inside = f"{units.count(node['requests_per_s'])} requests/s inside the SLO"
    return [
        ["A node carries", f"{inside} ({sessions} sessions), {node['how']}"],
        tables.model_error_row(node["model_error"]),
        ["A request", f"{tokens['input']} input tokens, {tokens['cached']} of them cached ({node['hit_rate']:.1%}), "
                      f"{tokens['output']} output tokens"],
        ["The load", f"{units.count(load['requests_per_s'])} requests/s on average, {peak}; "
                     f"{_tokens(load['tokens_per_month'])}"],
        ["Spare nodes", f"{spares}, nodes being up {node['availability']:.2%} of the time"],
        ["The API's cache", f"holds {document['api_hit_rate']:.1%} of the input"],
    ]  # fmt: skip


def _tokens(per_month: float) -> str:
    from capsim import units

    return f"{units.count(per_month)} tokens a month"


def _self_host_rows(document: dict[str, Any]) -> list[list[str]]:
    from capsim import units

    rows = [["Nodes of one's own", "basis", "as of", "nodes", "on average", "used", "served", "a month",
             "with model error", "$ a M output", "$ a M tokens"]]  # fmt: skip
    for row in document["self_host"]:
        cost = row["cost"]
        each = [f"{cost[f'usd_per_million_{kind}']:.3g}" for kind in ("output_tokens", "tokens")]
        used = f"{row['utilisation']:.1%}"
        if len(row["utilisation_by_hour"]) > 1:
            used += f" ({min(row['utilisation_by_hour']):.1%} to {max(row['utilisation_by_hour']):.1%})"
        counts = [f"{row['nodes']:,}", f"{row['mean_nodes']:,.3g}", used]
        served = f"{row['served_share']:.3%}"
        as_of = row["as_of"] or ""
        rows.append([row["name"], row["basis"], as_of, *counts, served, units.usd(cost["monthly_usd"]),
                     _ends(row["monthly_usd_model_error"], units.usd), *each])  # fmt: skip
    return rows


def _ends(bracket: list[float | None], text: Callable[[float], str]) -> str:
    """``low to high``, as far as they are bounded."""
    low, high = ("no bound" if end is None else text(end) for end in bracket)
    return low if low == high else f"{low} to {high}"


def _tier_rows(document: dict[str, Any], own: str) -> list[list[str]]:
    """Price lists, the cheapest first, and the load from which each way to pay for nodes is cheaper."""
    from capsim import units

    cheapest = document["self_host"][0]["name"]
    offers = list(dict.fromkeys([own, cheapest]))
    rows = [["By the token", "as of", "uncached", "cached", "output", "a month", "served",
             *(f"{offer} cheaper from" for offer in offers)]]  # fmt: skip
    for tier in document["tiers"]:
        lines = ["unknown" if line["monthly_usd"] is None else units.usd(line["monthly_usd"])
                 for line in tier["bill"]["lines"]]  # fmt: skip
        total = tier["bill"]["monthly_usd"]
        monthly = "price unknown" if total is None else units.usd(total)
        name = tier["name"] + (" (this model)" if tier["same_model"] else "")
        served = f"{tier['served_share']:.2%}" + (" assumed" if tier["served_share_assumed"] else "")
        even = [_from(tier["break_even"][offer]) for offer in offers]
        rows.append([name, tier["as_of"], *lines, monthly, served, *even])
    return rows


def _from(even: dict[str, Any] | None) -> str:
    """The load at which nodes are first cheaper, and that from which they are always."""
    if even is None:
        return ""
    if even["first"] is None:
        return "never"
    from capsim import units

    first, always = (value and value["requests_per_s"] for value in (even["first"], even["always"]))
    if always is None:
        return f"{units.count(first)} requests/s, at times"
    return f"{units.count(first)} requests/s" + (
        "" if always - first < 1e-3 * first else f", always {units.count(always)}"
    )


def _quotable(document: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """What it costs either way, and where they meet, of the price list that is nearest to the question."""
    from capsim import units

    asked = document["scenario"]["scenario"].get("api_tier")
    known = [tier for tier in document["tiers"] if tier["bill"]["monthly_usd"] is not None]
    near = [tier for tier in known if tier["key"] == asked] or [tier for tier in known if tier["same_model"]] or known
    lines = [f"{chosen['nodes']} nodes, {chosen['name']}: {units.usd(chosen['cost']['monthly_usd'])} a month"]
    if not near:
        return lines
    tier = near[0]
    even = tier["break_even"][chosen["name"]]["always"]
    ends = _ends(tier["break_even"][chosen["name"]]["always_model_error"], units.count)
    lines.append(f"{tier['name']}: {units.usd(tier['bill']['monthly_usd'])} a month")
    at = document["load"]["requests_per_s"]
    lines.append(
        "the nodes are never cheaper for good" if even is None else
        f"nodes are cheaper from {units.count(even['requests_per_s'])} requests/s on "
        f"({_tokens(even['tokens_per_month'])}; {ends} requests/s with model error); this load has {units.count(at)}"
    )  # fmt: skip
    return lines
