"""One point: what tells it from every other, and its figures."""

import hashlib
import json
import time
from math import inf
from pathlib import Path
from typing import Any

from capsim import __version__
from capsim.capacity.plan import plan
from capsim.errors import Infeasible, ScenarioError
from capsim.experiment import Interrupted, run_whole
from capsim.glossary import LATENCIES
from capsim.model_error import bracketed
from capsim.scenario import resolve
from capsim.scenario.lock import locked
from capsim.sweep.spec import Point, assignments

Row = dict[str, Any]
PERCENTILES = ("mean", "p50", "p95", "p99")


def hash_of(task: str, scenario: Path, point: Point) -> str:
    """Hash of all that its figures follow from; of its text, where that cannot be resolved."""
    try:
        lock = locked(resolve(scenario, assignments(point)))
    except (ScenarioError, Infeasible) as error:
        lock = {"capsim": __version__, "point": point, "error": str(error)}
    return hashlib.sha256(json.dumps([task, point, lock], sort_keys=True, default=str).encode()).hexdigest()[:16]


def timed_point(task: str, scenario: Path, point: Point) -> tuple[Row, float]:
    """``run_point``, and the seconds it took."""
    began_s = time.perf_counter()
    return run_point(task, scenario, point), time.perf_counter() - began_s


def run_point(task: str, scenario: Path, point: Point) -> Row:
    """Simulate one point. A point that cannot be simulated is a row with the reason, not an error.

    Raises
    ------
    Interrupted
        Ctrl-C in this process: a part of a point is no result.
    """
    try:
        resolved = resolve(scenario, assignments(point))
        if task == "plan":
            document = plan(resolved, lambda *_: None)[0]
            if document["interrupted"]:
                raise Interrupted
            return {"status": "done", "reason": "", **of_plan(document)}
        summary = bracketed(run_whole(resolved)).summary
        if summary["model_error"] is None:
            raise Interrupted
    except (ScenarioError, Infeasible) as error:
        return {"status": "failed", "reason": str(error)}
    return {"status": "done", "reason": _reason(summary), **of_run(summary)}


def _reason(summary: dict[str, Any]) -> str:
    """Why a run that is done has no percentiles."""
    growth_per_s = summary["backlog_growth_per_s"]
    return f"no steady state: the backlog grows by {growth_per_s:.3g} requests/s" if summary["saturated"] else ""


def of_run(summary: dict[str, Any]) -> Row:
    """A run's summary as one flat row."""
    sessions, cost = summary["sessions"] or {}, summary["cost"]
    levels = {name: (sessions.get(name) or {}).get("mean") for name in ("attached", "cached", "in_flight")}
    return {
        "run_id": summary["run"]["id"],
        "saturated": summary["saturated"],
        "slo_passed": None if summary["slo"] is None else summary["slo"]["passed"],
        "goodput": summary["goodput"],
        **_ends("goodput", summary["goodput_ci95"]),
        **_latencies(summary),
        **summary["throughput"],
        **_with_model_error(summary["model_error"]),
        **{f"{name}_sessions": level for name, level in levels.items()},
        "kv_hit_rate": summary["kv"]["hit_rate"],
        "kv_mean_utilisation": summary["kv"]["mean_utilisation"],
        "preemptions": summary["preemptions"],
        "utilisation": summary["utilisation"],
        "monthly_usd": cost["monthly_usd"],
        "usd_per_million_output_tokens": cost["usd_per_million_output_tokens"],
        "step_time_basis": summary["basis"]["step_time"]["basis"],
        "warnings": "\n".join(summary["warnings"]),
    }


def of_plan(document: dict[str, Any]) -> Row:
    """A plan's best candidate as one flat row. What it chose is named apart from what may be swept."""
    best = document["candidates"][0]
    attached, cached, in_flight = (best["sessions"][name] for name in ("attached", "cached", "in_flight"))
    return {
        **{f"chosen_{name}": best[name] for name in ("node", "parallelism", "kv_format", "max_num_seqs")},
        "sessions_passing": attached[0],
        "sessions_failing": attached[1],
        "cached_sessions": cached[0],
        "in_flight_sessions": in_flight[0],
        "sessions_estimated": best["estimate"]["sessions"],
        "nodes_needed": best["nodes"],
        "binds": best["binds"],
        "goodput": best["goodput"][0],
        **_ends("goodput", best["goodput_ci95"][0]),
        **_latencies(best["latency"]),
        **best["throughput"],
        **_with_model_error(best["model_error"]),
        **_ends("sessions_model_error", best["model_error"]["sessions"]),
        "utilisation": best["utilisation"],
        "monthly_usd": best["monthly_usd"],
        "usd_per_million_output_tokens": best["cost"]["usd_per_million_output_tokens"],
        "step_time_basis": best["basis"]["step_time"]["basis"],
        "warnings": "\n".join(best["warnings"]),
    }


def _latencies(seen: dict[str, Any]) -> Row:
    """Mean, percentiles, and the interval of p95."""
    row: Row = {}
    for name in LATENCIES:
        row |= {f"{name}_{key}": seen[name][key] for key in PERCENTILES}
        row |= _ends(f"{name}_p95", seen[name]["p95_ci95"])
    return row


def _with_model_error(error: dict[str, Any]) -> Row:
    """What model error does to p95 of the latencies, to throughput and to goodput."""
    row: Row = {}
    for name in LATENCIES:
        row |= _ends(f"{name}_p95_model_error", error[name]["p95"])
    for name, bracket in error["throughput"].items():
        row |= _ends(f"{name}_model_error", bracket)
    return row | _ends("goodput_model_error", error["goodput"])


def _ends(name: str, interval: list[float] | None) -> Row:
    """Both ends, or neither; a high end of None, which has no bound, is infinite."""
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": inf if high is None and low is not None else high}
