"""A replica: its queue, its running sequences and its KV pool, under the engine's scheduling policy.

By default running sequences go first, one token each; then the rest of the token budget goes to waiting ones in order,
whole prompts or chunks of them, if their whole prompt fits the pool; preemption drops the youngest, which is computed
again from its prompt and the tokens it had, and a step that preempts admits nobody (vLLM V1). Other engines differ in
when prefill runs, what must be free before a request starts, and who goes when the pool is full: see ``Policy``.

A prompt whose KV must be loaded into the pool leaves the queue as if it started, holds its blocks, and waits beside
the batch until the KV is there. Others go on meanwhile.

With a token budget of at least one token for each sequence (vLLM insists on it) every decoding sequence advances in
every step that decodes, and at most one sequence, the youngest, stands in the middle of its prefill.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from capsim.llm import KVStream
from capsim.sim.decoding import Decoding
from capsim.sim.holding import Holding
from capsim.sim.kvcache import NO_MATCH, KVCache, Match
from capsim.sim.retraction import TokenEstimate
from capsim.sim.sequence import ABANDONED, QUEUE_FULL, Sequence
from capsim.sim.spec import Policy
from capsim.sim.standing import Standing
from capsim.steptime import FOREVER, Batch, PrefillChunk


class Work(NamedTuple):
    """What a replica does from now on: ``batch`` in the next step, and like steps up to ``horizon`` in all.

    ``late`` are the decoding sequences whose last token is older than this step: since when, and how many.
    """

    batch: Batch
    horizon: int
    prefill_tokens: int
    context_tokens: int
    kv_blocks: int
    running: int
    waiting: int
    late: tuple[tuple[float, int], ...]


class Replica:
    """Schedules its sequences step by step, or run by run while only decoding goes on.

    ``sharing`` replicas, the batches of a pipeline, have one pool; ``on_start`` and ``on_stop`` watch the batch.
    """

    def __init__(
        self, index: int, cache: KVCache, policy: Policy, streams: tuple[KVStream, ...], sharing: int = 1
    ) -> None:
        self.index = index
        self._sharing = sharing
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.waiting_tokens = 0
        self.loading: list[Sequence] = []
        self.running: dict[int, Sequence] = {}
        self.on_start: Callable[[Sequence], None] | None = None
        self.on_stop: Callable[[Sequence], None] | None = None
        self._queue_limit = policy.queue_limit
        self._joins_running = policy.joins_running
        self._chunked_prefill = policy.chunked_prefill
        self._blocks = cache.rule.blocks
        self._max_num_seqs = policy.max_num_seqs
        self._max_num_batched_tokens = policy.max_num_batched_tokens
        self._prefill_first = policy.prefill_first
        self._plain = policy.reserve == "prompt" and policy.chunked_prefill
        self._holding = Holding(cache, policy)
        self._estimate = TokenEstimate() if policy.reserve == "estimate" else None
        self._decoding = Decoding(streams, cache.rule, grows=self._holding.grows)
        self._prefilling: Sequence | None = None
        self._chunks: list[tuple[Sequence, int]] = []
        self._admitted = 0
        self._decoders = 0
        self._preempted = False
        self._booked = 0
        self._standing = Standing()

    @property
    def in_flight(self) -> int:
        return len(self.running) + len(self.loading) + len(self.waiting)

    def inside(self) -> list[Sequence]:
        """Requests that have not ended."""
        return [one for one in (*self.running.values(), *self.loading, *self.waiting) if one.outcome != ABANDONED]

    @property
    def held_tokens(self) -> int:
        """Tokens in the blocks that its sequences hold."""
        return self.cache.used_blocks * self.cache.rule.block_tokens

    def cached_tokens(self, sequence: Sequence) -> int:
        """Tokens of a prompt that need no prefill here: full blocks, and never the last token."""
        return self._holding.cached_tokens(sequence, self._holding.match(sequence))

    @property
    def counts_blocks(self) -> bool:
        """Whether ``submit`` counts blocks, and wants the pool brought up to date before."""
        return self._queue_limit is not None

    def submit(self, sequence: Sequence) -> str:
        """Queue a request; why not, when the queue is full or it could never be served."""
        if self._queue_limit is not None and self._would_wait(sequence) > self._queue_limit:
            return QUEUE_FULL
        if self._blocks(sequence.prompt_tokens + sequence.max_tokens) > self._holding.most_blocks:
            return "larger than the KV pool" if self._holding.slot_blocks is None else "larger than a slot"
        if not self._chunked_prefill and sequence.prompt_tokens > self._max_num_batched_tokens:
            return "prompt longer than a step's token budget"
        self.waiting.append(sequence)
        self.waiting_tokens += sequence.known_tokens
        return ""

    def withdraw(self, sequence: Sequence) -> None:
        """Take back a request without a token. A step under way that computes some of it goes on to its end."""
        if sequence in self.loading:
            self.loading.remove(sequence)
            self._holding.release(sequence, sequence.computed_tokens)
        elif not any(sequence is computed for computed, _ in self._chunks):
            self.waiting.remove(sequence)
            self.waiting_tokens -= sequence.known_tokens

    def catch_up(self, steps_begun: int) -> None:
        """Hold the KV blocks of the steps of the run under way that have begun."""
        if steps_begun > 1:
            blocks = self._decoding.blocks(steps_begun)
            taken = self.cache.take(blocks - self._booked)
            assert taken, "a run of steps outgrew the pool"
            self._booked = blocks

    def could_admit(self) -> bool:
        """Whether the sequence that was queued last might start with the next step."""
        return len(self.waiting) == 1 and self.first_could_start()

    def first_could_start(self) -> bool:
        """Whether the first waiting sequence might start with the next step."""
        if not self.waiting or not self._has_place():
            return False
        first = self.waiting[0]
        return self._estimate is not None or self._fits(first, self._holding.match(first), FOREVER)

    def begin(self, now_s: float) -> Work:
        """Decide the next step, and for how many steps that decision stands; hold the KV blocks of the first."""
        decoding = self._decoding
        decoding.pass_kinks()
        self._chunks, self._preempted = [], False
        if self._prefill_first:
            self._prefill(self._max_num_batched_tokens, now_s)
            if self._chunks:
                return self._work(0, 1, ())
            self._grow_decoding(now_s)
            late = self._standing.late(now_s, decoding.count)
        else:
            self._grow_decoding(now_s)
            if self.waiting or self.loading or self._prefilling:
                self._prefill(self._max_num_batched_tokens - decoding.count, now_s)
            late = ()
        count, horizon = decoding.count, FOREVER
        if self._chunks or self._preempted:
            horizon = 1
        elif count:
            horizon = self.steps_within_pool(decoding.horizon())
            if self._estimate and self.waiting and self._has_place():
                horizon = min(horizon, self._steps_blocked(self._estimate))
        return self._work(count, horizon, late)

    def _steps_blocked(self, estimate: TokenEstimate) -> int:
        """Steps in which the first waiting request surely cannot start, were nothing of the pool used up."""
        first = self.waiting[0]
        match = self._holding.match(first)
        lack = self._lack_tokens(estimate, first, match, self.cache.free_blocks - match.idle_blocks)
        return estimate.steps_blocked(lack, self.running, self._decoding.clock)

    def steps_within_pool(self, steps: int) -> int:
        """How many of the next ``steps`` steps this replica's part of the free blocks allows."""
        if not self._decoding.count:
            return steps
        return self._decoding.steps_within(steps, self.cache.free_blocks // self._sharing + self._booked)

    def finish_steps(self, steps: int, now_s: float) -> tuple[list[Sequence], int]:
        """Book ``steps`` steps that have passed: the sequences that ended, and the KV blocks held in the last step."""
        ended: list[Sequence] = []
        if self._decoders:
            self.catch_up(steps)
            ended = self._decoding.advance(steps)
            self._standing.decoded_s = now_s
            if self._estimate:
                self._estimate.decay(steps)
        kv_blocks = self.cache.used_blocks
        for sequence, new in self._chunks:
            sequence.computed_tokens += new
            if sequence.outcome == ABANDONED:
                self._leave_prefill(sequence)
            elif sequence.computed_tokens == sequence.known_tokens and self._next_token(sequence, now_s):
                ended.append(sequence)
        for sequence in ended:
            self._stop(sequence)
            if sequence.prefix:
                self._holding.share(sequence, sequence.known_tokens - 1, sequence.known_tokens)
            self._holding.release(sequence, sequence.known_tokens - 1)
        if self._estimate and not self.running:
            self._estimate.reset()
        return ended, kv_blocks

    def _has_place(self) -> bool:
        return len(self.running) < self._max_num_seqs and (self._joins_running or not self.running)

    def _would_wait(self, sequence: Sequence) -> int:
        """How many would wait, ``sequence`` included, once those that can start have started, nothing being cached."""
        free, starting = self.cache.free_blocks, 0
        queued = [*self.waiting, sequence]
        places = self._max_num_seqs - len(self.running) if self._has_place() else 0
        for first in queued[:places]:
            free -= self._holding.blocks(first, first.known_tokens)
            if free < 0:
                break
            starting += 1
        return len(queued) - starting

    def _grow_decoding(self, now_s: float) -> None:
        """Hold what the decoding sequences need for the next step; somebody goes where that is too much."""
        decoding, cache = self._decoding, self.cache
        self._booked = decoding.next_blocks()
        if not self._booked or cache.take(self._booked):
            return
        if self._estimate:
            self._retract(self._estimate, now_s)
            return
        for sequence in list(self.running.values()):
            while sequence.decoding and not cache.take(decoding.needs_block(sequence)):
                self._preempt_youngest(now_s)

    def _retract(self, estimate: TokenEstimate, now_s: float) -> None:
        """Send some back to the end of the queue, until the rest have room for a while."""
        decoding, cache = self._decoding, self.cache
        fits = False
        while decoding.count and not fits:
            victim = estimate.victim(self.running, decoding.clock)
            self._preempt(victim, now_s)
            self.waiting.append(victim)
            room = estimate.has_room(cache.free_blocks * cache.rule.block_tokens, decoding.count)
            fits = (room or decoding.count == 1) and cache.take(decoding.next_blocks())
        self._booked = decoding.next_blocks()
        estimate.start_over(self.running.values(), decoding.clock)

    def _preempt_youngest(self, now_s: float) -> None:
        victim = next(reversed(self.running.values()))
        self._preempt(victim, now_s)
        self.waiting.appendleft(victim)

    def _preempt(self, victim: Sequence, now_s: float) -> None:
        self._preempted = True
        if victim.decoding:
            self._stop(victim)
            self._decoding.remove(victim)
            victim.last_token_s = self._standing.leave(victim.last_token_s)
            self._holding.release(victim, victim.known_tokens - 1)
        else:
            self._leave_prefill(victim)
        victim.computed_tokens = 0
        victim.preemptions += 1
        self.waiting_tokens += victim.known_tokens

    def _leave_prefill(self, sequence: Sequence) -> None:
        """A sequence goes whose prompt is not computed to its end, or in vain."""
        self._stop(sequence)
        if self._prefilling is sequence:
            self._prefilling = None
        self._holding.release(sequence, sequence.computed_tokens)

    def _stop(self, sequence: Sequence) -> None:
        """Take a sequence out of the batch."""
        del self.running[sequence.ticket]
        if self.on_stop is not None:
            self.on_stop(sequence)

    def _prefill(self, budget: int, now_s: float) -> None:
        """Give the token budget to the prompt that is half done, to loaded ones, then to waiting ones in order."""
        sequence = self._prefilling
        may_join = self._joins_running or not self.running
        if sequence is not None:
            new = min(sequence.known_tokens - sequence.computed_tokens, budget)
            if not self._take_chunk(sequence, new):
                self._preempt_youngest(now_s)
            budget -= new
        if not may_join or self._preempted:
            return
        if self.loading:
            budget = self._start_loaded(budget, now_s)
        while self.waiting and budget > 0:
            sequence = self.waiting[0]
            match = self._holding.match(sequence) if sequence.prefix else NO_MATCH
            loads = match.runs > 0 and self._holding.must_load(sequence, match, now_s)
            if len(self.running) >= self._max_num_seqs or not self._fits(sequence, match, FOREVER if loads else budget):
                return
            self.waiting.popleft()
            self.waiting_tokens -= sequence.known_tokens
            if loads:
                self._holding.load(sequence, match, now_s)
                self.loading.append(sequence)
            else:
                self._holding.start(sequence, match, now_s)
                budget -= self._start(sequence, budget, now_s)

    def _start_loaded(self, budget: int, now_s: float) -> int:
        """Start those whose KV is there, in order; what is left of the token budget, nothing where one must wait."""
        for sequence in [sequence for sequence in self.loading if sequence.ready_s <= now_s]:
            left = sequence.known_tokens - sequence.computed_tokens
            may_go = self._chunked_prefill or self._fits_step(left, budget)
            if budget <= 0 or len(self.running) >= self._max_num_seqs or not may_go:
                return 0
            self.loading.remove(sequence)
            budget -= self._start(sequence, budget, now_s)
        return budget

    def _fits_step(self, tokens: int, budget: int) -> bool:
        """Whether the rest of a prompt goes into the step as a whole, or is longer than any step and goes in parts."""
        return tokens <= budget or tokens > self._max_num_batched_tokens

    def _fits(self, sequence: Sequence, match: Match, budget: int) -> bool:
        """Whether the first waiting sequence may start."""
        known, cache = sequence.known_tokens, self.cache
        if self._plain and match is NO_MATCH:
            return self._blocks(known) <= cache.free_blocks
        if not self._chunked_prefill:
            left = known - self._holding.cached_tokens(sequence, match)
            if not self._fits_step(left, budget):
                return False
        free = cache.free_blocks - match.idle_blocks
        if self._estimate and self.running:
            return self._lack_tokens(self._estimate, sequence, match, free) < 0
        return self._holding.blocks(sequence, known) - match.blocks <= free

    def _lack_tokens(self, estimate: TokenEstimate, sequence: Sequence, match: Match, free_blocks: int) -> float:
        """Tokens that the pool lacks, by the estimate, before a request may start; below zero where it may."""
        wanted = estimate.wanted_blocks(sequence, self.cache.rule) - match.blocks
        expected = estimate.expected_tokens(self.running, self._decoding.clock)
        return expected - (free_blocks - wanted) * self.cache.rule.block_tokens

    def _start(self, sequence: Sequence, budget: int, now_s: float) -> int:
        """Start a sequence with a first chunk of what is to be computed of it; the tokens of it."""
        if not sequence.preemptions:
            sequence.first_scheduled_s = now_s
            sequence.cached_tokens = sequence.computed_tokens
            if sequence.secured_tokens:
                self._holding.count_hits(sequence)
        self._admitted += 1
        sequence.ticket = self._admitted
        self.running[self._admitted] = sequence
        if self.on_start is not None:
            self.on_start(sequence)
        new = min(sequence.known_tokens - sequence.computed_tokens, budget)
        room = self._take_chunk(sequence, new, first=True)
        assert room, "a request started without room"
        return new

    def _take_chunk(self, sequence: Sequence, new: int, *, first: bool = False) -> bool:
        """Hold the blocks of a chunk of a prompt and put it into the step; False where they are short."""
        if not self._holding.extend(sequence, new, first=first):
            return False
        self._chunks.append((sequence, new))
        self._prefilling = None if sequence.computed_tokens + new == sequence.known_tokens else sequence
        return True

    def _next_token(self, sequence: Sequence, now_s: float) -> bool:
        """A prefill ends with a token: the first, or after a preemption the next. Whether it is the last."""
        if sequence.known_tokens == sequence.prompt_tokens:
            sequence.first_token_s = now_s
        else:
            sequence.stalls_s.append(now_s - sequence.last_token_s)
        sequence.known_tokens += 1
        sequence.last_token_s = now_s
        if sequence.known_tokens == sequence.prompt_tokens + sequence.output_tokens:
            return True
        self._decoding.add(sequence)
        if self._prefill_first:
            self._standing.join(now_s)
        return False

    def _work(self, decoders: int, horizon: int, late: tuple[tuple[float, int], ...]) -> Work:
        """The step decided on, in which ``decoders`` decode: all of those that could, or nobody."""
        decoding, cache = self._decoding, self.cache
        self._decoders = decoders
        context, reads = decoding.sums() if decoders else (0, decoding.no_reads)
        growth = decoding.read_growth() if horizon > 1 else ()
        prefill: tuple[PrefillChunk, ...] = ()
        prefill_tokens = finishing = 0
        if self._chunks:
            prefill = tuple([PrefillChunk(new, sequence.computed_tokens) for sequence, new in self._chunks])
            for new, done in prefill:
                prefill_tokens += new
                context += done
            finishing = len(prefill) - (self._prefilling is not None)
        batch = Batch(decoders, reads, prefill, finishing, growth)
        used = cache.total_blocks - cache.free_blocks
        waiting = len(self.waiting) + len(self.loading)
        return Work(batch, horizon, prefill_tokens, context, used, len(self.running), waiting, late)
