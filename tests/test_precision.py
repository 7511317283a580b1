"""Replications until figures are known well enough, and what is said where they are not."""

import pytest

from capsim.experiment import run
from capsim.metrics import precise
from capsim.scenario import resolve

SCENARIO = """\
model: llama-3.1-8b
weights: int4
node: mac-mini-m4-pro
workload:
  arrival: {kind: poisson, rate_per_s: 0.02}
  prompt_tokens: {kind: lognormal, mu: 5, sigma: 0.5, maximum: 2000}
  output_tokens: {kind: geometric, mean: 30}
  requests: 150
replications: 2
"""


@pytest.fixture
def scenario(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_run_goes_on_until_its_latencies_are_known_so_well(scenario):
    done = run(resolve(scenario, ["precision=0.1"])).summary
    assert 2 < done["run"]["replications"] < 20
    for name in precise.NAMES:
        low, high = done[name]["ci95"]
        assert (high - low) / 2 <= 0.1 * done[name]["mean"]
        low, high = done[name]["p95_ci95"]
        assert (high - low) / 2 <= 0.2 * done[name]["p95"]
    assert not any("precision" in warning for warning in done["warnings"])


def test_more_replications_do_not_change_the_first(scenario):
    more, as_asked = run(resolve(scenario, ["precision=0.1"])), run(resolve(scenario))
    assert [one.latencies for one in more.replications[:2]] == [one.latencies for one in as_asked.replications]


def test_patience_ends_and_the_run_says_so(scenario):
    done = run(resolve(scenario, ["precision=0.0001", "workload.requests=30"])).summary
    assert done["run"]["replications"] == 20
    (said,) = [warning for warning in done["warnings"] if "precision" in warning]
    assert said.startswith("not known to precision 0.0001 after 20 replications: ttft_s mean (±")


def test_an_overload_is_not_replicated_for_precision(scenario):
    settings = ["precision=0.001", "workload.arrival.rate_per_s=5", "workload.requests=300"]
    done = run(resolve(scenario, settings)).summary
    assert done["saturated"]
    assert done["run"]["replications"] == 2


def test_known_figures_are_not_vague():
    rows = [{name: {"mean": 1 + step, "p95": 2 + 4 * step} for name in precise.NAMES} for step in (-0.01, 0, 0.01)]
    # half widths: 4.303 * 0.01 / sqrt(3) = 2.48 % of the mean, and twice that of p95
    assert precise.vague(rows, 0.025) == []
    assert len(precise.vague(rows, 0.0248)) == 6
    assert precise.vague(rows, None) == []
    assert len(precise.vague(rows[:1], 0.5)) == 6
