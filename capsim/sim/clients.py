"""Who asks: open arrivals that come whatever happens, and users who wait for an answer before they ask again."""

from collections.abc import Callable

from simpy import Environment, Event

from capsim.sim.sequence import OnEnd, Sequence
from capsim.workload.requests import ClosedLoop, OpenArrivals, Request, Traffic

Submit = Callable[[Request, int, int, OnEnd | None], None]
"""Takes (request, session, turn, whom to tell at its end)."""


def start(env: Environment, traffic: Traffic, submit: Submit) -> None:
    """Let the clients loose on a cluster."""
    if isinstance(traffic, OpenArrivals):
        _start_open(env, traffic, submit)
        return
    budget = _Budget(traffic)
    for session, start_s in enumerate(traffic.start_s.tolist()):
        _User(env, session, budget, submit).come_back_in(start_s)


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
    """Hands out the requests of a closed loop until they, or the time, are spent."""

    def __init__(self, loop: ClosedLoop) -> None:
        self._loop = loop
        self._issued = 0

    def next(self, now_s: float) -> Request | None:
        spent = self._loop.limit is not None and self._issued >= self._loop.limit
        if spent or now_s > self._loop.duration_s:
            return None
        self._issued += 1
        return next(self._loop.requests)


class _User:
    """Asks, waits for the end of the answer, thinks, asks again."""

    def __init__(self, env: Environment, session: int, budget: _Budget, submit: Submit) -> None:
        self._env = env
        self._session = session
        self._budget = budget
        self._submit = submit
        self._turn = 0
        self._think_s = 0.0

    def come_back_in(self, pause_s: float) -> None:
        self._env.timeout(pause_s).callbacks.append(self._ask)

    def _ask(self, _: Event) -> None:
        request = self._budget.next(self._env.now)
        if request is not None:
            self._think_s = request.think_s
            self._turn += 1
            self._submit(request, self._session, self._turn - 1, self._answered)

    def _answered(self, _: Sequence) -> None:
        self.come_back_in(self._think_s)
