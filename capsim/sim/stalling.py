"""Hugging Face's way with a KV pool: a prompt starts when its first chunk fits, and who lacks a block stands still.

As in transformers 5.24 (continuous_batching/scheduler.py, ``FIFOScheduler``; offloading_manager.py). While the pool has
room this schedules as vLLM does. Short of room the others go on, prompts that fit pass those that do not, and below a
margin of free blocks one prompt starts where nobody else computes. The youngest of those who stand still are sent back,
as many as it takes for the rest to have their blocks in the next step; then nobody starts until somebody has ended.
"""

from collections import Counter
from collections.abc import Sequence as Many

from capsim.sim.kvcache import NO_MATCH
from capsim.sim.replica import Replica, Work
from capsim.sim.sequence import Sequence
from capsim.steptime import FOREVER

MARGIN = 0.15
"""Share of the pool that is free before several prompts may start: ``safety_margin`` by default."""


class Stalling(Replica):
    """A replica whose sequences may stand still beside others that go on."""

    _stood: Many[Sequence] = ()
    _closed = False

    def withdraw(self, sequence: Sequence) -> None:
        """As for every replica; a prompt that is half done may stand still, too."""
        computing = any(sequence is one for one, _ in self._chunks)
        if not computing and any(sequence is one for one in self.running.values()):
            self._leave_prefill(sequence)
        else:
            super().withdraw(sequence)

    def could_admit(self) -> bool:
        """Whether the sequence that was queued last might start with the next step."""
        return self._could_start(self.waiting[-1])

    def first_could_start(self) -> bool:
        """Whether any waiting sequence might start with the next step."""
        return any(map(self._could_start, self.waiting))

    def begin(self, now_s: float) -> Work:
        """Decide the next step, and for how many steps that decision stands; hold the KV blocks of the first."""
        decoding, stood = self._decoding, self._stood
        decoding.pass_kinks()
        self._chunks, self._preempted, self._prefilling = [], False, None
        for sequence in stood:
            decoding.add(sequence)
        self._stood = []
        scarce = self._is_scarce()
        starved = self._decode(stood)
        starved += self._fill(scarce, now_s)
        self._send_back(starved, now_s)
        if not decoding.count and not self._chunks and self.running:
            return self.begin(now_s)
        horizon = 1
        if decoding.count and not (self._chunks or self._preempted or self._stood):
            horizon = self.steps_within_pool(decoding.horizon())
        late = Counter(sequence.last_token_s for sequence in stood if sequence.decoding)
        return self._work(decoding.count, horizon if decoding.count or self._chunks else FOREVER, tuple(late.items()))

    def finish_steps(self, steps: int, now_s: float) -> tuple[list[Sequence], int]:
        """As for every replica; where somebody ended others may start again."""
        ended, kv_blocks = super().finish_steps(steps, now_s)
        self._closed = self._closed and not ended
        return ended, kv_blocks

    def _is_scarce(self) -> bool:
        return self.cache.free_blocks < MARGIN * self.cache.total_blocks

    def _could_start(self, sequence: Sequence) -> bool:
        if self.running and (self._closed or len(self.running) >= self._max_num_seqs or self._is_scarce()):
            return False
        first = min(sequence.known_tokens, self._max_num_batched_tokens - self._decoding.count)
        return self._blocks(first) <= self.cache.free_blocks

    def _decode(self, stood: Many[Sequence]) -> list[Sequence]:
        """Hold the block that each decoding sequence needs for the next step; those that lack one.

        They stand still, and so do those without a place in the batch: others may have started while they stood.
        """
        decoding, cache = self._decoding, self.cache
        self._booked = decoding.next_blocks()
        if decoding.count <= self._max_num_seqs and cache.take(self._booked):
            return []
        starved, places = [], self._max_num_seqs
        for sequence in [sequence for sequence in self.running.values() if sequence.decoding]:
            if places and cache.take(decoding.needs_block(sequence)):
                places -= 1
                continue
            if places:
                starved.append(sequence)
            decoding.pause(sequence)
            sequence.computed_tokens = sequence.known_tokens - 1
            if sequence not in stood:
                sequence.last_token_s = self._standing.leave(sequence.last_token_s)
            self._stood = [*self._stood, sequence]
        self._booked = decoding.next_blocks()
        return starved

    def _fill(self, scarce: bool, now_s: float) -> list[Sequence]:
        """Give the rest of the token budget to prompts, those inside first; those inside that lack blocks."""
        starved = []
        places = self._max_num_seqs - self._decoding.count
        budget = self._max_num_batched_tokens - self._decoding.count
        inside = [one for one in self.running.values() if not one.decoding and one not in self._stood]
        queued = [] if self._closed and self.running else list(self.waiting)
        for sequence in [*inside, *queued]:
            if not (budget and places) or (scarce and places < self._max_num_seqs):
                break
            new = min(sequence.known_tokens - sequence.computed_tokens, budget)
            if sequence in inside:
                if not self._take_chunk(sequence, new):
                    starved.append(sequence)
                    continue
            elif self._blocks(new) <= self.cache.free_blocks:
                self.waiting.remove(sequence)
                self.waiting_tokens -= sequence.known_tokens
                self._holding.start(sequence, NO_MATCH, now_s)
                self._start(sequence, budget, now_s)
            else:
                continue
            budget, places = budget - new, places - 1
        return starved

    def _send_back(self, starved: list[Sequence], now_s: float) -> None:
        """Drop the youngest of those who lack blocks, until the rest will have theirs; they queue at the end."""
        sent: list[Sequence] = []
        while starved and len(self.running) > 1 and sum(map(self._lacks, starved)) > self.cache.free_blocks:
            victim = starved.pop()
            self._preempt(victim, now_s)
            sent.append(victim)
        self._stood = [sequence for sequence in self._stood if sequence not in sent]
        self.waiting.extend(reversed(sent))
        self._closed = self._closed or bool(sent)

    def _lacks(self, sequence: Sequence) -> int:
        """Blocks of the next token, or of the chunk of a prompt that found none."""
        budget = self._max_num_batched_tokens - self._decoding.count
        done = sequence.computed_tokens
        return self._blocks(done + min(sequence.known_tokens - done, budget)) - self._blocks(done)
