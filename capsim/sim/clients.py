"""Who asks: open arrivals that come whatever happens, and users who wait for an answer before they ask again."""

from collections.abc import Callable, Iterator
from itertools import count

from simpy import Environment, Event

from capsim.sim.sequence import OnEnd, Sequence
from capsim.workload.chats import Chat, Sessions
from capsim.workload.prefixes import Run
from capsim.workload.requests import ClosedLoop, OpenArrivals, Request, Traffic

Submit = Callable[[Request, int, int, OnEnd | None], None]
"""Takes (request, session, turn, whom to tell at its end)."""
BUSY = ("queue full", "in-flight cap")
"""Why a request is turned away that might be served later."""


def start(env: Environment, traffic: Traffic, submit: Submit) -> None:
    """Let the clients loose on a cluster."""
    if isinstance(traffic, OpenArrivals):
        _start_open(env, traffic, submit)
        return
    if isinstance(traffic, Sessions):
        _Visitors(env, traffic, submit)
        return
    budget = _Budget(traffic)
    for session, start_s in enumerate(traffic.start_s.tolist()):
        _User(env, session, budget, traffic.requests, submit).come_back_in(start_s)


def _start_open(env: Environment, arrivals: OpenArrivals, submit: Submit) -> None:
    coming = enumerate(zip(arrivals.arrival_s.tolist(), arrivals.requests, strict=True))
    upcoming = next(coming, None)

    def arrive(_: Event) -> None:
        nonlocal upcoming
        while upcoming is not None:
            session, (at_s, request) = upcoming
            wait_s = at_s - env.now
            if wait_s > 0:
                env.timeout(wait_s).callbacks.append(arrive)
                return
            submit(request, session, 0, None)
            upcoming = next(coming, None)

    env.timeout(0).callbacks.append(arrive)


class _Budget:
    """Lets requests through until they, or the time, are spent."""

    def __init__(self, traffic: ClosedLoop | Sessions) -> None:
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
    """Asks, waits for the end of the answer, thinks, asks again."""

    def __init__(
        self, env: Environment, session: int, budget: _Budget, requests: Iterator[Request], submit: Submit
    ) -> None:
        self._env = env
        self._session = session
        self._budget = budget
        self._requests = requests
        self._submit = submit
        self._turn = 0
        self._think_s = 0.0

    def come_back_in(self, pause_s: float) -> None:
        self._env.timeout(pause_s).callbacks.append(self._ask)

    def _ask(self, _: Event) -> None:
        if self._budget.take(self._env.now):
            request = next(self._requests)
            self._think_s = request.think_s
            self._turn += 1
            self._submit(request, self._session, self._turn - 1, self._answered)

    def _answered(self, _: Sequence) -> None:
        self.come_back_in(self._think_s)


class _Visitors:
    """Begins sessions: those met at the start, those that arrive, and in a closed loop one for each that is over."""

    def __init__(self, env: Environment, traffic: Sessions, submit: Submit) -> None:
        self.env = env
        self.traffic = traffic
        self.submit = submit
        self.budget = _Budget(traffic)
        self._numbers = count()
        for begun in traffic.begun:
            _Visitor(self, next(self._numbers), begun.chat, begun.request).come_back_in(begun.start_s)
        self._await_next()

    def over(self, pause_s: float) -> None:
        """A session is over; its user pauses."""
        if self.traffic.closed:
            self._begin(pause_s)

    def _await_next(self) -> None:
        at_s = next(self.traffic.arrival_s, None)
        if at_s is not None and not self.budget.spent(at_s):
            self.env.timeout(at_s - self.env.now).callbacks.append(self._arrive)

    def _arrive(self, _: Event) -> None:
        self._begin(0.0)
        self._await_next()

    def _begin(self, in_s: float) -> None:
        _Visitor(self, next(self._numbers), next(self.traffic.chats), 0).come_back_in(in_s)


class _Visitor:
    """Has one session: asks, waits for the end, pauses, asks again with all that was said before."""

    def __init__(self, visitors: _Visitors, number: int, chat: Chat, request: int) -> None:
        self._visitors = visitors
        self._number = number
        self._chat = chat
        self._next = request
        self._tries = 0
        self._context = visitors.traffic.context(chat, number)
        for past in range(request):
            self._chain(past)

    def come_back_in(self, pause_s: float) -> None:
        self._visitors.env.timeout(pause_s).callbacks.append(self._ask)

    def _chain(self, request: int) -> tuple[Run, ...]:
        chat = self._chat
        return self._context.chain(chat.prompt_tokens[request], chat.output_tokens[request], chat.summaries[request])

    def _ask(self, _: Event) -> None:
        if not self._visitors.budget.take(self._visitors.env.now):
            return
        chat, index = self._chat, self._next
        output = chat.output_tokens[index]
        longest = self._visitors.traffic.max_tokens or output
        request = Request(chat.prompt_tokens[index], output, longest, chat.pause_s[index], self._chain(index))
        self._visitors.submit(request, self._number, index, self._ended)

    def _ended(self, sequence: Sequence) -> None:
        retries, chat = self._visitors.traffic.retries, self._chat
        if sequence.reason in BUSY and retries is not None and self._tries < retries.limit:
            self.come_back_in(retries.backoff_s * 2**self._tries)
            self._tries += 1
            return
        pause_s, self._tries = chat.pause_s[self._next], 0
        self._next += 1
        if sequence.outcome == "completed" and self._next < len(chat.pause_s):
            self.come_back_in(pause_s)
        else:
            self._visitors.over(pause_s)
