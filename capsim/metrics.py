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
OUTCOMES = ("completed", "rejected", "abandoned", "unfinished")
BATCHES = 20
SATURATED_GROWTH = 0.01
ITL_RESOLUTION = 0.001


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
    """TTFT, TPOT, ITL, E2E and queueing time of measured requests; ``segments`` are those ``within`` their window."""
    done = requests[requests["outcome"] == "completed"]
    return {**request_latencies(done), "itl_s": _itl(done, segments)}


def request_latencies(done: pd.DataFrame) -> dict[str, Sample]:
    """TTFT, TPOT, E2E and queueing time of completed requests."""
    ttft = done["first_token_s"] - done["arrival_s"]
    e2e = done["finished_s"] - done["arrival_s"]
    several = done["output_tokens"] > 1
    tpot = ((e2e - ttft) / (done["output_tokens"] - 1))[several]
    columns = {"ttft_s": ttft, "tpot_s": tpot, "e2e_s": e2e, "queue_s": done["first_scheduled_s"] - done["arrival_s"]}
    return {name: Sample(values.to_numpy(float), np.ones(len(values))) for name, values in columns.items()}


def within(segments: pd.DataFrame, start_s: float, end_s: float) -> pd.DataFrame:
    """Runs of steps that touch a window; ``share`` is how much of each lies inside it."""
    starts, durations = segments["start_s"].to_numpy(), segments["duration_s"].to_numpy()
    inside = np.minimum(starts + durations, end_s) - np.maximum(starts, start_s)
    kept = inside > 0
    return segments[kept].assign(share=np.minimum(1.0, inside[kept] / durations[kept]))


def _itl(requests: pd.DataFrame, segments: pd.DataFrame) -> Sample:
    """Gaps of a step and those that prefill made longer from the segments, those of a preemption from the requests."""
    stalls = np.concatenate([[], *requests.loc[requests["preemptions"] > 0, "stalls_s"]])
    late = segments[segments["late_gaps"].notna()]
    late_s, late_gaps = (np.concatenate([[], *late[name]]) for name in ("late_gaps_s", "late_gaps"))
    late_weights = late_gaps * np.repeat(late["share"].to_numpy(), late["late_gaps"].map(len).to_numpy(int))
    seconds, weights = _step_gaps(segments)
    return Sample(
        np.concatenate([seconds, late_s, stalls]), np.concatenate([weights, late_weights, np.ones(len(stalls))])
    )


def _step_gaps(segments: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Token gaps of one step's length, and how many of each.

    The steps of a run grow evenly: they stand in for each other in pieces over which they grow by ``ITL_RESOLUTION``
    at most, so that memory follows the runs and not the steps. Sums stay exact. Gaps that began before the first step
    of a run are no gaps of one step.
    """
    kept = segments[segments["decode_sequences"] > 0]
    steps, growth = kept["steps"].to_numpy(), kept["growth_s"].to_numpy()
    first_s = kept["duration_s"].to_numpy() / steps - growth * (steps - 1) / 2
    share, sequences = kept["share"].to_numpy(), kept["decode_sequences"].to_numpy()
    late, some = np.zeros(len(kept), int), kept["late_gaps"].notna().to_numpy()
    late[some] = [sum(gaps) for gaps in kept["late_gaps"][some]]
    alone = np.minimum(late, 1)  # a first step that some were late for is a piece of its own
    rest = steps - alone
    pieces = np.clip(np.ceil(growth * rest / (ITL_RESOLUTION * first_s)), 1, np.maximum(rest, 1)).astype(int)
    row = np.repeat(np.arange(len(kept)), pieces)
    piece = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start, end = (rest[row] * number // pieces[row] for number in (piece, piece + 1))
    seconds = first_s[row] + growth[row] * (alone[row] + (start + end - 1) / 2)
    weights = (end - start) * sequences[row] * share[row]
    return np.concatenate([seconds, first_s]), np.concatenate([weights, alone * (sequences - late) * share])


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
    several = requests[(requests["outcome"] == "completed") & (requests["output_tokens"] > 1)]
    longest[requests["outcome"] == "completed"] = 0.0
    decoding = segments[segments["decode_sequences"] > 0]
    for (node, rank), mine in several.groupby(["node", "rank"]):
        steps = decoding[(decoding["node"] == node) & (decoding["rank"] == rank)]
        stalls = np.array([max(gaps, default=0.0) for gaps in mine["stalls_s"]])
        longest[mine.index] = np.maximum(_longest_step(mine, steps), stalls)
    return longest


def _longest_step(requests: pd.DataFrame, steps: pd.DataFrame) -> np.ndarray:
    """Longest time from one decoding step of a replica to the next while each of its requests was there, shape (n,).

    A step's tokens come at its end. Runs break at every first and last token, and the last step of a run is its
    longest but for the first, which may have waited for prefill.
    """
    count, growth = steps["steps"].to_numpy(), steps["growth_s"].to_numpy()
    starts, durations = steps["start_s"].to_numpy(float), steps["duration_s"].to_numpy()
    last_s = durations / count + growth * (count - 1) / 2
    first_ends = starts + last_s - growth * (count - 1)
    waited = np.append(0.0, first_ends[1:] - (starts + durations)[:-1])
    gaps = np.append(np.maximum(last_s, waited), 0.0)
    first = np.searchsorted(starts, requests["first_token_s"].to_numpy(float) - 1e-12)
    last = np.searchsorted(starts, requests["finished_s"].to_numpy(float) - 1e-12)
    bounds = np.column_stack([first + 1, np.maximum(last, first + 2)]).ravel().clip(max=len(gaps) - 1)
    later = np.where(last > first + 1, np.maximum.reduceat(gaps, bounds)[::2], 0.0)
    joined = np.maximum(last_s[first], first_ends[first] - requests["first_token_s"].to_numpy(float))
    return np.maximum(joined, later)


def totals(requests: pd.DataFrame, segments: pd.DataFrame) -> dict[str, int]:
    """Counts over a whole replication, warm-up included; tokens are those of requests that were started."""
    outcomes = requests["outcome"].value_counts()
    counts = {name: int(outcomes.get(name, 0)) for name in OUTCOMES}
    started = requests[requests["first_scheduled_s"].notna()]
    summed = ("prompt_tokens", "cached_tokens", "loaded_tokens", "preemptions")
    sums = {name: int(started[name].sum()) for name in summed}
    return {"offered": len(requests), **counts, **sums, "steps": int(segments["steps"].sum())}


def rejections(requests: pd.DataFrame) -> dict[str, int]:
    """How many requests were turned away, by reason."""
    reasons = requests.loc[requests["outcome"] == "rejected", "reason"].astype(str).value_counts()
    return {str(reason): int(count) for reason, count in reasons.items()}


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
    """Busy fraction, sequences in flight and KV use over a window; ``blocks`` are those of one replica."""
    duration = (segments["duration_s"] * segments["share"]).to_numpy(float)
    held = ((segments["kv_blocks"] + segments["kv_blocks_end"]) / 2).to_numpy(float)
    busy = duration.sum()
    whole = length_s * replicas if length_s > 0 else float("nan")
    use = {
        "busy_fraction": busy / whole,
        "in_flight": float(duration @ segments["running"].to_numpy(float)) / whole * replicas,
        "kv_mean_utilisation": float(duration @ held) / blocks / whole,
        "kv_peak_blocks": _peak_blocks(segments),
        "fullest_blocks": float(segments["kv_blocks_end"].max()),
        "most_running": float(segments["running"].max()),
        "most_waiting": float(segments["waiting"].max()),
    }
    seconds = segments[list(COMPONENTS)].to_numpy(float).T @ segments["share"].to_numpy(float)
    shares = seconds / busy if busy > 0 else np.full(len(COMPONENTS), np.nan)
    return use | {f"share_{name}": float(share) for name, share in zip(COMPONENTS, shares, strict=True)}


def _peak_blocks(segments: pd.DataFrame) -> float:
    """Most KV blocks held at once over all replicas, each counted at its most of the run of steps it is in."""
    if segments.empty:
        return 0.0
    if segments["rank"].max() == 0 and segments["node"].max() == 0:
        return float(segments["kv_blocks_end"].max())
    starts, blocks = segments["start_s"].to_numpy(float), segments["kv_blocks_end"].to_numpy(float)
    times = np.concatenate([starts, starts + segments["duration_s"].to_numpy(float)])
    changes = np.concatenate([blocks, -blocks])
    order = np.lexsort((changes, times))  # at one instant, what ends goes first
    return float(np.cumsum(changes[order]).max())


def backlog_growth(requests: pd.DataFrame) -> tuple[float, float, float]:
    """Growth of requests in the system per second over the second half of the arrivals, its half-width, arrival rate.

    A load that outruns the fleet grows by the difference of the two rates, whatever the run length.
    """
    inside = requests[~requests["outcome"].isin(("rejected", "abandoned"))]
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
    known = sum(int(outcomes.get(name, 0)) for name in OUTCOMES)
    _hold(known == len(requests), "offered = completed + rejected + abandoned + unfinished")
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
    gaps = _itl(done, segments.assign(share=1.0))
    _hold(
        round(gaps.weights.sum()) == int((done["output_tokens"] - 1).sum()), "number of ITL gaps = sum of (output - 1)"
    )
    total, spans = float(np.dot(gaps.seconds, gaps.weights)), float((done["finished_s"] - done["first_token_s"]).sum())
    _hold(bool(np.isclose(total, spans, rtol=1e-9, atol=1e-6)), "sum of ITL = sum of (finished - first token)")


def _hold(truth: bool, identity: str) -> None:
    if not truth:
        raise AssertionError(f"identity broken: {identity}")
