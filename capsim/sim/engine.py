"""A serving engine on a node: begin a run of like steps, book it when it ends or when an arrival cuts it short.

While nobody enters or leaves, steps grow linearly in time: step i (from 0) takes ``first + i · growth``, so a run of
k steps is one event at a time quadratic in k.
"""

from collections.abc import Callable, Iterable
from math import sqrt

import simpy

from capsim.sim.kvcache import KVCache
from capsim.sim.offload import Offload
from capsim.sim.records import Records
from capsim.sim.replica import Replica, Work
from capsim.sim.sequence import Sequence
from capsim.sim.spec import ClusterSpec
from capsim.sim.stalling import Stalling
from capsim.steptime import StepTime

OnEnd = Callable[[Sequence], None]
NOT_LATE = (None, None)


class _Action(simpy.Event):
    """Something that an engine does at a later instant."""

    def __init__(self, env: simpy.Environment, do: Callable[[simpy.Event], None]) -> None:
        self.env = env
        self.callbacks = [do]
        self._ok, self._value = True, None


class Turn:
    """Who acted last, and when. Engines that act at the same instant do so in the order of their priorities."""

    def __init__(self) -> None:
        self.at_s = -1.0
        self.priority = 0


class Engine:
    """Replicas that step together: one, or the data-parallel ones of a node whose experts are shared.

    ``priority`` orders engines that act at the same instant; arrivals at that instant come before all of them.
    ``on_end`` is called with each sequence that has its last token.
    """

    def __init__(
        self,
        env: simpy.Environment,
        spec: ClusterSpec,
        node: int,
        ranks: Iterable[int],
        priority: int,
        turn: Turn,
        records: Records,
        on_end: OnEnd,
    ) -> None:
        self.node = node
        stages = spec.layout.pp
        pools = {
            pool: KVCache(spec.kv_blocks, spec.block_rule, Offload(spec.offload) if spec.offload else None)
            for pool in {rank // stages for rank in ranks}
        }
        kind = Stalling if spec.policy.reserve == "chunk" else Replica
        self.replicas = [kind(rank, pools[rank // stages], spec.policy, spec.streams, stages) for rank in ranks]
        self._one_pool = stages > 1
        self._stages = stages if spec.layout.expert else None
        self._alone = len(self.replicas) == 1
        self._offloads = bool(spec.offload)
        self._env = env
        self._priority = priority
        self._turn = turn
        self._model = spec.model
        self._records = records
        self._on_end = on_end
        self._event: simpy.Event | None = None
        self._asleep = False
        self._steps = 0
        self._started_s = 0.0
        self._first = StepTime(0.0, 0.0, 0.0, 0.0, 0.0, "overhead")
        self._first_s = self._growth_s = 0.0
        self._works: list[Work] = []

    def submit(self, replica: Replica, sequence: Sequence) -> str:
        """Queue a request at one of the replicas; why not, where it refuses."""
        if replica.counts_blocks:
            self.catch_up()
        reason = replica.submit(sequence)
        if reason:
            return reason
        if self._event is None or self._asleep:
            self._wake()
        elif self._steps > 1 and replica.could_admit():
            begun = self._boundary(self._env.now)
            if begun < self._steps:
                self._cut(begun)
        return ""

    def withdraw(self, replica: Replica, sequence: Sequence) -> None:
        """Take back a request without a token from one of the replicas. Who waited behind it may start now."""
        self.catch_up()
        replica.withdraw(sequence)
        if self._steps:
            begun = self._boundary(self._env.now)
            if begun < self._steps and replica.first_could_start():
                self._cut(begun)
        elif any(one.in_flight for one in self.replicas):
            if self._asleep:
                self._wake()
        elif self._event is not None:  # it was about to begin
            self._event.callbacks.clear()
            self._event, self._asleep = None, False

    def catch_up(self) -> None:
        """Bring the KV pools to this instant, in the middle of a run."""
        if self._steps > 1:
            begun = self._boundary(self._env.now)
            for replica in self.replicas:
                replica.catch_up(begun)

    def _at(self, delay_s: float, action: Callable[[simpy.Event], None]) -> None:
        """Do something after a delay, after the arrivals of that instant and engines of lower priority number."""
        event = self._event = _Action(self._env, action)
        self._env.schedule(event, self._priority, delay_s)  # type: ignore[arg-type]

    def _begin(self, _: simpy.Event | None = None) -> None:
        """Start the run of steps that the replicas' schedules describe."""
        now = self._started_s = self._env.now
        self._asleep = False
        works = [replica.begin(now) for replica in self.replicas]
        loads_s = self._loads_s() if self._offloads else []
        if loads_s and not any(work.batch.sequences for work in works):
            self._asleep = True
            self._at(max(0.0, min(loads_s) - now), self._begin)
            return
        self._works = works = works if self._stages is None else _sharing_experts(works, self._stages)
        steps = works[0].horizon if self._alone else min([work.horizon for work in works])
        if steps > 1 and self._one_pool:
            steps = min([replica.steps_within_pool(steps) for replica in self.replicas])
        if steps == 1:
            times = [self._model.step_time(work.batch) for work in works]
            self._first, self._growth_s = times[0] if self._alone else max(times, key=_total_s), 0.0
        else:
            runs = [self._model.decode_run(work.batch) for work in works]
            self._first, self._growth_s, valid = runs[0] if self._alone else _slowest(runs)
            if valid < steps:
                steps = valid
        self._steps = steps
        self._first_s = self._first.total_s
        if loads_s and steps > 1:
            coming_s = [ready_s for ready_s in loads_s if ready_s > now]
            if coming_s:  # those whose KV is there may start
                steps = self._steps = self._boundary(min(coming_s))
        self._at(self._first_s if steps == 1 else self._elapsed_s(steps), self._end)

    def _loads_s(self) -> list[float]:
        """When the KV of those who wait beside the batches is there."""
        return [sequence.ready_s for replica in self.replicas for sequence in replica.loading]

    def _wake(self) -> None:
        """Begin at this instant: there is something new to do where nothing was, or where all waited for KV."""
        if self._event is not None:
            self._event.callbacks.clear()
        self._at(0.0, self._begin)

    def _elapsed_s(self, steps: int) -> float:
        """From the start of the run to the end of its step number ``steps``."""
        return steps * self._first_s + self._growth_s * (steps * (steps - 1) // 2)

    def _boundary(self, now_s: float) -> int:
        """How many steps of the run have begun by now: the number of the first boundary that is still to come.

        One at this very instant is, unless an engine has acted that comes after this one.
        """
        passed = self._turn.at_s == now_s and self._turn.priority > self._priority
        elapsed = now_s - self._started_s
        first, growth = self._first_s, self._growth_s
        if growth > 0:
            slope = first - growth / 2
            steps = int((sqrt(slope * slope + 2 * growth * elapsed) - slope) / growth)
        else:
            steps = int(elapsed / first) if first > 0 else self._steps
        steps = max(1, min(steps, self._steps))
        while steps > 1 and not self._past(steps - 1, now_s, passed):
            steps -= 1
        while steps < self._steps and self._past(steps, now_s, passed):
            steps += 1
        return steps

    def _past(self, steps: int, now_s: float, passed: bool) -> bool:
        end_s = self._started_s + self._elapsed_s(steps)
        return end_s < now_s or (passed and end_s == now_s)

    def _cut(self, steps: int) -> None:
        """End the run after ``steps`` steps instead."""
        assert self._event is not None
        self._event.callbacks.clear()
        self._steps = steps
        self._at(max(0.0, self._started_s + self._elapsed_s(steps) - self._env.now), self._end)

    def _end(self, _: simpy.Event) -> None:
        """Book the run, and begin the next while there is work."""
        now, steps = self._env.now, self._steps
        self._turn.at_s, self._turn.priority = now, self._priority
        self._steps = 0
        if not self._alone:
            for replica in self.replicas:
                replica.catch_up(steps)
        busy = False
        for replica, work in zip(self.replicas, self._works, strict=True):
            ended, kv_blocks_end = replica.finish_steps(steps, now)
            for sequence in ended:
                self._on_end(sequence)
            self._record(replica, work, steps, kv_blocks_end)
            busy = busy or bool(replica.running or replica.waiting or replica.loading)
        if busy:
            self._begin()
        else:
            self._event = None

    def _record(self, replica: Replica, work: Work, steps: int, kv_blocks_end: int) -> None:
        batch, first = work.batch, self._first
        elapsed_s = steps * self._first_s
        growing_s = self._growth_s * (steps * (steps - 1) // 2) if steps > 1 else 0.0
        late_gaps_s, late_gaps = self._late_gaps(work) if work.late else NOT_LATE
        self._records.segments.append((
            self.node, replica.index, self._started_s, elapsed_s + growing_s, self._growth_s, steps,
            batch.decode_sequences, work.prefill_tokens, work.context_tokens, work.kv_blocks, kv_blocks_end,
            work.running, work.waiting, first.bound, steps * first.attention_s + growing_s, steps * first.experts_s,
            steps * first.dense_s, steps * first.collectives_s, steps * first.overhead_s,
            late_gaps_s, late_gaps,
        ))  # fmt: skip

    def _late_gaps(self, work: Work) -> tuple[list[float], list[int]]:
        """Gaps that end with the first step of the run and began before it: seconds, and how many each."""
        first_end_s = self._started_s + self._first_s
        return [first_end_s - since_s for since_s, _ in work.late], [count for _, count in work.late]


def _sharing_experts(works: list[Work], stages: int) -> list[Work]:
    """The same work, each batch told how many tokens the experts see: those of all replicas at the same stage."""
    tokens = [work.batch.decode_sequences + work.prefill_tokens for work in works]
    return [
        work._replace(batch=work.batch._replace(expert_tokens=sum(tokens[index % stages :: stages])))
        for index, work in enumerate(works)
    ]


def _total_s(time: StepTime) -> float:
    return time.total_s


def _slowest(runs: list[tuple[StepTime, float, int]]) -> tuple[StepTime, float, int]:
    """The run that all wait for, its growth, and for how many steps it stays the slowest."""
    first, growth_s, valid = max(runs, key=lambda run: run[0].total_s)
    for other, other_growth_s, other_valid in runs:
        valid = min(valid, other_valid)
        if other_growth_s > growth_s:
            valid = min(valid, 1 + int((first.total_s - other.total_s) / (other_growth_s - growth_s)))
    return first, growth_s, valid
