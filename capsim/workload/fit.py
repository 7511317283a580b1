"""A workload fitted to a trace: the family of arrivals by its dispersion, the lengths by their distribution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from capsim.workload.arrivals import Single, weibull_shape
from capsim.workload.chats import tokens
from capsim.workload.figures import Figures, distribution_distance, figures
from capsim.workload.fit_lengths import fit_tokens, rounded
from capsim.workload.fit_sessions import fit_sessions
from capsim.workload.generated import SAMPLE, SEED, generated
from capsim.workload.requests import draw_lengths
from capsim.workload.spec import Workload
from capsim.workload.steady import sessions_in
from capsim.workload.trace_figures import trace_figures
from capsim.workload.traces import Trace
from capsim.workload.traces.follow import earlier

SILENCES_S = (2.0, 5.0, 10.0)
"""Gaps from which on a burst counts as ended: each is tried."""
FEWEST_SILENCES = 10
SIMPLER_BY = 0.1
"""A family is taken over a simpler one if it is closer by so much."""
MOST_PARTS = 10_080


@dataclass(frozen=True)
class Fit:
    """A preset's values, and how well they do: the trace's figures beside those of generated streams.

    ``arrivals`` has for each family tried its dispersion at 1, 10 and 60 s and its distance, the mean |ln| of the
    ratios to that of what ``begins``: the trace's sessions, or its requests where it shows none. ``prompt_distance``
    and ``output_distance`` are Kolmogorov–Smirnov's, of all requests.
    """

    values: dict[str, Any]
    trace: Figures
    generated: Figures
    begins: Figures
    arrivals: dict[str, tuple[tuple[float | None, ...], float]]
    prompt_distance: float
    output_distance: float


def fit(trace: Trace) -> Fit:
    """The simplest family of arrivals that is as close as any, and the closer of two ways to write each length.

    A trace whose contexts grow is fitted as sessions: the arrivals are those of its first prompts, and what these
    generate in as long a time is cut off at its end as the trace is.
    """
    seen, span_s = trace_figures(trace), float(trace.arrival_s[-1])
    if seen.rate_per_s is None:
        raise ValueError("all requests come at once: there is no rate to fit")
    lengths = {"prompt_tokens": fit_tokens(trace.prompt_tokens)[0], "output_tokens": fit_tokens(trace.output_tokens)[0]}
    sessions = fit_sessions(trace)
    followed = earlier(trace)
    begins_s = trace.arrival_s if sessions is None or followed is None else trace.arrival_s[followed < 0]
    begins = figures(begins_s, trace.prompt_tokens, trace.output_tokens, span_s)
    tried: dict[str, tuple[dict[str, Any], Figures, float]] = {}
    for arrival in _families(begins_s, begins):
        found = generated(Workload.model_validate({"arrival": arrival, **lengths}), span_s)
        apart, kind = _apart(found, begins), arrival["kind"]
        if kind not in tried or apart < tried[kind][2]:
            tried[kind] = arrival, found, apart
    nearest = min(apart for _, _, apart in tried.values())
    arrival, found, _ = next(one for one in tried.values() if one[2] <= nearest + SIMPLER_BY)
    arrivals = {kind: (found.idc, apart) for kind, (_, found, apart) in tried.items()}
    values = {"arrival": arrival, **lengths, **(sessions or {})}
    workload = Workload.model_validate(values)
    if sessions is None:
        prompt, output = draw_lengths(workload, SAMPLE)
    else:
        found = generated(workload, span_s, cut_off=True)
        prompt, output = tokens([chat for _, chat in sessions_in(workload.changed(duration_s=span_s), SEED, 0)])
    prompt_distance = distribution_distance(trace.prompt_tokens, prompt)
    output_distance = distribution_distance(trace.output_tokens, output)
    return Fit(values, seen, found, begins, arrivals, prompt_distance, output_distance)


def _apart(found: Figures, seen: Figures) -> float:
    """Mean |ln| of the ratios of the dispersions that are known."""
    pairs = [(mine, theirs) for mine, theirs in zip(found.idc, seen.idc, strict=True) if mine and theirs]
    return float(np.mean([abs(np.log(mine / theirs)) for mine, theirs in pairs])) if pairs else 0.0


def _families(arrival_s: np.ndarray, seen: Figures) -> list[dict[str, Any]]:
    """Each family with parameters taken from the trace, the simplest first."""
    rate_per_s = rounded(seen.rate_per_s or 0.0)
    families: list[dict[str, Any]] = [{"kind": "poisson", "rate_per_s": rate_per_s}]
    if seen.cv:
        families.append({"kind": "gamma", "rate_per_s": rate_per_s, "cv": rounded(seen.cv)})
        families.append({"kind": "weibull", "rate_per_s": rate_per_s, "cv": rounded(seen.cv)})
    families += [found for silence_s in SILENCES_S for found in _bursts(arrival_s, silence_s, rate_per_s)]
    families += by_the_minute(arrival_s)
    return [family for family in families if _possible(family)]


def _possible(family: dict[str, Any]) -> bool:
    try:
        if family["kind"] == "weibull":
            weibull_shape(family["cv"])
        TypeAdapter(Single).validate_python(family)
    except ValueError:
        return False
    return True


def _bursts(arrival_s: np.ndarray, silence_s: float, rate_per_s: float) -> list[dict[str, Any]]:
    """Bursts between silences: their mean lengths, and the variation of the gaps inside them.

    None where Poisson arrivals would have half as many gaps so long.
    """
    gaps_s = np.diff(arrival_s)
    silent = gaps_s > silence_s
    inside_s, by_chance = gaps_s[~silent], len(gaps_s) * np.exp(-rate_per_s * silence_s)
    if silent.sum() < max(FEWEST_SILENCES, 2 * by_chance) or not inside_s.any():
        return []
    on_s, off_s = inside_s.sum() / (silent.sum() + 1), gaps_s[silent].mean()
    cv = inside_s.std() / inside_s.mean()
    times = {"on_s": rounded(on_s), "off_s": rounded(off_s)}
    return [{"kind": "on_off", "rate_per_s": rate_per_s, **times, "cv": rounded(cv)}]


def by_the_minute(arrival_s: np.ndarray) -> list[dict[str, Any]]:
    """Poisson arrivals at each minute's own rate, or that of a longer part where there would be too many.

    A minute's count has Poisson noise of its own, which the rates must not repeat: they are drawn to the mean until
    their variance is what is left of the counts' without it.
    """
    span_s = float(arrival_s[-1])
    part_s = 60.0 * max(1, int(np.ceil(span_s / 60 / MOST_PARTS)))
    parts = int(span_s // part_s)
    if parts < 2:
        return []
    counts = np.bincount((arrival_s // part_s).astype(np.int64))[:parts]
    mean, variance = counts.mean(), counts.var()
    moved = np.sqrt(max(0.0, 1 - mean / variance)) if variance else 0.0
    rates = [rounded(float(rate)) for rate in (mean + moved * (counts - mean)) / part_s]
    return [{"kind": "profile", "period_s": parts * part_s, "rates": rates}]
