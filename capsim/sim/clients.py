"""Who asks: arrivals that come whatever happens, users and turns of a trace that wait for an answer before."""

from collections.abc import Iterator
from itertools import count
from math import isfinite
from typing import Protocol

import numpy as np
from simpy import Environment, Event

from capsim.sim.census import Census
from capsim.sim.sequence import BUSY, OnEnd, Sequence
from capsim.workload.chats import Chat
from capsim.workload.prefixes import Run
from capsim.workload.requests import ClosedLoop, ClosedReplay, OpenArrivals, Request, Traffic
from capsim.workload.steady import SessionTraffic

LISTED = 1 << 14


class Desk(Protocol):
    """Where clients hand in their requests: a cluster."""

    env: Environment
    census: Census

    def submit(
        self, request: Request, session: int, turn: int, on_end: OnEnd | None, first_try: Sequence | None = None
    ) -> Sequence: ...

    def withdraw(self, sequence: Sequence) -> None: ...

    def remember(self, sequence: Sequence) -> None: ...

    def count_sessions(self) -> None: ...


def start(desk: Desk, traffic: Traffic) -> None:
    """Let the clients loose on a cluster."""
    if isinstance(traffic, OpenArrivals):
        _start_open(desk, traffic)
        return
    if isinstance(traffic, ClosedReplay):
        _start_replay(desk, traffic)
        return
    if isinstance(traffic, SessionTraffic):
        _Visitors(desk, traffic)
        return
    budget = _Budget(traffic)
    for session, start_s in enumerate(traffic.start_s.tolist()):
        _User(desk, session, budget, traffic.requests).come_back_in(start_s)


def _start_open(desk: Desk, arrivals: OpenArrivals) -> None:
    env = desk.env
    whose = ((number, 0) for number in count()) if arrivals.whose is None else map(tuple, arrivals.whose.tolist())
    coming = zip(_listed(arrivals.arrival_s), arrivals.requests, whose)  # noqa: B905  numbers without end
    upcoming = next(coming, None)

    def arrive(_: Event) -> None:
        nonlocal upcoming
        while upcoming is not None:
            at_s, request, (session, turn) = upcoming
            wait_s = at_s - env.now
            if wait_s > 0:
                env.timeout(wait_s).callbacks.append(arrive)
                return
            desk.submit(request, session, turn, None)
            upcoming = next(coming, None)

    env.timeout(0).callbacks.append(arrive)


def _listed(values: np.ndarray) -> Iterator[float]:
    """As Python's numbers, of which only some are there at a time."""
    return (value for start in range(0, len(values), LISTED) for value in values[start : start + LISTED].tolist())


def _start_replay(desk: Desk, replay: ClosedReplay) -> None:
    whose, pause_s = replay.whose.tolist(), replay.pause_s.tolist()
    followers: dict[int, list[int]] = {}
    for row, before in enumerate(replay.follows.tolist()):
        followers.setdefault(before, []).append(row)

    def come(row: int, in_s: float) -> None:
        desk.env.timeout(in_s).callbacks.append(lambda _: ask(row))

    def ask(row: int) -> None:
        session, turn = whose[row]
        desk.submit(replay.requests[row], session, turn, lambda _: ended(row))

    def ended(row: int) -> None:
        for later in followers.get(row, ()):
            come(later, pause_s[later])

    for row in followers.get(-1, ()):
        come(row, float(replay.arrival_s[row]))


class _Budget:
    """Lets requests through until they, or the time, are spent."""

    def __init__(self, traffic: ClosedLoop | SessionTraffic) -> None:
        self._traffic = traffic
        self._issued = 0

    def spent(self, now_s: float) -> bool:
        out = self._traffic.limit is not None and self._issued >= self._traffic.limit
        return out or now_s > self._traffic.duration_s

    def take(self, now_s: float) -> bool:
        if self.spent(now_s):
            return False
        self._issued += 1
        return True


class _User:
    """Asks, waits for the end of the answer, thinks, asks again: something new each time, so always a first turn."""

    def __init__(self, desk: Desk, session: int, budget: _Budget, requests: Iterator[Request]) -> None:
        self._desk = desk
        self._env = desk.env
        self._session = session
        self._budget = budget
        self._requests = requests
        self._think_s = 0.0

    def come_back_in(self, pause_s: float) -> None:
        self._env.timeout(pause_s).callbacks.append(self._ask)

    def _ask(self, _: Event) -> None:
        if self._budget.take(self._env.now):
            request = next(self._requests)
            self._think_s = request.think_s
            self._desk.submit(request, self._session, 0, self._answered)

    def _answered(self, _: Sequence) -> None:
        self.come_back_in(self._think_s)


class _Visitors:
    """Begins sessions: those met at the start, those that arrive, and in a closed loop one for each that is over."""

    def __init__(self, desk: Desk, traffic: SessionTraffic) -> None:
        self.desk = desk
        self.traffic = traffic
        self._budget = _Budget(traffic)
        self._numbers = count()
        desk.count_sessions()
        for begun in traffic.begun:
            self._begin(begun.chat, begun.request, begun.start_s)
        self._await_next()

    def may_ask(self) -> bool:
        """Whether a request may still come."""
        return self._budget.take(self.desk.env.now)

    def over(self, session: int, pause_s: float) -> None:
        """A session is over; its user pauses."""
        self.desk.census.detach(session)
        if self.traffic.closed:
            self._begin(next(self.traffic.chats), 0, pause_s)

    def _await_next(self) -> None:
        at_s = next(self.traffic.arrival_s, None)
        if at_s is not None and not self._budget.spent(at_s):
            self.desk.env.timeout(at_s - self.desk.env.now).callbacks.append(self._arrive)

    def _arrive(self, _: Event) -> None:
        self._begin(next(self.traffic.chats), 0, 0.0)
        self._await_next()

    def _begin(self, chat: Chat, request: int, in_s: float) -> None:
        self.desk.census.attach()
        _Visitor(self, next(self._numbers), chat, request).come_back_in(in_s)


class _Visitor:
    """Has one session: asks, waits for the end, pauses, asks again with all that was said before."""

    def __init__(self, visitors: _Visitors, number: int, chat: Chat, request: int) -> None:
        self._visitors = visitors
        self._number = number
        self._chat = chat
        self._next = request
        self._tries = 0
        self._first_try: Sequence | None = None
        self._context = visitors.traffic.context(chat, number)
        for past in range(request - 1):
            self._context.grow(chat.prompt_tokens[past], chat.output_tokens[past], chat.summaries[past])
        if request and visitors.traffic.prefix.session:
            visitors.desk.census.remember(number, self._chain(request - 1)[-1])

    def come_back_in(self, pause_s: float) -> None:
        self._visitors.desk.env.timeout(pause_s).callbacks.append(self._ask)

    def _chain(self, request: int) -> tuple[Run, ...]:
        chat = self._chat
        return self._context.chain(chat.prompt_tokens[request], chat.output_tokens[request], chat.summaries[request])

    def _ask(self, _: Event) -> None:
        visitors, chat, index = self._visitors, self._chat, self._next
        if index == len(chat.pause_s):
            visitors.over(self._number, 0.0)
            return
        if not visitors.may_ask():
            return
        output = chat.output_tokens[index]
        longest = visitors.traffic.max_tokens or output
        prefix = self._chain(index) if index < chat.served else ()
        request = Request(chat.prompt_tokens[index], output, longest, chat.pause_s[index], prefix)
        sequence = visitors.desk.submit(request, self._number, chat.turn[index], self._ended, self._first_try)
        if isfinite(chat.patience_s[index]) and sequence.outcome == "unfinished":
            patience = visitors.desk.env.timeout(self._patience_s(sequence))
            patience.callbacks.append(lambda _: visitors.desk.withdraw(sequence))

    def _patience_s(self, sequence: Sequence) -> float:
        """For how long from now on a person waits for the first token, having asked first some tries ago."""
        return max(0.0, sequence.asked_s + self._chat.patience_s[self._next] - self._visitors.desk.env.now)

    def _ended(self, sequence: Sequence) -> None:
        traffic, chat = self._visitors.traffic, self._chat
        retries = traffic.retries
        if sequence.reason in BUSY and retries is not None and self._tries < retries.limit:
            backoff_s = retries.backoff_s * 2**self._tries
            if backoff_s < self._patience_s(sequence):
                sequence.think_s = backoff_s
                self.come_back_in(backoff_s)
                self._first_try = self._first_try or sequence
                self._tries += 1
                return
        sequence.think_s, self._tries, self._first_try = chat.pause_s[self._next], 0, None
        self._next += 1
        if sequence.outcome == "completed" and self._next < len(chat.pause_s):
            if sequence.prefix and traffic.prefix.session:
                self._visitors.desk.remember(sequence)
            self.come_back_in(sequence.think_s)
        else:
            sequence.think_s *= traffic.closed
            self._visitors.over(self._number, sequence.think_s)
