"""The request stream: every attribute of request ``i`` is row ``i`` of its own random stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from capsim.workload.distributions import Distribution, draw_tokens
from capsim.workload.spec import Closed, ConstantRate, Poisson, Workload
from capsim.workload.streams import stream
from capsim.workload.traces import Trace

CHUNK = 4096
DEFAULT_REQUESTS = 2000
SAMPLE = 1024
_PAUSES = stream(0, 0, "pauses").random((16 * CHUNK, 2))


Run = tuple[int, int]
"""A stretch of a context: a key that stands for all its tokens from the first on, and where the stretch ends."""


class Request(NamedTuple):
    """What a client sends, and how long its answer will be (known to the node that counts tokens, to nobody else).

    ``prefix`` holds the runs of tokens that other requests may share, in order from the first token; the last may end
    with the answer.
    """

    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    think_s: float
    prefix: tuple[Run, ...] = ()


@dataclass(frozen=True)
class OpenArrivals:
    """Requests that come whether or not earlier ones are done. ``arrival_s`` has shape (n,)."""

    arrival_s: np.ndarray
    requests: Iterable[Request]
    max_in_flight: int | None


@dataclass(frozen=True)
class ClosedLoop:
    """Users who ask, wait, think and ask again, until ``limit`` requests or ``duration_s`` are spent.

    ``start_s`` has shape (users,): when each first asks, as if they had all been at it for long.
    """

    start_s: np.ndarray
    requests: Iterator[Request]
    limit: int | None
    duration_s: float


Traffic = OpenArrivals | ClosedLoop


def traffic(workload: Workload, trace: Trace | None, seed: int, replication: int) -> Traffic:
    """One replication's requests. ``workload`` must be complete: an arrival and lengths, or a trace."""
    drawn = _draws(workload, trace, seed, replication)
    if isinstance(workload.arrival, Closed):
        limit = None if workload.duration_s else workload.requests or DEFAULT_REQUESTS
        return ClosedLoop(_starts(workload, seed, replication), drawn, limit, workload.duration_s or np.inf)
    if trace is not None and workload.arrival is None:
        count = min(len(trace), workload.requests or len(trace))
        count = int(np.searchsorted(trace.arrival_s[:count], workload.duration_s or np.inf))
        rows = _requests(trace.prompt_tokens[:count], trace.output_tokens[:count], np.zeros(count), workload)
        return OpenArrivals(trace.arrival_s[:count], rows, workload.max_in_flight)
    arrival_s = _arrivals(workload, seed, replication)
    return OpenArrivals(arrival_s, islice(drawn, len(arrival_s)), workload.max_in_flight)


def with_users(workload: Workload, users: int, requests: int, warmup_requests: int) -> Workload:
    """The same people and lengths in a closed loop of ``users``."""
    changed = {
        "arrival": Closed(kind="closed", users=users), "requests": requests, "warmup_requests": warmup_requests,
        "duration_s": None, "max_in_flight": None,
    }  # fmt: skip
    return workload.model_copy(update=changed)


def sample_lengths(workload: Workload, trace: Trace | None) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of some requests, shape (n,) each; of all of them where there is a trace."""
    if trace is not None:
        return trace.prompt_tokens, trace.output_tokens
    requests = list(islice(_draws(workload, None, 0, 0), SAMPLE))
    return np.array([r.prompt_tokens for r in requests]), np.array([r.output_tokens for r in requests])


def _arrivals(workload: Workload, seed: int, replication: int) -> np.ndarray:
    """Arrival times, shape (n,)."""
    arrival = workload.arrival
    assert isinstance(arrival, (Poisson, ConstantRate))
    generator = stream(seed, replication, "arrivals")
    limit = workload.requests or DEFAULT_REQUESTS
    parts, last, count = [], 0.0, 0
    while True:
        gaps = np.ones(CHUNK) if arrival.kind == "constant" else -np.log1p(-generator.random(CHUNK))
        parts.append(last + np.cumsum(gaps) / arrival.rate_per_s)
        last, count = float(parts[-1][-1]), count + CHUNK
        if workload.duration_s is not None and last > workload.duration_s:
            times = np.concatenate(parts)
            return times[times <= workload.duration_s]
        if workload.duration_s is None and count >= limit:
            return np.concatenate(parts)[:limit]


def _draws(workload: Workload, trace: Trace | None, seed: int, replication: int) -> Iterator[Request]:
    """Requests without end. Lengths come from the distributions, or are pairs drawn from the trace's rows."""
    prompts, outputs, thinks = (stream(seed, replication, name) for name in ("prompt", "output", "think"))
    while True:
        if trace is None:
            assert workload.prompt_tokens is not None
            assert workload.output_tokens is not None
            prompt = draw_tokens(workload.prompt_tokens, prompts.random((CHUNK, 2)))
            output = draw_tokens(workload.output_tokens, outputs.random((CHUNK, 2)))
        else:
            rows = (prompts.random((CHUNK, 2))[:, 0] * len(trace)).astype(int)
            prompt, output = trace.prompt_tokens[rows], trace.output_tokens[rows]
        uniforms = thinks.random((CHUNK, 2))
        think = np.zeros(CHUNK) if workload.think_s is None else workload.think_s.draw(uniforms)
        yield from _requests(prompt, output, think, workload)


def _requests(prompt: np.ndarray, output: np.ndarray, think_s: np.ndarray, workload: Workload) -> Iterator[Request]:
    """Requests from columns; answers end at ``max_tokens`` where the workload caps them."""
    cap = workload.max_tokens
    given = output if cap is None else np.minimum(output, cap)
    longest = given if cap is None else np.full(len(output), cap)
    return map(Request, prompt.tolist(), given.tolist(), longest.tolist(), think_s.tolist())


def _starts(workload: Workload, seed: int, replication: int) -> np.ndarray:
    """First requests of users met in mid-thought: a pause is met in proportion to its length, anywhere inside it."""
    assert isinstance(workload.arrival, Closed)
    users = workload.arrival.users
    uniforms = stream(seed, replication, "start").random((users, 2))
    if workload.think_s is None:
        return np.zeros(users)
    return residual(workload.think_s, uniforms)


def mean_think_s(workload: Workload) -> float:
    """Mean pause of a closed-loop user."""
    return 0.0 if workload.think_s is None else float(workload.think_s.draw(_PAUSES).mean())


def residual(think_s: Distribution, uniforms: np.ndarray) -> np.ndarray:
    """Equilibrium residual of a pause, shape (n,), from two uniforms each (shape (n, 2))."""
    pauses = np.sort(think_s.draw(_PAUSES))
    shares = np.cumsum(pauses)
    met = np.searchsorted(shares, uniforms[:, 0] * shares[-1], side="right")
    return pauses[np.minimum(met, len(pauses) - 1)] * uniforms[:, 1]
