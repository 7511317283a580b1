"""The decoding sequences of a replica, kept as sums.

Each of them gains one token a step, so a clock that counts steps stands for all of them: a sequence's context is its
``base`` plus the clock. Entries read, context and KV blocks needed follow from a few sums, and a sequence is touched
only when it enters, leaves, or crosses a *kink*: a filled window, a reached top-k, a block of a filling window.
"""

from heapq import heapify, heappop, heappush

from capsim.llm import KVStream
from capsim.memory import BlockRule
from capsim.sim.sequence import Sequence
from capsim.steptime import FOREVER


class Decoding:
    """Sequences that decode, one token each a step. Where ``grows`` is false they hold all their blocks already."""

    def __init__(self, streams: tuple[KVStream, ...], rule: BlockRule, *, grows: bool = True) -> None:
        self.clock = 0
        self.count = 0
        self.no_reads = tuple([0.0] * len(streams))
        self._grows = grows
        self._rule = rule
        self._block_tokens = rule.block_tokens
        self._base_sum = 0
        self._finishes: list[tuple[int, int, Sequence]] = []
        self._kinks: list[tuple[int, int, Sequence]] = []
        # Streams whose reads have kinks keep sums of their own: read · ratio = growing · clock + fixed.
        self._kinked = [stream for stream in streams if stream.has_kinks]
        self._growing = [0] * len(self._kinked)
        self._fixed = [0] * len(self._kinked)
        self._sums = [(self._kinked.index(s) if s.has_kinks else None, s.ratio) for s in streams]
        self._one = len(streams) == 1 and not self._kinked and streams[0].ratio == 1
        self._simple = not self._kinked and (rule.settled_tokens == 0 or not grows)
        # Settled sequences take one block every block_tokens steps: by the clock's remainder, how many do.
        self._needs = [0] * rule.block_tokens
        self._settled = 0
        self._due = 0

    def sums(self) -> tuple[int, tuple[float, ...]]:
        """Of the step to come: Σ context, and for each stream the entries it reads in one layer."""
        clock = self.clock
        total = self._base_sum + self.count * clock
        if self._one:
            return total, (total,)
        growing, fixed = self._growing, self._fixed
        reads = [(total if i is None else growing[i] * clock + fixed[i]) / ratio for i, ratio in self._sums]
        return total, tuple(reads)

    def read_growth(self) -> tuple[float, ...]:
        """For each stream, by how much what a step reads grows from step to step until the next kink."""
        if self._one:
            return (self.count,)
        return tuple([(self.count if i is None else self._growing[i]) / ratio for i, ratio in self._sums])

    def add(self, sequence: Sequence) -> None:
        """Take in a sequence whose last token is known and not yet computed."""
        sequence.base = base = sequence.known_tokens - self.clock
        sequence.decoding = True
        self.count += 1
        self._base_sum += base
        last = sequence.prompt_tokens + sequence.output_tokens
        heappush(self._finishes, (last - base, sequence.ticket, sequence))
        if self._simple:
            self._settled += 1
            self._needs[(1 - base) % self._block_tokens] += 1
        else:
            self._place(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go before its end, between steps; its ``known_tokens`` are brought up to date."""
        if not self._simple and not sequence.settled:
            self._due -= self.needs_block(sequence)
        self._forget(sequence)

    def pause(self, sequence: Sequence) -> None:
        """Let a sequence stand still, between steps; it may be added again."""
        self.remove(sequence)
        for heap in (self._finishes, self._kinks):
            heap[:] = [entry for entry in heap if entry[2] is not sequence]
            heapify(heap)

    def needs_block(self, sequence: Sequence) -> int:
        """Blocks that the step to come adds to what a sequence holds."""
        context = sequence.base + self.clock
        return self._rule.blocks(context) - self._rule.blocks(context - 1) if self._grows else 0

    def pass_kinks(self) -> None:
        """Bring sequences at a kink up to date, before a step begins."""
        kinks = self._kinks
        while kinks and kinks[0][0] <= self.clock:
            _, ticket, sequence = heappop(kinks)
            if sequence.decoding and sequence.ticket == ticket:
                self._lift(sequence)
                self._place(sequence)

    def horizon(self) -> int:
        """Steps until the next sequence ends or crosses a kink; at least one. Somebody must be decoding."""
        finishes = self._finishes
        at, ticket, sequence = finishes[0]
        until = at if sequence.decoding and sequence.ticket == ticket else self._top(finishes)
        if self._kinks:
            until = min(until, self._top(self._kinks))
        return until - self.clock

    def next_blocks(self) -> int:
        """Blocks that the step to come adds."""
        return self._due + self._needs[self.clock % self._block_tokens] if self._grows else 0

    def blocks(self, steps: int) -> int:
        """Blocks that the next ``steps`` steps add; ``steps`` at most the horizon."""
        if not self._grows:
            return 0
        cycles, rest = divmod(steps, self._block_tokens)
        total = self._due + cycles * self._settled
        if rest:
            start = self.clock % self._block_tokens
            stop = start + rest
            total += sum(self._needs[start:stop])
            if stop > self._block_tokens:
                total += sum(self._needs[: stop - self._block_tokens])
        return total

    def steps_within(self, steps: int, free_blocks: int) -> int:
        """How many of the next ``steps`` steps ``free_blocks`` allow."""
        at_most = self._due + (steps // self._block_tokens + 1) * self._settled
        if at_most <= free_blocks or self.blocks(steps) <= free_blocks:
            return steps
        low, high = 0, steps  # blocks(low) fit, blocks(high) do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.blocks(middle) <= free_blocks else (low, middle)
        return low

    def advance(self, steps: int) -> list[Sequence]:
        """Let ``steps`` steps pass; the sequences that got their last token in the last of them, by admission."""
        self.clock += steps
        self._due = 0
        ended, finishes = [], self._finishes
        while finishes and finishes[0][0] <= self.clock:
            _, ticket, sequence = heappop(finishes)
            if sequence.decoding and sequence.ticket == ticket:
                self._forget(sequence)
                ended.append(sequence)
        return ended

    def _top(self, heap: list[tuple[int, int, Sequence]]) -> int:
        """The clock of the first entry whose sequence still decodes; others are dropped."""
        while heap:
            at, ticket, sequence = heap[0]
            if sequence.decoding and sequence.ticket == ticket:
                return at
            heappop(heap)
        return FOREVER

    def _forget(self, sequence: Sequence) -> None:
        """Take a sequence out of everything but the heaps, which notice by themselves."""
        sequence.known_tokens = sequence.base + self.clock
        sequence.decoding = False
        self.count -= 1
        self._base_sum -= sequence.base
        if self._simple:
            self._settled -= 1
            self._needs[(1 - sequence.base) % self._block_tokens] -= 1
        else:
            self._lift(sequence)

    def _place(self, sequence: Sequence) -> None:
        """Add a sequence to the sums for the stretch of contexts it stands in, and note where that stretch ends."""
        base, context = sequence.base, sequence.base + self.clock
        last = FOREVER
        sequence.pieces = pieces = []
        for i, stream in enumerate(self._kinked):
            slope, level, until = stream.piece(context)
            self._growing[i] += slope
            self._fixed[i] += (fixed := slope * base + level)
            pieces.append((slope, fixed))
            last = last if until is None else min(last, until)
        sequence.settled = context > self._rule.settled_tokens or not self._grows
        if sequence.settled:
            self._settled += 1
            self._needs[(1 - base) % self._block_tokens] += 1
        else:
            self._due += self.needs_block(sequence)
            last = min(last, -(-context // self._block_tokens) * self._block_tokens)
        if last < FOREVER:
            heappush(self._kinks, (last + 1 - base, sequence.ticket, sequence))

    def _lift(self, sequence: Sequence) -> None:
        """Take a sequence out of the sums again."""
        for i, (slope, fixed) in enumerate(sequence.pieces):
            self._growing[i] -= slope
            self._fixed[i] -= fixed
        if sequence.settled:
            self._settled -= 1
            self._needs[(1 - sequence.base) % self._block_tokens] -= 1
