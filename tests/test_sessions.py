"""Sessions: what is drawn, in what order it comes, what of it is cached, and that the start is a steady state."""

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from clusters import check_identities, cluster, read_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_engine import plain_records

from capsim import experiment
from capsim.capacity import find_capacity, with_sessions
from capsim.capacity.instant import fleet_of
from capsim.capacity.sessions import guess, search
from capsim.capacity.trials import Trials
from capsim.errors import ScenarioError
from capsim.experiment import run
from capsim.metrics.requests import good, good_share, latency, measured, window
from capsim.metrics.sessions import counted
from capsim.metrics.steps import node_use
from capsim.scenario import resolve
from capsim.sim.census import Census
from capsim.sim.cluster import Cluster, simulate
from capsim.sim.router import ROUTERS
from capsim.sim.spec import OffloadTier
from capsim.stats import t_interval
from capsim.workload import chats
from capsim.workload.chats import Longest, reused_tokens
from capsim.workload.prefixes import RUN_TOKENS, SHORT_RUN_TOKENS, Context
from capsim.workload.requests import traffic
from capsim.workload.sessions import Prefix
from capsim.workload.spec import Workload
from capsim.workload.steady import AT_ONCE, Begun, Response

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {kind: closed, users: 20}
  prompt_tokens: 100
  output_tokens: {kind: geometric, mean: 20}
  think_s: {kind: exponential, mean: 5}
  session:
    turns: {kind: geometric, mean: 4}
    new_tokens: 30
slo: {tpot_s: 20 ms}
replications: 1
"""


def workload(**changes):
    values = {
        "arrival": {"kind": "closed", "users": 12},
        "prompt_tokens": {"kind": "uniform", "low": 20, "high": 90},
        "output_tokens": {"kind": "geometric", "mean": 12},
        "think_s": {"kind": "exponential", "mean": 2.0},
        "session": {"turns": {"kind": "geometric", "mean": 6}, "new_tokens": {"kind": "geometric", "mean": 15}},
        "requests": 600,
    }  # fmt: skip
    return Workload.model_validate(values | changes)


def with_session(**changes):
    return workload(session={"turns": {"kind": "geometric", "mean": 6}, "new_tokens": 15, **changes})


def drawn(spec, count=100):
    return list(islice(traffic(spec, None, 1, 0).chats, count))


def tables(spec, load, replication=0):
    records = simulate(spec, traffic(load, None, 1, replication, Longest(tokens=spec.max_context_tokens)))
    requests, segments = records.requests_table(), records.segments_table()
    check_identities(records)
    return records, requests, segments


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def test_each_prompt_is_the_last_with_its_answer_and_new_tokens():
    spec = workload(session={"turns": 5, "new_tokens": 7}, prompt_tokens=50)
    for chat in drawn(spec, 10):
        grown = [50 + 7 * turn + sum(chat.output_tokens[:turn]) for turn in range(5)]
        assert chat.prompt_tokens == grown


def test_a_context_at_its_limit_becomes_a_summary():
    compaction = {"at_tokens": 400, "to_tokens": 100}
    spec = workload(session={"turns": 40, "new_tokens": 50, "compaction": compaction}, output_tokens=30)
    for chat in drawn(spec, 10):
        assert max(chat.prompt_tokens) <= 400
        steps = np.diff(chat.prompt_tokens)
        cuts = np.diff(chat.summaries)
        assert (steps[cuts == 0] == 80).all()
        assert (np.array(chat.prompt_tokens)[1:][cuts == 1] == 150).all()
        assert cuts.sum() >= 9


def test_a_session_ends_with_its_first_request_that_the_server_refuses():
    spec = workload(session={"turns": 50, "new_tokens": 80}, output_tokens=20, prompt_tokens=100, requests=800)
    loop = traffic(spec, None, 1, 0, Longest(tokens=1000))
    for chat in islice(loop.chats, 10):
        assert chat.prompt_tokens == list(range(100, 1001, 100))
        assert chat.served == 9  # prompts of 1,000 leave no room for an answer
    assert max(begun.request for begun in loop.begun) <= 9
    _, requests, _ = tables(cluster(max_context_tokens=1000, kv_blocks=1000, prefix_caching=True), spec)
    assert set(requests["reason"]) == {"", "longer than the model's context"}
    refused = requests[requests["outcome"] == "rejected"]
    assert (refused["turn"] == 9).all()
    assert len(refused) / len(requests) == pytest.approx(0.1, abs=0.015)


def test_sessions_that_outgrow_the_server_are_quick_to_draw_and_serve(scenario):
    grows = resolve(scenario, ["workload.session={turns: 200, new_tokens: 20000000}", "workload.requests=100"])
    assert [len(chat.prompt_tokens) for chat in chats.sample(grows.workload, 9, grows.longest)] == [2] * 64
    assert any("50.0% of requests are longer than" in warning for warning in grows.warnings)
    assert run(grows).summary["requests"]["completed"] == pytest.approx(50, abs=5)


def test_requests_larger_than_the_pool_are_told_of(scenario):
    tight = resolve(
        scenario, ["kv_capacity_tokens=1600", "workload.prompt_tokens={kind: uniform, low: 100, high: 2000}"]
    )
    assert any("larger than the KV pool of 1,600 tokens" in warning for warning in tight.warnings)
    requests = run(tight).replications[0].records.requests_table()
    assert set(requests["reason"]) == {"", "larger than the KV pool"}
    assert (requests.groupby("session").tail(1)["reason"] != "").any()


def test_rounds_of_calls_to_tools_end_with_their_slowest():
    tools = {"calls": 5, "latency_s": {"kind": "uniform", "low": 1, "high": 2}, "parallel": 3}
    spec = workload(session={"turns": 2, "new_tokens": 10, "tools": tools}, think_s=60)
    one_by_one = workload(session={"turns": 2, "new_tokens": 10, "tools": tools | {"parallel": 1}}, think_s=60)
    for together, single in zip(drawn(spec), drawn(one_by_one), strict=True):
        assert len(together.pause_s) == 2 * (1 + 2)
        assert len(single.pause_s) == 2 * (1 + 5)
        assert [pause == 60 for pause in together.pause_s] == [False, False, True] * 2
        assert together.turn == [0] * 3 + [1] * 3
    slowest_of_three = [chat.pause_s[0] for chat in drawn(spec, 2000)]
    assert np.mean(slowest_of_three) == pytest.approx(1 + 3 / 4, abs=0.02)


@pytest.mark.parametrize(
    ("changed", "may_change"),
    [
        ({"think_s": {"kind": "exponential", "mean": 9.0}}, {"pause_s"}),
        ({"output_tokens": {"kind": "geometric", "mean": 50}}, {"output_tokens", "prompt_tokens"}),
        ({"prompt_tokens": 333}, {"prompt_tokens"}),
        ({"prefix": {"groups": {"count": 9, "tokens": 16}}}, {"group"}),
        ({"arrival": {"kind": "poisson", "rate_per_s": 3}}, set()),
    ],
)
def test_one_knob_does_not_shift_the_draws_of_another(changed, may_change):
    for before, after in zip(drawn(workload()), drawn(workload(**changed)), strict=True):
        same = {name for name, one, two in zip(before._fields, before, after, strict=True) if one == two}
        assert set(before._fields) - same <= may_change


def test_longer_sessions_begin_as_shorter_ones_do():
    shorter = with_session(patience_s={"kind": "exponential", "mean": 3})
    longer = with_session(turns={"kind": "geometric", "mean": 20}, patience_s={"kind": "exponential", "mean": 3})
    for short, long in zip(drawn(shorter), drawn(longer), strict=True):
        requests = len(short.prompt_tokens)
        assert len(long.prompt_tokens) >= requests
        assert all(two[:requests] == one for one, two in zip(short[:5], long[:5], strict=True))


def test_tool_calls_do_not_shift_tokens():
    tools = {"calls": 3, "latency_s": 1}
    for plain, busy in zip(drawn(with_session()), drawn(with_session(tools=tools)), strict=True):
        requests = len(plain.prompt_tokens)
        assert busy.prompt_tokens[:requests] == plain.prompt_tokens
        assert busy.output_tokens[:requests] == plain.output_tokens


def test_groups_are_met_by_zipfs_law():
    spec = workload(prefix={"groups": {"count": 4, "tokens": 16, "zipf": 1}})
    counts = np.bincount([chat.group for chat in drawn(spec, 8000)], minlength=4)
    expected = 1 / np.arange(1, 5) / (1 / np.arange(1, 5)).sum()
    assert counts / 8000 == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 8000))


def test_chains_share_what_is_global_then_the_group_then_nothing():
    prefix = Prefix.model_validate({"global_tokens": 1000, "groups": {"count": 3, "tokens": 600}})
    one, two, other = (Context(prefix, group, number) for number, group in enumerate((0, 0, 1)))
    chains = [context.chain(2000, 100, 0) for context in (one, two, other)]
    agree = [sum(a == b for a, b in zip(chains[0], chain, strict=True)) for chain in chains[1:]]
    assert [chains[0][runs - 1][1] for runs in agree] == [1600, 1000]
    assert chains[0][-1][1] == 2100
    ends = [0, *(end for _, end in chains[0])]
    assert max(np.diff(ends)) <= RUN_TOKENS
    assert one.chain(3000, 50, 0)[: len(chains[0])] == chains[0]
    summary = one.chain(1700, 50, 1)
    assert summary[: agree[0]] == chains[0][: agree[0]]
    assert not set(summary[agree[0] :]) & set(chains[0])


@pytest.mark.parametrize("prompts", [100, 101, 1000, {"kind": "uniform", "low": 90, "high": 700}])
def test_a_prompt_shorter_than_its_prefix_shares_what_it_has_of_it(prompts):
    prefix = {"global_tokens": 200, "groups": {"count": 2, "tokens": 400}}
    load = workload(prefix=prefix, prompt_tokens=prompts, session={"turns": 1, "new_tokens": 1}, requests=300)
    _, requests, _ = tables(cluster(prefix_caching=True, kv_blocks=20_000), load)
    requests = requests[60:]
    shareable = np.minimum(requests["prompt_tokens"] - 1, 600)
    assert (requests["cached_tokens"] <= shareable).all()
    left = shareable - requests["cached_tokens"]
    assert left.max() < (SHORT_RUN_TOKENS + 16 if isinstance(prompts, dict) else 16)


def test_a_prefix_that_no_prompt_fills_costs_nothing(scenario):
    huge = resolve(scenario, ["workload.prefix={global_tokens: 100000000}", "workload.requests=200"])
    assert run(huge).summary["kv"]["hit_rate"] > 0.8


@pytest.mark.parametrize("router", list(ROUTERS))
@pytest.mark.parametrize("arrival", [{"kind": "closed", "users": 12}, {"kind": "poisson", "rate_per_s": 1.5}])
def test_a_turn_comes_when_the_last_has_ended_and_its_person_has_thought(router, arrival):
    spec = cluster(nodes=2, router=router, prefix_caching=True, kv_blocks=90)
    _, requests, _ = tables(spec, workload(arrival=arrival))
    several = 0
    for _, mine in requests.groupby("session"):
        assert (np.diff(mine["turn"]) == 1).all()
        ready_s = (mine["finished_s"] + mine["think_s"]).to_numpy()[:-1]
        assert mine["arrival_s"].to_numpy()[1:] == pytest.approx(ready_s, abs=1e-9)
        several += len(mine) > 1
    assert several > 20


TIERS = OffloadTier("host", 40, 0.01372), OffloadTier("ssd", 80, 0.17153)


@st.composite
def sessions(draw):
    cached = draw(st.booleans())
    spec = cluster(
        nodes=draw(st.integers(1, 2)),
        kv_blocks=draw(st.integers(30, 120)),
        max_num_seqs=draw(st.integers(1, 8)),
        queue_limit=draw(st.sampled_from([None, None, 0, 3])),
        router=draw(st.sampled_from(list(ROUTERS))),
        prefix_caching=cached,
        offload=draw(st.sampled_from([(), TIERS])) if cached else (),
    )
    session = {
        "turns": {"kind": "geometric", "mean": draw(st.sampled_from([1.5, 6]))},
        "new_tokens": {"kind": "geometric", "mean": 15},
        "compaction": draw(st.sampled_from([None, {"at_tokens": 150, "to_tokens": 40}])),
        "patience_s": draw(st.sampled_from([None, 0.05, {"kind": "exponential", "mean": 0.3}])),
        "retries": draw(st.sampled_from([None, {"limit": 2, "backoff_s": 0.5}])),
    }
    prefix = {"global_tokens": draw(st.sampled_from([0, 40])), "session": draw(st.booleans())}
    arrival = draw(st.sampled_from([{"kind": "closed", "users": 15}, {"kind": "poisson", "rate_per_s": 3}]))
    changes = {"arrival": arrival, "session": session, "prefix": prefix, "requests": 120}
    return spec, workload(**changes, think_s={"kind": "exponential", "mean": draw(st.sampled_from([0.2, 2.0]))})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sessions())
def test_the_engine_serves_sessions_as_the_plain_loop_does(case):
    spec, load = case
    cold = replace(traffic(load, None, 1, 0), ended=())
    cold = replace(cold, begun=[begun._replace(request=0) for begun in cold.begun])
    fast = simulate(spec, cold)
    again = replace(traffic(load, None, 1, 0), ended=(), begun=cold.begun)
    plain = plain_records(spec, again)
    columns = ["session", "turn", "node", "cached_tokens", "loaded_tokens", "preemptions", "outcome", "reason"]
    one, two = fast.requests_table(), plain.requests_table()
    pd.testing.assert_frame_equal(one[columns], two[columns])
    assert one["finished_s"].to_numpy() == pytest.approx(two["finished_s"].to_numpy(), abs=1e-9, nan_ok=True)
    assert fast.evicted_blocks == plain.evicted_blocks
    assert fast.offload == plain.offload


class Recount(Cluster):
    """Looks every session up at every request."""

    def submit(self, request, session, turn, on_end, first_try=None):
        running = {one.session for replica in self._replicas for one in replica.running.values()}
        ends = self.census._ends.items()
        held = {session for session, end in ends if any(cache.holds(end) for cache in self.caches)}
        attached = {session for session in running if session not in OVER}
        assert set(self.census._cached) == held | attached
        return super().submit(request, session, turn, on_end, first_try)


OVER = set()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(sessions())
def test_cached_sessions_are_those_whose_context_is_in_a_pool(case):
    spec, load = case
    OVER.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capsim.sim.cluster.Cluster", Recount)
        patch.setattr(
            Census, "detach", lambda self, session, before=Census.detach: (OVER.add(session), before(self, session))
        )
        records = simulate(spec, traffic(load, None, 1, 0))
    counts = records.sessions.frame()
    assert (np.diff(counts["since_s"]) > 0).all()
    assert (counts["cached"] <= counts["attached"]).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(sessions())
def test_blocks_are_conserved_and_nobody_reads_what_was_not_there(case):
    spec, load = case
    records, requests, segments = tables(spec, load)
    assert not (requests["outcome"] == "unfinished").any()
    assert (segments["kv_blocks_end"] <= spec.kv_blocks).all()
    assert all(resident <= spec.kv_blocks for _, _, resident in records.kv_blocks)
    assert (requests["cached_tokens"] < requests["prompt_tokens"]).all()
    assert (requests["loaded_tokens"] <= requests["cached_tokens"]).all()
    assert requests["loaded_tokens"].sum() == sum(tier.hit_tokens for tier in records.offload)
    assert (requests["cached_tokens"] % 16 == 0).all()
    if not spec.policy.prefix_caching:
        assert (requests["cached_tokens"] == 0).all()
    elif not load.prefix.session:
        assert (requests["cached_tokens"] <= load.prefix.global_tokens).all()
    before = requests.groupby("session").shift()
    followed = (requests["turn"] == before["turn"] + 1) & (before["outcome"] == "completed")
    known = before["prompt_tokens"] + before["output_tokens"] - 1
    shared = load.prefix.global_tokens
    assert (requests["cached_tokens"] <= np.maximum(known, shared))[followed].all()
    assert (requests["cached_tokens"] <= shared)[requests["turn"] == 0].all()


def test_an_evicted_context_is_computed_again():
    """Two long sessions in a pool that cannot hold both drive each other out."""
    session = {"turns": 30, "new_tokens": 16}
    load = workload(arrival={"kind": "closed", "users": 2}, session=session, think_s=5, prompt_tokens=700, requests=40)
    _, roomy, _ = tables(cluster(prefix_caching=True, kv_blocks=1000), load)
    _, tight, _ = tables(cluster(prefix_caching=True, kv_blocks=90), load)
    later = roomy["turn"] > 0
    assert (roomy["cached_tokens"] >= roomy["prompt_tokens"] - 100)[later].all()
    assert tight["cached_tokens"].sum() < 0.6 * roomy["cached_tokens"].sum()


def agent(**changes):
    """90 turns, from 20,000 to 198,000 tokens of context."""
    session = {"turns": 90, "new_tokens": 1800}
    values = {"arrival": {"kind": "constant", "rate_per_s": 1e-6}, "prompt_tokens": 20_000, "output_tokens": 200}
    return workload(**values, session=session, think_s=2.5, requests=90, **changes)


def test_an_agents_reuse_is_the_arithmetic_of_its_growth():
    prompts = 20_000 + 2_000 * np.arange(90)
    assert prompts[-1] + 200 == 198_200
    big = {"kv_blocks": 14_000, "max_context_tokens": 262_144, "max_num_batched_tokens": 8192}
    cold = replace(traffic(agent(), None, 1, 0), begun=[], ended=())
    requests = simulate(cluster(**big, prefix_caching=True), cold).requests_table()
    assert requests["prompt_tokens"].tolist() == prompts.tolist()
    known = np.append(0, (prompts + 200 - 1)[:-1]) // 16 * 16
    assert requests["cached_tokens"].tolist() == known.tolist()
    ratio = requests["cached_tokens"].sum() / prompts.sum()
    chat = chats.sample(agent(), 1)[0]
    assert ratio == pytest.approx(sum(reused_tokens(chat, Prefix())) / prompts.sum(), abs=16 / prompts.mean())
    assert 0.981 < ratio < 0.982
    off = simulate(cluster(**big), replace(traffic(agent(), None, 1, 0), begun=[], ended=())).requests_table()
    assert (off["cached_tokens"] == 0).all()


def fresh_start(begun):
    """The same with users of a closed loop at turn 0, without open sessions, and with nothing cached."""
    fresh = [Begun(chat, 0, start.start_s, 0.0) for start, chat in zip(begun.begun, begun.chats, strict=False)]
    return replace(begun, begun=fresh if begun.closed else [], ended=())


def steady(load, spec, replication, lifetimes, response=AT_ONCE):
    """Context, KV in use, hit rate, cached and attached sessions, on average: begun in steady state, or at turn 0 and
    warmed up."""
    begun = traffic(load, None, 1, replication, response=response)
    if lifetimes:
        begun = replace(fresh_start(begun), limit=begun.limit + lifetimes)
    records = simulate(spec, begun)
    measured = records.requests_table().iloc[lifetimes:]
    start_s, end_s = window(measured)
    use = node_use(read_steps(records, start_s, end_s), 1, spec.kv_blocks, end_s - start_s)
    levels = counted([records.sessions.frame()], start_s, end_s)
    return [
        measured["prompt_tokens"].mean(),
        use["kv_mean_utilisation"],
        measured["cached_tokens"].sum() / measured["prompt_tokens"].sum(),
        levels["cached"]["mean"],
        levels["attached"]["mean"],
    ]


LEVELS = ("context", "KV in use", "hit rate", "cached", "attached")


def differ(load, spec, lifetimes, response=AT_ONCE):
    """By how many of its half widths each level of a steady start differs from a warmed-up one."""
    at_once, warmed = (
        np.array([steady(load, spec, replication, warm, response) for replication in range(8)])
        for warm in (0, lifetimes)
    )
    found = {}
    for name, one, two in zip(LEVELS, at_once.T, warmed.T, strict=True):
        difference, half_width = t_interval(one - two, 0.997)
        assert half_width < 0.3 * two.mean(), name
        found[name] = difference / max(half_width, 1e-9)
    return found


def test_open_sessions_are_there_from_the_start_also_where_they_mostly_wait_for_answers():
    load = workload(
        arrival={"kind": "poisson", "rate_per_s": 4}, think_s=0.3,
        session={"turns": {"kind": "geometric", "mean": 8}, "new_tokens": 9},
        output_tokens={"kind": "geometric", "mean": 60}, requests=1600,
    )  # fmt: skip
    step_s, ten_lifetimes = 0.05, 10 * 8 * 4 * 26
    batch = {"max_num_seqs": 256, "max_num_batched_tokens": 512}
    spec = cluster(lambda _: step_s, kv_blocks=60_000, prefix_caching=True, **batch)
    found = differ(load, spec, ten_lifetimes, Response(0.0, step_s))
    assert all(abs(difference) <= 1 for difference in found.values()), found


@pytest.mark.parametrize("kv_blocks", [400, 2000])
def test_a_steady_start_agrees_with_a_warm_up_of_ten_lifetimes(kv_blocks):
    load = workload(
        arrival={"kind": "closed", "users": 40}, session={"turns": {"kind": "geometric", "mean": 8}, "new_tokens": 20},
        think_s={"kind": "exponential", "mean": 20}, requests=800,
    )  # fmt: skip
    spec = cluster(lambda batch: 0.01 + 1e-5 * batch.prefill_tokens, kv_blocks=kv_blocks, prefix_caching=True)
    found = differ(load, spec, 10 * 8 * 40)
    assert all(abs(difference) <= 1 for difference in found.values()), found


LONG_CHATS = """\
model: llama-3.1-8b
node: l40s-x1
workload:
  arrival: {kind: poisson, rate_per_s: 1}
  prompt_tokens: {kind: lognormal, mu: 7, sigma: 0.5, maximum: 4000}
  output_tokens: {kind: geometric, mean: 120}
  think_s: {kind: exponential, mean: 60}
  session: {turns: 12, new_tokens: {kind: geometric, mean: 300}}
slo: {ttft_s: 1 s, tpot_s: 60 ms, attained: 0.95}
replications: 1
"""


@pytest.mark.slow
def test_capacity_of_a_steady_start_agrees_with_a_warm_up_of_ten_lifetimes(tmp_path, monkeypatch):
    """More contexts than the KV pool holds, so that what is cached decides how many sessions are served."""
    (tmp_path / "scenario.yaml").write_text(LONG_CHATS)
    resolved = resolve(tmp_path / "scenario.yaml")
    at_once = find_capacity(resolved)
    reached = at_once.at_limit.summary["kv"]["hit_rate"]

    def empty(*workload_and_seeds):
        return fresh_start(traffic(*workload_and_seeds))

    def warmed(sessions):
        found = with_sessions(resolved, sessions)
        ten_lifetimes, load = 10 * 12 * sessions, found.workload
        longer = {"requests": load.requests + ten_lifetimes, "warmup_requests": load.warmup_requests + ten_lifetimes}
        return replace(found, workload=load.changed(**longer))

    monkeypatch.setattr(experiment, "traffic", empty)
    warm = search(resolved, guess(fleet_of(resolved)), Trials(warmed, lambda sessions, run: None))
    assert at_once.low < warm.high
    assert warm.low < at_once.high
    assert at_once.low == pytest.approx(warm.low, rel=0.05)
    assert reached == pytest.approx(warm.at_limit.summary["kv"]["hit_rate"], abs=0.02)
    assert 0.3 < reached < 0.5


def test_sessions_are_met_by_length_at_a_uniform_phase():
    met = traffic(workload(arrival={"kind": "closed", "users": 20_000}), None, 1, 0).begun
    lengths = np.array([len(begun.chat.pause_s) for begun in met])
    phase = np.array([(begun.request - 1) % len(begun.chat.pause_s) for begun in met]) / lengths
    # Of a geometric number with mean m one meets 2 m - 1 on average.
    assert lengths.mean() == pytest.approx(11, rel=0.05)
    assert np.corrcoef(phase, lengths)[0, 1] < 0.3
    assert (phase + 0.5 / lengths).mean() == pytest.approx(0.5, abs=0.01)


def test_open_sessions_begin_as_many_as_their_rate_and_length_make():
    load = workload(arrival={"kind": "poisson", "rate_per_s": 50}, requests=10)
    counts = [len(traffic(load, None, 1, replication).begun) for replication in range(20)]
    assert np.mean(counts) == pytest.approx(50 * 5 * 2.0, rel=0.05)


@pytest.mark.parametrize(
    ("arrival", "tolerance"),
    [({"kind": "closed", "users": 60}, 0.05), ({"kind": "poisson", "rate_per_s": 1.0}, 0.08)],
)
def test_sessions_are_throughput_times_response_and_pause(arrival, tolerance, scenario):
    overrides = [f"workload.arrival={arrival}", "workload.requests=4000", "replications=3"]
    sessions = run(resolve(scenario, overrides)).summary["sessions"]
    assert sessions["cycle"]["expected"] == pytest.approx(sessions["attached"]["mean"], rel=tolerance)
    assert sessions["in_flight"]["mean"] <= sessions["cached"]["mean"] <= sessions["attached"]["mean"]


@pytest.mark.parametrize("arrival", [{"kind": "closed", "users": 150}, {"kind": "poisson", "rate_per_s": 4.0}])
@pytest.mark.parametrize(
    ("session", "scheduler"),
    [
        ({"retries": {"limit": 3, "backoff_s": 5}}, {"max_num_seqs": 1, "queue_limit": 1}),
        ({}, {"max_num_seqs": 1, "queue_limit": 1}),
        ({"patience_s": 1}, {"max_num_seqs": 1}),
    ],
)
def test_the_identity_counts_those_who_are_turned_away_or_give_up(arrival, session, scheduler, scenario):
    session = {"turns": {"kind": "geometric", "mean": 4}, "new_tokens": 30, **session}
    overrides = [f"workload.session={session}", f"workload.arrival={arrival}", f"scheduler={scheduler}"]
    summary = run(resolve(scenario, [*overrides, "workload.requests=4000", "workload.warmup_requests=1500"])).summary
    assert summary["requests"]["completed"] < 0.95 * summary["requests"]["offered"]
    sessions = summary["sessions"]
    assert sessions["cycle"]["expected"] == pytest.approx(sessions["attached"]["mean"], rel=0.06)


def test_many_users_and_few_requests_are_counted(scenario):
    overrides = ["workload.arrival={kind: closed, users: 20000}", "workload.think_s=600", "workload.requests=500"]
    sessions = run(resolve(scenario, overrides)).summary["sessions"]
    assert sessions["attached"] == pytest.approx({"mean": 20_000, "peak": 20_000})
    assert 0 < sessions["cached"]["mean"] <= 20_000


def test_a_count_stands_until_the_next_one():
    counts = pd.DataFrame({"since_s": [0.0, 5.0, 9.0], "attached": [10, 20, 50], "cached": [4, 8, 1]})
    for parts in ([counts], [counts[:1], counts[1:]], [counts[:2], counts[2:]]):
        assert counted(parts, 2.0, 8.0)["attached"] == {"mean": 15, "peak": 20}
        assert counted(parts, 6.0, 8.0)["cached"] == {"mean": 8, "peak": 8}
        assert counted(parts, 8.0, 10.0)["attached"] == {"mean": 35, "peak": 50}
        assert counted(parts, 3.0, 3.0)["cached"] == {"mean": 4, "peak": 4}


def test_attached_sessions_are_counted_at_every_instant_and_not_as_they_arrive(scenario):
    """Two sessions that are mostly gone: who arrives finds fewer than there are with them."""
    changes = ["workload.arrival={kind: poisson, rate_per_s: 0.02}", "workload.requests=2000", "workload.think_s=1"]
    done = run(resolve(scenario, [*changes, "workload.session={turns: 5, new_tokens: 10}"]))
    (replication,) = done.replications
    table = replication.records.requests_table().iloc[replication.warmup :]
    spans = table.groupby("session").agg({"arrival_s": "min", "finished_s": "max"})
    open_s = (spans["finished_s"] - spans["arrival_s"]).sum()
    start_s, end_s = replication.window_s
    attached = done.summary["sessions"]["attached"]["mean"]
    assert attached == pytest.approx(open_s / (end_s - start_s), rel=0.01)
    assert attached < 0.2
    assert done.summary["sessions"]["cached"]["mean"] == pytest.approx(attached, rel=0.05)


def test_a_run_says_where_throughput_response_and_pause_do_not_make_its_sessions(scenario):
    steady = run(resolve(scenario, ["workload.arrival={kind: poisson, rate_per_s: 1}", "replications=2"])).summary
    assert not any("steady state" in warning for warning in steady["warnings"])
    ramp = "workload.arrival={kind: ramp, from_per_s: 0.2, to_per_s: 20, over_s: 60 s}"
    moving = run(resolve(scenario, [ramp, "workload.think_s=100 s", "workload.requests=3000"])).summary
    assert any("sessions are not in a steady state" in warning for warning in moving["warnings"])
    assert steady["sessions"]["cycle"]["noise"] < 0.1 * steady["sessions"]["attached"]["mean"]


def test_users_of_independent_requests_have_first_turns_only(scenario):
    changes = ["workload.session=null", "workload.requests=300", "slo={e2e_s: 10 s, later_turns: {e2e_s: 1 ms}}"]
    assert run(resolve(scenario, changes)).summary["goodput"] == 1


def test_first_and_later_turns_are_told_apart(scenario):
    summary = run(resolve(scenario, ["workload.prefix={global_tokens: 64}"])).summary
    first, later = summary["turns"]["first"], summary["turns"]["later"]
    assert first["hit_rate"] == pytest.approx(0.64, abs=0.01)
    assert later["hit_rate"] > 0.7
    assert first["requests"] + later["requests"] == 2000 - summary["run"]["warmup_requests"]
    assert later["requests"] / first["requests"] == pytest.approx(3, rel=0.25)


def test_later_turns_may_have_a_target_of_their_own(scenario):
    summary = run(resolve(scenario, ["slo={e2e_s: 10 s, later_turns: {e2e_s: 1 ms}}"])).summary
    assert summary["turns"]["first"]["goodput"] == 1
    assert summary["turns"]["later"]["goodput"] == 0
    assert summary["slo"]["later_turns"] == {"e2e_s": 0.001}
    assert not summary["slo"]["passed"]


def test_a_hosted_model_bills_what_the_cache_held_as_cached(scenario):
    summary = run(resolve(scenario, ["api_tier=deepseek-v3.2"])).summary
    uncached, cached, _ = (line["quantity"] for line in summary["api"]["lines"])
    assert cached / (cached + uncached) == pytest.approx(summary["kv"]["hit_rate"], rel=0.05)
    assert sum(line["monthly_usd"] for line in summary["api"]["lines"]) == summary["api"]["monthly_usd"]


def test_requests_that_tools_make_are_of_the_persons_turn(scenario):
    session = "{turns: 1, new_tokens: 30, tools: {calls: 3, latency_s: 1}}"
    turns = run(resolve(scenario, [f"workload.session={session}", "workload.requests=200"])).summary["turns"]
    assert turns["later"]["requests"] == 0
    assert turns["first"]["hit_rate"] > 0.4


def test_a_closed_loop_is_never_called_stable(scenario):
    assert run(resolve(scenario, ["workload.requests=200"])).summary["saturated"] is None
    opened = run(resolve(scenario, ["workload.requests=200", "workload.arrival={kind: poisson, rate_per_s: 1}"]))
    assert opened.summary["saturated"] is False


def test_retries_come_back_after_a_backoff_that_doubles():
    session = {"turns": 1, "new_tokens": 1, "retries": {"limit": 2, "backoff_s": 1.0}}
    load = workload(
        arrival={"kind": "constant", "rate_per_s": 1},
        session=session,
        output_tokens=4000,
        prompt_tokens=20,
        requests=40,
    )
    spec = cluster(max_num_seqs=1, queue_limit=0, kv_blocks=1000)
    _, requests, _ = tables(spec, load)
    assert (requests["reason"] == "queue full").sum() > 6
    tries = requests[requests["outcome"] == "rejected"].groupby("session")["arrival_s"].apply(list)
    waits = [np.diff(times).tolist() for times in tries if len(times) == 3]
    assert waits
    assert all(wait == pytest.approx([1.0, 2.0]) for wait in waits)


def test_who_has_no_token_by_the_end_of_their_patience_leaves_and_ends_the_session():
    session = {"turns": 3, "new_tokens": 1, "patience_s": 2.0}
    load = workload(
        arrival={"kind": "constant", "rate_per_s": 2}, session=session, output_tokens=100, prompt_tokens=20, requests=60
    )
    _, requests, _ = tables(cluster(max_num_seqs=1, kv_blocks=1000), load)
    gone = requests["outcome"] == "abandoned"
    assert gone.sum() > 5
    assert (requests["first_token_s"].isna() == gone).all()
    assert (requests["finished_s"] - requests["arrival_s"])[gone].to_numpy() == pytest.approx(2.0)
    assert (requests["first_token_s"] - requests["arrival_s"])[~gone].max() <= 2.0 + 1e-9
    last = requests.groupby("session").tail(1).index
    assert set(requests.index[gone]) <= set(last)


def test_a_prefill_that_nobody_waits_for_ends_with_its_step_and_frees_its_blocks():
    """Prompts that take ten seconds, and people who wait for one: the pool, for one prompt, is free for the next."""
    session = {"turns": 1, "new_tokens": 1, "patience_s": 1.0}
    load = workload(
        arrival={"kind": "constant", "rate_per_s": 0.2}, session=session, prompt_tokens=640, requests=5, output_tokens=4
    )
    spec = cluster(lambda batch: 1.0, kv_blocks=41)
    records, requests, segments = tables(spec, load)
    assert (requests["outcome"] == "abandoned").all()
    assert requests["first_scheduled_s"].notna().all()
    assert segments["prefill_tokens"].sum() <= 5 * 2 * 64
    assert all(resident == 0 for _, _, resident in records.kv_blocks)


def test_a_retry_counts_from_the_first_try_and_once():
    """TTFT and E2E are those that a person sees; goodput is over what was asked for, not over tries."""
    table = pd.DataFrame({
        "ask": [0, 1, 0, 3], "turn": 0, "output_tokens": 2, "asked_s": [0.0, 1.0, 0.0, 9.0],
        "arrival_s": [0.0, 1.0, 5.0, 9.0], "first_scheduled_s": [np.nan, 1.0, 5.0, np.nan],
        "first_token_s": [np.nan, 1.5, 5.5, np.nan], "finished_s": [np.nan, 2.0, 6.0, np.nan],
        "outcome": ["rejected", "completed", "completed", "rejected"],
    })  # fmt: skip
    assert latency(table, "ttft_s").seconds.tolist() == [0.5, 5.5]
    assert latency(table, "e2e_s").seconds.tolist() == [1.0, 6.0]
    assert good_share(table, good(table, {"ttft_s": 9.0}, {})) == pytest.approx(2 / 3)
    assert good_share(table, good(table, {"ttft_s": 1.0}, {})) == pytest.approx(1 / 3)
    assert measured(table, 1)["ask"].tolist() == [1, 3]


def test_retries_do_not_flatter_what_is_served(scenario):
    session = {"turns": 1, "new_tokens": 1, "retries": {"limit": 3, "backoff_s": 2}}
    changes = [
        f"workload.session={session}", "workload.arrival={kind: poisson, rate_per_s: 8}",
        "scheduler={max_num_seqs: 1, queue_limit: 1}", "slo={ttft_s: 1 s}",
    ]  # fmt: skip
    done = run(resolve(scenario, changes))
    summary, table = done.summary, done.replications[0].records.requests_table()
    asked = table.groupby("ask")
    served = asked["outcome"].apply(lambda tries: (tries == "completed").any())
    assert summary["requests"]["asks"] == len(asked) < summary["requests"]["offered"]
    assert summary["requests"]["served_share"] == pytest.approx(served.mean())
    assert (table["asked_s"] == table["arrival_s"].to_numpy()[table["ask"]]).all()
    waited = table[(table["outcome"] == "completed") & (table["ask"] < table["request"])]
    assert len(waited) > 20
    assert (waited["first_token_s"] - waited["asked_s"]).min() > 2
    assert summary["ttft_s"]["p99"] > 2
    assert summary["goodput"] < summary["requests"]["served_share"]


def test_who_would_run_out_of_patience_before_the_next_try_does_not_come_back():
    session = {"turns": 1, "new_tokens": 1, "retries": {"limit": 5, "backoff_s": 1.0}, "patience_s": 4.0}
    load = workload(
        arrival={"kind": "constant", "rate_per_s": 1},
        session=session,
        output_tokens=4000,
        prompt_tokens=20,
        requests=60,
    )
    _, requests, _ = tables(cluster(max_num_seqs=1, queue_limit=0, kv_blocks=1000), load)
    tries = requests.groupby("ask")["arrival_s"].agg(["min", "max", "count"])
    assert tries["count"].max() == 3  # at once, after 1 s and 2 s more; 4 s more would be too late
    assert (tries["max"] - tries["min"]).max() == pytest.approx(3.0)


def test_sessions_at_the_start_began_at_the_rates_before_it():
    """An hour of arrivals, then none: what is there at a time are those that began in that hour and last so long."""
    rates = [1.0, *[0.0] * 23]
    lasts_s = 4 * 1800.0
    for start_h, hours in ((0, 0), (0.5, 0.5), (1, 1), (2, 1), (2.5, 0.5), (3, 0)):
        arrival = {"kind": "profile", "rates": rates, "period_s": 86_400, "start_s": start_h * 3600}
        load = workload(arrival=arrival, session={"turns": 5, "new_tokens": 5}, think_s=1800)
        begun = traffic(load, None, 1, 0).begun
        assert len(begun) == pytest.approx(hours * 3600, abs=4 * math.sqrt(hours * 3600))
        ages_s = np.array([one.request * 1800 - one.start_s for one in begun])
        assert ((ages_s >= 3600 * (start_h - 1)) & (ages_s <= min(lasts_s, 3600 * start_h))).all()


def test_users_begin_as_many_sessions_as_they_say(scenario):
    arrival = "workload.arrival={kind: users, users: 2000, sessions_per_day: 4, profile: office-hours}"
    resolved = resolve(scenario, [arrival])
    rates = resolved.workload.arrival.arrivals.rates_per_s
    assert np.mean(rates) * 86_400 == pytest.approx(8000)
    day = traffic(resolved.workload, None, 1, 0).arrival_s
    first_day = sum(1 for _ in iter(lambda: next(day) < 86_400, False))
    assert first_day == pytest.approx(sum(rates[:24]) * 3600, abs=4 * math.sqrt(sum(rates[:24]) * 3600))


def test_a_plan_asks_for_sessions_at_once(scenario):
    resolved = with_sessions(resolve(scenario, ["slo={tpot_s: 50 ms}"]), 50)
    assert resolved.workload.session is not None
    loop = traffic(resolved.workload, None, 1, 0)
    assert loop.closed
    assert len(loop.begun) == 50


def test_a_plan_needs_a_pause_where_sessions_are_turned_away(scenario):
    overrides = ["scheduler.queue_limit=8", "workload.arrival={kind: poisson, rate_per_s: 2}", "workload.think_s=null"]
    with pytest.raises(ScenarioError, match="needs a think_s"):
        with_sessions(resolve(scenario, overrides), 100)


def test_prompts_above_the_compaction_limit_are_told_of(scenario):
    at = "workload.session.compaction={at_tokens: 90, to_tokens: 50}"
    with pytest.raises(ScenarioError, match="every prompt is longer than the 90 tokens"):
        resolve(scenario, [at, "workload.session.new_tokens=60"])
    assert any("first ones, or summaries" in warning for warning in resolve(scenario, [at]).warnings)


def test_retries_that_never_come_are_told_of(scenario):
    retries = "workload.session.retries={limit: 2, backoff_s: 1}"
    assert any("never come" in warning for warning in resolve(scenario, [retries]).warnings)
    assert not resolve(scenario, [retries, "scheduler.queue_limit=1", "as_of=2026-06-01"]).warnings


def test_absurdly_many_calls_to_tools_are_cut(scenario):
    tools = {"calls": {"kind": "lognormal", "mu": 50, "sigma": 1}, "latency_s": 1}
    assert (
        len(drawn(workload(session={"turns": 1, "new_tokens": 1, "tools": tools}), 1)[0].pause_s) == chats.MAX_REQUESTS
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("new_tokens: 30", "new_token: 30", 10, "unknown key"),
        ("    new_tokens: 30\n", "", 8, "is required"),
        (
            "new_tokens: 30",
            "new_tokens: 30\n    compaction: {at_tokens: 10, to_tokens: 20}",
            11,
            "not below at_tokens 10",
        ),
        ("new_tokens: 30", "new_tokens: 30\n    tools: {calls: 3, latency_s: 1, parallel: 0}", 11, "must be >= 1"),
        (
            "{kind: closed, users: 20}",
            "{kind: users, users: 20, sessions_per_day: 4, profile: nine}",
            4,
            "unknown profile",
        ),
        ("{kind: closed, users: 20}", "{kind: users, users: 20, sessions_per_day: 4}", 4, "give one of: a profile"),
        ("output_tokens:", "trace: some.csv\n  output_tokens:", 3, "neither a trace nor classes"),
        (
            "new_tokens: 30",
            "new_tokens: 30\n    compaction: {at_tokens: 6000, to_tokens: 500}\n  prefix: {global_tokens: 4000}",
            3,
            "would cut into the 4,000",
        ),
        (
            "{kind: closed, users: 20}",
            "{kind: users, users: 20, sessions_per_day: 4, profile: office-hours, period_s: 12h}",
            4,
            "has a period of its own",
        ),
        ("{kind: exponential, mean: 5}", "{kind: lognormal, mu: 800, sigma: 1}", 7, "must be <= 50"),
    ],
)
def test_bad_sessions_are_refused_with_their_place(scenario, old, new, line, message):
    text = Path(scenario).read_text()
    assert old in text
    scenario.write_text(text.replace(old, new))
    with pytest.raises(ScenarioError) as refused:
        resolve(scenario)
    assert any(problem.line == line and message in problem.message for problem in refused.value.problems), refused.value


def test_sessions_do_not_go_with_classes_and_the_refusal_says_what_to_do():
    one = {
        "name": "a", "arrival": {"kind": "poisson", "rate_per_s": 1}, "prompt_tokens": 9, "output_tokens": 9,
    }  # fmt: skip
    changes = {"arrival": {"kind": "superposed", "classes": [one]}, "prompt_tokens": None, "output_tokens": None}
    with pytest.raises(ValueError, match="give each class a scenario of its own"):
        workload(**changes)
    workload(**changes, session=None, think_s=None)
