"""What sequences hold of their replica's KV pool, by the engine's way to reserve.

A sequence holds the runs of its prompt that others may hold too, and blocks of its own for the rest.
"""

from capsim.sim.kvcache import KVCache, Match
from capsim.sim.sequence import Sequence
from capsim.sim.spec import Policy


class Holding:
    """Books the blocks of a replica's sequences in its pool.

    ``grows`` is whether a sequence takes blocks as its context needs them; else it has all from the start.
    ``slot_blocks`` are those of a slot, where there are slots, and ``most_blocks`` those that one request may hold.
    """

    def __init__(self, cache: KVCache, policy: Policy) -> None:
        self.grows = policy.reserve in ("prompt", "estimate", "chunk")
        self.most_blocks = policy.most_blocks(cache.total_blocks)
        self.slot_blocks = self.most_blocks if policy.reserve == "slot" else None
        self._cache = cache
        self._blocks = cache.rule.blocks
        self._block_tokens = cache.rule.block_tokens

    def blocks(self, sequence: Sequence, tokens: int) -> int:
        """Blocks that a sequence holds with a context of that many tokens, shared ones included."""
        if self.grows:
            return self._blocks(max(tokens, sequence.secured_tokens))
        if self.slot_blocks is not None:
            return self.slot_blocks
        return self._blocks(sequence.prompt_tokens + sequence.max_tokens)

    def match(self, sequence: Sequence) -> Match:
        """How much of what is known of a sequence is in the pool."""
        return self._cache.match(sequence.prefix, sequence.known_tokens)

    def cached_tokens(self, sequence: Sequence, match: Match) -> int:
        """Tokens that need no prefill: full blocks, and never the last token, which yields the next."""
        found = match.blocks + match.offloaded_blocks
        return min(found, (sequence.known_tokens - 1) // self._block_tokens) * self._block_tokens

    def must_load(self, sequence: Sequence, match: Match, now_s: float) -> bool:
        """Whether it takes time until all that was found is in the pool."""
        if self._cache.offload is None:
            return False
        return match.offloaded_blocks > 0 or self._cache.arrival_s(sequence.prefix[: match.runs], now_s) > now_s

    def load(self, sequence: Sequence, match: Match, now_s: float) -> None:
        """Load what was found of a sequence that is to start, and hold the blocks of all that is known of it."""
        sequence.ready_s, sequence.loads = self._cache.load(sequence.prefix[: match.runs], now_s)
        sequence.runs, sequence.shared_blocks = match.runs, match.blocks + match.offloaded_blocks
        sequence.secured_tokens = sequence.known_tokens
        taken = self._cache.take(max(0, self.blocks(sequence, 0) - sequence.shared_blocks))
        assert taken, "a request loads KV without room"
        sequence.computed_tokens = self.cached_tokens(sequence, match)

    def count_hits(self, sequence: Sequence) -> None:
        """Note where the cached tokens of a sequence that KV was loaded for come from, the pool first."""
        assert self._cache.offload is not None
        pool_blocks = sequence.shared_blocks - sum(sequence.loads)
        left = sequence.loaded_tokens = max(0, sequence.cached_tokens - pool_blocks * self._block_tokens)
        for tier, blocks in zip(self._cache.offload.tiers, sequence.loads, strict=True):
            found = min(left, blocks * self._block_tokens)
            tier.hit_tokens += found
            left -= found

    def start(self, sequence: Sequence, match: Match, now_s: float) -> None:
        """Hold what is there of a sequence that starts; there must be room."""
        if match.runs:
            if match.offloaded_runs:  # without a full block
                self._cache.load(sequence.prefix[: match.runs], now_s)
            else:
                self._cache.hold(sequence.prefix, match.runs)
            sequence.runs, sequence.shared_blocks = match.runs, match.blocks
            sequence.computed_tokens = self.cached_tokens(sequence, match)
        if not self.grows:
            taken = self._cache.take(max(0, self.blocks(sequence, 0) - sequence.shared_blocks))
            assert taken, "a request started without room"

    def extend(self, sequence: Sequence, new: int, *, first: bool) -> bool:
        """Hold the blocks of ``new`` tokens more of a prompt; False, and nothing changed, where they are short."""
        done, shared = sequence.computed_tokens, sequence.shared_blocks
        if self.grows and done + new > sequence.secured_tokens:
            more = max(0, self._blocks(done + new) - shared)
            if not first:
                more -= max(0, self._blocks(done) - shared)
            if more and not self._cache.take(more):
                return False
        if sequence.prefix:
            self.share(sequence, done + new, min(done + new, sequence.prompt_tokens))
        return True

    def share(self, sequence: Sequence, computed_tokens: int, ends_by: int) -> None:
        """Let others hold the full blocks of runs that end by ``ends_by``, as far as they are computed."""
        while sequence.runs < len(sequence.prefix):
            run = sequence.prefix[sequence.runs]
            full = min(run[1], computed_tokens) // self._block_tokens - sequence.shared_blocks
            if run[1] > ends_by:
                return
            shared = self._cache.share(sequence.prefix, sequence.runs, full)
            if shared is None:
                sequence.prefix = sequence.prefix[: sequence.runs]
                return
            sequence.runs += 1
            sequence.shared_blocks += shared

    def release(self, sequence: Sequence, computed_tokens: int) -> None:
        """Free the blocks of a sequence's own; its runs stay in the cache."""
        self._cache.give(max(0, self.blocks(sequence, computed_tokens) - sequence.shared_blocks))
        if sequence.runs:
            self._cache.leave(sequence.prefix, sequence.runs)
            sequence.runs = sequence.shared_blocks = sequence.secured_tokens = 0
