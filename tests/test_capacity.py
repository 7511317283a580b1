"""The search for sessions per node: brackets, what binds, and the closed form it starts from."""

import itertools
import signal
from pathlib import Path

import pytest

from capsim import capacity
from capsim.capacity import Search, find_capacity, plan, relax, what_binds
from capsim.errors import Infeasible, ScenarioError
from capsim.scenario import resolve
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
    monkeypatch.setattr(capacity, "MIN_REQUESTS", 500)
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return lambda *overrides: resolve(Path(path), overrides)


class Answers:
    """A search whose points are known, without simulation: passes up to ``limit`` sessions."""

    def __init__(self, resolved, limit):
        self.search = Search(resolved, lambda sessions, point: None)
        self.search.passes = self.passes
        self.limit = limit

    def passes(self, sessions):
        self.search.points[sessions] = None
        return sessions <= self.limit


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 1234, 50_000])
def test_the_bracket_holds_the_limit_to_two_percent(resolved, limit):
    low, high = find_capacity(Answers(resolved(), limit).search)
    assert low <= limit < high
    assert high <= max(low + 1, 1.02 * low)


def test_no_session_at_all_is_infeasible(resolved):
    with pytest.raises(Infeasible, match="not even one session"):
        find_capacity(Search(resolved("slo.tpot_s=1 ms"), lambda sessions, point: None))


def test_a_plan_needs_a_target(resolved):
    with pytest.raises(ScenarioError, match="latency target"):
        plan(resolved("slo=null"), lambda sessions, point: None)


@pytest.mark.parametrize(
    ("overrides", "binds"),
    [
        (("scheduler.max_num_seqs=4", "slo={ttft_s: 100 ms}"), "batch cap"),
        (("kv_capacity_tokens=640", "slo={ttft_s: 100 ms}"), "KV capacity"),
        (("workload.prompt_tokens=8000", "workload.output_tokens=1", "slo={ttft_s: 800 ms}"), "compute"),
        (("weights=bf16", "slo={tpot_s: 6.62 ms}", "workload.prompt_tokens=1"), "memory bandwidth"),
    ],
)
def test_what_binds_is_what_the_scenario_is_short_of(resolved, overrides, binds):
    search = Search(resolved(*overrides), lambda sessions, point: None)
    low, high = find_capacity(search)
    word, carried = what_binds(search, low, high)
    assert word == binds, carried
    assert carried[word] > low


def test_an_interrupted_search_keeps_its_bracket(resolved, monkeypatch):
    step_time, steps, points = Roofline.step_time, itertools.count(), []

    def stops_in_the_third_point(model, batch):
        if len(points) == 2 and next(steps) == 100:
            signal.raise_signal(signal.SIGINT)
        return step_time(model, batch)

    monkeypatch.setattr(Roofline, "step_time", stops_in_the_third_point)
    document, at_limit = plan(
        resolved("slo={tpot_s: 7 ms}", "calibration=none"), lambda sessions, point: points.append(sessions)
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
