"""What a chart draws of long tables, in as many points as an eye can tell apart."""

import numpy as np
import pandas as pd

from capsim.metrics.requests import latency
from capsim.metrics.steps import COMPONENTS
from capsim.stats import weighted_quantiles

POINTS = 200
SPANS = 300


def latency_curves(requests: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Empirical distributions of latencies: ``latency``, ``seconds``, ``share`` of requests no slower."""
    shares = np.linspace(0.0, 1.0, POINTS + 1)
    parts = []
    for name in names:
        sample = latency(requests, name)
        if len(sample.seconds):
            seconds = weighted_quantiles(sample.seconds, sample.weights, shares)
            parts.append(pd.DataFrame({"latency": name, "seconds": seconds, "share": shares}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["latency", "seconds", "share"])


def timeline(segments: pd.DataFrame, kv_blocks: int, replicas: int) -> pd.DataFrame:
    """One replication over time, in equal spans: ``time_s``, ``kv_share`` of all pools, ``running`` and ``waiting``.

    Means over each span; what is idle holds nothing.
    """
    start_s = segments["start_s"].to_numpy(float)
    length_s = segments["duration_s"].to_numpy(float)
    end_s = float((start_s + length_s).max())
    edges = np.linspace(0.0, end_s, SPANS + 1)
    middle = (segments["kv_blocks"].to_numpy(float) + segments["kv_blocks_end"].to_numpy(float)) / 2
    levels = {
        "kv_share": middle / (kv_blocks * replicas),
        "running": segments["running"].to_numpy(float),
        "waiting": segments["waiting"].to_numpy(float),
    }
    means = {name: _means(start_s, length_s, level, edges) for name, level in levels.items()}
    return pd.DataFrame({"time_s": edges[:-1], **means})


def _means(start_s: np.ndarray, length_s: np.ndarray, level: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Time averages of a level that holds during segments, over the spans between ``edges``."""
    order = np.argsort(np.concatenate([start_s, start_s + length_s]), kind="stable")
    at = np.concatenate([start_s, start_s + length_s])[order]
    steps = np.concatenate([level, -level])[order]
    held = np.cumsum(steps)
    area = np.concatenate([[0.0], np.cumsum(held[:-1] * np.diff(at))])
    return np.diff(np.interp(edges, at, area, left=0.0)) / np.diff(edges)


def bound_shares(segments: pd.DataFrame) -> pd.DataFrame:
    """Share of busy time by what bounds the step: ``bound``, ``share``."""
    seconds = segments.groupby("bound", observed=True)["duration_s"].sum()
    return (seconds / seconds.sum()).rename("share").reset_index()


def component_shares(summary: dict[str, float]) -> pd.DataFrame:
    """Share of busy time by component of a step: ``component``, ``share``."""
    names = [name.removesuffix("_s") for name in COMPONENTS]
    return pd.DataFrame({"component": names, "share": [summary[name] for name in names]})
