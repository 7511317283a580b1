"""The bracket of a run: its first replication again, with step times at both ends of their error.

Simulated and not taken from a closed form, since near saturation a queue makes much of little: with a tenth more step
time a wait can double, or have no end.
"""

from dataclasses import replace
from math import isfinite
from typing import Any

from capsim.experiment import Replication, Run, replicate, saturated
from capsim.glossary import LATENCIES
from capsim.model_error.factors import ModelError, model_error

FLOWS = ("requests_per_s", "output_tokens_per_s")
FIGURES = ("mean", "p95")
Bracket = list[float | None]
"""[low, high]; a high end of None has no bound, as the load has no steady state there."""


def bracketed(done: Run) -> Run:
    """The run with ``model_error`` in its summary; None there of a run that was interrupted.

    Two more replications are simulated.
    """
    found = None if done.summary["run"]["interrupted"] else _model_error(done)
    notes = [] if found is None else _notes(found, done.summary)
    summary = done.summary | {"model_error": found, "warnings": [*done.summary["warnings"], *notes]}
    return replace(done, summary=summary)


def _model_error(done: Run) -> dict[str, Any] | None:
    error = model_error(done.resolved)
    try:
        fast, slow = (replicate(replace(done.resolved, step_factor=factor), 0) for factor in error.step_time)
    except KeyboardInterrupt:  # between two simulations
        return None
    if fast.records.interrupted or slow.records.interrupted:
        return None
    told: dict[str, Any] = {
        "basis": error.basis, "source": error.source, "figures": error.figures, "step_time": list(error.step_time),
        "saturated": _steadiness(fast, slow),
    }  # fmt: skip
    for name in LATENCIES:
        told[name] = {figure: _latency(done, name, figure, (fast, slow), error) for figure in FIGURES}
    told["throughput"] = {name: _flow(done, name, (fast, slow)) for name in FLOWS}
    told["goodput"] = _goodput(done, (fast, slow))
    return told


def _steadiness(*ends: Replication) -> list[bool]:
    """Whether each end has no steady state."""
    return [saturated([end])[0] for end in ends]


def _latency(
    done: Run, name: str, figure: str, ends: tuple[Replication, Replication], error: ModelError
) -> Bracket | None:
    """By the ratio of each end to the first replication; further where the latency itself was judged by more."""
    value, as_is = done.summary[name][figure], done.replications[0].latencies[name][figure]
    if value is None or not as_is > 0:
        return None
    own_low, own_high = error.metrics.get(name, (1.0, 1.0))
    low, high = (value * end.latencies[name][figure] / as_is for end in ends)
    endless = not isfinite(high) or _steadiness(ends[1])[0]
    return [min(value, low, value * own_low), None if endless else max(value, high, value * own_high)]


def _flow(done: Run, name: str, ends: tuple[Replication, Replication]) -> Bracket:
    value, as_is = done.summary["throughput"][name], done.replications[0].throughput[name]
    found = [value, *(value * end.throughput[name] / as_is for end in ends)]
    return [min(found), max(found)]


def _goodput(done: Run, ends: tuple[Replication, Replication]) -> Bracket | None:
    """Goodput moved by as much as that of the first replication moves."""
    value = done.summary["goodput"]
    if value is None:
        return None
    as_is = done.replications[0].good_share
    found = [value, *(min(1.0, max(0.0, value + end.good_share - as_is)) for end in ends)]
    return [min(found), max(found)]


def _notes(found: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """Where the error could turn the verdict."""
    factor = found["step_time"][1]
    notes = []
    if found["saturated"][1] and summary["saturated"] is False:
        notes.append(f"with step times x{factor:.2f}, which model error allows, the load has no steady state")
    if summary["slo"] is not None and found["goodput"][0] < summary["slo"]["attained"] <= found["goodput"][1]:
        notes.append("whether the SLO is met is not separable: with model error goodput lies on both sides of it")
    return notes
