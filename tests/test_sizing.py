"""Fleets for open loads, and the peak hour against the mean."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsim import sizing
from capsim.capacity import plan
from capsim.experiment import run
from capsim.scenario import resolve
from capsim.workload.arrivals import Gamma, Poisson, Profile, Ramp, Spike, Windows
from capsim.workload.classes import Superposed
from capsim.workload.levels import HOUR_S, levels, part_met, peak_per_s

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
    assert peak_per_s(profile((1, 3, 2), 3)) == 3
    assert peak_per_s(profile((4, 0, 0, 0, 0, 2), 3)) == 3  # half hours; the first and the last meet
    assert peak_per_s(profile((1, 5), 24)) == 5
    assert peak_per_s(profile((1, 5, 3), 3 * 0.75)) == pytest.approx(0.75 * 5 + 0.25 * 3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 9), min_size=1, max_size=12).filter(sum), st.floats(0.3, 40), st.floats(0, 30))
def test_no_hour_has_more_than_the_peak_hour(rates, hours, start_h):
    arrival = Profile(kind="profile", rates=tuple(rates), period_s=hours * HOUR_S, start_s=start_h * HOUR_S)
    fine = np.repeat(rates, 600)  # every hour of a fine grid, by sums
    step_s = hours * HOUR_S / len(fine)
    sums = np.append(0.0, np.cumsum(np.tile(fine, 2 + math.ceil(1 / hours)) * step_s))
    steps = HOUR_S / step_s
    begins = np.arange(len(fine))
    means = (np.interp(begins + steps, np.arange(len(sums)), sums) - sums[begins]) / HOUR_S
    assert peak_per_s(arrival) == pytest.approx(means.max(), rel=0.01, abs=1e-9)


def test_what_moves_is_met_at_its_mean_and_at_its_peak():
    poisson = {rate: Poisson(kind="poisson", rate_per_s=rate) for rate in (1, 2, 5, 10)}
    assert levels(poisson[2]) == {}
    spike = Spike(kind="spike", rate_per_s=2, factor=5, at_s=7200, for_s=60)
    assert levels(spike) == {"mean": poisson[2], "peak": poisson[10]}
    assert levels(Ramp(kind="ramp", from_per_s=5, to_per_s=1, over_s=60)) == {"mean": poisson[1], "peak": poisson[5]}
    assert levels(Ramp(kind="ramp", from_per_s=0, to_per_s=5, over_s=60)) == {"peak": poisson[5]}
    gaps = [{"rate_per_s": 1, "cv": 1}, {"rate_per_s": 6, "cv": 3}, {"rate_per_s": 2, "cv": 2}, {"rate_per_s": 0}]
    windows = Windows.model_validate({"kind": "windows", "window_s": 1800, "windows": gaps})
    mean, peak = levels(windows).values()
    assert (mean.rate_per_s, mean.cv) == (9 / 4, pytest.approx((1 + 18 + 4) / 9))
    assert (peak.rate_per_s, peak.cv) == (4, pytest.approx((18 + 4) / 8))


def test_classes_are_met_together_in_the_hour_of_most():
    lengths = {"prompt_tokens": 100, "output_tokens": 10}
    day = {"kind": "profile", "period_s": 24 * HOUR_S, "rates": [0, 4, 0, *[1] * 21]}
    week = {"kind": "profile", "period_s": 168 * HOUR_S, "rates": [*[0] * 49, 3, 8, *[0] * 117]}
    even = {"kind": "gamma", "rate_per_s": 0.5, "cv": 3}
    spec = [{"name": name, "arrival": of, **lengths} for name, of in (("day", day), ("week", week), ("even", even))]
    found = levels(Superposed.model_validate({"kind": "superposed", "classes": spec}))
    # When the day has its 4 the week has 3, and none of the day's come with the week's 8.
    at_peak = {one.name: one.arrival for one in found["peak hour"].classes}
    assert at_peak["even"] == found["mean"].classes[2].arrival == Gamma(**even)
    assert {name: one.rate_per_s for name, one in at_peak.items() if name != "even"} == {
        "week": 8
    }  # the day's is then 0
    assert found["mean"].classes[0].arrival.rate_per_s == pytest.approx(25 / 24)


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
    assert peak_per_s(arrival) == pytest.approx(2 * 1.6711, rel=0.01)


def test_a_load_of_a_given_length_does_not_set_that_of_the_runs_that_judge_fleets(scenario):
    """More warm-up than a trial has requests would leave nothing to judge."""
    given = ["workload.requests=20000", "workload.warmup_requests=15000", "replications=1"]
    load = sizing.loads(resolve(scenario, given))["mean"]
    assert sizing.size(load, lambda nodes, point: None)["goodput"] > 0.95


def test_a_spike_is_sized_for_however_late_it_comes(scenario):
    late = resolve(scenario, ["workload.arrival={kind: spike, rate_per_s: 2, factor: 60, at_s: 9h, for_s: 60}"])
    assert {name: load.workload.arrival.rate_per_s for name, load in sizing.loads(late).items()} == {
        "mean": 2, "peak": 120,
    }  # fmt: skip


def test_a_run_says_which_part_of_the_clock_it_met(scenario):
    users = "workload.arrival={kind: users, users: 2400, sessions_per_day: 36, profile: office-hours, start_s: 34h}"
    arrival = resolve(scenario, [users]).workload.arrival
    rates = np.array(arrival.rates)
    (note,) = part_met(arrival, 1800.0, 5400.0)  # half of each of two hours
    mean = rates[34:36].mean()
    shares = f"at {mean / rates.mean():.0%} of the mean rate and {mean / rates.max():.0%} of the peak hour's"
    assert note == f"measured from day 2 10:30 to day 2 11:30 of the arrivals' 168 h, {shares}"
    assert part_met(arrival, 0.0, 168 * HOUR_S) == []
    summary = run(resolve(scenario, [users, "workload.requests=300", "replications=1"])).summary
    assert any("of the arrivals' 168 h" in warning for warning in summary["warnings"])
    late = Spike(kind="spike", rate_per_s=2, factor=5, at_s=7200, for_s=60)
    assert "before the spike" in part_met(late, 0.0, 600.0)[0]
    assert part_met(late, 0.0, 8000.0) == part_met(Poisson(kind="poisson", rate_per_s=1), 0.0, 9.0) == []
