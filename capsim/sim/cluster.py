"""Nodes behind a router, and the clients in front of it: one replication, from the first arrival to the last answer."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from capsim.llm import KVStream
from capsim.parallelism import Parallelism
from capsim.sim.kvcache import KVCache
from capsim.sim.node import Engine, Rank
from capsim.sim.records import Records, RequestRecord
from capsim.sim.router import ROUTERS
from capsim.sim.scheduler import Scheduler
from capsim.steptime import StepTimeModel
from capsim.workload.requests import ClosedLoop, OpenArrivals, Request, Traffic

PROGRESS_EVERY = 64


@dataclass(frozen=True)
class ClusterSpec:
    """``nodes`` like nodes. ``kv_blocks`` and the limits are those of one data-parallel replica."""

    nodes: int
    layout: Parallelism
    kv_blocks: int
    blocks_of: Callable[[int], int]
    max_num_seqs: int
    max_num_batched_tokens: int
    queue_limit: int | None
    max_context_tokens: int
    router: str
    model: StepTimeModel
    streams: tuple[KVStream, ...]


def simulate(spec: ClusterSpec, traffic: Traffic, on_progress: Callable[[int], None] | None = None) -> Records:
    """Run until every request has ended. ``on_progress`` is told now and then how many have.

    An interrupt (Ctrl-C) ends the run where it stands: the records are kept, ``interrupted`` is set, and requests
    inside stay ``unfinished``.
    """
    cluster = Cluster(spec, on_progress or (lambda ended: None))
    if isinstance(traffic, ClosedLoop):
        limit = _Limit(traffic)
        for session, start_s in enumerate(traffic.start_s):
            cluster.env.process(_user(cluster, limit, session, start_s))
    else:
        cluster.env.process(_open_source(cluster, traffic))
    try:
        cluster.env.run()
    except KeyboardInterrupt:
        cluster.records.interrupted = True
    cluster.count_blocks()
    return cluster.records


class Cluster:
    """Engines and the router in front of them."""

    def __init__(self, spec: ClusterSpec, on_progress: Callable[[int], None]) -> None:
        self.env = simpy.Environment()
        self.records = Records()
        self.inside = 0
        self._spec = spec
        self._route = ROUTERS[spec.router]
        self._ended = 0
        self._on_progress = on_progress
        self._waiting_clients: dict[int, simpy.Event] = {}
        self._engines = [engine for node in range(spec.nodes) for engine in self._node(node)]
        self._replicas = [(engine, rank) for engine in self._engines for rank in engine.ranks]
        self._ranks = [rank for _, rank in self._replicas]

    def _node(self, node: int) -> list[Engine]:
        """Data-parallel replicas step in lockstep where they share experts, each on its own where they do not."""
        ranks = [self._rank(index) for index in range(self._spec.layout.dp)]
        groups = [ranks] if self._spec.layout.expert else [[rank] for rank in ranks]
        spec = self._spec
        return [Engine(self.env, node, g, spec.model, spec.streams, self.records, self._finished) for g in groups]

    def _rank(self, index: int) -> Rank:
        spec = self._spec
        cache = KVCache(spec.kv_blocks, spec.blocks_of)
        return Rank(index, Scheduler(cache, spec.max_num_seqs, spec.max_num_batched_tokens), spec.queue_limit)

    def submit(self, request: Request, session: int, turn: int, *, max_in_flight: int | None = None) -> simpy.Event:
        """Hand a request to the cluster; the event fires when it has ended, served or turned away."""
        now, index = self.env.now, len(self.records.requests)
        record = RequestRecord(index, session, request.prompt_tokens, request.output_tokens, now, turn=turn)
        self.records.requests.append(record)
        ended = self.env.event()
        reason = self._refusal(request, max_in_flight) or self._enqueue(record, request)
        if reason:
            record.outcome, record.reason = "rejected", reason
            self._count_ended()
            return ended.succeed()
        self.inside += 1
        self._waiting_clients[index] = ended
        return ended

    def count_blocks(self) -> None:
        caches = [rank.scheduler.cache for rank in self._ranks]
        self.records.kv_blocks = [(c.allocated_blocks, c.freed_blocks, c.used_blocks) for c in caches]

    def _refusal(self, request: Request, max_in_flight: int | None) -> str:
        if request.prompt_tokens + request.max_tokens > self._spec.max_context_tokens:
            return "longer than the model's context"
        if max_in_flight is not None and self.inside >= max_in_flight:
            return "in-flight cap"
        return ""

    def _enqueue(self, record: RequestRecord, request: Request) -> str:
        """Route and queue; why not, where the replica refuses."""
        engine, rank = self._replicas[self._route(self._ranks, record.request)]
        record.node, record.rank, record.enqueued_s = engine.node, rank.index, self.env.now
        reason = rank.submit(record, request.max_tokens)
        if not reason:
            engine.notify()
        return reason

    def _finished(self, record: RequestRecord) -> None:
        self.inside -= 1
        self._count_ended()
        self._waiting_clients.pop(record.request).succeed()

    def _count_ended(self) -> None:
        self._ended += 1
        if self._ended % PROGRESS_EVERY == 0:
            self._on_progress(self._ended)


def _open_source(cluster: Cluster, arrivals: OpenArrivals) -> Generator[simpy.Event, Any, None]:
    for session, (at_s, request) in enumerate(zip(arrivals.arrival_s, arrivals.requests, strict=True)):
        if at_s > cluster.env.now:
            yield cluster.env.timeout(float(at_s) - cluster.env.now)
        cluster.submit(request, session, 0, max_in_flight=arrivals.max_in_flight)


class _Limit:
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


def _user(cluster: Cluster, limit: _Limit, session: int, start_s: float) -> Generator[simpy.Event, Any, None]:
    """Ask, wait for the end of the answer, think, ask again."""
    if start_s > 0:
        yield cluster.env.timeout(float(start_s))
    turn = 0
    while request := limit.next(cluster.env.now):
        yield cluster.submit(request, session, turn)
        yield cluster.env.timeout(request.think_s)
        turn += 1
