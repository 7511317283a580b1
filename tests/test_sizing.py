"""Fleets for open loads, and the peak hour against the mean."""

import numpy as np
import pytest

from capsim import sizing
from capsim.capacity import plan
from capsim.scenario import resolve
from capsim.workload.arrivals import Poisson, Profile

SCENARIO = """\
model: llama-3.1-8b
node: h100x1
workload:
  arrival: {kind: profile, period_s: 24h, rates: [1, 1, 1, 5], mean_rate_per_s: 20}
  prompt_tokens: {kind: geometric, mean: 1000}
  output_tokens: {kind: geometric, mean: 200}
slo: {ttft_s: 500 ms, tpot_s: 15 ms}
replications: 2
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


def profile(rates, hours):
    return Profile(kind="profile", rates=rates, period_s=hours * 3600)


def test_the_peak_hour_is_the_highest_mean_of_any_hour():
    assert sizing.peak_hour_per_s(profile((1, 3, 2), 3)) == 3
    assert sizing.peak_hour_per_s(profile((4, 0, 0, 0, 0, 2), 3)) == 3  # half hours; the first and the last meet
    assert sizing.peak_hour_per_s(profile((1, 5), 24)) == 5


def test_a_load_that_follows_the_clock_is_sized_for_its_mean_and_its_peak_hour(scenario):
    loads = sizing.loads(resolve(scenario, []))
    assert {name: load.workload.arrival for name, load in loads.items()} == {
        "mean": Poisson(kind="poisson", rate_per_s=20),
        "peak hour": Poisson(kind="poisson", rate_per_s=50),
    }


def test_users_are_sized_by_their_busiest_hour(scenario):
    users = "workload.arrival={kind: users, users: 2400, sessions_per_day: 36, profile: office-hours}"
    loads = sizing.loads(resolve(scenario, [users]))
    assert loads["mean"].workload.arrival.rate_per_s == pytest.approx(1.0)
    assert loads["peak hour"].workload.arrival.rate_per_s > 2


def test_a_fleet_is_the_smallest_that_keeps_the_slo(scenario):
    load = sizing.loads(resolve(scenario, []))["peak hour"]
    seen = {}
    fleet = sizing.size(load, lambda nodes, point: seen.update({nodes: point.summary["slo"]["passed"]}))
    assert seen[fleet["nodes"]]
    assert not seen[fleet["nodes"] - 1]
    assert fleet["requests_per_s"] == pytest.approx(50, rel=0.1)
    assert fleet["goodput"] >= 0.95


def test_a_plan_without_users_counts_nodes_for_the_peak_hour(scenario):
    document, _ = plan(resolve(scenario, []), lambda nodes, point: None)
    candidate = document["candidates"][0]
    loads = candidate["loads"]
    assert loads["mean"]["nodes"] < loads["peak hour"]["nodes"] == candidate["nodes"]
    assert candidate["monthly_usd"] == loads["peak hour"]["monthly_usd"]
    asked, _ = plan(resolve(scenario, ["plan.users=10"]), lambda nodes, point: None)
    assert asked["candidates"][0]["loads"] == {}


def test_other_arrivals_are_sized_as_they_come(scenario):
    resolved = resolve(scenario, ["workload.arrival={kind: gamma, rate_per_s: 20, cv: 2}"])
    assert sizing.loads(resolved) == {"as it comes": resolved}
    assert not sizing.is_open(resolve(scenario, ["workload.arrival={kind: closed, users: 2}"]))


def test_the_shipped_week_has_its_peak_hour(scenario):
    week = "workload.arrival={kind: profile, profile: azure24-chat-week, mean_rate_per_s: 2}"
    arrival = resolve(scenario, [week]).workload.arrival
    assert np.mean(arrival.rates_per_s) == pytest.approx(2)
    assert sizing.peak_hour_per_s(arrival) == pytest.approx(2 * 1.6711, rel=0.01)


def test_a_load_of_a_given_length_does_not_set_that_of_the_runs_that_judge_fleets(scenario):
    """More warm-up than a trial has requests would leave nothing to judge."""
    given = ["workload.requests=20000", "workload.warmup_requests=15000", "replications=1"]
    load = sizing.loads(resolve(scenario, given))["mean"]
    assert sizing.size(load, lambda nodes, point: None)["goodput"] > 0.95


def test_a_plan_says_that_later_parts_of_a_load_were_not_met(scenario):
    spike = resolve(scenario, ["workload.arrival={kind: spike, rate_per_s: 2, factor: 9, at_s: 2h, for_s: 60}"])
    assert "duration_s" in sizing.unseen(spike, {"as it comes": {}})[0]
    assert sizing.unseen(resolve(scenario, []), {"mean": {}, "peak hour": {}}) == []
