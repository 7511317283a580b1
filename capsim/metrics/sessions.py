"""Pure functions from one replication's records to sessions: how many at once, and how their turns fare.

Attached = open, pausing or not. Cached = attached, and its whole context is in a KV pool. In flight = in a batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from capsim.metrics.requests import latencies

TURN_LATENCIES = ("ttft_s", "tpot_s", "e2e_s")
Level = dict[str, float]
"""``mean`` over time and ``peak``."""


def counted(counts: Sequence[tuple[float, int, int]], start_s: float, end_s: float) -> dict[str, Level]:
    """Attached and cached sessions in a window, each count standing until the next one."""
    table = np.array(counts, dtype=float).reshape(-1, 3)
    before, after = np.searchsorted(table[:, 0], [start_s, end_s], side="right")
    table = table[max(before - 1, 0) : after]
    if not len(table):
        return {name: {"mean": float("nan"), "peak": float("nan")} for name in ("attached", "cached")}
    lasts = np.diff(table[:, 0].clip(min=start_s), append=end_s)
    weights = lasts if lasts.sum() > 0 else np.ones(len(lasts))
    return {
        name: {"mean": float(np.average(table[:, column], weights=weights)), "peak": float(table[:, column].max())}
        for column, name in enumerate(("attached", "cached"), 1)
    }


def peak_in_flight(requests: pd.DataFrame, start_s: float, end_s: float) -> float:
    """Most requests at once between being scheduled first and the end, in a window."""
    started = np.sort(requests["first_scheduled_s"].dropna().to_numpy(float))
    ended = np.sort(requests.loc[requests["first_scheduled_s"].notna(), "finished_s"].fillna(np.inf).to_numpy(float))
    at_s = np.append(start_s, started[(started >= start_s) & (started <= end_s)])
    level = np.searchsorted(started, at_s, side="right") - np.searchsorted(ended, at_s, side="right")
    return float(level.max())


def cycle(measured: pd.DataFrame, length_s: float) -> dict[str, float]:
    """Rate X of requests in a window, time to their end R and pause after it Z, and the sessions that X (R + Z) makes.

    They count however they end: one that is turned away is so at once, and a wait before a retry is a pause.
    """
    ended = (measured["outcome"] != "unfinished").to_numpy()
    response_s = float((measured["finished_s"] - measured["arrival_s"])[ended].fillna(0.0).mean())
    think_s = float(measured["think_s"][ended].mean())
    requests_per_s = float(ended.sum()) / length_s if length_s > 0 else float("nan")
    expected = requests_per_s * (response_s + think_s)
    return {"requests_per_s": requests_per_s, "response_s": response_s, "think_s": think_s, "expected": expected}


def by_turn(measured: pd.DataFrame, good: np.ndarray) -> dict[str, dict[str, Any]]:
    """What sessions see in their first turn, and in later ones: hit rate, goodput and latencies."""
    first = (measured["turn"] == 0).to_numpy()
    return {"first": _seen(measured[first], good[first]), "later": _seen(measured[~first], good[~first])}


def _seen(requests: pd.DataFrame, good: np.ndarray) -> dict[str, Any]:
    none = float("nan")
    done = requests[requests["outcome"] == "completed"]
    prompts = done["prompt_tokens"].sum()
    seen = latencies(done)
    return {
        "requests": float(len(requests)),
        "hit_rate": float(done["cached_tokens"].sum() / prompts) if prompts else none,
        "goodput": float(good.mean()) if len(good) else none,
        **{name: seen[name].summary() for name in TURN_LATENCIES},
    }
