"""The verb ``contract``, and its document as text."""

from typing import Any

from capsim.cli.breakeven import Estimate, Spares
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


def contract(
    scenario: ScenarioFile,
    set_: Set = None,
    seed: Seed = None,
    replications: Replications = None,
    calibration: Calibration = None,
    estimate: Estimate = False,
    spare_nodes: Spares = 1,
    format_: OutputFormat = Format.table,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Commit for a term or stay flexible, while prices and the load move: cost, regret, and the terms that are even."""
    from capsim.contract import contract as sign

    resolved = resolved_of(scenario, set_, seed, replications, None, calibration)
    with progress("searching", quiet or no_progress) as tell:
        document = sign(
            resolved, estimate=estimate, spare_nodes=spare_nodes,
            on_trial=trials(tell),
        )  # fmt: skip
    print(render(document, format_), end="")


def render(document: dict[str, Any], format_: str) -> str:
    """The document of ``capsim.contract`` in one of the four formats."""
    from capsim.cli import tables

    if format_ == "json":
        return tables.to_json(document)
    if format_ == "csv":
        return tables.csv_text({key: value for key, value in document.items() if key != "scenario"})
    breaks = {name: quote["break_after_months"] is not None for name, quote in document["offers"].items()}
    blocks = [
        [*tables.what_rows(document), *_head(document)],
        _offer_rows(document),
        *(rows for path in document["paths"] for rows in (_cost_rows(path), _even_rows(path, breaks))),
    ]
    return tables.document_text(blocks, [*tables.notes(document["warnings"]), _quotable(document)], format_)


def _head(document: dict[str, Any]) -> list[list[str]]:
    from capsim import units
    from capsim.cli import tables

    load, flexible, node = document["load"], document["flexible"], document["node"]
    end = load["nodes_at_the_end"]
    grown = f"{end['p50']:,.0f} ({end['p5']:,.0f} to {end['p95']:,.0f}) in the last month"
    at_once = f"{units.usd(flexible['monthly_usd'])} a month today, ${flexible['usd_per_node_hour']:,.2f} a node-hour"
    return [
        ["The load", f"{units.count(load['requests_per_s'])} requests/s on average"],
        ["A node carries", f"{units.count(node['requests_per_s'])} requests/s inside the SLO, {node['how']}"],
        tables.model_error_row(node["model_error"]),
        ["Nodes", f"{load['nodes']:,} at first, {load['spare_nodes']:,} of them spare; {grown}"],
        ["Flexible", f"{flexible['name']}: {at_once}"],
        ["Horizon", f"{document['horizon_months']} months, {document['samples']:,} samples, seed {document['seed']}"],
    ]


def _offer_rows(document: dict[str, Any]) -> list[list[str]]:
    rows = [["Quotes", "a node-hour", "below flexible", "term", "prepaid", "break after", "for, of the rest"]]
    for name, quote in document["offers"].items():
        after = quote["break_after_months"]
        breaks = ["never", ""] if after is None else [f"{after} months", f"{quote['break_fee_fraction']:.0%}"]
        term = f"{quote['term_months']} months"
        each = [f"${quote['usd_per_hour']:,.2f}", _below(quote["discount"])]
        rows.append([name, *each, term, f"{quote['prepayment_fraction']:.0%}", *breaks])
    return rows


def _below(discount: float) -> str:
    return f"{discount:.1%}" if discount >= 0 else f"{-discount:.1%} above"


def _cost_rows(path: dict[str, Any]) -> list[list[str]]:
    """Costs at present value under one price path."""
    from capsim import units

    rows = [[f"If prices: {path['name']}", "expected", "95 % interval", "p5", "p50", "p95", "95 % interval of p95",
             "regret", "regret p95", "cheapest in"]]  # fmt: skip
    for row in path["strategies"]:
        interval, of_p95 = (" to ".join(map(units.usd, row[f"{key}_usd_ci95"] or [])) for key in ("expected", "p95"))
        expected, *spread = [units.usd(row[f"{key}_usd"]) for key in ("expected", "p5", "p50", "p95")]
        regret = [units.usd(row[key]) for key in ("regret_usd", "regret_p95_usd")]
        rows.append([row["name"], expected, interval, *spread, of_p95, *regret, f"{row['cheapest_share']:.1%}"])
    return rows


def _even_rows(path: dict[str, Any], breaks: dict[str, bool]) -> list[list[str]]:
    """The terms that would make signing as dear as staying flexible, each alone; ``breaks`` says which have a break
    clause, of which any fee may be worth it, or none."""
    rows = [["Even with flexible at", "a node-hour", "below flexible", "a break fee of", "or a term up to"]]
    flexible_usd = next(row["expected_usd"] for row in path["strategies"] if row["indifferent"] is None)
    for row in path["strategies"]:
        terms = row["indifferent"]
        if terms is None:
            continue
        rate = ["none", ""]
        if terms["usd_per_hour"] is not None:
            rate = [f"${terms['usd_per_hour']:,.2f}", _below(terms["discount"])]
        fee = "" if terms["break_fee_fraction"] is None else f"{terms['break_fee_fraction']:.1%}"
        if not fee and breaks[row["name"]]:
            fee = "any" if row["expected_usd"] < flexible_usd else "none"
        months = "none" if terms["term_months"] is None else f"{terms['term_months']} months"
        rows.append([row["name"], *rate, fee, months])
    return rows


def _quotable(document: dict[str, Any]) -> str:
    from capsim import units

    least = document["least_regret"]
    worst = f"at most {units.usd(least['regret_usd'])} expected under any of these paths"
    return f"least regret: {least['name']}, {worst}"
