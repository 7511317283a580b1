"""The bracket of a run: its first replication again, with step times at both ends of their error.

Simulated and not taken from a closed form, since near saturation a queue makes much of little: with a tenth more step
time a wait can double, or have no end.
"""

from dataclasses import replace
from math import isfinite
from typing import Any, NamedTuple

from capsim.experiment import Replication, Run, replicate, saturated
from capsim.glossary import LATENCIES
from capsim.model_error.factors import ModelError, model_error
from capsim.scenario import Resolved

MOST_REQUESTS = 50_000
"""A longer run is told by its first requests, which then are simulated once more as they are."""
FLOWS = ("requests_per_s", "output_tokens_per_s")
FIGURES = ("mean", "p95")
Bracket = list[float | None]
"""[low, high]; a high end of None has no bound, as the load has no steady state there."""


class _Three(NamedTuple):
    """The first replication, or the beginning of it, as it is and with step times at both ends."""

    as_is: Replication
    fast: Replication
    slow: Replication


def bracketed(done: Run) -> Run:
    """The run with ``model_error`` in its summary; None there of a run that was interrupted.

    Two more replications are simulated, of at most ``MOST_REQUESTS`` requests.
    """
    found = None if done.summary["run"]["interrupted"] else _model_error(done)
    notes = [] if found is None else _notes(found, done.summary)
    summary = done.summary | {"model_error": found, "warnings": [*done.summary["warnings"], *notes]}
    return replace(done, summary=summary)


def _model_error(done: Run) -> dict[str, Any] | None:
    error, first = model_error(done.resolved), done.replications[0]
    resolved, is_long = done.resolved, first.totals["offered"] > MOST_REQUESTS
    try:
        if is_long:
            resolved = _cut(resolved)
            first = replicate(resolved, 0)
        fast, slow = (replicate(resolved.changed(step_factor=factor), 0) for factor in error.step_time)
    except KeyboardInterrupt:  # between two simulations
        return None
    if any(one.records.interrupted for one in (first, fast, slow)):
        return None
    three = _Three(first, fast, slow)
    told: dict[str, Any] = {
        "basis": error.basis, "source": error.source, "figures": error.figures, "step_time": list(error.step_time),
        "requests": first.totals["offered"], "saturated": [saturated([end])[0] for end in (fast, slow)],
    }  # fmt: skip
    for name in LATENCIES:
        told[name] = {figure: _latency(done, name, figure, three, error) for figure in FIGURES}
    told["throughput"] = {name: _flow(done, name, three) for name in FLOWS}
    told["goodput"] = _goodput(done, three)
    return told


def _cut(resolved: Resolved) -> Resolved:
    """The first requests of a long run."""
    warmup = resolved.workload.warmup_requests
    pinned = {} if warmup is None else {"warmup_requests": min(warmup, MOST_REQUESTS // 2)}
    workload = resolved.workload.changed(requests=MOST_REQUESTS, duration_s=None, **pinned)
    return resolved.changed(workload=workload)


def _latency(done: Run, name: str, figure: str, three: _Three, error: ModelError) -> Bracket | None:
    """By the ratio of each end to the run as it is; further where the latency itself was judged by more."""
    value = done.summary[name][figure]
    as_is, fast, slow = (one.latencies[name][figure] for one in three)
    if value is None or not as_is > 0:
        return None
    own_low, own_high = error.metrics.get(name, (1.0, 1.0))
    low, high = value * fast / as_is, value * slow / as_is
    endless = not isfinite(high) or saturated([three.slow])[0]
    return [min(value, low, value * own_low), None if endless else max(value, high, value * own_high)]


def _flow(done: Run, name: str, three: _Three) -> Bracket:
    value = done.summary["throughput"][name]
    found = [value, *(value * end.throughput[name] / three.as_is.throughput[name] for end in three[1:])]
    return [min(found), max(found)]


def _goodput(done: Run, three: _Three) -> Bracket | None:
    """Goodput moved by as much as that of the run as it is moves."""
    value = done.summary["goodput"]
    if value is None:
        return None
    found = [value, *(min(1.0, max(0.0, value + end.good_share - three.as_is.good_share)) for end in three[1:])]
    return [min(found), max(found)]


def _notes(found: dict[str, Any], summary: dict[str, Any]) -> list[str]:
    """Where the error could turn the verdict."""
    factor = found["step_time"][1]
    notes = []
    if found["requests"] < summary["requests"]["offered"] / summary["run"]["replications"]:
        notes.append(f"model error is told by the first {found['requests']:,} requests")
    if found["saturated"][1] and summary["saturated"] is False:
        notes.append(f"with step times x{factor:.2f}, which model error allows, the load has no steady state")
    if summary["slo"] is not None and found["goodput"][0] < summary["slo"]["attained"] <= found["goodput"][1]:
        notes.append("whether the SLO is met is not separable: with model error goodput lies on both sides of it")
    return notes
