"""A sweep's points as text."""

import json
from typing import TYPE_CHECKING, Any

from capsim import units
from capsim.cli.tables import document_text, many
from capsim.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def render_sweep(table: "pd.DataFrame", sweep: Sweep, format_: str) -> str:
    """The table of all points: as JSON and CSV with all columns, for people with the main ones."""
    if format_ == "csv":
        return table.to_csv(index=False)
    points: list[Row] = json.loads(table.to_json(orient="records", double_precision=15))
    if format_ == "json":
        document = {
            "schema_version": SCHEMA_VERSION,
            "task": sweep.task,
            "scenario": str(sweep.scenario),
            "points": points,
        }
        return json.dumps(document, indent=2) + "\n"
    swept = [path for path in sweep.paths if table[path].nunique(dropna=False) > 1] or sweep.paths
    heads, figures = (PLAN_HEAD, _plan) if sweep.task == "plan" else (RUN_HEAD, _run)
    rows = [["", *(path.removeprefix("workload.") for path in swept), *heads]]
    for point in points:
        told = figures(point) if point["status"] in ("ok", "saturated") else []
        rows.append([str(point["point"]), *(_value(point[path]) for path in swept), *told])
    return document_text([rows], _notes(points), format_)


SCHEMA_VERSION = 1
RUN_HEAD = ["goodput", "TTFT p95", "TPOT p95", "output tokens/s", "a month", "$/M output"]
PLAN_HEAD = ["sessions per node", "nodes", "binds", "TTFT p95", "a month", "$/M output"]


def _run(point: Row) -> list[str]:
    goodput = "" if point["goodput"] is None else f"{point['goodput']:.1%}"
    if point["goodput_low"] is not None:
        goodput += f" ({point['goodput_low']:.1%} to {point['goodput_high']:.1%})"
    tokens = units.count(point["output_tokens_per_s"])
    return [goodput, _interval(point), _seconds(point["tpot_p95_s"]), tokens, *_costs(point)]


def _plan(point: Row) -> list[str]:
    sessions = f"{point['sessions']:,.0f} ({point['sessions_failing']:,.0f} miss)"
    return [sessions, f"{point['nodes']:,.0f}", point["binds"], _interval(point), *_costs(point)]


def _interval(point: Row) -> str:
    value, low, high = (point[name] for name in ("ttft_p95_s", "ttft_p95_low_s", "ttft_p95_high_s"))
    return _seconds(value) + ("" if low is None else f" ({_seconds(max(0.0, low))} to {_seconds(high)})")


def _costs(point: Row) -> list[str]:
    monthly, million = point["monthly_usd"], point["usd_per_million_output_tokens"]
    return ["price unknown" if monthly is None else units.usd(monthly), "" if million is None else f"${million:,.3g}"]


def _seconds(value: float | None) -> str:
    return "withheld" if value is None else units.seconds(value)


def _value(value: Any) -> str:
    return "" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)


def _notes(points: list[Row]) -> list[str]:
    """Why a point has no answer, each reason once, and how many points there are."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for point in points:
        if point["reason"]:
            reasons.setdefault((point["status"], point["reason"]), []).append(str(point["point"]))
    lines = [f"{status} ({', '.join(which)}): {reason}" for (status, reason), which in reasons.items()]
    return [*lines, f"{many(len(points), 'point')}; intervals are 95 %, over replications with the same random numbers"]
