"""Which sessions' contexts are in a KV pool, kept up to date as they come and go."""

from collections.abc import Iterable, Sequence

from capsim.sim.kvcache import KVCache
from capsim.sim.router import home
from capsim.workload.prefixes import SUMMARIES, Run


class Census:
    """Of open sessions the last run of what was said, and whether a pool has it.

    Looking every context up at every count would take longer than the simulation.
    """

    def __init__(self, pools: Sequence[KVCache]) -> None:
        """``pools`` holds the one of each replica."""
        self._pools = pools
        self._caches = caches = list({id(cache): cache for cache in pools}.values())
        self._ends: dict[int, Run] = {}
        self._resident: set[int] = set()
        for cache in caches:
            cache.on_evict, cache.on_enter = self._evicted, self._entered

    def remember(self, session: int, end: Run, cache: KVCache | None = None) -> None:
        """The context of a session ends with a run, which no other pool than ``cache`` (its home) can have."""
        self._ends[session] = end
        if (cache or self._pools[home(session, len(self._pools))]).holds(end):
            self._resident.add(session)
        else:
            self._resident.discard(session)

    def forget(self, session: int) -> None:
        """A session is over."""
        self._ends.pop(session, None)
        self._resident.discard(session)

    def cached(self, running: Iterable[int]) -> int:
        """Sessions whose context is in a pool or whose request is ``running``."""
        return len(self._resident) + sum(session not in self._resident for session in running)

    def _entered(self, run: Run) -> None:
        session = run[0] // SUMMARIES
        if self._ends.get(session) == run:
            self._resident.add(session)

    def _evicted(self, run: Run) -> None:
        session = run[0] // SUMMARIES
        if self._ends.get(session) == run and not any(cache.holds(run) for cache in self._caches):
            self._resident.discard(session)
