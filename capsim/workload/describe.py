"""What a trace says of its traffic: figures, reuse of prefixes, sessions, and the preset that is nearest."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from capsim.workload import chats
from capsim.workload.arrivals import Profile
from capsim.workload.figures import Figures, distribution_distance, variation
from capsim.workload.generated import arrivals_in, long_run_rate_per_s
from capsim.workload.requests import draw_lengths
from capsim.workload.spec import Closed, Workload
from capsim.workload.trace_figures import trace_figures, turns_and_gaps
from capsim.workload.traces import Trace
from capsim.workload.traces.follow import sessions_of

COMPARED = 10_000
"""Requests drawn of a preset to compare it with."""


@dataclass(frozen=True)
class Sessions:
    """Conversations in a trace; gaps are from a turn's arrival to the next turn's.

    ``inferred`` ones are not named by the trace: prompts that begin with a whole earlier one belong to it.
    """

    sessions: int
    inferred: bool
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


def describe(trace: Trace, presets: Mapping[str, Workload]) -> Description:
    """All that can be said of the trace."""
    seen = trace_figures(trace)
    return Description(
        len(trace), trace.failed, float(trace.arrival_s[-1]), seen, _correlation(trace), seen.reuse, sessions(trace),
        distances(trace, presets),
    )  # fmt: skip


def _correlation(trace: Trace) -> float | None:
    if min(np.ptp(trace.prompt_tokens), np.ptp(trace.output_tokens)) == 0:
        return None
    return float(np.corrcoef(_ranks(trace.prompt_tokens), _ranks(trace.output_tokens))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """The place of each in order, from 1; equal ones share theirs. Shape (n,)."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def sessions(trace: Trace) -> Sessions | None:
    """Turns and gaps of the sessions that the trace names, or that its prefixes show; None where it tells none."""
    turns, gaps_s = turns_and_gaps(sessions_of(trace), trace.arrival_s)
    if not len(turns):
        return None
    gaps = np.quantile(gaps_s, [0.05, 0.5, 0.95]).tolist() if len(gaps_s) else [None] * 3
    p50, p95 = np.quantile(turns, [0.5, 0.95]).tolist()
    inferred = trace.session is None
    return Sessions(len(turns), inferred, float(turns.mean()), p50, p95, float((turns > 1).mean()), *gaps)


def _stream(preset: Workload) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When about ``COMPARED`` requests come, and the tokens of about as many prompts and answers. Shape (n,) each."""
    begin_per_s = long_run_rate_per_s(preset)
    if not preset.in_sessions:
        return arrivals_in(preset, COMPARED / begin_per_s, 0, 0), *draw_lengths(preset, COMPARED)
    some = chats.sample(preset, COMPARED)
    prompt, output = chats.tokens(some)
    return arrivals_in(preset, COMPARED / begin_per_s * len(some) / len(prompt), 0, 0), prompt, output


def distances(trace: Trace, presets: Mapping[str, Workload]) -> dict[str, float]:
    """How far each preset is, nearest first.

    The Kolmogorov–Smirnov distance of the prompts plus that of the outputs plus |ln| of the ratio of the gaps' CVs, so
    that the rate does not count.
    """
    cv = variation(np.diff(trace.arrival_s))
    found = {}
    for name, preset in presets.items():
        if isinstance(preset.arrival, Closed) or (isinstance(preset.arrival, Profile) and preset.arrival.rates is None):
            continue
        arrival_s, prompt, output = _stream(preset)
        theirs = variation(np.diff(arrival_s))
        clumping = abs(float(np.log(cv / theirs))) if cv and theirs else 0.0
        found[name] = (
            distribution_distance(trace.prompt_tokens, prompt)
            + distribution_distance(trace.output_tokens, output)
            + clumping
        )
    return dict(sorted(found.items(), key=lambda pair: pair[1]))
