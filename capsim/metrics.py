"""Pure functions from the two tables of one replication: what users saw, what the nodes did.

TTFT = first token - arrival. TPOT = (E2E - TTFT) / (output tokens - 1). ITL = the gap between two tokens.
Goodput = requests inside every threshold / offered.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from capsim.stats import growth_per_s, warmup_length, weighted_quantiles

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
COMPONENTS = ("attention_s", "experts_s", "dense_s", "collectives_s", "overhead_s")
BATCHES = 20
SATURATED_GROWTH = 0.01


@dataclass(frozen=True)
class Sample:
    """Seconds of one latency with their multiplicities, in order of time. Arrays of shape (n,)."""

    seconds: np.ndarray
    weights: np.ndarray

    def mean(self) -> float:
        return float(np.average(self.seconds, weights=self.weights)) if self.weights.sum() > 0 else float("nan")

    def summary(self) -> dict[str, float]:
        """Mean and percentiles; NaN where there are no values."""
        if not self.weights.sum() > 0:
            return dict.fromkeys(("mean", *QUANTILES), float("nan"))
        percentiles = weighted_quantiles(self.seconds, self.weights, list(QUANTILES.values()))
        return {"mean": self.mean(), **dict(zip(QUANTILES, map(float, percentiles), strict=True))}

    def batches(self) -> list["Sample"]:
        """Consecutive parts with about as many values each."""
        parts = np.array_split(np.arange(len(self.seconds)), BATCHES)
        return [Sample(self.seconds[part], self.weights[part]) for part in parts if len(part)]


def warmup_requests(requests: pd.DataFrame, pinned: int | None) -> int:
    """How many of the first requests to leave out: the pinned number, or what MSER-5 on TTFT says, at least a tenth."""
    if pinned is not None:
        return min(pinned, len(requests))
    ttft = (requests["first_token_s"] - requests["arrival_s"]).dropna().to_numpy()
    return warmup_length(ttft) if len(ttft) else 0


def latencies(requests: pd.DataFrame, segments: pd.DataFrame) -> dict[str, Sample]:
    """TTFT, TPOT, ITL, E2E and queueing time of measured requests; ``segments`` are those of the same window."""
    done = requests[requests["outcome"] == "completed"]
    ttft = done["first_token_s"] - done["arrival_s"]
    e2e = done["finished_s"] - done["arrival_s"]
    several = done["output_tokens"] > 1
    tpot = ((e2e - ttft) / (done["output_tokens"] - 1))[several]
    columns = {"ttft_s": ttft, "tpot_s": tpot, "e2e_s": e2e, "queue_s": done["first_scheduled_s"] - done["arrival_s"]}
    samples = {name: Sample(values.to_numpy(float), np.ones(len(values))) for name, values in columns.items()}
    return {**samples, "itl_s": _itl(done, segments)}


def _itl(requests: pd.DataFrame, segments: pd.DataFrame) -> Sample:
    """Gaps of one step from the segments, longer ones (a preemption between two tokens) from the requests."""
    stalls = np.array([gap for gaps in requests["stalls_s"] for gap in gaps])
    values = np.concatenate([segments["duration_s"].to_numpy(float) / segments["steps"].to_numpy(float), stalls])
    return Sample(values, np.concatenate([segments["gaps"].to_numpy(float), np.ones(len(stalls))]))


def good(requests: pd.DataFrame, segments: pd.DataFrame, thresholds: dict[str, float]) -> np.ndarray:
    """Whether each request was served inside every threshold. Shape (n,), bool."""
    completed = (requests["outcome"] == "completed").to_numpy()
    ttft = requests["first_token_s"] - requests["arrival_s"]
    e2e = requests["finished_s"] - requests["arrival_s"]
    values = {"ttft_s": ttft, "e2e_s": e2e, "tpot_s": (e2e - ttft) / (requests["output_tokens"] - 1).clip(lower=1)}
    if "itl_s" in thresholds:
        values["itl_s"] = longest_gap(requests, segments)
    inside = completed.copy()
    for name, limit in thresholds.items():
        inside &= values[name].to_numpy() <= limit
    return inside


def longest_gap(requests: pd.DataFrame, segments: pd.DataFrame) -> pd.Series:
    """Longest gap between two tokens of each completed request; NaN for the others, 0 with one token."""
    longest = pd.Series(np.nan, index=requests.index)
    for replica, mine in requests[requests["outcome"] == "completed"].groupby(["node", "rank"]):
        node, rank = replica
        steps = segments[(segments["node"] == node) & (segments["rank"] == rank)]
        durations = np.append(steps["duration_s"].to_numpy(float), 0.0)
        starts = steps["start_s"].to_numpy(float)
        # A step's tokens come at its end, so the gaps between two tokens are the steps that start from the first on.
        first = np.searchsorted(starts, mine["first_token_s"].to_numpy(float) - 1e-12)
        last = np.searchsorted(starts, mine["finished_s"].to_numpy(float) - 1e-12)
        bounds = np.column_stack([first, np.maximum(last, first + 1)]).ravel().clip(max=len(durations) - 1)
        gaps = np.maximum.reduceat(durations, bounds)[::2]
        stalls = np.array([max(gaps, default=0.0) for gaps in mine["stalls_s"]])
        longest[mine.index] = np.where(mine["output_tokens"] > 1, np.maximum(gaps, stalls), 0.0)
    return longest


def window(requests: pd.DataFrame) -> tuple[float, float]:
    """From the first measured arrival to the last one, in simulated seconds, as the batch thins out after that.

    To the last end where requests came faster than they were served (a flood): more than half of the time is then
    spent on a queue.
    """
    if requests.empty:
        return 0.0, 0.0
    start, last = float(requests["arrival_s"].iloc[0]), float(requests["arrival_s"].iloc[-1])
    end = float(np.nanmax([requests["finished_s"].max(), last]))
    return (start, last) if last - start > (end - start) / 2 else (start, end)


def throughput(requests: pd.DataFrame, start_s: float, end_s: float) -> dict[str, float]:
    """Requests completed inside a window, and their tokens."""
    done = requests[(requests["finished_s"] > start_s) & (requests["finished_s"] <= end_s)]
    counts = {
        "requests": len(done),
        "input_tokens": done["prompt_tokens"].sum(),
        "output_tokens": done["output_tokens"].sum(),
    }
    length_s = end_s - start_s
    return {f"{name}_per_s": float(n) / length_s if length_s > 0 else float("nan") for name, n in counts.items()}


def node_use(segments: pd.DataFrame, replicas: int, blocks: int, length_s: float) -> dict[str, float]:
    """Steps, busy fraction, sequences in flight and KV use over a window; ``blocks`` are those of one replica."""
    duration = segments["duration_s"].to_numpy(float)
    busy = duration.sum()
    whole = length_s * replicas if length_s > 0 else float("nan")
    use = {
        "steps": float(segments["steps"].sum()),
        "busy_fraction": busy / whole,
        "in_flight": float((duration * segments["running"]).sum()) / whole * replicas,
        "kv_mean_utilisation": float((duration * segments["kv_blocks"]).sum()) / blocks / whole,
        "kv_peak_blocks": _peak_blocks(segments),
    }
    shares = {f"share_{name}": float(segments[name].sum()) / busy if busy > 0 else float("nan") for name in COMPONENTS}
    return use | shares


def _peak_blocks(segments: pd.DataFrame) -> float:
    """Most KV blocks held at once over all replicas (one that idles counts what it held last)."""
    if segments.empty:
        return 0.0
    ordered = segments.sort_values("start_s", kind="stable")
    change = ordered.groupby(["node", "rank"])["kv_blocks"].diff().fillna(ordered["kv_blocks"])
    return float(change.cumsum().max())


def backlog_growth(requests: pd.DataFrame) -> tuple[float, float, float]:
    """Growth of requests in the system per second over the second half of the arrivals, its half-width, arrival rate.

    A load that outruns the fleet grows by the difference of the two rates, whatever the run length.
    """
    inside = requests[requests["outcome"] != "rejected"]
    if len(inside) < 4 * BATCHES:
        return 0.0, 0.0, 0.0
    arrivals = inside["arrival_s"].to_numpy(float)
    ends = np.sort(inside["finished_s"].fillna(np.inf).to_numpy(float))
    times = arrivals[len(arrivals) // 2 :]
    span = times[-1] - times[0]
    if span <= 0:
        return 0.0, 0.0, 0.0
    level = np.searchsorted(arrivals, times, side="right") - np.searchsorted(ends, times, side="right")
    slope, half_width = growth_per_s(times, level)
    return slope, half_width, (len(times) - 1) / span


def check_identities(requests: pd.DataFrame, segments: pd.DataFrame, kv_blocks: list[tuple[int, int, int]]) -> None:
    """What is true of every finished run, or the simulator is wrong.

    Raises
    ------
    AssertionError
        An identity is broken: a bug in capsim.
    """
    outcomes = requests["outcome"].value_counts()
    known = sum(int(outcomes.get(name, 0)) for name in ("completed", "rejected", "unfinished"))
    _hold(known == len(requests), "offered = completed + rejected + unfinished")
    _hold(all(taken == freed + held for taken, freed, held in kv_blocks), "KV blocks allocated = freed + resident")
    for _, steps in segments.groupby(["node", "rank"]):
        ends = (steps["start_s"] + steps["duration_s"]).to_numpy()
        _hold(bool(np.all(steps["start_s"].to_numpy()[1:] >= ends[:-1] - 1e-9)), "steps of a replica do not overlap")
    done = requests[requests["outcome"] == "completed"]
    times = done[["arrival_s", "enqueued_s", "first_scheduled_s", "first_token_s", "finished_s"]].to_numpy(float)
    _hold(
        bool(np.all(np.diff(times, axis=1) >= 0)), "arrival <= enqueued <= first scheduled <= first token <= finished"
    )
    if (requests["outcome"] == "unfinished").any():
        return
    gaps = _itl(done, segments)
    _hold(int(gaps.weights.sum()) == int((done["output_tokens"] - 1).sum()), "number of ITL gaps = sum of (output - 1)")
    total, spans = float(np.dot(gaps.seconds, gaps.weights)), float((done["finished_s"] - done["first_token_s"]).sum())
    _hold(bool(np.isclose(total, spans, rtol=1e-9, atol=1e-6)), "sum of ITL = sum of (finished - first token)")


def _hold(truth: bool, identity: str) -> None:
    if not truth:
        raise AssertionError(f"identity broken: {identity}")
