"""What the segments table says, read part by part: gaps between tokens, and what the nodes did."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from capsim.metrics.sample import BATCHES, RESOLUTION, Pool, Sample
from capsim.sim.columns import Requests

COMPONENTS = ("attention_s", "experts_s", "dense_s", "collectives_s", "overhead_s")
COLUMNS = (
    "node", "rank", "start_s", "duration_s", "growth_s", "steps", "decode_sequences", "kv_blocks", "kv_blocks_end",
    "prefill_tokens", "context_tokens", "running", "waiting", *COMPONENTS, "late_gaps_s", "late_gaps",
)  # fmt: skip
SETTLED_TOGETHER = 1 << 15


class Peak:
    """Most blocks held at once over all replicas, each counted at its most of the run of steps it is in.

    Changes wait until no replica can add an earlier one: those of an idle fleet are few, of one idle replica all.
    """

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._count, self._patience = 0, SETTLED_TOGETHER
        self._level = self.most = 0.0

    def add(self, starts_s: np.ndarray, ends_s: np.ndarray, blocks: np.ndarray) -> None:
        self._waiting.append(np.array([np.append(starts_s, ends_s), np.append(blocks, -blocks)]))
        self._count += 2 * len(blocks)

    def settle(self, until_s: float) -> None:
        """Count the changes before an instant, once they are many."""
        if self._count < self._patience and until_s < np.inf:
            return
        times_s, changes = np.concatenate([np.empty((2, 0)), *self._waiting], axis=1)
        order = np.lexsort((changes, times_s))  # at one instant, what ends goes first
        settled = int(np.searchsorted(times_s[order], until_s))
        levels = self._level + np.cumsum(changes[order[:settled]])
        self.most = max(self.most, float(levels.max(initial=0.0)))
        self._level = float(levels[-1]) if settled else self._level
        left = order[settled:]
        self._waiting, self._count = [np.array([times_s[left], changes[left]])], len(left)
        self._patience = 2 * len(left) + SETTLED_TOGETHER  # so that each change is sorted a few times only


@dataclass
class Steps:
    """What has been read so far, of the window and (``steps``, ``gaps``, ``gaps_s``, ``ordered``) of all segments.

    ``itl`` holds the gaps of consecutive parts of the table, ``BATCHES`` in all; ``busy`` the seconds in which a step
    ran, weighted by sequences and by blocks. How far steps went: ``contexts`` has, by the number of sequences that
    decode alone, the longest mean context, ``most_tokens`` is of one step.
    """

    steps: int = 0
    gaps: float = 0.0
    gaps_s: float = 0.0
    ordered: bool = True
    itl: list[Pool] = field(default_factory=lambda: [Pool() for _ in range(BATCHES)])
    busy_s: float = 0.0
    running_s: float = 0.0
    blocks_s: float = 0.0
    components_s: np.ndarray = field(default_factory=lambda: np.zeros(len(COMPONENTS)))
    most: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("kv_blocks_end", "running", "waiting"), 0.0))
    peak: Peak = field(default_factory=Peak)
    contexts: dict[int, float] = field(default_factory=dict)
    most_tokens: int = 0
    ends: dict[Any, float] = field(default_factory=dict)


def read(parts: Iterable[pd.DataFrame], rows: int, start_s: float, end_s: float, replicas: int) -> Steps:
    """Read ``parts`` of a table of ``rows`` segments, in order; a window says which of them count, and how far."""
    steps, before = Steps(), 0
    for part in parts:
        share = _share(part, start_s, end_s)
        seconds, counts, row = gaps(part)
        batch = (before + row) * BATCHES // max(rows, 1)
        weights = counts * share[row]
        for index in np.unique(batch):
            mine = (batch == index) & (weights > 0)
            steps.itl[index].add(Sample(seconds[mine], weights[mine]))
        steps.steps += int(part["steps"].sum())
        steps.gaps += float(counts.sum())
        steps.gaps_s += float((counts * seconds).sum())
        _check_order(steps, part)
        _add_use(steps, part, share, replicas)
        _add_reach(steps, part)
        before += len(part)
    steps.peak.settle(np.inf)
    return steps


def _share(part: pd.DataFrame, start_s: float, end_s: float) -> np.ndarray:
    """How much of each segment lies inside a window, shape (n,)."""
    starts, durations = part["start_s"].to_numpy(), part["duration_s"].to_numpy()
    inside = np.minimum(starts + durations, end_s) - np.maximum(starts, start_s)
    return np.clip(inside / durations, 0.0, 1.0)


def gaps(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaps between two tokens in seconds, how many of each, and the row of ``part`` that they ended in. Shape (n,).

    The steps of a run grow evenly: they stand in for each other in pieces over which they grow by ``RESOLUTION`` at
    most, so that memory follows the runs and not the steps. Sums stay exact. The gaps that prefill or a neighbour in
    lockstep made longer are listed with the first step that they ended with. Those of a preemption are no gaps of
    steps: the requests hold them.
    """
    rows = np.flatnonzero(part["decode_sequences"].to_numpy() > 0)
    kept = part.iloc[rows]
    steps, growth = kept["steps"].to_numpy(), kept["growth_s"].to_numpy()
    first_s = kept["duration_s"].to_numpy() / steps - growth * (steps - 1) / 2
    sequences = kept["decode_sequences"].to_numpy()
    some = np.flatnonzero(kept["late_gaps"].notna().to_numpy())
    late_lists, late_s_lists = kept["late_gaps"].to_numpy()[some], kept["late_gaps_s"].to_numpy()[some]
    late = np.zeros(len(kept), int)
    late[some] = [sum(counts) for counts in late_lists]
    alone = np.minimum(late, 1)  # a first step that some were late for is a piece of its own
    rest = steps - alone
    pieces = np.clip(np.ceil(growth * rest / (RESOLUTION * first_s)), 1, np.maximum(rest, 1)).astype(int)
    row = np.repeat(np.arange(len(kept)), pieces)
    piece = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start, end = (rest[row] * number // pieces[row] for number in (piece, piece + 1))
    seconds = first_s[row] + growth[row] * (alone[row] + (start + end - 1) / 2)
    late_s, late_counts = (np.concatenate([[], *lists]) for lists in (late_s_lists, late_lists))
    return (
        np.concatenate([seconds, first_s, late_s]),
        np.concatenate([(end - start) * sequences[row], alone * (sequences - late), late_counts]),
        rows[np.concatenate([row, np.arange(len(kept)), np.repeat(some, [len(counts) for counts in late_lists])])],
    )


def _check_order(steps: Steps, part: pd.DataFrame) -> None:
    """Whether the steps of each replica follow each other, from one part to the next too."""
    for (node, rank), mine in part.groupby(["node", "rank"]):
        starts = mine["start_s"].to_numpy()
        ends = starts + mine["duration_s"].to_numpy()
        earlier = np.append(steps.ends.get((node, rank), -np.inf), ends[:-1])
        steps.ordered &= bool(np.all(starts >= earlier - 1e-9))
        steps.ends[node, rank] = float(ends[-1])


def _add_use(steps: Steps, part: pd.DataFrame, share: np.ndarray, replicas: int) -> None:
    inside = share > 0
    part, share = part[inside], share[inside]
    duration = part["duration_s"].to_numpy(float) * share
    held = (part["kv_blocks"] + part["kv_blocks_end"]).to_numpy(float) / 2
    steps.busy_s += float(duration.sum())
    # Sums of products and no dot products: what those add up to hangs on how many threads BLAS takes.
    steps.running_s += float((duration * part["running"].to_numpy(float)).sum())
    steps.blocks_s += float((duration * held).sum())
    steps.components_s += np.array([(part[name].to_numpy(float) * share).sum() for name in COMPONENTS])
    for name in steps.most:
        steps.most[name] = max(steps.most[name], float(part[name].max() if len(part) else 0))
    starts_s = part["start_s"].to_numpy(float)
    steps.peak.add(starts_s, starts_s + part["duration_s"].to_numpy(float), part["kv_blocks_end"].to_numpy(float))
    steps.peak.settle(min(steps.ends.values()) if len(steps.ends) == replicas else -np.inf)


def _add_reach(steps: Steps, part: pd.DataFrame) -> None:
    decoding, prefill = (part[name].to_numpy(int) for name in ("decode_sequences", "prefill_tokens"))
    steps.most_tokens = max(steps.most_tokens, int((decoding + prefill).max(initial=0)))
    alone = (prefill == 0) & (decoding > 0)
    longest = np.zeros(1 + int(decoding.max(initial=0)))
    np.maximum.at(longest, decoding[alone], part["context_tokens"].to_numpy(float)[alone] / decoding[alone])
    for sequences in np.flatnonzero(longest).tolist():
        steps.contexts[sequences] = max(steps.contexts.get(sequences, 0.0), float(longest[sequences]))


def node_use(steps: Steps, replicas: int, blocks: int, length_s: float) -> dict[str, float]:
    """Busy fraction, sequences in flight and KV use over a window; ``blocks`` are those of one replica."""
    whole = length_s * replicas if length_s > 0 else float("nan")
    shares = steps.components_s / steps.busy_s if steps.busy_s > 0 else np.full(len(COMPONENTS), np.nan)
    return {
        "busy_fraction": steps.busy_s / whole,
        "in_flight": steps.running_s / whole * replicas,
        "kv_mean_utilisation": steps.blocks_s / blocks / whole,
        "kv_peak_blocks": steps.peak.most,
        "fullest_blocks": steps.most["kv_blocks_end"],
        "most_running": steps.most["running"],
        "most_waiting": steps.most["waiting"],
        **{f"share_{name}": float(share) for name, share in zip(COMPONENTS, shares, strict=True)},
    }


def longest_gap(requests: Requests, stalls_s: pd.Series, parts: Iterable[pd.DataFrame]) -> pd.Series:
    """Longest gap between two tokens of each completed request; NaN for the others, 0 with one token.

    ``stalls_s`` are gaps of requests that were preempted, by request. Needs some 30 bytes a segment.
    """
    columns = ["node", "rank", "start_s", "duration_s", "growth_s", "steps"]
    decoding = pd.concat([part.loc[part["decode_sequences"] > 0, columns] for part in parts])
    longest = pd.Series(np.nan, index=requests.index)
    several = requests[(requests["outcome"] == "completed") & (requests["output_tokens"] > 1)]
    several = several[["node", "rank", "first_token_s", "finished_s"]]
    longest[requests["outcome"] == "completed"] = 0.0
    stalled = stalls_s.groupby(level=0).max()
    for (node, rank), mine in several.groupby(["node", "rank"]):
        steps = decoding[(decoding["node"] == node) & (decoding["rank"] == rank)]
        longest[mine.index] = np.maximum(_longest_step(mine, steps), stalled.reindex(mine.index, fill_value=0.0))
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
    gaps_s = np.append(np.maximum(last_s, waited), 0.0)
    first = np.searchsorted(starts, requests["first_token_s"].to_numpy(float) - 1e-12)
    last = np.searchsorted(starts, requests["finished_s"].to_numpy(float) - 1e-12)
    bounds = np.column_stack([first + 1, np.maximum(last, first + 2)]).ravel().clip(max=len(gaps_s) - 1)
    later = np.where(last > first + 1, np.maximum.reduceat(gaps_s, bounds)[::2], 0.0)
    joined = np.maximum(last_s[first], first_ends[first] - requests["first_token_s"].to_numpy(float))
    return np.maximum(joined, later)
