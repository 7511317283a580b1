"""Who is there when a run begins, as if sessions had been coming for long, and who comes from then on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from capsim.workload.arrivals import Profile, Ramp, Single, Spike, long_run_rate_per_s
from capsim.workload.chats import ANY, Chat, Longest, draw, sample
from capsim.workload.classes import Superposed
from capsim.workload.drawing import times
from capsim.workload.prefixes import Context, head
from capsim.workload.sessions import Prefix, Retries, Users
from capsim.workload.spec import Arrival, Closed, Workload
from capsim.workload.streams import stream

POOL_REQUESTS = 20_000
"""Of the sessions that those at the start are taken from."""


class Begun(NamedTuple):
    """A session met in the middle: its next request and when that comes, and for how long it has paused by now."""

    chat: Chat
    request: int
    start_s: float
    paused_s: float


@dataclass(frozen=True)
class SessionTraffic:
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


def sessions(
    workload: Workload, seed: int, replication: int, limit: int | None, longest: Longest = ANY
) -> SessionTraffic:
    """One replication's sessions, as if they had been coming for long to a server that takes the ``longest``."""
    pool = sample(workload, POOL_REQUESTS, longest, seed, replication, "met/")
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
    return SessionTraffic(
        begun, _ended(pool, rate_per_s, stream(seed, replication, "ended")), arrival_s,
        draw(workload, longest, seed, replication, ""), isinstance(workload.arrival, Closed),
        workload.prefix or Prefix(), workload.session.retries if workload.session else None,
        workload.max_tokens, workload.max_in_flight, limit, workload.duration_s or np.inf,
    )  # fmt: skip


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
