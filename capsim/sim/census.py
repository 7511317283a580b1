"""How many sessions are attached, and how many of them are cached, at every instant of a run."""

from collections.abc import Sequence

from simpy import Environment

from capsim.sim import sequence as sim
from capsim.sim.kvcache import KVCache
from capsim.sim.records import Table
from capsim.sim.router import home
from capsim.workload.prefixes import SUMMARIES, Run

_RESIDENT, _RUNNING = 1, 2


class Census:
    """Kept up to date as sessions begin and end, contexts enter a KV pool and leave it, requests start and stop.

    A session is cached whose whole context is in a pool, or whose request is in a batch. ``counts`` gets a row for
    every instant at which a count has changed: from then on, attached, cached.
    """

    def __init__(self, env: Environment, pools: Sequence[KVCache], counts: Table) -> None:
        """``pools`` holds the one of each replica."""
        self._env = env
        self._pools = pools
        self._caches = list({id(cache): cache for cache in pools}.values())
        self._counts = counts
        self._since_s = 0.0
        self._attached = 0
        self._ends: dict[int, Run] = {}
        self._cached: dict[int, int] = {}  # why each cached session is
        for cache in self._caches:
            cache.on_evict, cache.on_enter = self._evicted, self._entered

    def attach(self) -> None:
        """A session begins."""
        self._before_change()
        self._attached += 1

    def detach(self, session: int) -> None:
        """A session is over."""
        self._before_change()
        self._attached -= 1
        self._ends.pop(session, None)
        self._cached.pop(session, None)

    def remember(self, session: int, end: Run, cache: KVCache | None = None) -> None:
        """The context of a session ends with a run, which no other pool than ``cache`` (its home) can have."""
        self._ends[session] = end
        if (cache or self._pools[home(session, len(self._pools))]).holds(end):
            self._mark(session, _RESIDENT)
        else:
            self._unmark(session, _RESIDENT)

    def started(self, sequence: sim.Sequence) -> None:
        """A request is in a batch from now on."""
        self._mark(sequence.session, _RUNNING)

    def stopped(self, sequence: sim.Sequence) -> None:
        """A request is no longer in a batch."""
        self._unmark(sequence.session, _RUNNING)

    def close(self) -> None:
        """Write down the counts as they are at the end."""
        self._counts.append((self._since_s, self._attached, len(self._cached)))

    def _mark(self, session: int, reason: int) -> None:
        known = self._cached.get(session, 0)
        if not known:
            self._before_change()
        self._cached[session] = known | reason

    def _unmark(self, session: int, reason: int) -> None:
        left = self._cached.get(session, 0) & ~reason
        if left:
            self._cached[session] = left
        elif session in self._cached:
            self._before_change()
            del self._cached[session]

    def _before_change(self) -> None:
        now = self._env.now
        if now > self._since_s:
            self._counts.append((self._since_s, self._attached, len(self._cached)))
            self._since_s = now

    def _entered(self, run: Run) -> None:
        session = run[0] // SUMMARIES
        if self._ends.get(session) == run:
            self._mark(session, _RESIDENT)

    def _evicted(self, run: Run) -> None:
        session = run[0] // SUMMARIES
        if self._ends.get(session) == run and not any(cache.holds(run) for cache in self._caches):
            self._unmark(session, _RESIDENT)
