"""KV below the device: what moves down and up again, in what order, and how long that takes."""

import numpy as np
import pytest
from clusters import cluster
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from capsim.errors import ScenarioError
from capsim.experiment import cluster_of, run
from capsim.memory import BlockRule
from capsim.scenario import resolve
from capsim.sim.census import Census
from capsim.sim.cluster import Cluster, simulate
from capsim.sim.kvcache import KVCache
from capsim.sim.offload import Offload
from capsim.sim.past import leave_behind
from capsim.sim.records import SESSIONS, Table
from capsim.sim.spec import OffloadTier
from capsim.workload.prefixes import SUMMARIES
from capsim.workload.requests import OpenArrivals, Request, traffic

STEP_S, TOKEN_S = 1.0, 0.01
HOST = OffloadTier("host", 100, 0.25)


def seconds(batch):
    return STEP_S + TOKEN_S * batch.prefill_tokens


def chain(session, blocks):
    """A prompt's runs of a block each."""
    return tuple((100 * session + n, 16 * (n + 1)) for n in range(blocks))


def play(times, prompts, tiers=(HOST,), **changes):
    """Requests of (session, blocks of the prompt, output tokens); a prompt has a token more than its runs."""
    requests = [Request(16 * blocks + 1, out, out, 0.0, chain(session, blocks)) for session, blocks, out in prompts]
    spec = cluster(seconds, prefix_caching=True, offload=tiers, max_num_batched_tokens=1024, **changes)
    records = simulate(spec, OpenArrivals(np.asarray(times, float), requests, None))
    return records, records.requests_table(), records.segments_table()


def test_what_was_evicted_is_loaded_instead_of_computed():
    records, requests, _ = play([0, 10, 20], [(1, 8, 1), (2, 8, 1), (1, 8, 1)], kv_blocks=10)
    assert requests["cached_tokens"].tolist() == [0, 0, 128]
    assert requests["loaded_tokens"].tolist() == [0, 0, 7 * 16]  # a run had stayed
    moved_s = 7 * HOST.block_s
    assert requests["first_scheduled_s"].tolist() == [0, 10, 20 + moved_s]
    assert requests["first_token_s"][2] == pytest.approx(20 + moved_s + STEP_S + TOKEN_S)
    host = records.offload[0]
    assert (host.name, host.hit_tokens, host.loaded_blocks) == ("host", 112, 7)
    assert host.stored_blocks == records.evicted_blocks


def test_others_go_on_while_one_waits_for_its_kv_beside_the_batch():
    """A lone answer decodes step by step; the batch has two places, and a third prompt takes the second one."""
    slow = OffloadTier("host", 100, 2.0)
    prompts = [(1, 8, 1), (2, 8, 1), (3, 1, 60), (1, 8, 1), (4, 1, 3)]
    _, requests, segments = play([0, 10, 20, 25, 26], prompts, (slow,), kv_blocks=14, max_num_seqs=2)
    loaded = requests.iloc[3]
    load_s = loaded["loaded_tokens"] // 16 * 2.0
    assert load_s > 5
    boundary = 20 + STEP_S + 17 * TOKEN_S + 4 * STEP_S  # the first after the arrival
    assert loaded["first_scheduled_s"] >= boundary + load_s
    assert loaded["first_scheduled_s"] < boundary + load_s + 2 * STEP_S
    assert requests["finished_s"][4] < loaded["first_scheduled_s"]
    during = segments[(segments["start_s"] > boundary) & (segments["start_s"] < boundary + load_s)]
    assert (during["waiting"] >= 1).all()
    assert (during["kv_blocks"] >= 9).all()


def test_two_who_want_the_same_kv_wait_for_one_load():
    records, requests, _ = play([0, 10, 20, 20], [(1, 8, 1), (2, 8, 1), (1, 8, 1), (1, 8, 1)], kv_blocks=12)
    assert records.offload[0].loaded_blocks == requests["loaded_tokens"][2] // 16
    assert requests["loaded_tokens"][3] == 0
    assert requests["cached_tokens"][3] == 128
    assert requests["first_scheduled_s"][2] == requests["first_scheduled_s"][3] > 20


def test_who_waited_behind_one_that_gave_up_starts_while_all_others_load():
    """Who gives up while their KV is being loaded holds nothing any more; the load goes on."""
    slow = OffloadTier("host", 100, 2.0)
    spec = cluster(seconds, prefix_caching=True, offload=(slow,), kv_blocks=12, max_num_batched_tokens=1024)
    desk = Cluster(spec, lambda ended: None)
    sent = {}

    def send(at_s, name, session, blocks):
        request = Request(16 * blocks + 1, 1, 1, 0.0, chain(session, blocks))
        submit = desk.env.timeout(at_s).callbacks.append
        submit(lambda _: sent.update({name: desk.submit(request, session, 0, None)}))

    send(0, "first", 1, 8)
    send(10, "second", 2, 8)
    send(20, "loads", 1, 8)
    send(21, "gives up", 3, 8)
    send(21.5, "behind", 4, 1)
    for name in ("loads", "gives up"):
        desk.env.timeout(22).callbacks.append(lambda _, name=name: desk.withdraw(sent[name]))
    desk.env.run()
    assert sent["gives up"].outcome == sent["loads"].outcome == "abandoned"
    assert sent["behind"].first_scheduled_s == 22
    assert desk.caches[0].used_blocks == 0


def test_nobody_is_left_where_all_give_up_before_their_kv_is_loaded():
    spec = cluster(seconds, prefix_caching=True, offload=(OffloadTier("host", 100, 2.0),), kv_blocks=12)
    desk = Cluster(spec, lambda ended: None)
    sent = []

    def send(at_s, session):
        request = Request(129, 1, 1, 0.0, chain(session, 8))
        desk.env.timeout(at_s).callbacks.append(lambda _: sent.append(desk.submit(request, session, 0, None)))

    for at_s, session in ((0, 1), (10, 2), (20, 1), (50, 1)):
        send(at_s, session)
    desk.env.timeout(21).callbacks.append(lambda _: desk.withdraw(sent[2]))
    desk.env.run()
    desk.close()
    assert [one.outcome for one in sent] == ["completed", "completed", "abandoned", "completed"]
    assert sent[3].first_scheduled_s == 50


def test_a_link_loads_one_request_after_the_other():
    prompts = [(1, 4, 1), (2, 4, 1), (3, 8, 1), (1, 4, 1), (2, 4, 1)]
    _, requests, _ = play([0, 10, 20, 30, 30], prompts, kv_blocks=12)
    blocks = (requests["loaded_tokens"] // 16).tolist()
    assert min(blocks[3:]) > 0
    loads_s = np.cumsum(blocks[3:]) * HOST.block_s
    assert requests["first_scheduled_s"][3] == 30 + loads_s[0]
    assert requests["first_scheduled_s"][4] >= 30 + loads_s[1]


def test_what_leaves_the_host_goes_to_the_ssd_and_from_there_is_lost():
    offload = Offload([OffloadTier("host", 3, 1.0), OffloadTier("ssd", 2, 10.0)])
    for key in range(6):
        offload.put((key, 16), 1)
    assert [offload.get((key, 16)) for key in range(6)] == [None, 1, 1, 1, 1, 1]
    assert offload.lost_blocks == 1
    assert offload.take([(2, 16), (4, 16), (5, 16)]) == [2, 1]
    assert offload.load([2, 1], 100.0) == 110.0
    assert offload.load([1, 0], 101.0) == 103.0
    offload.put((9, 16), 4)
    assert offload.get((9, 16)) is None


@pytest.mark.parametrize("loaded", [True, False])
def test_a_session_is_cached_while_its_context_is_in_the_pool_and_not_while_it_is_below(loaded):
    cache = KVCache(4, BlockRule(16), Offload([HOST]))
    counts = Table(SESSIONS)
    census, end = Census(Environment(), [cache], counts), (7 * SUMMARIES, 48)

    def cached():
        census.close()
        return counts._rows[-1][2]

    cache.take(3)
    cache.share((end,), 0, 3)
    cache.leave((end,), 1)
    census.remember(7, end)
    assert cached() == 1
    cache.take(4)
    assert cache.offload.get(end) == 3
    assert cached() == 0
    cache.give(4)
    if loaded:
        cache.load((end,), 0.0)
    else:
        cache.take(3)
        cache.share((end,), 0, 3)
    assert cached() == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 3)), max_size=60),
    st.lists(st.integers(0, 12), min_size=1, max_size=2),
)
def test_what_is_loaded_was_stored_and_no_tier_holds_more_than_it_can(events, sizes):
    """Requests of four conversations come, load or compute their runs if there is room, and end in turn."""
    offload = Offload([OffloadTier(str(n), size, 1.0) for n, size in enumerate(sizes)])
    cache, inside = KVCache(14, BlockRule(16), offload), []
    for conversation, length, blocks in events:
        prefix = tuple((conversation * 10 + n, 16 * (n + 1)) for n in range(length))
        match = cache.match(prefix, 1000)
        computed = (length - match.runs) * blocks
        if computed + match.offloaded_blocks <= cache.free_blocks - match.idle_blocks:
            cache.load(prefix[: match.runs], 0.0)
            for done in range(match.runs, length):
                assert cache.take(blocks)
                assert cache.share(prefix, done, blocks) == blocks
            inside.append(prefix)
        elif inside:
            cache.leave(inside[0], len(inside.pop(0)))
        assert all(cache.holds(held) for prefix in inside for held in prefix)
        everywhere = [run_ for tier in offload.tiers for run_ in tier._runs]
        assert len(everywhere) == len(set(everywhere))
        assert not any(cache.holds(run_) for run_ in everywhere)
        for tier in offload.tiers:
            assert sum(tier._runs.values()) == tier.capacity_blocks - tier.free_blocks <= tier.capacity_blocks
            assert tier.loaded_blocks + sum(tier._runs.values()) <= tier.stored_blocks
        below = sum(sum(tier._runs.values()) + tier.loaded_blocks for tier in offload.tiers)
        assert cache.evicted_blocks == below + offload.lost_blocks
        assert cache.allocated_blocks == cache.freed_blocks + cache.resident_blocks


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=60), st.integers(4, 12), st.integers(0, 12))
def test_pool_and_tier_together_find_what_a_pool_of_both_sizes_finds(prompts, pool, tier):
    """One request after the other: least recently used, wherever it is."""

    def found(cache):
        hits = []
        for session, length in prompts:
            prefix = chain(session, length)
            match = cache.match(prefix, 1000)
            hits.append(match.runs)
            if match.offloaded_runs:
                cache.load(prefix[: match.runs], 0.0)
            else:
                cache.hold(prefix, match.runs)
            for done in range(match.runs, length):
                assert cache.take(1)
                cache.share(prefix, done, 1)
            cache.leave(prefix, length)
        return hits

    two = KVCache(pool, BlockRule(16), Offload([OffloadTier("host", tier, 1.0)]))
    assert found(two) == found(KVCache(pool + tier, BlockRule(16)))


def test_a_preempted_request_finds_its_kv_again():
    """Two long answers outgrow the pool; what the younger one left of its prompt is loaded, not computed."""
    prompts = [(1, 4, 100), (2, 4, 100)]
    _, bare, plain = play([0, 0], prompts, (), kv_blocks=12)
    records, requests, segments = play([0, 0], prompts, kv_blocks=12)
    assert requests["preemptions"].sum() == bare["preemptions"].sum() > 0
    assert records.offload[0].loaded_blocks > 0
    assert requests["loaded_tokens"].sum() == 0  # of prompts when they first started
    assert segments["prefill_tokens"].sum() < plain["prefill_tokens"].sum()


SCENARIO = """
model: llama-3.1-8b
node: h100x8
parallelism: {tp: 4, dp: 2}
kv_capacity_tokens: 40000
kv_offload: {host: {capacity: 100 GB, bandwidth: 50 GB/s}, ssd: {capacity: 1 TB, bandwidth: 6 GB/s}}
workload:
  arrival: {kind: closed, users: 60}
  prompt_tokens: 2000
  output_tokens: 50
  think_s: {kind: exponential, mean: 10}
  session: {turns: {kind: geometric, mean: 6}, new_tokens: 100}
  requests: 400
replications: 1
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "offload.yaml"
    path.write_text(SCENARIO)
    return path


def test_each_replica_has_an_equal_share_of_its_node(scenario):
    host, ssd = cluster_of(resolve(scenario)).offload
    node_bytes = 2 * 8 * 128 * 32 * 2 * 16  # K and V, heads, head size, layers, bf16, tokens of a block
    assert (host.name, ssd.name) == ("host", "ssd")
    assert host.blocks == int(100e9 / 2 // node_bytes)
    assert host.block_s == pytest.approx(node_bytes / (50e9 / 2))
    assert ssd.block_s == pytest.approx(node_bytes / 3e9)


def test_results_say_what_was_found_where(scenario):
    resolved = resolve(scenario)
    kv = run(resolved).summary["kv"]
    offload = kv["offload"]
    found = offload["device_hit_rate"] + offload["host"]["hit_rate"] + offload["ssd"]["hit_rate"]
    assert found == pytest.approx(kv["hit_rate"], abs=1e-12)
    assert offload["host"]["hit_rate"] > 0
    assert offload["host"]["loaded_bytes"] > 0
    assert offload["host"]["stored_bytes"] / resolved.replica_block_bytes == pytest.approx(kv["evicted_blocks"])
    bare = run(resolve(scenario, ["kv_offload=null"])).summary["kv"]
    assert bare["offload"] is None
    assert bare["hit_rate"] < kv["hit_rate"]


def test_a_link_that_is_asked_for_more_than_it_can_is_said(scenario):
    slow = run(resolve(scenario, ["kv_offload={host: {capacity: 100 GB, bandwidth: 1 MB/s}}", "workload.requests=80"]))
    assert any("host" in note and "times what its link can" in note for note in slow.summary["warnings"])


def test_tiers_are_as_full_at_the_start_as_earlier_sessions_left_them(scenario):
    resolved = resolve(scenario)
    load = traffic(resolved.workload, None, 1, 0)
    pools = [KVCache(2500, BlockRule(16), Offload([OffloadTier("host", 4000, 1.0)])) for _ in range(2)]
    leave_behind(load, pools)
    for pool in pools:
        host = pool.offload.tiers[0]
        assert host.free_blocks < 0.1 * host.capacity_blocks
        assert (pool.evicted_blocks, host.stored_blocks, pool.offload.lost_blocks) == (0, 0, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kv_offload={}", "give host, ssd or both"),
        ("kv_offload={host: {capacity: 500 GB}}", "bandwidth"),
        ("kv_offload={host: {capacity: 0, bandwidth: 1 GB/s}}", "must be > 0"),
        ("kv_offload={host: {capacity: 1 kB, bandwidth: 1 GB/s}}", "less than one KV block"),
        ("scheduler.enable_prefix_caching=false", "prefixes are not cached"),
        ("engine=static", "prefixes are not cached"),
    ],
)
def test_what_cannot_be_offloaded_is_refused(scenario, override, message):
    with pytest.raises(ScenarioError, match=message):
        resolve(scenario, [override])
