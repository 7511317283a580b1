"""A trace in figures: those of its stream, and what it tells of sessions and of shared prefixes."""

import numpy as np

from capsim.workload.figures import Figures, figures, lengths
from capsim.workload.traces import Trace
from capsim.workload.traces.follow import sessions_of


def trace_figures(trace: Trace) -> Figures:
    """All figures that the trace tells."""
    seen = figures(trace.arrival_s, trace.prompt_tokens, trace.output_tokens)
    turns, gaps_s = turns_and_gaps(sessions_of(trace), trace.arrival_s)
    return seen.model_copy(update={"turns": lengths(turns), "gap_s": lengths(gaps_s), "reuse": reuse(trace)})


def turns_and_gaps(session: np.ndarray | None, arrival_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Requests of each session, and the seconds from each to the next, arrival to arrival; none where nothing tells."""
    if session is None:
        return np.empty(0), np.empty(0)
    rows = np.flatnonzero(session >= 0)
    rows = rows[np.argsort(session[rows], kind="stable")]
    gaps_s = np.diff(arrival_s[rows])[np.diff(session[rows]) == 0]
    return np.unique(session[rows], return_counts=True)[1], gaps_s


def reuse(trace: Trace) -> float | None:
    """Share of prompt tokens in blocks that lead their prompt and were seen before; None without hashes."""
    hashes = trace.prefix_hashes
    if hashes is None:
        return None
    seen: set[int] = set()
    hit_tokens = 0
    for request, prompt_tokens in enumerate(trace.prompt_tokens.tolist()):
        blocks = hashes.of(request).tolist()
        run = next((index for index, block in enumerate(blocks) if block not in seen), len(blocks))
        hit_tokens += min(run * hashes.tokens, prompt_tokens)
        seen.update(blocks)
    return float(hit_tokens / trace.prompt_tokens.sum())
