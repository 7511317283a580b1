"""The request stream: every attribute of request ``i`` is row ``i`` of its own random stream."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, repeat
from typing import NamedTuple

import numpy as np

from capsim.workload import chats
from capsim.workload.chats import ANY, Longest
from capsim.workload.classes import Superposed, class_lengths, mixed, superposed_arrivals
from capsim.workload.distributions import Distribution, draw_tokens
from capsim.workload.drawing import CHUNK, take, times
from capsim.workload.prefixes import Run, stretch
from capsim.workload.sessions import Prefix, Users
from capsim.workload.spec import Closed, Workload
from capsim.workload.steady import AT_ONCE, Response, SessionTraffic, sessions
from capsim.workload.streams import stream
from capsim.workload.traces import Trace
from capsim.workload.traces.follow import earlier, extends, sessions_of

DEFAULT_REQUESTS = 2000
SAMPLE = 1024
_PAUSES = stream(0, 0, "pauses").random((16 * CHUNK, 2))


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
    """Requests that come whether or not earlier ones are done. ``arrival_s`` has shape (n,).

    ``whose``, of shape (n, 2), holds the session and the turn of each; None where each is a session of its own.
    """

    arrival_s: np.ndarray
    requests: Iterable[Request]
    max_in_flight: int | None
    whose: np.ndarray | None = None


@dataclass(frozen=True)
class ClosedReplay:
    """Requests of which those that follow another come ``pause_s`` after that has ended, served or not.

    Arrays of shape (n,): ``follows`` holds an earlier row, or −1 where the request comes at its ``arrival_s``;
    ``whose``, of shape (n, 2), the session and the turn.
    """

    arrival_s: np.ndarray
    follows: np.ndarray
    pause_s: np.ndarray
    requests: list[Request]
    whose: np.ndarray
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


Traffic = OpenArrivals | ClosedReplay | ClosedLoop | SessionTraffic


def traffic(
    workload: Workload, trace: Trace | None, seed: int, replication: int,
    longest: Longest = ANY, response: Response = AT_ONCE,
) -> Traffic:  # fmt: skip
    """One replication's requests. ``workload`` must be complete: an arrival and lengths, or a trace.

    A session ends with the first request that is longer than the ``longest`` that the server takes; open ones that
    are there at the start have waited for its ``response``.
    """
    limit = None if workload.duration_s else workload.requests or DEFAULT_REQUESTS
    if workload.in_sessions:
        return sessions(workload, seed, replication, limit, longest, response)
    if isinstance(workload.arrival, Closed):
        drawn = _draws(workload, trace, seed, replication)
        return ClosedLoop(_starts(workload, seed, replication), drawn, limit, workload.duration_s or np.inf)
    if trace is not None and workload.arrival is None:
        return _replayed(workload, trace)
    arrival_s, classes = draw_arrivals(workload, seed, replication)
    drawn = _draws(workload, trace, seed, replication, classes)
    return OpenArrivals(arrival_s, islice(drawn, len(arrival_s)), workload.max_in_flight)


def _replayed(workload: Workload, trace: Trace) -> OpenArrivals | ClosedReplay:
    """The trace as it was recorded, or its later turns as earlier ones end."""
    first = min(len(trace), workload.requests or len(trace))
    first = int(np.searchsorted(trace.arrival_s[:first], workload.duration_s or np.inf))
    arrival_s, tokens = trace.arrival_s[:first], (trace.prompt_tokens[:first], trace.output_tokens[:first])
    session = sessions_of(trace) if workload.replay == "closed" else trace.session
    whose = None if session is None else _sessions_and_turns(session[:first])
    if workload.replay == "open":
        rows = _requests(*tokens, np.zeros(first), workload, _chains(trace, workload.max_tokens))
        return OpenArrivals(arrival_s, rows, workload.max_in_flight, whose)
    followed = earlier(trace)
    assert followed is not None
    assert trace.think_s is not None
    assert whose is not None
    followed, pause_s = followed[:first], trace.think_s[:first]
    later = np.flatnonzero(followed >= 0)[::-1]  # of several that follow one the first counts
    think_s = np.zeros(first)
    think_s[followed[later]] = pause_s[later]
    requests = list(_requests(*tokens, think_s, workload, _chains(trace, workload.max_tokens)))
    return ClosedReplay(arrival_s, followed, pause_s, requests, whose, workload.max_in_flight)


def with_users(workload: Workload, users: int, requests: int, warmup_requests: int) -> Workload:
    """The same people and lengths in a closed loop of ``users``."""
    classes = workload.classes or None
    return workload.changed(
        arrival=Closed(kind="closed", users=users, classes=classes), requests=requests, warmup_requests=warmup_requests,
        duration_s=None, max_in_flight=None, replay="open",
    )  # fmt: skip


def sample_lengths(workload: Workload, trace: Trace | None, longest: Longest = ANY) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of some requests, shape (n,) each; of all of them where there is a trace."""
    if trace is not None:
        return trace.prompt_tokens, trace.output_tokens
    return draw_lengths(workload, SAMPLE, longest)


def sample_reused(workload: Workload, longest: Longest = ANY) -> np.ndarray:
    """Of the prompts of ``sample_lengths`` what sessions sent before, shape (n,)."""
    prefix = workload.prefix or Prefix()
    return np.concatenate([chats.reused_tokens(chat, prefix) for chat in chats.sample(workload, SAMPLE, longest)])


def draw_lengths(workload: Workload, requests: int, longest: Longest = ANY) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of ``requests`` requests, shape (n,) each, drawn from the workload's distributions.

    Those of whole sessions are about so many.
    """
    if workload.in_sessions:
        return chats.tokens(chats.sample(workload, requests, longest))
    chunks = list(islice(_columns(workload, None, 0, 0), -(-requests // CHUNK)))
    prompt, output, _ = (np.concatenate(column)[:requests] for column in zip(*chunks, strict=True))
    return prompt, output if workload.max_tokens is None else np.minimum(output, workload.max_tokens)


def draw_arrivals(workload: Workload, seed: int, replication: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Arrival times of an open workload and, where it has classes, the class of each. Shape (n,)."""
    arrival = workload.arrival
    assert arrival is not None
    assert not isinstance(arrival, Closed | Users)
    limit = None if workload.duration_s else workload.requests or DEFAULT_REQUESTS
    if isinstance(arrival, Superposed):
        return superposed_arrivals(arrival, limit, workload.duration_s, seed, replication)
    return take(times(arrival, stream(seed, replication, "arrivals")), limit, workload.duration_s), None


def _draws(
    workload: Workload, trace: Trace | None, seed: int, replication: int, classes: np.ndarray | None = None
) -> Iterator[Request]:
    """Requests without end."""
    for prompt, output, think_s in _columns(workload, trace, seed, replication, classes):
        yield from _requests(prompt, output, think_s, workload)


def _columns(
    workload: Workload, trace: Trace | None, seed: int, replication: int, classes: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Chunks of prompts, outputs and pauses, without end.

    Lengths come from the distributions, or are pairs drawn from the trace's rows, or are those of a client class:
    the requests' ``classes`` where they are known, else one drawn for each.
    """
    prompts, outputs, thinks, kinds = (
        stream(seed, replication, name) for name in ("prompt", "output", "think", "class")
    )
    for start in count(0, CHUNK):
        for_prompt, for_output = prompts.random((CHUNK, 2)), outputs.random((CHUNK, 2))
        if trace is not None:
            rows = (for_prompt[:, 0] * len(trace)).astype(int)
            prompt, output = trace.prompt_tokens[rows], trace.output_tokens[rows]
        elif workload.classes:
            drawn = mixed(workload.classes, kinds.random(CHUNK))
            chosen = drawn if classes is None else classes[start : start + CHUNK]
            prompt, output = class_lengths(workload.classes, chosen, for_prompt, for_output)
        else:
            assert workload.prompt_tokens is not None
            assert workload.output_tokens is not None
            prompt = draw_tokens(workload.prompt_tokens, for_prompt)
            output = draw_tokens(workload.output_tokens, for_output)
        uniforms = thinks.random((CHUNK, 2))
        think_s = np.zeros(CHUNK) if workload.think_s is None else workload.think_s.draw(uniforms)
        yield prompt, output, think_s


def _sessions_and_turns(session: np.ndarray) -> np.ndarray:
    """The session of each request and its place in it, shape (n, 2); an unknown session (-1) is one of its own."""
    rows = np.arange(len(session))
    session = np.where(session < 0, session.max(initial=-1) + 1 + rows, session)
    order = np.argsort(session, kind="stable")
    starts = np.flatnonzero(np.diff(session[order], prepend=-1))
    turn = np.empty_like(rows)
    turn[order] = rows - np.repeat(starts, np.diff(starts, append=len(rows)))
    return np.column_stack([session, turn])


def _chains(trace: Trace, max_tokens: int | None) -> Iterator[tuple[Run, ...]]:
    """For each request of a trace its runs: its prompt's hashes, else those of the prompt it extends and its own."""
    hashes, extended = trace.prefix_hashes, extends(trace)
    if hashes is not None:
        for request, prompt in enumerate(trace.prompt_tokens.tolist()):
            keys = hashes.of(request).tolist()
            yield tuple([(key, min(end, prompt)) for key, end in zip(keys, count(hashes.tokens, hashes.tokens))])
    elif extended is not None:
        ends = trace.prompt_tokens + np.minimum(trace.output_tokens, max_tokens or np.inf)
        yield from _grown_chains(extended.tolist(), ends.astype(int).tolist())
    else:
        yield from repeat((), len(trace))


def _grown_chains(extended: list[int], ends: list[int]) -> Iterator[tuple[Run, ...]]:
    """For each row the runs of the row that it extends, and its own to the end of its answer."""
    followers = Counter(extended)
    kept: dict[int, tuple[Run, ...]] = {-1: ()}
    for row, (before, end) in enumerate(zip(extended, ends, strict=True)):
        chain = kept[before]
        chain = (*chain, *stretch(row, chain[-1][1] if chain else 0, end))
        if followers[row]:
            kept[row] = chain
        followers[before] -= 1
        if before >= 0 and not followers[before]:
            del kept[before]
        yield chain


def _requests(
    prompt: np.ndarray,
    output: np.ndarray,
    think_s: np.ndarray,
    workload: Workload,
    prefixes: Iterable[tuple[Run, ...]] = repeat(()),
) -> Iterator[Request]:
    """Requests from columns; answers end at ``max_tokens`` where the workload caps them."""
    cap = workload.max_tokens
    given = output if cap is None else np.minimum(output, cap)
    longest = given if cap is None else np.full(len(output), cap)
    return map(Request, prompt.tolist(), given.tolist(), longest.tolist(), think_s.tolist(), prefixes)


def _starts(workload: Workload, seed: int, replication: int) -> np.ndarray:
    """First requests of users met in mid-thought: a pause is met in proportion to its length, anywhere inside it."""
    assert isinstance(workload.arrival, Closed)
    users = workload.arrival.users
    uniforms = stream(seed, replication, "start").random((users, 2))
    if workload.think_s is None:
        return np.zeros(users)
    return residual(workload.think_s, uniforms)


def mean_think_s(workload: Workload, longest: Longest = ANY) -> float:
    """Mean pause of a closed-loop user."""
    if workload.in_sessions:
        some = chats.sample(workload, len(_PAUSES), longest)
        return float(np.mean([pause for chat in some for pause in chat.pause_s]))
    return 0.0 if workload.think_s is None else float(workload.think_s.draw(_PAUSES).mean())


def residual(think_s: Distribution, uniforms: np.ndarray) -> np.ndarray:
    """Equilibrium residual of a pause, shape (n,), from two uniforms each (shape (n, 2))."""
    pauses = np.sort(think_s.draw(_PAUSES))
    shares = np.cumsum(pauses)
    met = np.searchsorted(shares, uniforms[:, 0] * shares[-1], side="right")
    return pauses[np.minimum(met, len(pauses) - 1)] * uniforms[:, 1]
