"""A serving engine on a node: schedule, step, complete, one step at a time."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy

from capsim.llm import KVStream
from capsim.sim.records import Records, RequestRecord, batch_columns, components
from capsim.sim.scheduler import Schedule, Scheduler, Sequence
from capsim.steptime import Batch, PrefillChunk, StepTime, StepTimeModel


@dataclass(slots=True)
class _Step:
    """One rank's part of a step."""

    schedule: Schedule
    batch: Batch
    context_tokens: int
    kv_blocks: int
    running: int
    waiting: int


class Rank:
    """A scheduler with its KV pool: one data-parallel replica."""

    def __init__(self, index: int, scheduler: Scheduler, queue_limit: int | None) -> None:
        self.index = index
        self.scheduler = scheduler
        self.queue_limit = queue_limit
        self.records: dict[int, RequestRecord] = {}
        self.last_producers: set[int] = set()

    @property
    def in_flight(self) -> int:
        return len(self.scheduler.running) + len(self.scheduler.waiting)

    def submit(self, record: RequestRecord, max_tokens: int) -> str:
        """Queue a request; why not, when the queue is full or the pool could never hold it."""
        if self.queue_limit is not None and self._would_wait(record) > self.queue_limit:
            return "queue full"
        if not self.scheduler.add(Sequence(record.request, record.prompt_tokens, max_tokens)):
            return "larger than the KV pool"
        self.records[record.request] = record
        return ""

    def _would_wait(self, record: RequestRecord) -> int:
        """How many would wait, this one included, once those that can start have started."""
        scheduler = self.scheduler
        places = scheduler.max_num_seqs - len(scheduler.running)
        queued = [s.known_tokens for s in scheduler.waiting] + [record.prompt_tokens]
        return len(queued) - scheduler.cache.fit_together(queued[:places])


class Engine:
    """Ranks that step together: one rank, or the data-parallel ranks of a node whose experts are shared.

    ``on_finish`` is called with each finished record; ``streams`` are the model's, for the batch's read sums.
    """

    def __init__(
        self,
        env: simpy.Environment,
        node: int,
        ranks: list[Rank],
        model: StepTimeModel,
        streams: tuple[KVStream, ...],
        records: Records,
        on_finish: Callable[[RequestRecord], None],
    ) -> None:
        self.env = env
        self.node = node
        self.ranks = ranks
        self._model = model
        self._streams = streams
        self._records = records
        self._on_finish = on_finish
        self._wake = env.event()
        env.process(self._run())

    def notify(self) -> None:
        """Something was queued."""
        if not self._wake.triggered:
            self._wake.succeed()

    def _run(self) -> Generator[simpy.Event, Any, None]:
        while True:
            if not any(rank.in_flight for rank in self.ranks):
                self._wake = self.env.event()
                yield self._wake
            steps = [self._begin(rank) for rank in self.ranks]
            times = [self._model.step_time(step.batch) for step in steps]
            slowest = max(times, key=lambda time: time.total_s)
            start = self.env.now
            yield self.env.timeout(slowest.total_s)
            for rank, step in zip(self.ranks, steps, strict=True):
                gaps = self._complete(rank, step.schedule)
                self._record(rank, step, slowest, start, gaps)

    def _begin(self, rank: Rank) -> _Step:
        schedule = rank.scheduler.schedule()
        for sequence in schedule.preempted:
            rank.records[sequence.index].preemptions += 1
        for sequence in schedule.admitted:
            record = rank.records[sequence.index]
            if record.first_scheduled_s != record.first_scheduled_s:  # NaN: not scheduled before
                record.first_scheduled_s = self.env.now
        batch, context_tokens = self._describe(schedule)
        scheduler = rank.scheduler
        return _Step(
            schedule, batch, context_tokens,
            scheduler.cache.used_blocks, len(scheduler.running), len(scheduler.waiting),
        )  # fmt: skip

    def _describe(self, schedule: Schedule) -> tuple[Batch, int]:
        """What the step does, and the context its sequences had."""
        contexts: list[int] = []
        chunks: list[PrefillChunk] = []
        finishing = 0
        for sequence, new in schedule.work:
            if new == 1 and sequence.generated_tokens and sequence.computed_tokens == sequence.known_tokens - 1:
                contexts.append(sequence.known_tokens)
            else:
                chunks.append(PrefillChunk(new, sequence.computed_tokens))
                finishing += sequence.computed_tokens + new == sequence.known_tokens
        reads = tuple(sum(map(stream.read, contexts)) for stream in self._streams)
        batch = Batch(len(contexts), reads, tuple(chunks), finishing)
        return batch, sum(contexts) + sum(c.context_tokens for c in chunks)

    def _complete(self, rank: Rank, schedule: Schedule) -> int:
        """Book tokens; the number of token gaps that equal this step's duration."""
        now, gaps, producers = self.env.now, 0, set()
        for sequence in rank.scheduler.complete(schedule):
            record = rank.records[sequence.index]
            producers.add(sequence.index)
            if sequence.generated_tokens == 1:
                record.first_token_s = now
            elif sequence.index in rank.last_producers:
                gaps += 1
            else:
                record.stalls_s.append(now - record.last_token_s)
            record.last_token_s = now
            if sequence.generated_tokens == record.output_tokens:
                self._finish(rank, sequence, record)
        rank.last_producers = producers
        return gaps

    def _finish(self, rank: Rank, sequence: Sequence, record: RequestRecord) -> None:
        rank.scheduler.finish(sequence)
        del rank.records[sequence.index]
        record.finished_s = self.env.now
        record.outcome = "completed"
        self._on_finish(record)

    def _record(self, rank: Rank, step: _Step, time: StepTime, start_s: float, gaps: int) -> None:
        self._records.add_segment(
            node=self.node, rank=rank.index, start_s=start_s, duration_s=time.total_s, steps=1, gaps=gaps,
            kv_blocks=step.kv_blocks, running=step.running, waiting=step.waiting,
            **batch_columns(step.batch, step.context_tokens), **components(time),
        )  # fmt: skip
