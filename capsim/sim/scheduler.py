"""Continuous batching as vLLM V1 does it: running requests first, then waiting ones, under one token budget.

Preemption drops the youngest running request, which is computed again from its prompt and the tokens it had; a step
that preempts admits nobody.
"""

from collections import deque
from dataclasses import dataclass, field

from capsim.sim.kvcache import KVCache


@dataclass(slots=True, eq=False)
class Sequence:
    """A request inside a node. ``max_tokens`` is the client's; the true output length is known to the node alone."""

    index: int
    prompt_tokens: int
    max_tokens: int
    generated_tokens: int = 0
    computed_tokens: int = 0
    preemptions: int = 0

    @property
    def known_tokens(self) -> int:
        return self.prompt_tokens + self.generated_tokens


@dataclass(slots=True)
class Schedule:
    """One step's work: sequences with the tokens each computes, and who was preempted to make room."""

    work: list[tuple[Sequence, int]] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """FCFS with chunked prefill and recompute preemption."""

    def __init__(self, cache: KVCache, max_num_seqs: int, max_num_batched_tokens: int) -> None:
        self.cache = cache
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> bool:
        """Queue a request; False when the pool could never hold it."""
        if not self.cache.ever_fits(sequence.prompt_tokens + sequence.max_tokens):
            return False
        self.waiting.append(sequence)
        return True

    def schedule(self) -> Schedule:
        """Decide the next step and hold the KV blocks it needs."""
        step = Schedule()
        budget = self._continue_running(step, self.max_num_batched_tokens)
        if not step.preempted:
            self._admit_waiting(step, budget)
        return step

    def _continue_running(self, step: Schedule, budget: int) -> int:
        position = 0
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            new = min(sequence.known_tokens - sequence.computed_tokens, budget)
            while not self.cache.grow(sequence.index, sequence.computed_tokens + new):
                victim = self._preempt_youngest(step)
                if victim is sequence:
                    return budget
            step.work.append((sequence, new))
            budget -= new
            position += 1
        return budget

    def _preempt_youngest(self, step: Schedule) -> Sequence:
        victim = self.running.pop()
        self.cache.release(victim.index)
        victim.computed_tokens = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)
        step.preempted.append(victim)
        return victim

    def _admit_waiting(self, step: Schedule, budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            if not self.cache.fits(sequence.known_tokens):
                return
            new = min(sequence.known_tokens, budget)
            self.cache.grow(sequence.index, new)
            self.waiting.popleft()
            self.running.append(sequence)
            step.admitted.append(sequence)
            step.work.append((sequence, new))
            budget -= new

    def complete(self, step: Schedule) -> list[Sequence]:
        """Book the step's tokens; the sequences that got a new token."""
        produced = []
        for sequence, new in step.work:
            sequence.computed_tokens += new
            if sequence.computed_tokens == sequence.known_tokens:
                sequence.generated_tokens += 1
                produced.append(sequence)
        return produced

    def finish(self, sequence: Sequence) -> None:
        """Take a finished sequence out and free its blocks."""
        self.running.remove(sequence)
        self.cache.release(sequence.index)
