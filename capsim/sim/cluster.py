"""Nodes behind a router: one replication, from the first arrival to the last answer."""

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import simpy

from capsim.sim.census import Census
from capsim.sim.clients import start
from capsim.sim.engine import Engine, Turn
from capsim.sim.kvcache import KVCache
from capsim.sim.past import leave_behind
from capsim.sim.records import Records, TierUse
from capsim.sim.router import ROUTERS
from capsim.sim.sequence import ABANDONED, IN_FLIGHT_CAP, OnEnd, Sequence
from capsim.sim.spec import ClusterSpec
from capsim.workload.requests import ClosedLoop, Request, Traffic
from capsim.workload.steady import SessionTraffic

PROGRESS_EVERY = 64
FIRST_ENGINE = 2  # SimPy priorities: 0 is urgent, 1 arrivals; engines follow in order


def simulate(spec: ClusterSpec, traffic: Traffic, on_progress: Callable[[int], None] | None = None) -> Records:
    """Run until every request has ended. ``on_progress`` is told now and then how many have.

    An interrupt (Ctrl-C) ends the run between two events: the records are kept, ``interrupted`` is set, and requests
    inside stay ``unfinished``.
    """
    cap = None if isinstance(traffic, ClosedLoop) else traffic.max_in_flight
    cluster = Cluster(spec, on_progress or (lambda ended: None), cap)
    with _no_garbage_collection():
        if isinstance(traffic, SessionTraffic) and spec.policy.prefix_caching:
            leave_behind(traffic, cluster.pools)
        start(cluster, traffic)
        with _interrupts(cluster):
            cluster.env.run()
    cluster.close()
    return cluster.records


class Cluster:
    """Engines and the router in front of them. ``engine`` makes an engine of some replicas of a node."""

    def __init__(
        self,
        spec: ClusterSpec,
        on_progress: Callable[[int], None],
        max_in_flight: int | None = None,
        engine: Callable[..., Engine] = Engine,
    ) -> None:
        self.env = simpy.Environment()
        self.records = Records()
        self._spec = spec
        self._max_in_flight = max_in_flight
        self._route = ROUTERS[spec.router]
        self._on_progress = on_progress
        self._submitted = self._ended = 0
        # In lockstep: the batches of a pipeline, and all of a node where it shares experts. The rest each on its own.
        together = spec.layout.replicas if spec.layout.expert else spec.layout.pp
        groups = [range(first, first + together) for first in range(0, spec.layout.replicas, together)]
        homes = [(node, group) for node in range(spec.nodes) for group in groups]
        turn = Turn()
        self._engines = [
            engine(self.env, spec, node, group, priority, turn, self.records, self._completed)
            for priority, (node, group) in enumerate(homes, FIRST_ENGINE)
        ]
        self._places = [(engine, replica) for engine in self._engines for replica in engine.replicas]
        self._by_rank = {(engine.node, replica.index): (engine, replica) for engine, replica in self._places}
        self._replicas = [replica for _, replica in self._places]
        self._several = len(self._places) > 1
        self.census = Census(self.env, self.pools, self.records.sessions)

    @property
    def pools(self) -> list[KVCache]:
        """The KV pool of each replica."""
        return [replica.cache for replica in self._replicas]

    @property
    def caches(self) -> list[KVCache]:
        """The KV pools, each once."""
        return list({id(cache): cache for cache in self.pools}.values())

    def submit(
        self, request: Request, session: int, turn: int, on_end: OnEnd | None, first_try: Sequence | None = None
    ) -> Sequence:
        """Hand a request to the cluster; ``on_end`` is told when it has ended, served or turned away.

        A retry names the ``first_try`` of what it asks for.
        """
        now = self.env.now
        sequence = Sequence(self._submitted, session, turn, request, now, on_end)
        if first_try is not None:
            sequence.ask, sequence.asked_s = first_try.ask, first_try.asked_s
        if not self._spec.policy.prefix_caching:
            sequence.prefix = ()
        self._submitted += 1
        reason = self._refusal(request) or self._enqueue(sequence, now)
        if reason:
            sequence.outcome, sequence.reason = "rejected", reason
            self._end(sequence)
        return sequence

    def withdraw(self, sequence: Sequence) -> None:
        """Its client gives up, where no token has come by now."""
        if sequence.outcome != "unfinished" or sequence.first_token_s >= 0:
            return
        engine, replica = self._by_rank[sequence.node, sequence.rank]
        engine.withdraw(replica, sequence)
        sequence.outcome, sequence.reason = ABANDONED, "patience ran out"
        sequence.finished_s = self.env.now
        self._end(sequence)

    def remember(self, sequence: Sequence) -> None:
        """What a request of a session has left is its context from now on."""
        _, replica = self._by_rank[sequence.node, sequence.rank]
        self.census.remember(sequence.session, sequence.prefix[-1], replica.cache)

    def count_sessions(self) -> None:
        """Tell the census of every request that starts and stops."""
        for replica in self._replicas:
            replica.on_start, replica.on_stop = self.census.started, self.census.stopped

    def stop(self) -> None:
        """End the run before the next event."""
        event = simpy.Event(self.env)
        event._ok, event._value = True, None
        event.callbacks.append(simpy.core.StopSimulation.callback)
        self.env.schedule(event, simpy.events.URGENT)
        self.records.interrupted = True

    def close(self) -> None:
        """Write down what is still inside, and the blocks that the pools saw."""
        self.census.close()
        for replica in self._replicas:
            for sequence in replica.inside():
                self.records.add_request(sequence)
        caches = self.caches
        self.records.kv_blocks = [(c.allocated_blocks, c.freed_blocks, c.resident_blocks) for c in caches]
        self.records.evicted_blocks = sum(c.evicted_blocks for c in caches)
        below = [cache.offload for cache in caches if cache.offload is not None]
        self.records.lost_blocks = sum(offload.lost_blocks for offload in below)
        self.records.offload = [
            TierUse(
                tiers[0].name, sum(t.hit_tokens for t in tiers), sum(t.loaded_blocks for t in tiers),
                sum(t.stored_blocks for t in tiers), sum(t.busy_s for t in tiers),
            )
            for tiers in zip(*(offload.tiers for offload in below), strict=True)
        ]  # fmt: skip
        self.records.close()

    def _refusal(self, request: Request) -> str:
        if request.prompt_tokens + request.max_tokens > self._spec.max_context_tokens:
            return "longer than the model's context"
        if self._max_in_flight is not None and self._submitted - self._ended > self._max_in_flight:
            return IN_FLIGHT_CAP
        return ""

    def _enqueue(self, sequence: Sequence, now_s: float) -> str:
        """Route and queue; why not, where the replica refuses."""
        if self._spec.router == "prefix-aware":
            for engine in self._engines:
                engine.catch_up()
        engine, replica = self._places[self._route(self._replicas, sequence) if self._several else 0]
        sequence.node, sequence.rank, sequence.enqueued_s = engine.node, replica.index, now_s
        return engine.submit(replica, sequence)

    def _completed(self, sequence: Sequence) -> None:
        sequence.outcome, sequence.finished_s = "completed", self.env.now
        self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        if sequence.on_end is not None:
            sequence.on_end(sequence)  # says how long its client pauses
        self.records.add_request(sequence)
        self._ended += 1
        if self._ended % PROGRESS_EVERY == 0:
            self._on_progress(self._ended)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A run makes millions of tuples and no cycles worth a search."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _interrupts(cluster: Cluster) -> Iterator[None]:
    """Let Ctrl-C stop the simulation between two events instead of inside one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        cluster.stop()

    watched = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    before = [(number, signal.signal(number, stop)) for number in watched]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
