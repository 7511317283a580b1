"""What earlier sessions left in the KV pools, for a run that begins as if they had been coming for long."""

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import count
from typing import NamedTuple

from capsim.sim.census import home
from capsim.sim.kvcache import KVCache
from capsim.workload.chats import Chat
from capsim.workload.prefixes import Run
from capsim.workload.steady import SessionTraffic

OVER = -(1 << 30)
"""Sessions that are over have numbers from here down: nobody asks for theirs again."""


class _Left(NamedTuple):
    """The first ``requests`` of a session, the last of which ended ``age_s`` ago."""

    age_s: float
    number: int
    chat: Chat
    requests: int


def leave_behind(traffic: SessionTraffic, caches: Sequence[KVCache]) -> None:
    """Fill the pools with contexts of earlier requests, as many of the youngest as fit, spread by session number."""
    room_tokens = sum(_room_tokens(cache) for cache in caches)
    kept: list[tuple[int, tuple[Run, ...]]] = []
    for left in merge(_met(traffic), _over(traffic), key=lambda left: left.age_s):
        chain, shared_tokens = _context(traffic, left)
        kept.append((left.number, chain))
        room_tokens -= chain[-1][1] - shared_tokens
        if room_tokens <= 0:
            break
    for number, chain in reversed(kept):
        _keep(home(number, caches), chain)
    for cache in caches:  # the run has evicted nothing yet
        cache.evicted_blocks = 0
        if cache.offload is not None:
            cache.offload.forget_past()


def _room_tokens(cache: KVCache) -> int:
    """Tokens in the pool and in the tiers below."""
    tiers = [] if cache.offload is None else cache.offload.tiers
    return (cache.total_blocks + sum(tier.capacity_blocks for tier in tiers)) * cache.rule.block_tokens


def _met(traffic: SessionTraffic) -> list[_Left]:
    """Sessions under way that have asked before."""
    begun = [_Left(b.paused_s, number, b.chat, b.request) for number, b in enumerate(traffic.begun) if b.request]
    return sorted(begun, key=lambda left: left.age_s)


def _over(traffic: SessionTraffic) -> Iterator[_Left]:
    for number, (age_s, chat) in zip(count(OVER, -1), traffic.ended, strict=False):
        if chat.served:
            yield _Left(age_s, number, chat, chat.served)


def _context(traffic: SessionTraffic, left: _Left) -> tuple[tuple[Run, ...], int]:
    """All runs of a session so far, and how many tokens of them are not its own."""
    context, chat = traffic.context(left.chat, left.number), left.chat
    requests = list(zip(chat.prompt_tokens, chat.output_tokens, chat.summaries, strict=True))[: left.requests]
    for request in requests[:-1]:
        context.grow(*request)
    chain = context.chain(*requests[-1])
    return chain, max((end for key, end in chain if key != chain[-1][0]), default=0)


def _keep(cache: KVCache, chain: tuple[Run, ...]) -> None:
    """Make idle entries of a chain, as a request leaves them that has ended: the last token has no KV yet."""
    match = cache.match(chain, chain[-1][1])
    runs, blocks = match.runs - match.offloaded_runs, match.blocks
    cache.hold(chain, runs)
    for run in chain[runs:]:
        new = min(run[1], chain[-1][1] - 1) // cache.rule.block_tokens - blocks
        if not cache.take(new):
            break
        cache.share(run, new)
        runs, blocks = runs + 1, blocks + new
    cache.leave(chain, runs)
