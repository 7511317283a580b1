"""What users saw, from the requests table: latencies, goodput, throughput and whether the backlog grows."""

import numpy as np

from capsim.metrics.sample import BATCHES, Sample, equally
from capsim.sim.columns import Requests
from capsim.stats import growth_per_s, warmup_length

OUTCOMES = ("completed", "rejected", "abandoned", "unfinished")
SATURATED_GROWTH = 0.01
SPANS = {
    "ttft_s": ("asked_s", "first_token_s"), "tpot_s": ("first_token_s", "finished_s"),
    "e2e_s": ("asked_s", "finished_s"), "queue_s": ("arrival_s", "first_scheduled_s"),
}  # fmt: skip
"""Latencies, and the moments between which each lies; TPOT for each token but the first."""


def warmup_requests(requests: Requests, pinned: int | None) -> int:
    """How many of the first requests to leave out: the pinned number, or what MSER-5 on TTFT says, at least a tenth."""
    if pinned is not None:
        return min(pinned, len(requests))
    ttft = (requests["first_token_s"] - requests["arrival_s"]).dropna().to_numpy()
    return warmup_length(ttft) if len(ttft) else 0


def after(requests: Requests, warmup: int) -> Requests:
    """All but the first ``warmup``."""
    return requests[np.arange(len(requests)) >= warmup]


def measured(requests: Requests, warmup: int) -> Requests:
    """The requests after the first ``warmup``, without retries of what was first tried among these."""
    later = after(requests, warmup)
    fresh = (later["ask"] >= warmup).to_numpy()
    return later if fresh.all() else later[fresh]


def first_tries(requests: Requests) -> int:
    """How many of the requests are not retries."""
    return int((requests["asked_s"] == requests["arrival_s"]).sum())


def good_share(requests: Requests, good: np.ndarray) -> float:
    """What was asked for and served by a good request, in the end, over all that was asked for."""
    asks = first_tries(requests)
    return float(good.sum()) / asks if asks else float("nan")


def latency(requests: Requests, name: str) -> Sample:
    """One of ``SPANS`` of completed requests, in order of arrival; TPOT of those with more than one token."""
    counted = (requests["outcome"] == "completed").to_numpy()
    if name == "tpot_s":
        counted = counted & (requests["output_tokens"].to_numpy() > 1)
    return equally(_seconds(requests, name)[counted])


def _seconds(requests: Requests, name: str) -> np.ndarray:
    """One of ``SPANS``, shape (n,): TTFT and E2E since the first try, TPOT 0 for one token; NaN where there is none."""
    begin, end = SPANS[name]
    seconds = (requests[end] - requests[begin]).to_numpy(float)
    return seconds / (requests["output_tokens"].to_numpy() - 1).clip(min=1) if name == "tpot_s" else seconds


def good(
    requests: Requests,
    thresholds: dict[str, float],
    later_thresholds: dict[str, float],
    longest_gap_s: np.ndarray | None = None,
) -> np.ndarray:
    """Whether each request was served inside every threshold, of first or of later turns. Shape (n,), bool.

    ``longest_gap_s`` is needed where one of them is of ITL.
    """
    later = requests["turn"].to_numpy() > 0
    inside = (requests["outcome"] == "completed").to_numpy().copy()
    for name in thresholds | later_thresholds:
        limits = np.where(later, later_thresholds.get(name, np.inf), thresholds.get(name, np.inf))
        seconds = longest_gap_s if name == "itl_s" and longest_gap_s is not None else _seconds(requests, name)
        inside &= seconds <= limits
    return inside


def totals(requests: Requests) -> dict[str, int]:
    """Counts over a whole replication, warm-up included; tokens are those of requests that were started."""
    outcomes = requests["outcome"].value_counts()
    counts = {name: int(outcomes.get(name, 0)) for name in OUTCOMES}
    started = requests["first_scheduled_s"].notna().to_numpy()
    columns = ("prompt_tokens", "cached_tokens", "loaded_tokens", "preemptions")
    sums = {name: int(requests[name].to_numpy()[started].sum()) for name in columns}
    return {"offered": len(requests), "asks": first_tries(requests), **counts, **sums}


def rejections(requests: Requests) -> dict[str, int]:
    """How many requests were turned away, by reason."""
    reasons = requests["reason"][requests["outcome"] == "rejected"].astype(str).value_counts()
    return {str(reason): int(count) for reason, count in reasons.items()}


def window(requests: Requests) -> tuple[float, float]:
    """From the first measured arrival to the last one, in simulated seconds, as the batch thins out after that.

    To the last end where requests came faster than they were served (a flood): more than half of the time is then
    spent on a queue.
    """
    if not len(requests):
        return 0.0, 0.0
    start, last = float(requests["arrival_s"].iloc[0]), float(requests["arrival_s"].iloc[-1])
    end = float(np.nanmax([requests["finished_s"].max(), last]))
    return (start, last) if last - start > (end - start) / 2 else (start, end)


def throughput(requests: Requests, start_s: float, end_s: float) -> dict[str, float]:
    """Requests completed inside a window, and their tokens."""
    finished_s = requests["finished_s"].to_numpy()
    completed = (requests["outcome"] == "completed").to_numpy()
    inside = completed & (finished_s > start_s) & (finished_s <= end_s)
    columns = {"input_tokens": "prompt_tokens", "cached_tokens": "cached_tokens", "output_tokens": "output_tokens"}
    counts = {name: requests[column].to_numpy()[inside].sum() for name, column in columns.items()}
    length_s = end_s - start_s
    return {
        f"{name}_per_s": float(n) / length_s if length_s > 0 else float("nan")
        for name, n in {"requests": inside.sum(), **counts}.items()
    }


def backlog_growth(requests: Requests) -> tuple[float, float, float]:
    """Growth of requests in the system per second over the second half of the arrivals, its half-width, arrival rate.

    A load that outruns the fleet grows by the difference of the two rates, whatever the run length.
    """
    inside = ~requests["outcome"].isin(("rejected", "abandoned")).to_numpy()
    if inside.sum() < 4 * BATCHES:
        return 0.0, 0.0, 0.0
    arrivals = requests["arrival_s"].to_numpy(float)[inside]
    ends = np.sort(requests["finished_s"].to_numpy(float)[inside])  # NaN, not ended, goes last
    times = arrivals[len(arrivals) // 2 :]
    span = times[-1] - times[0]
    if span <= 0:
        return 0.0, 0.0, 0.0
    level = np.searchsorted(arrivals, times, side="right") - np.searchsorted(ends, times, side="right")
    slope, half_width = growth_per_s(times, level)
    return slope, half_width, (len(times) - 1) / span
