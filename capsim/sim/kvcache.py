"""A replica's pool of KV blocks, and the prefixes that stay in it when nobody uses them.

A prompt is known by its *runs*: stretches of its tokens, each named by a key that stands for all the tokens before it
too, so that two prompts share KV exactly as far as their leading runs agree. A run whose full blocks are computed
becomes an entry that many sequences may hold. Nobody's entries stay, the least recently held going first when room is
needed; a sequence lets go of its last run first, so that a prefix never goes before what builds on it. With tiers
below the pool, what goes is offloaded to them and may be loaded again.

So the runs of a prompt that are in the pool come before those that are not, and those that somebody holds before the
idle ones. An entry counts who holds it and nothing after it, and the entries right after it that are held: what comes
and goes is told to no more entries than change hands.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Container
from itertools import accumulate, islice
from operator import itemgetter
from typing import NamedTuple

from capsim.memory import BlockRule
from capsim.sim.offload import Offload
from capsim.workload.requests import Run


class Match(NamedTuple):
    """The leading runs of a prompt that are in the cache: their number, their blocks, and how many of these idle.

    ``runs`` counts those in tiers below the pool too, of which there are ``offloaded_runs`` with ``offloaded_blocks``.
    """

    runs: int
    blocks: int
    idle_blocks: int
    offloaded_runs: int = 0
    offloaded_blocks: int = 0


NO_MATCH = Match(0, 0, 0)


def _leading(prefix: tuple[Run, ...], runs: int, where: Container[Run], *, there: bool) -> int:
    """How many of the first ``runs`` are there (or are not), before the first of which, and of all after it, the
    contrary holds.
    """
    if runs and (prefix[runs - 1] in where) == there:
        return runs
    return bisect_left(range(runs), True, key=lambda index: (prefix[index] in where) != there)


class KVCache:
    """Counts of blocks, and entries by run. ``rule`` says how many blocks a sequence of some context holds.

    ``free_blocks`` are those that nobody holds, idle entries among them; ``offload`` are the tiers below. ``on_evict``
    is told of entries that are gone, ``on_enter`` of those that come.
    """

    def __init__(self, total_blocks: int, rule: BlockRule, offload: Offload | None = None) -> None:
        self.total_blocks = total_blocks
        self.free_blocks = total_blocks
        self.idle_blocks = 0
        self.allocated_blocks = 0
        self.freed_blocks = 0
        self.evicted_blocks = 0
        self.rule = rule
        self.on_evict: Callable[[Run], None] | None = None
        self.on_enter: Callable[[Run], None] | None = None
        self.offload = offload
        self._blocks: dict[Run, int] = {}
        self._ends: dict[Run, int] = {}  # blocks of each entry and of all before it
        self._holders: dict[Run, int] = {}
        self._idle: OrderedDict[Run, None] = OrderedDict()
        self._arrival_s: dict[Run, float] = {}  # of entries that are being loaded, or were

    @property
    def used_blocks(self) -> int:
        """Blocks that sequences hold."""
        return self.total_blocks - self.free_blocks

    @property
    def resident_blocks(self) -> int:
        """Blocks that sequences hold or that idle entries keep."""
        return self.used_blocks + self.idle_blocks

    def begin_with(self, runs: dict[Run, int], ends: dict[Run, int]) -> None:
        """Idle entries of an empty pool with their blocks, the least recently held first; there must be room.

        ``ends`` has the blocks up to the end of each.
        """
        self._blocks |= runs
        self._ends |= {run: ends[run] for run in runs}
        self._holders |= dict.fromkeys(runs, 0)
        self._idle |= dict.fromkeys(runs)
        self.idle_blocks = self.allocated_blocks = sum(runs.values())

    def take(self, blocks: int) -> bool:
        """Allocate, evicting idle entries where need be; False, and nothing changed, when blocks are short."""
        if blocks > self.free_blocks:
            return False
        while blocks > self.free_blocks - self.idle_blocks:
            self._evict()
        self.free_blocks -= blocks
        self.allocated_blocks += blocks
        return True

    def give(self, blocks: int) -> None:
        """Free blocks of the caller's own."""
        self.free_blocks += blocks
        self.freed_blocks += blocks

    def match(self, prefix: tuple[Run, ...], known_tokens: int) -> Match:
        """How much of a context of ``known_tokens`` is here. Nothing is held by it."""
        if not prefix:
            return NO_MATCH
        known = bisect_right(prefix, known_tokens, key=itemgetter(1))
        runs = _leading(prefix, known, self._blocks, there=True)
        held = _leading(prefix, runs, self._idle, there=False)
        blocks = self._end(prefix, runs)
        idle = blocks - self._end(prefix, held)
        if self.offload is None:
            return Match(runs, blocks, idle)
        offloaded_runs = offloaded_blocks = 0
        for run in prefix[runs:]:
            below = self.offload.get(run)
            if below is None or run[1] > known_tokens:
                break
            offloaded_runs += 1
            offloaded_blocks += below
        return Match(runs + offloaded_runs, blocks, idle, offloaded_runs, offloaded_blocks)

    def holds(self, run: Run) -> bool:
        """Whether a run is in the pool, and so all before it."""
        return run in self._blocks

    def hold(self, prefix: tuple[Run, ...], runs: int) -> None:
        """Hold the first ``runs`` runs of a prompt; they must be in the pool."""
        holders, idle, held = self._holders, self._idle, runs
        while held:
            run = prefix[held - 1]
            holders[run] += 1
            if holders[run] > 1:
                break
            del idle[run]
            held -= 1
        blocks = self._end(prefix, runs) - self._end(prefix, held)
        self.idle_blocks -= blocks
        self.free_blocks -= blocks

    def load(self, runs: tuple[Run, ...], now_s: float) -> tuple[float, list[int]]:
        """Hold leading runs of a prompt, those of the tiers below loaded; there must be room.

        Returns when all of them are in the pool, and how many blocks come from each tier.
        """
        assert self.offload is not None
        loaded = {run: blocks for run in runs if (blocks := self.offload.get(run)) is not None}
        self.hold(runs, len(runs) - len(loaded))
        taken = self.offload.take(loaded)  # before room is made: what goes for them may push others out
        room = self.take(sum(taken))
        assert room, "a request loads KV without room"
        arrival_s = self.offload.load(taken, now_s)
        self._blocks |= loaded
        above = self._end(runs, len(runs) - len(loaded))
        ends = islice(accumulate(loaded.values(), initial=above), 1, None)
        self._ends |= zip(loaded, ends, strict=True)
        self._holders |= dict.fromkeys(loaded, 1)
        self._arrival_s |= dict.fromkeys(loaded, arrival_s)
        if self.on_enter is not None:
            for run in loaded:
                self.on_enter(run)
        return self.arrival_s(runs, now_s), taken

    def arrival_s(self, runs: tuple[Run, ...], now_s: float) -> float:
        """When all of those of some runs that are in the pool have been loaded, ``now_s`` where they are already."""
        return max([now_s, *(self._arrival_s.get(run, now_s) for run in runs)]) if self._arrival_s else now_s

    def share(self, prefix: tuple[Run, ...], runs: int, blocks: int) -> int | None:
        """Make blocks of the caller's own the entry after the first ``runs`` runs of its prompt, which it holds.

        Returns how many blocks of its own became shared. Where somebody else has made the entry meanwhile, that one is
        held and the caller's blocks are freed; None, and nothing changed, where it covers more than the caller has.
        """
        run = prefix[runs]
        made = self._blocks.get(run)
        if made is None:
            self._blocks[run], self._holders[run] = blocks, 1
            self._ends[run] = self._end(prefix, runs) + blocks
            if self.on_enter is not None:
                self.on_enter(run)
            if self.offload is not None:
                self.offload.drop(run)
            return blocks
        if made > blocks:
            return None
        self._arrival_s.pop(run, None)  # the caller's copy is there now
        self.hold(prefix, runs + 1)
        if runs:  # held as the one before an entry that is held, and no more for itself
            self._holders[prefix[runs - 1]] -= 1
        self.give(made)
        return made

    def leave(self, prefix: tuple[Run, ...], runs: int) -> None:
        """Let go of the first ``runs`` runs of a prompt, the last one first."""
        holders, idle, held = self._holders, self._idle, runs
        while held:
            run = prefix[held - 1]
            holders[run] -= 1
            if holders[run]:
                break
            idle[run] = None
            held -= 1
        blocks = self._end(prefix, runs) - self._end(prefix, held)
        self.idle_blocks += blocks
        self.free_blocks += blocks

    def _end(self, prefix: tuple[Run, ...], runs: int) -> int:
        """Blocks of the first ``runs`` runs of a prompt, which are in the pool."""
        return self._ends[prefix[runs - 1]] if runs else 0

    def _evict(self) -> None:
        run, _ = self._idle.popitem(last=False)
        blocks = self._blocks.pop(run)
        del self._holders[run], self._ends[run]
        self._arrival_s.pop(run, None)
        self.idle_blocks -= blocks
        self.freed_blocks += blocks
        self.evicted_blocks += blocks
        if self.on_evict is not None:
            self.on_evict(run)
        if self.offload is not None:
            self.offload.put(run, blocks)
