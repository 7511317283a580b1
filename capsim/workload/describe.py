"""What a trace says of its traffic: figures, reuse of prefixes, sessions, and the preset that is nearest."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from capsim.workload.arrivals import Profile
from capsim.workload.figures import Figures, distribution_distance, figures, variation
from capsim.workload.requests import draw_arrivals, draw_lengths
from capsim.workload.spec import Closed, Workload
from capsim.workload.traces import Trace

COMPARED = 20_000
"""Requests drawn of a preset to compare it with."""


@dataclass(frozen=True)
class Sessions:
    """Conversations in a trace; gaps are from a turn's arrival to the next turn's."""

    sessions: int
    turns_mean: float
    turns_p50: float
    turns_p95: float
    multi_turn_share: float
    gap_s_p5: float | None
    gap_s_p50: float | None
    gap_s_p95: float | None


@dataclass(frozen=True)
class Description:
    """``correlation`` is Spearman's, of prompt and output tokens. ``reuse`` is the share of prompt tokens that an
    infinite prefix cache would have: each request hits its leading run of blocks seen before. ``distances`` are those
    of the presets, nearest first."""

    requests: int
    failed: int
    span_s: float
    figures: Figures
    correlation: float | None
    reuse: float | None
    sessions: Sessions | None
    distances: dict[str, float]


def describe(trace: Trace, presets: dict[str, Workload]) -> Description:
    """All that can be said of the trace."""
    span_s = float(trace.arrival_s[-1])
    return Description(
        len(trace), trace.failed, span_s, figures(trace.arrival_s, trace.prompt_tokens, trace.output_tokens),
        _correlation(trace), reuse(trace), sessions(trace), distances(trace, presets),
    )  # fmt: skip


def _correlation(trace: Trace) -> float | None:
    if min(np.ptp(trace.prompt_tokens), np.ptp(trace.output_tokens)) == 0:
        return None
    return float(spearmanr(trace.prompt_tokens, trace.output_tokens).statistic)


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


def sessions(trace: Trace) -> Sessions | None:
    """Turns and gaps of the sessions that the trace names; None where it names none."""
    if trace.session is None or not (trace.session >= 0).any():
        return None
    rows = np.flatnonzero(trace.session >= 0)
    rows = rows[np.argsort(trace.session[rows], kind="stable")]
    session = trace.session[rows]
    turns = np.unique(session, return_counts=True)[1]
    gaps_s = np.diff(trace.arrival_s[rows])[np.diff(session) == 0]
    gaps = np.quantile(gaps_s, [0.05, 0.5, 0.95]).tolist() if len(gaps_s) else [None] * 3
    p50, p95 = np.quantile(turns, [0.5, 0.95]).tolist()
    return Sessions(len(turns), float(turns.mean()), p50, p95, float((turns > 1).mean()), *gaps)


def distances(trace: Trace, presets: dict[str, Workload]) -> dict[str, float]:
    """How far each preset is, nearest first.

    The Kolmogorov–Smirnov distance of the prompts plus that of the outputs plus |ln| of the ratio of the gaps' CVs, so
    that the rate does not count.
    """
    cv = variation(np.diff(trace.arrival_s))
    found = {}
    for name, preset in presets.items():
        if isinstance(preset.arrival, Closed) or (isinstance(preset.arrival, Profile) and preset.arrival.rates is None):
            continue
        prompt, output = draw_lengths(preset, COMPARED)
        theirs = variation(np.diff(draw_arrivals(preset.model_copy(update={"requests": COMPARED}), 0, 0)[0]))
        clumping = abs(float(np.log(cv / theirs))) if cv and theirs else 0.0
        found[name] = (
            distribution_distance(trace.prompt_tokens, prompt)
            + distribution_distance(trace.output_tokens, output)
            + clumping
        )
    return dict(sorted(found.items(), key=lambda pair: pair[1]))
