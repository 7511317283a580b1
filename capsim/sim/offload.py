"""KV below the device: host memory, then an SSD, for runs that the pool of KV blocks has no room for.

A run is in one place: in the pool, or in one of the tiers. The pool's least recently held goes to the first tier, that
tier's to the second, the last one's is lost. A prompt takes its runs out again, which are loaded into the pool.

A tier's link loads in order, one request after the other. Writing takes what loading leaves of it and delays nobody;
``busy_s`` tells whether the link could do both.
"""

from collections import OrderedDict
from collections.abc import Iterable

from capsim.sim.spec import OffloadTier
from capsim.workload.requests import Run


class Tier:
    """One tier below one pool. Counts are of blocks, but ``hit_tokens``: prompt tokens that were found here."""

    def __init__(self, spec: OffloadTier) -> None:
        self.name = spec.name
        self.capacity_blocks = self.free_blocks = spec.blocks
        self.hit_tokens = self.loaded_blocks = self.stored_blocks = 0
        self._block_s = spec.block_s
        self._link_free_s = 0.0
        self._runs: OrderedDict[Run, int] = OrderedDict()

    @property
    def busy_s(self) -> float:
        """For how long the link was needed."""
        return (self.loaded_blocks + self.stored_blocks) * self._block_s

    def begin_with(self, runs: dict[Run, int]) -> None:
        """Runs of an empty tier with their blocks, the first to go first; there must be room."""
        self._runs |= runs
        self.free_blocks -= sum(runs.values())

    def get(self, run: Run) -> int | None:
        """Blocks of a run, None where it is not here."""
        return self._runs.get(run)

    def put(self, run: Run, blocks: int) -> list[tuple[Run, int]]:
        """Store a run; those that go for it, or itself where it is larger than the tier."""
        if blocks > self.capacity_blocks:
            return [(run, blocks)]
        gone = []
        while blocks > self.free_blocks:
            oldest = next(iter(self._runs))
            gone.append((oldest, self.pop(oldest)))
        self._runs[run] = blocks
        self.free_blocks -= blocks
        self.stored_blocks += blocks
        return gone

    def pop(self, run: Run) -> int:
        """Take a run out; its blocks."""
        blocks = self._runs.pop(run)
        self.free_blocks += blocks
        return blocks

    def load(self, blocks: int, now_s: float) -> float:
        """Move blocks to the pool, after what the link was asked for before; when they are there."""
        self.loaded_blocks += blocks
        self._link_free_s = max(self._link_free_s, now_s) + blocks * self._block_s
        return self._link_free_s


class Offload:
    """The tiers below one pool, the fastest first. ``lost_blocks`` are those that left the last."""

    def __init__(self, tiers: Iterable[OffloadTier]) -> None:
        self.tiers = [Tier(spec) for spec in tiers]
        self.lost_blocks = 0

    def get(self, run: Run) -> int | None:
        """Blocks of a run, None where no tier has it."""
        return next((blocks for tier in self.tiers if (blocks := tier.get(run)) is not None), None)

    def put(self, run: Run, blocks: int) -> None:
        """Take in a run that leaves the pool."""
        going = [(run, blocks)]
        for tier in self.tiers:
            going = [out for one in going for out in tier.put(*one)]
        self.lost_blocks += sum(out for _, out in going)

    def drop(self, run: Run) -> None:
        """Forget a run that was computed again."""
        for tier in self.tiers:
            if tier.get(run) is not None:
                tier.pop(run)

    def take(self, runs: Iterable[Run]) -> list[int]:
        """Take runs out; the blocks of each tier."""
        taken = [0] * len(self.tiers)
        for run in runs:
            level = next(level for level, tier in enumerate(self.tiers) if tier.get(run) is not None)
            taken[level] += self.tiers[level].pop(run)
        return taken

    def load(self, taken: Iterable[int], now_s: float) -> float:
        """Move what was taken to the pool; when all of it is there."""
        loads = zip(self.tiers, taken, strict=True)
        return max((tier.load(blocks, now_s) for tier, blocks in loads if blocks), default=now_s)
