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
    model_error_rows,
    notes,
    share_text,
    what_rows,
)
from capsim.glossary import METRICS
from capsim.json_text import to_json

TOP_STEPS = 6
MONTHS_SHOWN = 6


def render_plan(document: dict[str, Any], format_: str) -> str:
    """A plan in one of the four formats; as a table its last lines are the ones a planner quotes."""
    if format_ == "json":
        return to_json(document)
    if document["interrupted"]:
        passing, failing = document["bracket"]
        return f"interrupted: at least {passing:,} sessions" + (f", fewer than {failing:,}\n" if failing else "\n")
    candidate = document["candidates"][0]
    if format_ == "csv":
        return csv_text({key: value for key, value in candidate.items() if key not in ("basis", "curve", "scenario")})
    blocks = [
        estimate_rows(document["estimates"], document["candidates"]), excluded_rows(document["excluded"]),
        [*what_rows(candidate), *model_error_rows(candidate["model_error"])], _plan_head(candidate),
        latency_rows(candidate), relaxed_rows(candidate), change_rows(document["would_change"]),
        fleet_size_rows(candidate["fleet"]), growth_rows(candidate["growth"]), _load_rows(candidate["loads"]),
        cost_rows(candidate["cost"]), basis_rows(candidate["basis"]),
    ]  # fmt: skip
    return document_text(blocks, notes(candidate["warnings"]) + _quotable(document, candidate), format_)


def estimate_rows(estimates: list[dict[str, Any]], candidates: list[dict[str, Any]]) -> Rows:
    """All that could be chosen, where there is a choice: simulated near the cheapest, estimated otherwise."""
    if len(estimates) < 2:
        return []
    found = {_key(one): one for one in candidates}
    rows = [["Candidates", "KV", "layout", "batch cap", "sessions a node", "nodes", "a month", "limited by", "basis"]]
    key_rows = sorted(estimates, key=lambda row: list(found).index(_key(row)) if _key(row) in found else len(found))
    for row in key_rows:
        one = found.get(_key(row))
        sessions = f"{row['sessions']:,}" if one is None else "{:,} to {:,}".format(*one["sessions"]["attached"])
        nodes, limited = (row["nodes"], row["limited_by"]) if one is None else (one["nodes"], one["binds"])
        monthly = monthly_text(row["monthly_usd"] if one is None else one["monthly_usd"])
        rows.append([
            row["node"], row["kv_format"], row["parallelism"], f"{row['max_num_seqs']:,}", sessions,
            "" if nodes is None else f"{nodes:,}", monthly, limited, "estimated" if one is None else "simulated",
        ])  # fmt: skip
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str, str, int]:
    return row["node"], row["kv_format"], row["parallelism"], row["max_num_seqs"]


def excluded_rows(excluded: list[dict[str, Any]]) -> Rows:
    """What cannot serve, why, and the first thing that would help."""
    rows = [["Excluded", "KV", "layout", "why", "what would help"]]
    for row in excluded:
        remedy = row["remedies"][0] if row["remedies"] else ""
        rows.append([row["node"], row["kv_format"], row["parallelism"] or "", row["reason"], remedy])
    return rows if excluded else []


def change_rows(steps: list[dict[str, Any]]) -> Rows:
    """The largest of the steps that change anything."""
    rows = [["One step on (estimated)", "from", "to", "sessions a node", "nodes", "a month", "carries"]]
    for step in [step for step in steps if step["change"]][:TOP_STEPS]:
        nodes = "" if step["nodes"] is None else f"{step['nodes']:,}"
        values = [f"{step[end]:.4g}" if isinstance(step[end], float) else str(step[end]) for end in ("from", "to")]
        monthly = monthly_text(step["monthly_usd"]) if step["sessions"] else ""
        rows.append([step["knob"], *values, f"{step['sessions']:,}", nodes, monthly, f"{step['change']:+.1%}"])
    return rows if len(rows) > 1 else []


def growth_rows(growing: dict[str, Any] | None) -> Rows:
    """The months in which another node is needed."""
    if growing is None:
        return []
    rows = [[f"Growing {growing['per_month']:.1%} a month (estimated)", "users", "nodes"]]
    for row in growing["months"][:MONTHS_SHOWN]:
        month = "now" if row["month"] == 0 else f"in month {row['month']}"
        rows.append([month, f"{row['users']:,}", f"{row['nodes']:,}"])
    return rows


def monthly_text(usd: float | None) -> str:
    return "price unknown" if usd is None else units.usd(usd)


def _plan_head(candidate: dict[str, Any]) -> Rows:
    rows = [["Sessions per node", "carried", "no longer carried"]]
    for name in ("attached", "cached", "in_flight"):
        rows.append([METRICS[name].label, *(count_text(value, ",.0f") for value in candidate["sessions"][name])])
    shares = zip(candidate["goodput"], candidate["goodput_ci95"], strict=True)
    rows.append(["goodput", *(share_text(share, interval) for share, interval in shares)])
    rows.append(["estimated at once", f"{candidate['estimate']['sessions']:,}"])
    return rows


def relaxed_rows(candidate: dict[str, Any]) -> Rows:
    carried = candidate["sessions"]["attached"][0]
    rows = [["With 10 % more", "sessions, at least", "gain"]]
    for resource, sessions in candidate["sessions_when_relaxed"].items():
        rows.append([resource, f"{sessions:,}", f"{sessions / carried - 1:+.1%}"])
    return rows


def fleet_size_rows(fleet: dict[str, Any] | None) -> Rows:
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
        monthly = monthly_text(fleet["monthly_usd"])
        times = [units.seconds(fleet["latency"][latency]["p95"]) for latency in ("ttft_s", "tpot_s")]
        goodput = share_text(fleet["goodput"], fleet["goodput_ci95"])
        rows.append([name, f"{fleet['requests_per_s']:.3g}", f"{fleet['nodes']:,}", monthly, goodput, *times])
    return rows if loads else []


def _quotable(document: dict[str, Any], candidate: dict[str, Any]) -> list[str]:
    return [
        f"{headline(candidate)}; {candidate['binds']} binds",
        f"{many(candidate['nodes'], 'node')}{_asked(document, candidate)}",
        monthly_text(candidate["monthly_usd"]) + ("" if candidate["monthly_usd"] is None else " a month"),
    ]


def _asked(document: dict[str, Any], candidate: dict[str, Any]) -> str:
    """What the nodes are for, and when they will be too few."""
    if candidate["loads"]:
        most = max(reversed(candidate["loads"]), key=lambda name: candidate["loads"][name]["nodes"])
        return f" for the load {most}" if most == "as it comes" else f" for the {most}"
    if not document["users"]:
        return ""
    sites = document["scenario"]["scenario"]["plan"].get("sites", 1)
    where, of = (f" at {sites:,} sites", "one at each of which") if sites > 1 else ("", "one of which")
    next_month = candidate["growth"] and candidate["growth"]["next_node_month"]
    more = f"; more are needed in month {next_month}" if next_month else ""
    return f" for {document['users']:,} users{where}, {of} may be down{more}"
