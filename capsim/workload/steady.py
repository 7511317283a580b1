"""Who is there when a run begins, as if sessions had been coming for long, and who comes from then on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from capsim.workload.arrivals import Profile, Ramp, Single, Spike, Windows, cycle, long_run_rate_per_s
from capsim.workload.chats import ANY, Chat, Longest, draw, sample
from capsim.workload.classes import Superposed, together
from capsim.workload.drawing import times
from capsim.workload.prefixes import RUN_TOKENS, SHORT_RUN_TOKENS, Context
from capsim.workload.sessions import Prefix, Retries, Users, shared_tokens
from capsim.workload.spec import Arrival, Closed, Workload
from capsim.workload.streams import stream

POOL_REQUESTS = 20_000
"""Of the sessions that those at the start are taken from."""


class Response(NamedTuple):
    """About how long a server takes for a request: for the first token, and for each token of the answer."""

    first_s: float = 0.0
    token_s: float = 0.0

    def seconds(self, chat: Chat) -> np.ndarray:
        """Of each request of a session, shape (n,); what is refused is so at once."""
        served_s = self.first_s + self.token_s * np.array(chat.output_tokens)
        return np.where(np.arange(len(served_s)) < chat.served, served_s, 0.0)


AT_ONCE = Response()


class Begun(NamedTuple):
    """A session met in the middle: its next request and when that comes, and for how long it has paused by now.

    Where no request is left it is over then.
    """

    chat: Chat
    request: int
    start_s: float
    paused_s: float


@dataclass(frozen=True)
class SessionTraffic:
    """Sessions that begin whether or not earlier ones are over (``arrival_s``), or (``closed``) as others end.

    ``begun`` are those met at the start, ``ended`` yields the ages and contents of earlier ones, the youngest first.
    ``limit`` counts requests; nobody asks after ``duration_s``. ``shared_run_tokens`` are those of runs that sessions
    share.
    """

    begun: list[Begun]
    ended: Iterable[tuple[float, Chat]]
    arrival_s: Iterator[float]
    chats: Iterator[Chat]
    closed: bool
    prefix: Prefix
    shared_run_tokens: int
    retries: Retries | None
    max_tokens: int | None
    max_in_flight: int | None
    limit: int | None
    duration_s: float

    def context(self, chat: Chat, number: int) -> Context:
        """The runs of a session's prompts, under its number."""
        return Context(self.prefix, chat.group, number, self.shared_run_tokens)


def sessions(
    workload: Workload, seed: int, replication: int, limit: int | None,
    longest: Longest = ANY, response: Response = AT_ONCE,
) -> SessionTraffic:  # fmt: skip
    """One replication's sessions, as if they had been coming for long to a server that takes the ``longest``."""
    pool = sample(workload, POOL_REQUESTS, longest, seed, replication, "met/")
    start, ends = stream(seed, replication, "start"), stream(seed, replication, "ended")
    closed = isinstance(workload.arrival, Closed)
    arrival_s: Iterator[float] = iter(())
    if isinstance(workload.arrival, Closed):
        users = workload.arrival.users
        stages = _Stages.of(pool, AT_ONCE, closed=True)
        history = _History(_Past(users / max(1e-9, float(stages.life_s.mean()))))
        begun = [
            one._replace(request=one.request % len(one.chat.pause_s))
            for one in _met(pool, stages, users, history, start)
        ]
    else:
        family = _family(workload.arrival)
        history = _history(family)
        stages = _Stages.of(pool, response, closed=False)
        users = int(stream(seed, replication, "begun").poisson(history.most_per_s * stages.life_s.mean()))
        begun = _met(pool, stages, users, history, start)
        arrival_s = _begin_s(family, seed, replication)
    prefix = workload.prefix or Prefix()
    all_share = min(min(chat.prompt_tokens) for chat in pool) >= shared_tokens(prefix)
    return SessionTraffic(
        begun, _ended(pool, stages.life_s, history, ends), arrival_s,
        draw(workload, longest, seed, replication, ""), closed, prefix,
        RUN_TOKENS if all_share else SHORT_RUN_TOKENS, workload.session.retries if workload.session else None,
        workload.max_tokens, workload.max_in_flight, limit, workload.duration_s or np.inf,
    )  # fmt: skip


def request_times(workload: Workload, seed: int, replication: int) -> np.ndarray:
    """When requests of open sessions come within ``duration_s``, if answers take no time. Shape (n,), in order."""
    span_s, begun = workload.duration_s or 0.0, sessions(workload, seed, replication, None).begun
    met = [one for one in begun if one.request < len(one.chat.pause_s)]
    times_s = [one.start_s + _since_first(one.chat.pause_s[one.request :]) for one in met]
    times_s += [at_s for at_s, _ in _beginning(workload, span_s, seed, replication)]
    return np.sort(np.concatenate([one[one <= span_s] for one in (np.empty(0), *times_s)]))


def sessions_in(workload: Workload, seed: int, replication: int) -> list[tuple[np.ndarray, Chat]]:
    """Open sessions that begin within ``duration_s``, as far as they come in it: when their requests do, and these."""
    span_s = workload.duration_s or 0.0
    return [_until(span_s, *one) for one in _beginning(workload, span_s, seed, replication)]


def _beginning(workload: Workload, span_s: float, seed: int, replication: int) -> Iterator[tuple[np.ndarray, Chat]]:
    """When the requests of each session that begins in the span come, and what they are."""
    begin_s = takewhile(lambda at_s: at_s <= span_s, _begin_s(_family(workload.arrival), seed, replication))
    drawn = draw(workload, ANY, seed, replication, "")
    return ((at_s + _since_first(chat.pause_s), chat) for at_s, chat in zip(begin_s, drawn, strict=False))


def _until(end_s: float, at_s: np.ndarray, chat: Chat) -> tuple[np.ndarray, Chat]:
    kept = int(np.searchsorted(at_s, end_s, side="right"))
    return at_s[:kept], chat.first(kept)


def _since_first(pause_s: list[float]) -> np.ndarray:
    return np.cumsum([0.0, *pause_s[:-1]])


def requests_per_s(workload: Workload, longest: Longest = ANY) -> float:
    """How many requests a second open sessions make by the start of the run."""
    requests = np.mean([len(chat.prompt_tokens) for chat in sample(workload, POOL_REQUESTS, longest)])
    return float(requests * _history(_family(workload.arrival)).per_s(np.zeros(1))[0])


def _family(arrival: Arrival | None) -> Single | Superposed:
    """What sessions arrive by."""
    assert arrival is not None
    assert not isinstance(arrival, Closed)
    return arrival.arrivals if isinstance(arrival, Users) else arrival


def _begin_s(family: Single | Superposed, seed: int, replication: int) -> Iterator[float]:
    """When sessions begin, one after the other without end."""
    if isinstance(family, Superposed):
        return (at_s for chunk, _ in together(family, seed, replication) for at_s in chunk.tolist())
    return (at_s for chunk in times(family, stream(seed, replication, "arrivals")) for at_s in chunk.tolist())


@dataclass(frozen=True)
class _Past:
    """How fast sessions of one class began: ``most_per_s``, less of it by the hour where there are ``shares``.

    ``shares`` are those of equal parts of ``period_s``; the run begins at ``start_s`` of it.
    """

    most_per_s: float
    shares: tuple[float, ...] = (1.0,)
    period_s: float = 1.0
    start_s: float = 0.0

    def per_s(self, ago_s: np.ndarray) -> np.ndarray:
        """The rate so long ago, shape (n,)."""
        part = (self.start_s - ago_s) % self.period_s / self.period_s * len(self.shares)
        return self.most_per_s * np.array(self.shares)[part.astype(int).clip(max=len(self.shares) - 1)]


class _History:
    """How fast sessions began before the run: those of all its parts, never more than ``most_per_s``."""

    def __init__(self, *parts: _Past) -> None:
        self._parts = parts
        self.most_per_s = sum(part.most_per_s for part in parts)

    def per_s(self, ago_s: np.ndarray) -> np.ndarray:
        """The rate so long ago, shape (n,)."""
        return np.sum([part.per_s(ago_s) for part in self._parts], axis=0)

    def share(self, ago_s: np.ndarray) -> np.ndarray:
        """That rate over the highest, shape (n,)."""
        return self.per_s(ago_s) / self.most_per_s


def _history(family: Single | Superposed) -> _History:
    alone = [one.arrival for one in family.classes] if isinstance(family, Superposed) else [family]
    return _History(*map(_past, alone))


def _past(family: Single) -> _Past:
    match family:
        case Profile() | Windows():
            rates, period_s, start_s = cycle(family)
            return _Past(max(rates), tuple(rate / max(rates) for rate in rates), period_s, start_s)
        case Spike():
            return _Past(family.rate_per_s)
        case Ramp():
            return _Past(family.from_per_s)
    return _Past(long_run_rate_per_s(family))


class _Stages(NamedTuple):
    """Of each request of a pool of sessions: whose and which it is, seconds in the session before it, to the end of
    its answer, and on to the next request. Shape (n,); ``life_s``, of each session, has shape (sessions,)."""

    owner: np.ndarray
    request: np.ndarray
    before_s: np.ndarray
    answer_s: np.ndarray
    pause_s: np.ndarray
    life_s: np.ndarray

    @classmethod
    def of(cls, pool: list[Chat], response: Response, *, closed: bool) -> "_Stages":
        """In a ``closed`` loop a session's last pause is followed by another one; else it is over with its answer."""
        counts = [len(chat.pause_s) for chat in pool]
        last = np.cumsum(counts) - 1
        answer_s = np.concatenate([response.seconds(chat) for chat in pool])
        pause_s = np.concatenate([chat.pause_s for chat in pool])
        if not closed:
            pause_s[last] = 0.0
        ends_s = np.cumsum(answer_s + pause_s)
        begins_s = np.append(0.0, ends_s[last[:-1]])
        owner = np.repeat(np.arange(len(pool)), counts)
        request = np.arange(len(owner)) - np.repeat(last + 1 - counts, counts)
        before_s = ends_s - answer_s - pause_s - begins_s[owner]
        return cls(owner, request, before_s, answer_s, pause_s, ends_s[last] - begins_s)


def _met(
    pool: list[Chat], stages: _Stages, users: int, history: _History, generator: np.random.Generator
) -> list[Begun]:
    """Sessions at a uniform instant of their lives, the longer ones more often: of ``users`` those that began.

    A request that runs by then ends as estimated, and is not seen.
    """
    lasts_s = stages.answer_s + stages.pause_s
    shares = np.cumsum(lasts_s if lasts_s.any() else np.ones(len(lasts_s)))
    uniforms = generator.random((users, 3))
    rows = np.searchsorted(shares, uniforms[:, 0] * shares[-1], side="right").clip(max=len(shares) - 1)
    past_s = lasts_s[rows] * (1 - uniforms[:, 1])
    kept = uniforms[:, 2] < history.share(stages.before_s[rows] + past_s)
    rows, past_s = rows[kept], past_s[kept]
    columns = stages.owner[rows], stages.request[rows] + 1, lasts_s[rows] - past_s, past_s - stages.answer_s[rows]
    met = zip(*(column.tolist() for column in columns), strict=True)
    return [Begun(pool[one], request, left_s, max(0.0, paused_s)) for one, request, left_s, paused_s in met]


def _ended(
    pool: list[Chat], life_s: np.ndarray, history: _History, generator: np.random.Generator
) -> Iterator[tuple[float, Chat]]:
    """Earlier sessions, as an endless stream of them would have left behind: since when they are over, and what."""
    age_s, rows = 0.0, len(pool)
    while history.most_per_s > 0:
        ages_s = age_s + np.cumsum(generator.exponential(1 / history.most_per_s, rows))
        which = (generator.random(rows) * rows).astype(int)
        kept = generator.random(rows) < history.share(ages_s + life_s[which])
        yield from ((age, pool[one]) for age, one in zip(ages_s[kept].tolist(), which[kept].tolist(), strict=True))
        age_s = float(ages_s[-1])
