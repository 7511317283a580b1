"""What a steady start finds in the KV pools: what playing all earlier requests through them would have left."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from clusters import cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from capsim.parallelism import Parallelism
from capsim.sim.cluster import Cluster, simulate
from capsim.sim.past import OVER, _met, leave_behind
from capsim.sim.router import ROUTERS, home
from capsim.sim.spec import OffloadTier
from capsim.workload.requests import traffic
from capsim.workload.spec import Workload


def workload(**changes):
    values = {
        "arrival": {"kind": "poisson", "rate_per_s": 2},
        "prompt_tokens": {"kind": "uniform", "low": 20, "high": 900},
        "output_tokens": {"kind": "geometric", "mean": 12},
        "think_s": {"kind": "exponential", "mean": 8.0},
        "session": {"turns": {"kind": "geometric", "mean": 4}, "new_tokens": {"kind": "geometric", "mean": 15}},
        "requests": 400,
    }  # fmt: skip
    return Workload.model_validate(values | changes)


def left_behind(load, spec):
    """The clusters' pools with their runs, the least recently held first."""
    made = Cluster(spec, lambda ended: None)
    leave_behind(traffic(load, None, 1, 0), made.pools)
    return made


def played(load, spec, earlier):
    """Requests of earlier sessions one after the other through pools that forget the least recently held."""
    drawn = traffic(load, None, 1, 0)
    past = [(left.age_s, left.number, left.chat, left.requests) for left in _met(drawn)]
    ended = zip(range(earlier), drawn.ended, strict=False)
    past += [(age_s, OVER - row, chat, chat.served) for row, (age_s, chat) in ended if chat.served]
    replicas = spec.layout.replicas * spec.nodes
    pools = [{} for _ in range(replicas // spec.layout.pp)]
    for _, number, chat, requests in sorted(past, key=lambda one: -one[0]):
        context = drawn.context(chat, number)
        rows = zip(chat.prompt_tokens, chat.output_tokens, chat.summaries, strict=True)
        for request, (prompt, output, summaries) in enumerate(rows):
            if request < requests:
                chain, computed = context.chain(prompt, output, summaries), prompt + output - 1
        pool, held, blocks = pools[home(number, replicas) // spec.layout.pp], {}, 0
        for run in chain:
            new = min(run[1], computed) // 16 - blocks
            if blocks + new > spec.kv_blocks:
                break
            held[run], blocks = new, blocks + new
            pool.pop(run, None)
            while blocks + sum(pool.values()) > spec.kv_blocks:
                del pool[next(iter(pool))]
        pool |= reversed(held.items())
    return pools


@st.composite
def pasts(draw):
    layout = draw(st.sampled_from([Parallelism(1), Parallelism(1, 2), Parallelism(1, 1, False, 2)]))
    prefix = {
        "global_tokens": draw(st.sampled_from([0, 40, 700])),
        "groups": draw(st.sampled_from([None, {"count": 5, "tokens": 130}])),
        "session": draw(st.booleans()),
    }
    compaction = draw(st.sampled_from([None, {"at_tokens": 1200, "to_tokens": 850}]))
    session = {"turns": {"kind": "geometric", "mean": 4}, "new_tokens": 15, "compaction": compaction}
    spec = cluster(layout=layout, nodes=2, kv_blocks=draw(st.integers(20, 600)), prefix_caching=True)
    return workload(prefix=prefix, session=session), spec


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pasts())
def test_a_start_finds_what_earlier_requests_would_have_left(case):
    load, spec = case
    found, expected = left_behind(load, spec), played(load, spec, 2000)
    for cache, pool in zip(found.caches, expected, strict=True):
        there = {run: cache._blocks[run] for run in cache._idle}
        same = min(len(there), len(pool))
        assert list(there.items())[len(there) - same :] == list(pool.items())[len(pool) - same :]
        assert sum(there.values()) == cache.idle_blocks <= cache.total_blocks == cache.free_blocks
        assert cache.allocated_blocks == cache.resident_blocks
        assert load.prefix.session or same == len(pool)  # all that is shared has been met
    filled = sum(cache.idle_blocks for cache in found.caches) / sum(cache.total_blocks for cache in found.caches)
    assert filled > 0.6 or not load.prefix.session or spec.kv_blocks < 200


def test_what_a_pool_has_no_room_for_is_in_the_tiers_below_in_order():
    spec = cluster(
        kv_blocks=100, prefix_caching=True, offload=(OffloadTier("host", 150, 1e-3), OffloadTier("ssd", 200, 1e-2))
    )
    load = workload(prefix={"global_tokens": 64})
    (cache,) = left_behind(load, spec).caches
    (in_order,) = played(load, replace(spec, kv_blocks=440), 2000)
    stores = [cache._blocks, *(tier._runs for tier in cache.offload.tiers)]
    oldest_first = [run for store in reversed(stores) for run in store.items()]
    assert oldest_first == list(in_order.items())[-len(oldest_first) :]
    assert all(tier.free_blocks < 35 and tier.stored_blocks == 0 for tier in cache.offload.tiers)


def test_what_all_share_is_found_from_the_start_also_where_sessions_repeat_nothing():
    load = workload(prefix={"global_tokens": 160, "session": False}, prompt_tokens=200, session=None)
    requests = simulate(cluster(prefix_caching=True), traffic(load, None, 1, 0)).requests_table()
    assert (requests["cached_tokens"] == 160).all()


def test_a_session_of_a_pipeline_finds_its_context_where_the_router_sends_it():
    """Every session met at the start has a request in the pool that has its context."""
    spec = cluster(layout=Parallelism(1, 2, False, 2), router="session-affine", kv_blocks=4000, prefix_caching=True)
    load = workload(arrival={"kind": "closed", "users": 30}, prompt_tokens=400)
    begun = traffic(load, None, 1, 0).begun
    requests = simulate(spec, traffic(load, None, 1, 0)).requests_table()
    met = [number for number, one in enumerate(begun) if one.request]
    first = requests.groupby("session").head(1).set_index("session")["cached_tokens"].reindex(met)
    assert len(met) > 10
    assert (first >= 384).all()


@pytest.mark.parametrize("layout", [Parallelism(1, 4), Parallelism(1, 2, False, 2), Parallelism(1, 1, False, 4)])
def test_a_session_is_at_home_where_the_affine_router_sends_it(layout):
    made = Cluster(cluster(nodes=2, layout=layout), lambda ended: None)
    for number in range(20):
        request = SimpleNamespace(session=number)
        routed = made._replicas[ROUTERS["session-affine"](made._replicas, request)]
        assert routed.cache is made.pools[home(number, len(made.pools))]
