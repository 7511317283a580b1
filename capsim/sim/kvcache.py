"""A node's pool of KV blocks: who holds how many. Every operation checks before it acts."""

from collections.abc import Callable
from itertools import accumulate, takewhile


class KVCache:
    """Blocks held by sequence.

    ``blocks_of(context_tokens)`` says how many blocks a sequence of that length holds.
    """

    def __init__(self, total_blocks: int, blocks_of: Callable[[int], int]) -> None:
        self.total_blocks = total_blocks
        self.free_blocks = total_blocks
        self.allocated_blocks = 0
        self.freed_blocks = 0
        self._blocks_of = blocks_of
        self._held: dict[int, int] = {}

    @property
    def used_blocks(self) -> int:
        return self.total_blocks - self.free_blocks

    def fits(self, context_tokens: int) -> bool:
        """Whether a new sequence of that length fits what is free now."""
        return self._blocks_of(context_tokens) <= self.free_blocks

    def fit_together(self, contexts_tokens: list[int]) -> int:
        """How many new sequences of those lengths, counted from the first, fit together."""
        held = accumulate(map(self._blocks_of, contexts_tokens))
        return sum(1 for _ in takewhile(lambda blocks: blocks <= self.free_blocks, held))

    def ever_fits(self, context_tokens: int) -> bool:
        return self._blocks_of(context_tokens) <= self.total_blocks

    def grow(self, sequence: int, context_tokens: int) -> bool:
        """Make ``sequence`` hold ``context_tokens``; False, and nothing changed, when blocks are short."""
        held = self._held.get(sequence, 0)
        wanted = max(0, self._blocks_of(context_tokens) - held)
        if wanted > self.free_blocks:
            return False
        self.free_blocks -= wanted
        self.allocated_blocks += wanted
        self._held[sequence] = held + wanted
        return True

    def release(self, sequence: int) -> None:
        freed = self._held.pop(sequence)
        self.free_blocks += freed
        self.freed_blocks += freed
