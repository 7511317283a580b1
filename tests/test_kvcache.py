"""The prefix cache: leading runs, shared by whoever holds them, the least recently held evicted first."""

import json
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsim.memory import BlockRule
from capsim.sim.kvcache import KVCache, Match

TRACES = Path(__file__).parents[2] / "shared" / "traces"
HASH_TOKENS = 512


def leave_behind(cache, runs, blocks=1):
    """A request that computes some runs, each of so many blocks, and ends."""
    for done in range(len(runs)):
        assert cache.take(blocks)
        cache.share(runs, done, blocks)
    cache.leave(runs, len(runs))


def test_what_is_left_behind_is_found_as_far_as_the_runs_agree():
    cache = KVCache(10, BlockRule(16))
    leave_behind(cache, ((1, 16), (2, 32), (3, 48)))
    assert cache.match(((1, 16), (2, 32), (9, 48)), 100) == Match(2, 2, 2)
    assert cache.match(((9, 16), (8, 32)), 100) == Match(0, 0, 0)
    assert cache.match(((1, 16), (2, 32)), 31) == Match(1, 1, 1)
    assert cache.free_blocks == 10
    assert cache.resident_blocks == 3


def test_held_entries_stay_and_idle_ones_go_last_run_first():
    cache = KVCache(4, BlockRule(16))
    first, second = ((1, 16), (2, 32)), ((3, 16), (4, 32))
    leave_behind(cache, first)
    leave_behind(cache, second)
    cache.hold(first, 2)
    assert cache.free_blocks == 2
    assert cache.take(1)
    assert cache.match(second, 100).runs == 1
    assert cache.take(1)
    assert cache.match(second, 100).runs == 0
    assert not cache.take(1)
    assert cache.match(first, 100) == Match(2, 2, 0)
    assert cache.evicted_blocks == 2


def test_who_computes_what_another_has_made_meanwhile_gives_its_blocks_back():
    cache = KVCache(10, BlockRule(16))
    assert cache.take(3)
    assert cache.share(((1, 48),), 0, 3) == 3
    assert cache.take(4)
    assert cache.share(((1, 48),), 0, 4) == 3
    assert cache.used_blocks == 4
    assert cache.share(((1, 48),), 0, 2) is None
    cache.leave(((1, 48),), 1)
    assert cache.free_blocks == 6
    cache.leave(((1, 48),), 1)
    assert cache.free_blocks == 9


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 2)), max_size=40))
def test_blocks_are_conserved_and_nothing_held_is_evicted(events):
    """Requests of four conversations come, hold what is there, compute the rest if there is room, and end in turn."""
    cache, inside = KVCache(12, BlockRule(16)), []
    for conversation, length, blocks in events:
        prefix = tuple((conversation * 10 + n, 16 * (n + 1)) for n in range(length))
        match = cache.match(prefix, 1000)
        needed = (length - match.runs) * blocks
        if needed <= cache.free_blocks - match.idle_blocks:
            cache.hold(prefix, match.runs)
            for done in range(match.runs, length):
                assert cache.take(blocks)
                assert cache.share(prefix, done, blocks) == blocks
            inside.append(prefix)
        elif inside:
            cache.leave(inside[0], len(inside.pop(0)))
        assert all(cache.match(held, 1000).runs == len(held) for held in inside)
        assert cache.allocated_blocks == cache.freed_blocks + cache.resident_blocks
        assert 0 <= cache.idle_blocks <= cache.free_blocks <= cache.total_blocks


class PlainCache:
    """Every entry counts all that hold it, and prompts are walked from the first run on."""

    def __init__(self, blocks):
        self.free, self.blocks, self.holders, self.idle = blocks, {}, {}, []

    def take(self, blocks):
        if blocks > self.free:
            return False
        while blocks > self.free - sum(self.blocks[run] for run in self.idle):
            gone = self.idle.pop(0)
            del self.blocks[gone], self.holders[gone]
        self.free -= blocks
        return True

    def match(self, prefix):
        there = list(takewhile(self.blocks.__contains__, prefix))
        idle = [run for run in there if run in self.idle]
        return Match(len(there), *(sum(self.blocks[run] for run in runs) for runs in (there, idle)))

    def hold(self, runs):
        for run in runs:
            self.holders[run] += 1
            if run in self.idle:
                self.idle.remove(run)
                self.free -= self.blocks[run]

    def share(self, run, blocks):
        if run not in self.blocks:
            self.blocks[run], self.holders[run] = blocks, 1
        else:
            self.hold([run])
            self.free += blocks

    def leave(self, runs):
        for run in reversed(runs):
            self.holders[run] -= 1
            if not self.holders[run]:
                self.idle.append(run)
                self.free += self.blocks[run]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 26), st.integers(0, 3), st.integers(0, 5)), max_size=80), st.integers(4, 14))
def test_entries_that_count_the_last_of_their_holders_do_as_those_that_count_all(events, blocks):
    """Prompts branch after every run, and requests compute the same runs side by side."""
    cache, plain, inside = KVCache(blocks, BlockRule(16)), PlainCache(blocks), []
    for leaf, does, which in events:
        prefix = tuple((leaf // 3**above + 100 * above, 16 * (3 - above)) for above in (2, 1, 0))
        if does == 0:
            match = cache.match(prefix, 1000)
            assert match == plain.match(prefix)
            if match.idle_blocks <= cache.free_blocks:
                cache.hold(prefix, match.runs)
                plain.hold(prefix[: match.runs])
                inside.append([prefix, match.runs])
        elif inside and does == 1:
            prefix, runs = inside.pop(which % len(inside))
            cache.leave(prefix, runs)
            plain.leave(prefix[:runs])
        elif inside and (one := inside[which % len(inside)])[1] < 3:
            room = cache.take(1)
            assert room == plain.take(1)
            if room:
                cache.share(*one, 1)
                plain.share(one[0][one[1]], 1)
                one[1] += 1
        assert (cache.free_blocks, list(cache._idle)) == (plain.free, plain.idle)


# Leading-run token hit rates of an LRU cache of that many blocks of 512 tokens, one request after the other
RATES = {
    "mooncake_conversation_trace.jsonl": {
        1_000: 0.045, 5_000: 0.114, 10_000: 0.216, 20_000: 0.293, 50_000: 0.362, 100_000: 0.371, 10**9: 0.374,
    },
    "mooncake_synthetic_trace.jsonl": {
        1_000: 0.086, 5_000: 0.285, 10_000: 0.432, 20_000: 0.582, 50_000: 0.651, 100_000: 0.651, 10**9: 0.651,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_published_lru_rates_of_the_mooncake_traces(name):
    if not (TRACES / name).exists():
        pytest.skip(f"{name} is not beside the checkout")
    rows = [json.loads(line) for line in (TRACES / name).read_text().splitlines()]
    for blocks, rate in RATES[name].items():
        cache, hits = KVCache(blocks, BlockRule(HASH_TOKENS)), 0
        for row in rows:
            prefix = tuple((key, HASH_TOKENS * n) for n, key in enumerate(row["hash_ids"], 1))
            found = cache.match(prefix, 10**9).runs
            hits += min(found * HASH_TOKENS, row["input_length"])
            cache.hold(prefix, found)
            for done in range(found, len(prefix)):
                assert cache.take(1)
                cache.share(prefix, done, 1)
            cache.leave(prefix, len(prefix))
        assert round(hits / np.sum([row["input_length"] for row in rows]), 3) == rate
