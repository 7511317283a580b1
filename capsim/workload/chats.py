"""Sessions drawn whole: every attribute of request ``r`` of session ``s`` is row (r, s) of its own random stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from typing import NamedTuple

import numpy as np

from capsim.workload.arrivals import Profile, Ramp, Single, Spike, long_run_rate_per_s
from capsim.workload.classes import Superposed
from capsim.workload.distributions import Constant, Distribution, draw_tokens
from capsim.workload.drawing import times
from capsim.workload.prefixes import Context, head
from capsim.workload.sessions import Compaction, Prefix, Retries, Session, Users
from capsim.workload.spec import Arrival, Closed, Workload
from capsim.workload.streams import stream

TOGETHER = 64
MAX_REQUESTS = 10_000
"""Of one session, however long its draws make it."""
POOL_REQUESTS, POOL_SESSIONS = 20_000, 64
PARTS = 500
_ONE = Constant(kind="constant", value=1)
ONE_REQUEST = Session(turns=_ONE, new_tokens=_ONE)


class Chat(NamedTuple):
    """One session: lists with a value for each of its requests.

    ``pause_s`` follows a request; after the last it is the user's, before another session. ``summaries`` counts those
    of its context by then, ``patience_s`` is infinite where nobody gives up.
    """

    prompt_tokens: list[int]
    output_tokens: list[int]
    pause_s: list[float]
    patience_s: list[float]
    summaries: list[int]
    group: int


class Begun(NamedTuple):
    """A session met in the middle: its next request and when that comes, and for how long it has paused by now."""

    chat: Chat
    request: int
    start_s: float
    paused_s: float


@dataclass(frozen=True)
class Sessions:
    """Sessions that begin whether or not earlier ones are over (``arrival_s``), or (``closed``) as others end.

    ``begun`` are those met at the start, ``ended`` yields the ages and contents of earlier ones, the youngest first.
    ``limit`` counts requests; nobody asks after ``duration_s``.
    """

    begun: list[Begun]
    ended: Iterable[tuple[float, Chat]]
    arrival_s: Iterator[float]
    chats: Iterator[Chat]
    closed: bool
    prefix: Prefix
    retries: Retries | None
    max_tokens: int | None
    max_in_flight: int | None
    limit: int | None
    duration_s: float

    def context(self, chat: Chat, number: int) -> Context:
        """The runs of a session's prompts, under its number."""
        return Context(head(self.prefix, chat.group), number if self.prefix.session else None)


def sessions(workload: Workload, seed: int, replication: int, limit: int | None) -> Sessions:
    """One replication's sessions, as if they had been coming for long."""
    pool = list(_pool(workload, seed, replication))
    arrival_s: Iterator[float] = iter(())
    if isinstance(workload.arrival, Closed):
        begun = _met(pool, workload.arrival.users, True, stream(seed, replication, "start"))
        cycle_s = float(np.mean([sum(chat.pause_s) for chat in pool]))
        rate_per_s = len(begun) / max(1e-9, cycle_s)
    else:
        family = _family(workload.arrival)
        rate_per_s = _rate_at_start_per_s(family)
        open_s = float(np.mean([sum(chat.pause_s[:-1]) for chat in pool]))
        users = int(stream(seed, replication, "begun").poisson(rate_per_s * open_s))
        begun = _met(pool, users, False, stream(seed, replication, "start"))
        chunks = times(family, stream(seed, replication, "arrivals"))
        arrival_s = (at_s for chunk in chunks for at_s in chunk.tolist())
    return Sessions(
        begun, _ended(pool, rate_per_s, stream(seed, replication, "ended")), arrival_s,
        _draw(workload, seed, replication, ""), isinstance(workload.arrival, Closed), workload.prefix or Prefix(),
        workload.session.retries if workload.session else None,
        workload.max_tokens, workload.max_in_flight, limit, workload.duration_s or np.inf,
    )  # fmt: skip


def request_times(workload: Workload, seed: int, replication: int) -> np.ndarray:
    """When requests of open sessions come within ``duration_s``, if answers take no time. Shape (n,), in order."""
    drawn, span_s = sessions(workload, seed, replication, None), workload.duration_s or 0.0
    times_s = [begun.start_s + _since_first(begun.chat.pause_s[begun.request :]) for begun in drawn.begun]
    begins_s = takewhile(lambda at_s: at_s <= span_s, drawn.arrival_s)
    times_s += [at_s + _since_first(chat.pause_s) for at_s, chat in zip(begins_s, drawn.chats, strict=False)]
    return np.sort(np.concatenate([one[one <= span_s] for one in (np.empty(0), *times_s)]))


def _since_first(pause_s: list[float]) -> np.ndarray:
    return np.cumsum([0.0, *pause_s[:-1]])


def sample(workload: Workload, requests: int) -> list[Chat]:
    """Some whole sessions, of about so many requests in all."""
    drawn: list[Chat] = []
    for chat in _draw(workload, 0, 0, ""):
        drawn.append(chat)
        requests -= len(chat.prompt_tokens)
        if requests <= 0 and len(drawn) >= POOL_SESSIONS:
            return drawn
    raise AssertionError("sessions ended")


def mean_requests(workload: Workload) -> float:
    """Requests of a session, on average."""
    if workload.session is None:
        return 1.0
    parts = (_Part(workload, 0, 0, f"session {{}}/{part}") for part in range(PARTS))
    return float(np.mean([len(rounds) for part in parts for rounds in part.rounds()]))


def tokens(some: list[Chat]) -> tuple[np.ndarray, np.ndarray]:
    """Prompt and output tokens of all their requests, shape (n,) each."""
    return np.concatenate([c.prompt_tokens for c in some]), np.concatenate([c.output_tokens for c in some])


def reused_tokens(chat: Chat, prefix: Prefix) -> list[int]:
    """Of each prompt, what a cache that forgets nothing holds: the last context, or what others share."""
    shared = prefix.global_tokens + (prefix.groups.tokens if prefix.groups else 0)
    reused = []
    for request, prompt in enumerate(chat.prompt_tokens):
        grown = request and prefix.session and chat.summaries[request] == chat.summaries[request - 1]
        last = chat.prompt_tokens[request - 1] + chat.output_tokens[request - 1] - 1 if grown else 0
        reused.append(min(prompt - 1, max(last, shared)))
    return reused


def _family(arrival: Arrival | None) -> Single:
    """What sessions arrive by."""
    assert arrival is not None
    assert not isinstance(arrival, Superposed | Closed)
    return arrival.arrivals if isinstance(arrival, Users) else arrival


def _rate_at_start_per_s(family: Single) -> float:
    """How fast sessions have been beginning by the start of the run."""
    match family:
        case Profile():
            rates, period_s = family.rates_per_s, family.period_s
            assert period_s is not None
            return rates[int(family.start_s % period_s / period_s * len(rates))]
        case Spike():
            return family.rate_per_s
        case Ramp():
            return family.from_per_s
    return long_run_rate_per_s(family)


def _pool(workload: Workload, seed: int, replication: int) -> Iterator[Chat]:
    """Sessions that those at the start are taken from."""
    requests = 0
    for number, chat in enumerate(_draw(workload, seed, replication, "met/")):
        if requests >= POOL_REQUESTS and number >= POOL_SESSIONS:
            return
        requests += len(chat.prompt_tokens)
        yield chat


def _met(pool: list[Chat], users: int, between: bool, generator: np.random.Generator) -> list[Begun]:
    """``users`` in mid-pause, if need be ``between`` two sessions: a pause is met in proportion to its length.

    The phase in it is uniform.
    """
    if not users:
        return []
    counts = [len(chat.pause_s) - (not between) for chat in pool]
    owner = np.repeat(np.arange(len(pool)), counts)
    after = np.concatenate([np.arange(count) for count in counts])
    pause_s = np.array([pause for chat, count in zip(pool, counts, strict=True) for pause in chat.pause_s[:count]])
    shares = np.cumsum(pause_s if pause_s.any() else np.ones(len(pause_s)))
    uniforms = generator.random((users, 2))
    rows = np.searchsorted(shares, uniforms[:, 0] * shares[-1], side="right").clip(max=len(shares) - 1)
    left_s, past_s = pause_s[rows] * uniforms[:, 1], pause_s[rows] * (1 - uniforms[:, 1])
    met = zip(owner[rows].tolist(), after[rows].tolist(), left_s.tolist(), past_s.tolist(), strict=True)
    return [Begun(pool[one], (last + 1) % len(pool[one].pause_s), left, past) for one, last, left, past in met]


def _ended(pool: list[Chat], rate_per_s: float, generator: np.random.Generator) -> Iterator[tuple[float, Chat]]:
    """Earlier sessions, as an endless stream of them would have left behind: since when they are over, and what."""
    age_s = 0.0
    while rate_per_s > 0:
        age_s += generator.exponential(1 / rate_per_s)
        yield age_s, pool[int(generator.random() * len(pool))]


def _draw(workload: Workload, seed: int, replication: int, where: str) -> Iterator[Chat]:
    """Sessions without end."""
    for part in count():
        yield from _Part(workload, seed, replication, f"{where}session {{}}/{part}").chats()


class _Part:
    """``TOGETHER`` sessions, whose streams are theirs alone: a longer one takes more rows and shifts nobody's."""

    def __init__(self, workload: Workload, seed: int, replication: int, streams: str) -> None:
        self._workload = workload
        self._session = workload.session or ONE_REQUEST
        self._stream = lambda purpose: stream(seed, replication, streams.format(purpose))

    def chats(self) -> list[Chat]:
        workload, session = self._workload, self._session
        assert workload.prompt_tokens is not None
        assert workload.output_tokens is not None
        rounds = self.rounds()
        rows = max(map(len, rounds))
        first, groups = self._tokens("first prompt", workload.prompt_tokens, 1)[0].tolist(), self._groups()
        new = self._tokens("new", session.new_tokens, rows)
        output = self._tokens("output", workload.output_tokens, rows)
        pause_s = self._pauses(rounds, rows)
        patience_s = self._seconds("patience", session.patience_s, rows, np.inf)
        if workload.max_tokens is not None:
            output = np.minimum(output, workload.max_tokens)
        chats = []
        for one, long in enumerate(map(len, rounds)):
            answers = output[:long, one].tolist()
            prompts, summaries = _grown(first[one], new[1:long, one].tolist(), answers, session.compaction)
            waits = pause_s[:long, one].tolist(), patience_s[:long, one].tolist()
            chats.append(Chat(prompts, answers, *waits, summaries, groups[one]))
        return chats

    def rounds(self) -> list[list[int]]:
        """For each session and each of its requests the calls to tools that follow at once; none before a pause."""
        turns = self._tokens("turns", self._session.turns, 1)[0].clip(max=MAX_REQUESTS)
        tools = self._session.tools
        if tools is None:
            return [[0] * one for one in turns.tolist()]
        rows = int(turns.max())
        calls = np.rint(tools.calls.draw(self._uniforms("calls", rows))).astype(int).reshape(rows, TOGETHER)
        return [
            [min(tools.parallel, left) for each in calls[:long, one].tolist()
             for left in (*range(min(each, MAX_REQUESTS), 0, -tools.parallel), 0)][:MAX_REQUESTS]
            for one, long in enumerate(turns.tolist())
        ]  # fmt: skip

    def _pauses(self, rounds: list[list[int]], rows: int) -> np.ndarray:
        """Seconds after each request: those of the slowest tool of its round, else a person's."""
        pause_s = self._seconds("pause", self._workload.think_s, rows, 0.0)
        tools = self._session.tools
        if tools is None:
            return pause_s
        running = np.zeros((rows, TOGETHER), dtype=int)
        for one, calls in enumerate(rounds):
            running[: len(calls), one] = calls
        slowest_s = np.zeros((rows, TOGETHER))
        for call in range(tools.parallel):
            latency_s = self._seconds(f"tool {call}", tools.latency_s, rows, 0.0)
            slowest_s = np.where(running > call, np.maximum(slowest_s, latency_s), slowest_s)
        return np.where(running > 0, slowest_s, pause_s)

    def _groups(self) -> list[int]:
        """Which group's prefix each session has; number 0 is the most frequent."""
        groups = self._workload.prefix.groups if self._workload.prefix is not None else None
        if groups is None:
            return [0] * TOGETHER
        shares = np.cumsum(np.arange(1.0, groups.count + 1) ** -groups.zipf)
        uniforms = self._uniforms("group", 1)[:, 0]
        return np.searchsorted(shares, uniforms * shares[-1], side="right").clip(max=groups.count - 1).tolist()

    def _uniforms(self, purpose: str, rows: int) -> np.ndarray:
        return self._stream(purpose).random((rows * TOGETHER, 2))

    def _tokens(self, purpose: str, distribution: Distribution, rows: int) -> np.ndarray:
        return draw_tokens(distribution, self._uniforms(purpose, rows)).reshape(rows, TOGETHER)

    def _seconds(self, purpose: str, distribution: Distribution | None, rows: int, otherwise: float) -> np.ndarray:
        if distribution is None:
            return np.full((rows, TOGETHER), otherwise)
        return distribution.draw(self._uniforms(purpose, rows)).reshape(rows, TOGETHER)


def _grown(first: int, new: list[int], output: list[int], compaction: Compaction | None) -> tuple[list[int], list[int]]:
    """Prompts of a session, each the last one with its answer and what is new, and the summaries made by then."""
    prompts, summaries = [first], [0]
    for more, answer in zip(new, output, strict=False):
        prompt = prompts[-1] + answer + more
        summaries.append(summaries[-1])
        if compaction is not None and prompt > compaction.at_tokens:
            prompt = compaction.to_tokens + more
            summaries[-1] += 1
        prompts.append(prompt)
    return prompts, summaries
