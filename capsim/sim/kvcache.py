"""A replica's pool of KV blocks."""

from capsim.memory import BlockRule


class KVCache:
    """Counts of blocks. ``rule`` says how many a sequence of some context holds; who holds them is its caller's."""

    def __init__(self, total_blocks: int, rule: BlockRule) -> None:
        self.total_blocks = total_blocks
        self.free_blocks = total_blocks
        self.allocated_blocks = 0
        self.freed_blocks = 0
        self.rule = rule

    @property
    def used_blocks(self) -> int:
        return self.total_blocks - self.free_blocks

    def ever_fits(self, context_tokens: int) -> bool:
        return self.rule.blocks(context_tokens) <= self.total_blocks

    def take(self, blocks: int) -> bool:
        """Allocate; False, and nothing changed, when blocks are short."""
        if blocks > self.free_blocks:
            return False
        self.free_blocks -= blocks
        self.allocated_blocks += blocks
        return True

    def give(self, blocks: int) -> None:
        """Free blocks."""
        self.free_blocks += blocks
        self.freed_blocks += blocks
