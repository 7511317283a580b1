"""Pure functions from one replication's records to sessions: how many at once, and how their turns fare.

Attached = open, pausing or not. Cached = attached, and its whole context is in a KV pool. In flight = in a batch.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from capsim.metrics.requests import good_share, latency
from capsim.sim.columns import Requests

COLUMNS = ("since_s", "attached", "cached")
TURN_LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
Level = dict[str, float]
"""``mean`` over time and ``peak``."""
Sessions = dict[str, dict[str, float] | None]
"""Levels by name, and the ``cycle`` of asking, waiting and pausing; None where it is not known."""
CYCLE_TOLERANCE = 0.05


def counted(parts: Iterable[pd.DataFrame], start_s: float, end_s: float) -> dict[str, Level]:
    """Attached and cached sessions in a window, from the rows of the census in parts: each stands until the next."""
    names = ("attached", "cached")
    total, peak, last = np.zeros(len(names)), np.zeros(len(names)), pd.DataFrame()
    for part in chain(parts, [pd.DataFrame({"since_s": [np.inf]})]):
        rows = pd.concat([last, part])
        since_s = rows["since_s"].to_numpy(float)
        last = rows.tail(1)
        inside = (since_s[:-1] <= end_s) & (since_s[1:] > start_s)
        if inside.any():
            counts = rows[list(names)].to_numpy(float)[:-1][inside]
            # no dot product: what that adds up to hangs on how many threads BLAS takes
            total += (np.diff(since_s.clip(start_s, end_s))[inside][:, None] * counts).sum(axis=0)
            peak = np.maximum(peak, counts.max(axis=0))
    mean = total / (end_s - start_s) if end_s > start_s else peak
    return {name: {"mean": float(mean[row]), "peak": float(peak[row])} for row, name in enumerate(names)}


def attached(requests: Requests, start_s: float, end_s: float) -> Level:
    """Sessions of a trace in a window, each attached from its first request's arrival to its last one's end."""
    finished_s = requests["finished_s"].fillna(requests["arrival_s"]).to_numpy()
    spans = requests[["session", "arrival_s"]].assign(end_s=finished_s).groupby("session", sort=False)
    begins, ends = (np.sort(times) for times in (spans["arrival_s"].min(), spans["end_s"].max()))
    at_s = np.append(start_s, begins[(begins > start_s) & (begins <= end_s)])
    level = np.searchsorted(begins, at_s, side="right") - np.searchsorted(ends, at_s, side="right")
    inside_s = ends.clip(start_s, end_s).sum() - begins.clip(start_s, end_s).sum()
    mean = inside_s / (end_s - start_s) if end_s > start_s else level.max()
    return {"mean": float(mean), "peak": float(level.max())}


def peak_in_flight(requests: Requests, start_s: float, end_s: float) -> float:
    """Most requests at once between being scheduled first and the end, in a window."""
    started = np.sort(requests["first_scheduled_s"].dropna().to_numpy(float))
    ended = np.sort(requests["finished_s"][requests["first_scheduled_s"].notna()].fillna(np.inf).to_numpy(float))
    at_s = np.append(start_s, started[(started >= start_s) & (started <= end_s)])
    level = np.searchsorted(started, at_s, side="right") - np.searchsorted(ended, at_s, side="right")
    return float(level.max())


def cycle(measured: Requests, length_s: float) -> dict[str, float]:
    """Rate X of requests in a window, time to their end R and pause after it Z, and the sessions that X (R + Z) makes.

    They count however they end: one that is turned away is so at once, and a wait before a retry is a pause. ``noise``
    is the standard error of what is expected, were requests Poisson.
    """
    ended = measured[measured["outcome"] != "unfinished"]
    responses_s = (ended["finished_s"] - ended["arrival_s"]).fillna(0.0).to_numpy()
    pauses_s = ended["think_s"].to_numpy()
    response_s, think_s = (float(each.mean()) if len(each) else float("nan") for each in (responses_s, pauses_s))
    requests_per_s, root = float("nan"), float(np.sqrt(np.square(responses_s + pauses_s).sum()))
    if length_s > 0:
        requests_per_s, root = len(ended) / length_s, root / length_s
    return {
        "requests_per_s": requests_per_s, "response_s": response_s, "think_s": think_s,
        "expected": requests_per_s * (response_s + think_s), "noise": root if length_s > 0 else float("nan"),
    }  # fmt: skip


def not_steady(replications: list[Sessions]) -> list[str]:
    """A warning where N = X (R + Z) fails by more than a twentieth and the noise: of a steady state it is true."""
    found = [
        (level["mean"], cycle["expected"], cycle["noise"])
        for level, cycle in ((one["attached"], one["cycle"]) for one in replications)
        if level is not None and cycle is not None
    ]
    if not found:
        return []
    attached, expected, noise = np.mean(found, axis=0)
    if not abs(attached - expected) > CYCLE_TOLERANCE * attached + 3 * noise / np.sqrt(len(found)):
        return []
    return [
        f"sessions are not in a steady state: {attached:,.4g} are attached, but X (R + Z) is {expected:,.4g}; "
        "measure for longer, or while the load does not move"
    ]


def by_turn(measured: Requests, good: np.ndarray) -> dict[str, dict[str, Any]]:
    """What sessions see in their first turn, and in later ones: hit rate, goodput and latencies."""
    first = (measured["turn"] == 0).to_numpy()
    return {"first": _seen(measured[first], good[first]), "later": _seen(measured[~first], good[~first])}


def _seen(requests: Requests, good: np.ndarray) -> dict[str, Any]:
    done = requests[requests["outcome"] == "completed"]
    prompts = done["prompt_tokens"].sum()
    return {
        "requests": float(len(requests)),
        "hit_rate": float(done["cached_tokens"].sum() / prompts) if prompts else float("nan"),
        "goodput": good_share(requests, good),
        **{name: latency(done, name).summary() for name in TURN_LATENCIES},
    }
