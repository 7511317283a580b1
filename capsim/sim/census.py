"""Which sessions' contexts are in a KV pool, kept up to date as they come and go."""

from collections.abc import Iterable, Sequence

from capsim.sim.kvcache import KVCache
from capsim.workload.prefixes import SUMMARIES, Run


def home(session: int, caches: Sequence[KVCache]) -> KVCache:
    """The pool where a session is at the start of a run."""
    return caches[session % len(caches)]


class Census:
    """Of open sessions the last run of what was said, and whether a pool has it.

    Looking every context up at every count would take longer than the simulation.
    """

    def __init__(self, caches: list[KVCache]) -> None:
        self._caches = caches
        self._ends: dict[int, Run] = {}
        self._resident: set[int] = set()
        for cache in caches:
            cache.on_evict, cache.on_enter = self._evicted, self._entered

    def remember(self, session: int, end: Run, cache: KVCache | None = None) -> None:
        """The context of a session ends with a run, which no other pool than ``cache`` (its home) can have."""
        self._ends[session] = end
        if (cache or home(session, self._caches)).holds(end):
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
