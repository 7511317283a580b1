"""What earlier sessions left in the KV pools, for a run that begins as if they had been coming for long."""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import count, islice
from typing import NamedTuple

from capsim.sim.kvcache import KVCache
from capsim.sim.router import home
from capsim.workload.chats import Chat
from capsim.workload.prefixes import Run, held_tokens
from capsim.workload.steady import POOL_REQUESTS, SessionTraffic

OVER = -(1 << 30)
"""Sessions that are over have numbers from here down: nobody asks for theirs again."""


class _Left(NamedTuple):
    """The first ``requests`` of a session, the last of which ended ``age_s`` ago."""

    age_s: float
    number: int
    chat: Chat
    requests: int


def leave_behind(traffic: SessionTraffic, caches: Sequence[KVCache]) -> None:
    """Fill the pools with what earlier requests left, as many of the youngest as fit.

    ``caches`` holds the pool of each replica, several times where they share one; sessions are at their homes.
    """
    pools = {id(cache): _Pool(cache) for cache in caches}
    room_tokens, open_pools = sum(pool.room_tokens for pool in pools.values()), len(pools)
    for left in merge(_met(traffic), _over(traffic), key=lambda left: left.age_s):
        pool = pools[id(caches[home(left.number, len(caches))])]
        first, own_tokens = _last_context(traffic, left)
        if pool.has_room:
            pool.add(*_chain(traffic, left, first))
            open_pools -= not pool.has_room
        room_tokens -= own_tokens
        if room_tokens <= 0 or not open_pools:
            break
    for pool in pools.values():
        pool.settle()


def _met(traffic: SessionTraffic) -> list[_Left]:
    """Sessions under way that have asked before."""
    begun = [_Left(b.paused_s, number, b.chat, b.request) for number, b in enumerate(traffic.begun) if b.request]
    return sorted(begun, key=lambda left: left.age_s)


def _over(traffic: SessionTraffic) -> Iterator[_Left]:
    """Sessions that are over; so many that what they share has been met, where that is all that they leave."""
    ended = traffic.ended if traffic.prefix.session else islice(traffic.ended, POOL_REQUESTS)
    for number, (age_s, chat) in zip(count(OVER, -1), ended, strict=False):
        if chat.served:
            yield _Left(age_s, number, chat, chat.served)


def _last_context(traffic: SessionTraffic, left: _Left) -> tuple[int, int]:
    """With which request the context that a session left began, and how many tokens of it are nobody else's."""
    chat, last = left.chat, left.requests - 1
    first = chat.summaries.index(chat.summaries[last])
    if not traffic.prefix.session:
        return first, 0
    shared_tokens = held_tokens(traffic.prefix, chat.prompt_tokens[first])
    return first, chat.prompt_tokens[last] + chat.output_tokens[last] - shared_tokens


def _chain(traffic: SessionTraffic, left: _Left, first: int) -> tuple[tuple[Run, ...], int]:
    """All runs that a session left, and up to where they have KV: the last token has none yet."""
    context, chat = traffic.context(left.chat, left.number), left.chat
    for request in range(first, left.requests):
        prompt_tokens, output_tokens = chat.prompt_tokens[request], chat.output_tokens[request]
        context.grow(prompt_tokens, output_tokens, chat.summaries[request])
    return context.runs, prompt_tokens + output_tokens - 1


class _Pool:
    """A pool, and the tiers below it, that take in runs with the most recently held first.

    The least recently held goes first, so what a pool has in the end are the most recent runs that fit; those after
    them are in the first tier, and so on. That saves playing all requests through it.
    """

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._block_tokens = cache.rule.block_tokens
        self._tiers = [] if cache.offload is None else cache.offload.tiers
        self._rooms = [cache.total_blocks, *(tier.capacity_blocks for tier in self._tiers)]
        self._taken: list[dict[Run, int]] = [{} for _ in self._rooms]
        self._level = 0
        self._ends: dict[Run, int] = {}
        self.room_tokens = sum(self._rooms) * self._block_tokens

    @property
    def has_room(self) -> bool:
        return self._level < len(self._rooms)

    def add(self, chain: tuple[Run, ...], computed_tokens: int) -> None:
        """Take in what is not here yet of a context, as far as the pool alone could have held it."""
        new = len(chain)
        while new and chain[new - 1] not in self._ends:  # where one is here, all before it are
            new -= 1
        full = [min(end, computed_tokens) // self._block_tokens for _, end in chain[max(new - 1, 0) :]]
        before = full.pop(0) if new else 0
        for run, end in zip(chain[new:], full, strict=True):
            if end > self._cache.total_blocks or not self._take(run, end - before):
                return
            self._ends[run] = before = end

    def settle(self) -> None:
        """Put into the pool and its tiers what they hold when the run begins, the least recently held first."""
        in_pool, *below = (dict(reversed(runs.items())) for runs in self._taken)
        self._cache.begin_with(in_pool, self._ends)
        for tier, runs in zip(self._tiers, below, strict=True):
            tier.begin_with(runs)

    def _take(self, run: Run, blocks: int) -> bool:
        while self.has_room and blocks > self._rooms[self._level]:
            self._level += 1
        if not self.has_room:
            return False
        self._rooms[self._level] -= blocks
        self._taken[self._level][run] = blocks
        return True
