"""The search for sessions per node: brackets, what binds, and the closed form it starts from."""

import inspect
import itertools
import math
import re
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsim.capacity import binds, find_capacity, fleet, instant, plan, relax, sessions, simulated, what_binds
from capsim.capacity.fleet import MOST_NODES, size_for, smallest
from capsim.capacity.trials import Trials, find
from capsim.errors import Infeasible, ScenarioError
from capsim.experiment import run, summarise
from capsim.glossary import LATENCIES
from capsim.scenario import Resolved, resolve
from capsim.scenario.resolved import STEP_TIMES_DEPEND_ON
from capsim.steptime import Batch
from capsim.steptime.roofline import Roofline

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {kind: poisson, rate_per_s: 1}
  prompt_tokens: 100
  output_tokens: 20
  think_s: {kind: exponential, mean: 5}
slo: {tpot_s: 20 ms}
replications: 1
"""


@pytest.fixture
def resolved(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "MIN_REQUESTS", 500)
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return lambda *overrides: resolve(Path(path), overrides)


class Answers(Trials):
    """Trials whose answers are known, without simulation: up to ``limit`` passes."""

    def __init__(self, limit):
        super().__init__(at=None, on_trial=None)
        self.limit = limit

    def replicate(self, number, replications=1):
        self.done[number] = [None] * (len(self.done.get(number, [])) + replications)

    def goodput(self, number):
        return 0.95 + 0.1 * (self.limit + 0.5 - number) / self.limit, 0.0

    def _attained(self, number):
        return 0.95

    def spent(self, number):
        return False


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 1234, 50_000])
@pytest.mark.parametrize("off", [0.3, 0.9, 1, 1.2, 4])
def test_the_bracket_holds_the_limit_to_five_percent(limit, off):
    trials = Answers(limit)
    low, high = find(trials, round(off * limit))
    assert low <= limit < high
    assert high <= max(low + 1, 1.05 * low)
    assert min(len(trials.done[end]) for end in (low, high)) >= 3


class Noisy(Trials):
    """Goodput falls along a line through the target at ``limit``; each replication is off by chance."""

    def __init__(self, limit, steep, noise, seed):
        super().__init__(at=None, on_trial=None)
        self.limit, self.steep, self.noise, self.seed = limit, steep, noise, seed

    def replicate(self, number, replications=1):
        shares = [one.good_share for one in self.done.get(number, [])]
        for index in range(len(shares), len(shares) + replications):
            chance = sum(
                np.random.default_rng(seed).normal() for seed in ([self.seed, index], [self.seed, index, number])
            )
            shares.append(np.clip(0.95 - self.steep * (number / self.limit - 1) + self.noise * chance, 0, 1))
        self.done[number] = [SimpleNamespace(good_share=share) for share in shares]
        self._resolved[number] = SimpleNamespace(
            scenario=SimpleNamespace(replications=2, slo=SimpleNamespace(attained=0.95))
        )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.floats(1.5, 3000), st.floats(0.3, 3), st.sampled_from([0.05, 0.3, 2, 20]), st.sampled_from([0, 0.005, 0.05]),
    st.integers(0, 99),
)  # fmt: skip
def test_whatever_chance_does_the_ends_pass_and_fail_and_are_close(limit, off, steep, noise, seed):
    trials = Noisy(limit, steep, noise, seed)
    try:
        low, high = find(trials, max(1, round(off * limit)))
    except Infeasible:
        assert not trials.passes(1)
        assert trials.sure(1) or trials.spent(1)
        return
    assert trials.passes(low)
    assert not trials.passes(high)
    assert high <= max(low + 1, 1.05 * low)
    assert all(trials.sure(end) or trials.spent(end) for end in (low, high))
    if not noise:
        assert low <= limit <= high


def test_the_search_upwards_looks_as_far_as_it_may():
    trials = Answers(63_000)
    assert find(trials, 1000)[0] <= 63_000 < find(trials, 1000)[1]
    with pytest.raises(Infeasible, match="no load misses"):
        find(Answers(10**9), 1000)
    beyond = Answers(10**9)
    beyond.replicate(5000)  # more than is looked at from a guess of 1
    with pytest.raises(Infeasible, match="no load misses"):
        find(beyond, 1)


def test_no_session_at_all_is_infeasible(resolved):
    with pytest.raises(Infeasible, match="not even one session"):
        find_capacity(resolved("slo.tpot_s=1 ms"))


def test_a_target_that_no_load_misses_is_refused(resolved):
    with pytest.raises(ScenarioError, match="no number of users misses it"):
        find_capacity(resolved("slo.tpot_s=10 s"))


PLACE = Path(__file__).parents[1] / "scenarios"
SHIPPED = sorted(set(PLACE.glob("*.yaml")) - set(PLACE.glob("stack-*.yaml")))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SHIPPED), st.floats(0.3, 3), st.floats(1, 1.5), st.sampled_from(["memory", "bandwidth", "slo"]))
def test_the_estimate_never_falls_with_memory_bandwidth_or_a_looser_slo(path, scale, more, what):
    """Exactly, whatever the step: its random numbers know nothing of the hardware."""

    def at(factor):
        shipped = resolve(path, ["nodes=1"])
        memory, device, slo = shipped.memory, shipped.device, shipped.scenario.slo
        if what == "memory":
            return replace(shipped, memory=replace(memory, blocks=int(memory.blocks * factor)))
        if what == "bandwidth":
            faster = {"memory_bytes_per_s": device.memory_bytes_per_s * factor}
            return replace(shipped, device=device.model_copy(update=faster))
        looser = slo.model_copy(update={name: limit * factor for name, limit in slo.thresholds.items()})
        return replace(shipped, scenario=shipped.scenario.model_copy(update={"slo": looser}))

    fewer, greater = instant(at(scale)), instant(at(scale * more))
    assert greater is None or (fewer is not None and fewer.sessions <= greater.sessions)


def test_a_fleet_is_the_smallest_that_keeps_its_slo_with_one_node_down(resolved):
    one = resolved("slo={tpot_s: 7.33 ms}")
    per_node, passed = find_capacity(one).low, {}
    found = size_for(one, 4 * per_node, 4, lambda nodes, run: passed.update({nodes: run.summary["slo"]["passed"]}))
    up = found["one_down"]["nodes"]
    assert found["nodes"] == found["whole"]["nodes"] == up + 1
    assert passed[up]
    assert up == 1 or not passed[up - 1]
    assert up <= 5


class Shares(Trials):
    """Fleets whose goodput in each replication is known: ``shares`` by nodes, the last of them again and again."""

    shares: ClassVar[dict[int, list[float]]] = {}

    def replicate(self, number, replications=1):
        known, past = self.shares[number], self.done.get(number, [])
        self.done[number] = [*past, SimpleNamespace(good_share=known[min(len(past), len(known) - 1)])]

    def run(self, number):
        goodput, half_width = self.goodput(number)
        latency = dict.fromkeys(LATENCIES)
        return SimpleNamespace(
            summary={"goodput": goodput, "goodput_ci95": [goodput - half_width, goodput + half_width], **latency}
        )

    def _attained(self, number):
        return 0.95

    def spent(self, number):
        return len(self.done[number]) >= 6


@pytest.mark.parametrize(
    ("shares", "one_down", "undecided"),
    [
        ({2: [0.9], 3: [0.97], 4: [0.99]}, 3, []),
        ({2: [0.96, 0.93, 0.931, 0.932], 3: [0.97], 4: [0.99]}, 3, []),  # the first of 2 was chance
        ({2: [0.9], 3: [0.93, 0.97], 4: [0.99], 5: [0.99]}, 3, [3]),  # and so was that of 3, which stays in doubt
        ({2: [0.9], 3: [0.97], 4: [0.94], 5: [0.96], 6: [0.99], 7: [0.99]}, 5, []),  # 3 of 4 would do, but not 4
    ],
)
def test_a_fleet_passes_whole_and_with_a_node_down_and_chance_does_not_decide(
    resolved, monkeypatch, shares, one_down, undecided
):
    monkeypatch.setattr(fleet, "Trials", Shares)
    monkeypatch.setattr(Shares, "shares", {1: [0.5], **shares})
    found = size_for(resolved(), 30, 3, lambda nodes, run: None)
    assert (found["nodes"], found["one_down"]["nodes"]) == (one_down + 1, one_down)
    assert found["undecided"] == undecided
    assert found["one_down"]["replications"] >= 3
    assert found["whole"]["goodput"] >= 0.95
    assert len(fleet.doubts(found)) == len(undecided)


@pytest.mark.parametrize("needed", [1, 2, 7, 1000, MOST_NODES])
@pytest.mark.parametrize("guess", [1, 6, 900, 1100, MOST_NODES])
def test_the_smallest_fleet_is_found_from_any_guess(needed, guess):
    looked = []

    def passes(nodes):
        looked.append(nodes)
        return nodes >= needed

    assert smallest(passes, guess) == needed
    assert len(looked) == len(set(looked)) <= 30


def test_intervals_of_two_replications_do_not_reach_where_nothing_can_be(resolved):
    one = resolved("workload.arrival={kind: poisson, rate_per_s: 40}", "workload.requests=60", "replications=2")
    rows = [{"mean": mean, "p50": 1.0, "p90": 1.0, "p95": mean, "p99": 1.0} for mean in (0.001, 9.0)]
    done = [replace(each, latencies=dict.fromkeys(LATENCIES, row), good_share=share)
            for each, row, share in zip(run(one).replications, rows, (0.5, 1.0), strict=True)]  # fmt: skip
    summary = summarise(one, done)
    assert summary["ttft_s"]["ci95"][0] == summary["ttft_s"]["p95_ci95"][0] == 0
    assert summary["ttft_s"]["ci95"][1] > 9
    trials = Trials(lambda number: one, on_trial=None, done={7: done})
    (row,) = simulated._curve(trials)
    assert row["ttft_s_p95_ci95"][0] == 0
    assert row["goodput_ci95"] == summary["goodput_ci95"] == [0, 1]


def test_a_plan_needs_a_target(resolved):
    with pytest.raises(ScenarioError, match="latency target"):
        plan(resolved("slo=null"), lambda sessions, point: None)


@pytest.mark.parametrize(
    ("overrides", "binds"),
    [
        (("scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}"), "batch cap"),
        (("kv_capacity_tokens=640", "slo={ttft_s: 100 ms}"), "KV capacity"),
        (("workload.prompt_tokens=8000", "workload.output_tokens=1", "slo={ttft_s: 800 ms}"), "compute"),
        (("weights=bf16", "slo={tpot_s: 7.33 ms}", "workload.prompt_tokens=1"), "memory bandwidth"),
    ],
)
def test_what_binds_is_what_the_scenario_is_short_of(resolved, overrides, binds):
    one = resolved(*overrides)
    found = find_capacity(one)
    counts = {sessions: len(done) for sessions, done in found.trials.done.items()}
    word, carried = what_binds(one, found)
    assert word == binds, carried
    assert counts == {sessions: len(done) for sessions, done in found.trials.done.items()}, (
        "the bracket stays as it was"
    )
    assert carried[word] >= found.low
    assert all(carried[word] >= sessions for sessions in carried.values())


@pytest.mark.slow
def test_resources_that_chance_does_not_tell_apart_are_named_together(resolved, monkeypatch):
    one = resolved("scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}")
    monkeypatch.setattr(binds, "relax", lambda fleet, name: relax(fleet, "batch cap"))
    monkeypatch.setattr(binds, "RESOURCES", ("compute", "batch cap"))
    word, carried = what_binds(one, find_capacity(one))
    assert set(word.split(" or ")) == {"compute", "batch cap"}
    assert carried["compute"] == carried["batch cap"]


@pytest.mark.parametrize(
    ("session", "drops"), [("{turns: {kind: geometric, mean: 8}, new_tokens: 100}", True), ("null", False)]
)
def test_a_pool_that_drops_what_comes_back_can_bind_though_nobody_waits(resolved, session, drops):
    one = resolved(f"workload.session={session}", "workload.prompt_tokens=2000", "kv_capacity_tokens=30000")
    done = run(sessions.with_sessions(one, 10))
    assert done.replications[0].node_use["most_waiting"] == 0
    assert ("KV capacity" in binds._can_bind(one, done)) == drops


def test_nothing_binds_where_relaxing_changes_nothing(resolved, monkeypatch):
    one = resolved("scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}")
    monkeypatch.setattr(binds, "relax", lambda fleet, name: fleet)
    word, _ = what_binds(one, find_capacity(one))
    assert word == "none of these alone"


def test_an_interrupted_search_keeps_its_bracket(resolved, monkeypatch):
    step_time, steps, points = Roofline.step_time, itertools.count(), []

    def stops_in_the_third_point(model, batch):
        if len(points) == 2 and next(steps) == 100:
            signal.raise_signal(signal.SIGINT)
        return step_time(model, batch)

    monkeypatch.setattr(Roofline, "step_time", stops_in_the_third_point)
    document, at_limit = plan(
        resolved("slo={tpot_s: 7.33 ms}", "calibration=none"), lambda sessions, point: points.append(sessions)
    )
    assert document["interrupted"] is True
    assert document["candidates"] == []
    passing, failing = document["bracket"]
    assert {passing, failing} - {0, None} <= set(points)
    assert (at_limit is None) == (passing == 0)


def test_relaxing_raises_one_rate_by_a_tenth(resolved):
    before, after = resolved().device, relax(resolved(), "compute").device
    assert after.fp8_flops == pytest.approx(1.1 * before.fp8_flops)
    assert after.memory_bytes_per_s == before.memory_bytes_per_s


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["edge-llama8b-mac", "agent-qwen30b-h200", "week-of-chat", "chat-llama70b-h100", "dense-llama70b-a100"]
)
def test_twice_the_horizon_leaves_capacity_inside_the_bracket(name, monkeypatch):
    one = resolve(Path(__file__).parents[1] / "scenarios" / f"{name}.yaml", ["nodes=1"])
    once = find_capacity(one)
    monkeypatch.setattr(sessions, "MIN_REQUESTS", 2 * sessions.MIN_REQUESTS)
    monkeypatch.setattr(sessions, "TURNOVERS", 2 * sessions.TURNOVERS)
    twice = find_capacity(one)
    assert once.low <= round(math.sqrt(twice.low * twice.high)) <= once.high  # whole sessions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("less", "more"),
    [
        (["kv_capacity_tokens=640", "slo={ttft_s: 100 ms}"], ["kv_capacity_tokens=800", "slo={ttft_s: 100 ms}"]),
        (["scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}"], ["scheduler.max_num_seqs=4", "slo={ttft_s: 150 ms}"]),
    ],
    ids=["memory", "slo"],
)
def test_simulated_capacity_rises_with_memory_and_a_looser_slo_up_to_the_bracket(resolved, less, more):
    assert find_capacity(resolved(*more)).high >= find_capacity(resolved(*less)).low


@pytest.mark.slow
def test_simulated_capacity_rises_with_bandwidth_up_to_the_bracket(resolved):
    one = resolved("scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}")
    assert find_capacity(relax(one, "memory bandwidth")).high >= find_capacity(one).low


def test_a_copy_shares_step_times_unless_they_depend_on_what_changes(resolved):
    reads = re.findall(r"self\.(\w+)", inspect.getsource(Resolved._step_time_model.func))
    assert set(reads) == STEP_TIMES_DEPEND_ON
    one = resolved()
    longer = one.changed(workload=one.workload.changed(requests=700))
    faster = one.changed(device=one.device.model_copy(update={"memory_bytes_per_s": 1e13}))
    assert longer.step_time_model() is one.step_time_model()
    batch = Batch(64, (64_000.0,))
    assert faster.step_time_model().step_time(batch).total_s < one.step_time_model().step_time(batch).total_s
