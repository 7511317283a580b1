"""What a workload's generated stream looks like, measured as a trace is."""

import numpy as np

from capsim.workload import chats
from capsim.workload.arrivals import Windows, cycle
from capsim.workload.chats import Chat
from capsim.workload.classes import mean_rate_per_s
from capsim.workload.figures import Figures, figures, lengths
from capsim.workload.levels import HOUR_S
from capsim.workload.requests import draw_arrivals, draw_lengths
from capsim.workload.sessions import Prefix, Users
from capsim.workload.spec import Closed, Workload
from capsim.workload.steady import request_times, sessions_in

SAMPLE = 50_000
MAX_ARRIVALS = 1_000_000
MOST, FEWEST = 50, 3
SEED = 0
ARRIVAL_FIGURES = ("rate_per_s", "cv", "cv_in_minute", "idc_1s", "idc_10s", "idc_60s", "peak_to_mean_minute")


def generated(workload: Workload, span_s: float, *, cut_off: bool = False) -> Figures:
    """Figures of streams of ``span_s``: the mean of each over replications, fewer of them at a higher rate.

    The answers of sessions take no time. Sessions are there from the start and seen whole, or (``cut_off``) those that
    begin in the span are seen until its end, as a trace shows them.
    """
    if workload.in_sessions:
        times, some = _streams_of_sessions(workload, span_s, cut_off=cut_off)
        prompt, output = chats.tokens(some)
        found = _session_figures(some, workload.prefix or Prefix())
        if not cut_off:
            found["turns"] = lengths(chats.requests(workload))
    else:
        prompt, output = draw_lengths(workload, SAMPLE)
        found = {}
        replications = int(np.clip(MAX_ARRIVALS / (span_s * requests_per_s(workload)), FEWEST, MOST))
        times = [arrivals_in(workload, span_s, SEED, index) for index in range(replications)]
    seen = [figures(arrival_s, prompt, output, span_s) for arrival_s in times if len(arrival_s)]
    means = {name: _mean([getattr(one, name) for one in seen]) for name in ARRIVAL_FIGURES}
    return seen[0].model_copy(update={**means, **found})


def generated_beside(workload: Workload, source: Figures | None) -> Figures:
    """As the source was seen, if it says through which span; else for as long as tells of the arrivals."""
    if source is not None and source.cut_off_s is not None:
        return generated(workload, source.cut_off_s, cut_off=True)
    return generated(workload, telling_span_s(workload))


def _streams_of_sessions(workload: Workload, span_s: float, *, cut_off: bool) -> tuple[list[np.ndarray], list[Chat]]:
    """When the requests of a few streams come, and a sample of sessions."""
    if not cut_off:
        times = [arrivals_in(workload, span_s, SEED, index) for index in range(FEWEST)]
        return times, chats.sample(workload, SAMPLE)
    streams = [sessions_in(workload.changed(duration_s=span_s, requests=None), SEED, index) for index in range(FEWEST)]
    times = [np.sort(np.concatenate([np.empty(0), *(at_s for at_s, _ in stream)])) for stream in streams]
    return times, [chat for stream in streams for _, chat in stream]


def telling_span_s(workload: Workload) -> float:
    """How long a stream tells of the arrivals: an hour, or all of their windows where that is longer."""
    arrival = workload.arrival
    return max(HOUR_S, cycle(arrival)[1]) if isinstance(arrival, Windows) else HOUR_S


def arrivals_in(workload: Workload, span_s: float, seed: int, replication: int) -> np.ndarray:
    """When an open workload's requests come within ``span_s``. Shape (n,)."""
    timed = workload.changed(duration_s=span_s, requests=None)
    if workload.session is not None or isinstance(workload.arrival, Users):
        return request_times(timed, seed, replication)
    return draw_arrivals(timed, seed, replication)[0]


def long_run_rate_per_s(workload: Workload) -> float:
    """Requests or, where those come in some, sessions a second of an open workload, over a long time."""
    arrival = workload.arrival
    assert arrival is not None
    assert not isinstance(arrival, (Closed, Users))
    return mean_rate_per_s(arrival)


def requests_per_s(workload: Workload) -> float:
    """Requests a second of an open workload, over a long time."""
    return long_run_rate_per_s(workload) * float(chats.requests(workload).mean())


def _session_figures(some: list[chats.Chat], prefix: Prefix) -> dict[str, object]:
    """Turns, gaps and reuse of whole sessions."""
    reused = sum(sum(chats.reused_tokens(chat, prefix)) for chat in some)
    return {
        "turns": lengths(np.array([len(chat.pause_s) for chat in some])),
        "gap_s": lengths(np.concatenate([chat.pause_s[:-1] for chat in some])),
        "reuse": reused / sum(sum(chat.prompt_tokens) for chat in some),
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
