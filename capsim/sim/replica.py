"""A data-parallel replica: its queue, its running sequences and its KV pool, under vLLM V1's scheduling rules.

Running sequences go first, one token each; then the rest of the token budget goes to waiting ones in order, whole
prompts or chunks of them, if their whole prompt fits the pool. Preemption drops the youngest, which is computed again
from its prompt and the tokens it had; a step that preempts admits nobody.

With a token budget of at least one token for each sequence (vLLM insists on it) every decoding sequence advances in
every step, and at most one sequence, the youngest, stands in the middle of its prefill.
"""

from collections import deque
from typing import NamedTuple

from capsim.llm import KVStream
from capsim.sim.decoding import Decoding
from capsim.sim.kvcache import KVCache
from capsim.sim.sequence import Sequence
from capsim.sim.spec import Limits
from capsim.steptime import FOREVER, Batch, PrefillChunk


class Work(NamedTuple):
    """What a replica does from now on: ``batch`` in the next step, and like steps up to ``horizon`` in all."""

    batch: Batch
    horizon: int
    context_tokens: int
    kv_blocks: int
    running: int
    waiting: int


class Replica:
    """Schedules its sequences step by step, or run by run while only decoding goes on."""

    def __init__(self, index: int, cache: KVCache, limits: Limits, streams: tuple[KVStream, ...]) -> None:
        self.index = index
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.running: dict[int, Sequence] = {}
        self._max_num_seqs = limits.max_num_seqs
        self._max_num_batched_tokens = limits.max_num_batched_tokens
        self._queue_limit = limits.queue_limit
        self._decoding = Decoding(streams, cache.rule)
        self._prefilling: Sequence | None = None
        self._chunks: list[tuple[Sequence, int]] = []
        self._admitted = 0
        self._decoders = 0
        self._first_growth = 0

    @property
    def in_flight(self) -> int:
        return len(self.running) + len(self.waiting)

    def submit(self, sequence: Sequence, steps_begun: int) -> str:
        """Queue a request; why not, when the queue is full or the pool could never hold it.

        ``steps_begun`` counts the steps of the run under way that have begun, 0 between runs.
        """
        if self._queue_limit is not None and self._would_wait(sequence, steps_begun) > self._queue_limit:
            return "queue full"
        if not self.cache.ever_fits(sequence.prompt_tokens + sequence.max_tokens):
            return "larger than the KV pool"
        self.waiting.append(sequence)
        return ""

    def could_admit(self) -> bool:
        """Whether the sequence that was queued last might start with the next step."""
        return (
            len(self.waiting) == 1
            and len(self.running) < self._max_num_seqs
            and self.cache.rule.blocks(self.waiting[0].known_tokens) <= self.cache.free_blocks
        )

    def begin(self, now_s: float) -> Work:
        """Decide the next step, and for how many steps that decision stands; hold the KV blocks of the first."""
        decoding = self._decoding
        decoding.pass_kinks()
        self._chunks = []
        preempted = not self._grow_decoding(now_s)
        budget = self._max_num_batched_tokens - decoding.count
        if self._prefilling is not None:
            took = self._continue_prefill(budget, now_s)
            budget, preempted = budget - took, preempted or not took
        if self.waiting and not preempted:
            self._admit(budget, now_s)
        self._decoders = decoding.count
        if self._chunks or preempted:
            return self._work(1)
        free = self.cache.free_blocks + self._first_growth
        return self._work(decoding.steps_within(decoding.horizon(), free) if self._decoders else FOREVER)

    def finish_steps(self, steps: int, now_s: float) -> tuple[list[Sequence], int, int]:
        """Book ``steps`` steps that have passed.

        Returns the sequences that ended, the token gaps of one step's length, and the KV blocks held in the last step.
        """
        if steps > 1:
            self.cache.take(self._decoding.blocks(steps) - self._first_growth)
        gaps, kv_blocks = steps * self._decoders, self.cache.used_blocks
        ended = self._decoding.advance(steps)
        for sequence, new in self._chunks:
            sequence.computed_tokens += new
            if sequence.computed_tokens == sequence.known_tokens:
                self._first_token(sequence, now_s)
                if sequence.generated_tokens == sequence.output_tokens:
                    ended.append(sequence)
                else:
                    self._decoding.add(sequence)
        for sequence in ended:
            del self.running[sequence.ticket]
            self.cache.give(self.cache.rule.blocks(sequence.known_tokens - 1))
        return ended, gaps, kv_blocks

    def _would_wait(self, sequence: Sequence, steps_begun: int) -> int:
        """How many would wait, ``sequence`` included, once those that can start have started."""
        free = self.cache.free_blocks
        if steps_begun > 1:
            free -= self._decoding.blocks(steps_begun) - self._first_growth
        queued = [*self.waiting, sequence]
        starting = 0
        for first in queued[: self._max_num_seqs - len(self.running)]:
            free -= self.cache.rule.blocks(first.known_tokens)
            if free < 0:
                break
            starting += 1
        return len(queued) - starting

    def _grow_decoding(self, now_s: float) -> bool:
        """Hold what the decoding sequences need for the next step; False where somebody had to go for it."""
        self._first_growth = self._decoding.blocks(1)
        if self.cache.take(self._first_growth):
            return True
        for sequence in list(self.running.values()):
            while sequence.decoding and not self.cache.take(self._decoding.needs_block(sequence)):
                self._preempt_youngest(now_s)
        return False

    def _preempt_youngest(self, now_s: float) -> None:
        _, victim = self.running.popitem()
        if victim.decoding:
            self._decoding.remove(victim)
            victim.last_token_s = now_s
            self.cache.give(self.cache.rule.blocks(victim.known_tokens - 1))
        else:
            self._prefilling = None
            self.cache.give(self.cache.rule.blocks(victim.computed_tokens))
        victim.computed_tokens = 0
        victim.preemptions += 1
        self.waiting.appendleft(victim)

    def _continue_prefill(self, budget: int, now_s: float) -> int:
        """The next chunk of the prompt that is half done; no tokens where that costs it its place."""
        sequence = self._prefilling
        assert sequence is not None
        done, blocks = sequence.computed_tokens, self.cache.rule.blocks
        new = min(sequence.known_tokens - done, budget)
        if not self.cache.take(blocks(done + new) - blocks(done)):
            self._preempt_youngest(now_s)
            return 0
        self._chunk(sequence, new)
        return new

    def _admit(self, budget: int, now_s: float) -> None:
        """Start waiting sequences in order, as far as places, budget and blocks go."""
        cache = self.cache
        while self.waiting and budget > 0 and len(self.running) < self._max_num_seqs:
            sequence = self.waiting[0]
            known = sequence.known_tokens
            if cache.rule.blocks(known) > cache.free_blocks:
                return
            new = min(known, budget)
            cache.take(cache.rule.blocks(new))
            self.waiting.popleft()
            if not sequence.preemptions:
                sequence.first_scheduled_s = now_s
            self._admitted += 1
            sequence.ticket = self._admitted
            self.running[self._admitted] = sequence
            self._chunk(sequence, new)
            budget -= new

    def _chunk(self, sequence: Sequence, new: int) -> None:
        self._chunks.append((sequence, new))
        done = sequence.computed_tokens + new == sequence.known_tokens
        self._prefilling = None if done else sequence

    def _first_token(self, sequence: Sequence, now_s: float) -> None:
        """A prefill ends with a token: the first, or after a preemption the next."""
        sequence.generated_tokens += 1
        if sequence.generated_tokens == 1:
            sequence.first_token_s = now_s
        else:
            sequence.stalls_s.append(now_s - sequence.last_token_s)

    def _work(self, horizon: int) -> Work:
        decoding, context = self._decoding, self._decoding.context_tokens
        prefill: tuple[PrefillChunk, ...] = ()
        finishing = 0
        if self._chunks:
            prefill = tuple([PrefillChunk(new, sequence.computed_tokens) for sequence, new in self._chunks])
            context += sum([chunk.context_tokens for chunk in prefill])
            finishing = len(prefill) - (self._prefilling is not None)
        growth = decoding.read_growth() if horizon > 1 else ()
        batch = Batch(decoding.count, decoding.reads(), prefill, finishing, growth)
        return Work(batch, horizon, context, self.cache.used_blocks, len(self.running), len(self.waiting))
