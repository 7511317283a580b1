"""A plan as text: its last lines are the ones a planner quotes."""

from typing import Any

from capsim import units
from capsim.capacity.model_error import headline
from capsim.cli.tables import (
    Rows,
    basis_rows,
    cost_rows,
    count_text,
    csv_text,
    document_text,
    latency_rows,
    many,
    model_error_row,
    notes,
    share_text,
    what_rows,
)
from capsim.glossary import METRICS
from capsim.store import to_json


def render_plan(document: dict[str, Any], format_: str) -> str:
    """A plan in one of the four formats; as a table its last lines are the ones a planner quotes."""
    if format_ == "json":
        return to_json(document)
    if document["interrupted"]:
        passing, failing = document["bracket"]
        return f"interrupted: at least {passing:,} sessions" + (f", fewer than {failing:,}\n" if failing else "\n")
    candidate = document["candidates"][0]
    if format_ == "csv":
        return csv_text({key: value for key, value in candidate.items() if key != "basis"})
    blocks = [
        [*what_rows(document), model_error_row(candidate["model_error"])], _plan_head(candidate),
        latency_rows(candidate), _relaxed_rows(candidate),
        _fleet_size_rows(candidate["fleet"]), _load_rows(candidate["loads"]),
        cost_rows(candidate["cost"]), basis_rows(candidate["basis"]),
    ]  # fmt: skip
    return document_text(blocks, notes(candidate["warnings"]) + _quotable(document, candidate), format_)


def _plan_head(candidate: dict[str, Any]) -> Rows:
    rows = [["Sessions per node", "carried", "no longer carried"]]
    for name in ("attached", "cached", "in_flight"):
        rows.append([METRICS[name].label, *(count_text(value, ",.0f") for value in candidate["sessions"][name])])
    shares = zip(candidate["goodput"], candidate["goodput_ci95"], strict=True)
    rows.append(["goodput", *(share_text(share, interval) for share, interval in shares)])
    rows.append(["estimated at once", f"{candidate['estimate']['sessions']:,}"])
    return rows


def _relaxed_rows(candidate: dict[str, Any]) -> Rows:
    carried = candidate["sessions"]["attached"][0]
    rows = [["With 10 % more", "sessions, at least", "gain"]]
    for resource, sessions in candidate["sessions_when_relaxed"].items():
        rows.append([resource, f"{sessions:,}", f"{sessions / carried - 1:+.1%}"])
    return rows


def _fleet_size_rows(fleet: dict[str, Any] | None) -> Rows:
    """The fleet for the users asked for, as a whole and with a node down."""
    if fleet is None:
        return []
    rows = [["All users on", "nodes", "goodput", "TTFT p95", "TPOT p95"]]
    for label, name in (("the whole fleet", "whole"), ("one node down", "one_down")):
        seen = fleet[name]
        times = [units.seconds(seen["latency"][latency]["p95"]) for latency in ("ttft_s", "tpot_s")]
        rows.append([label, f"{seen['nodes']:,}", share_text(seen["goodput"], seen["goodput_ci95"]), *times])
    return rows


def _load_rows(loads: dict[str, Any]) -> Rows:
    """The smallest fleet for each level of load."""
    rows = [["Nodes for the load", "requests/s", "nodes", "a month", "goodput", "TTFT p95", "TPOT p95"]]
    for name, fleet in loads.items():
        monthly = "price unknown" if fleet["monthly_usd"] is None else units.usd(fleet["monthly_usd"])
        times = [units.seconds(fleet["latency"][latency]["p95"]) for latency in ("ttft_s", "tpot_s")]
        goodput = share_text(fleet["goodput"], fleet["goodput_ci95"])
        rows.append([name, f"{fleet['requests_per_s']:.3g}", f"{fleet['nodes']:,}", monthly, goodput, *times])
    return rows if loads else []


def _quotable(document: dict[str, Any], candidate: dict[str, Any]) -> list[str]:
    asked = f" for {document['users']:,} users" if document["users"] else ""
    if candidate["loads"]:
        most = max(reversed(candidate["loads"]), key=lambda name: candidate["loads"][name]["nodes"])
        asked = f" for the load {most}" if most == "as it comes" else f" for the {most}"
    monthly = candidate["monthly_usd"]
    return [
        f"{headline(candidate)}; {candidate['binds']} binds",
        f"{many(candidate['nodes'], 'node')}{asked}" + (", one of which may be down" if candidate["fleet"] else ""),
        "price unknown" if monthly is None else f"{units.usd(monthly)} a month",
    ]
