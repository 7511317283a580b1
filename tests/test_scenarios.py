"""Every bundled scenario loads, runs for a while, and accounts for every request."""

from pathlib import Path

import pytest

from capsim.experiment import run
from capsim.scenario import resolve

PLACE = Path(__file__).parents[1] / "scenarios"
SCENARIOS = sorted(set(PLACE.glob("*.yaml")) - set(PLACE.glob("stack-*.yaml")))
CHAT = Path(__file__).parents[1] / "scenarios" / "chat-llama70b-h100.yaml"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_bundled_scenario_runs(path):
    summary = run(resolve(path, ["replications=2", "workload.requests=150", "workload.duration_s=null"])).summary
    assert summary["requests"]["completed"] == summary["requests"]["offered"] == 300
    assert summary["slo"]["attained"] == 0.95


def test_one_knob_does_not_shift_the_draws_of_another():
    few = ["replications=1", "workload.requests=200"]
    base, slower = (
        run(resolve(CHAT, [*few, f"workload.arrival={{kind: poisson, rate_per_s: {rate}}}"])).replications[0]
        for rate in (5.53, 2)
    )
    base, slower = base.records.requests_table(), slower.records.requests_table()
    assert base["prompt_tokens"].tolist() == slower["prompt_tokens"].tolist()
    assert base["output_tokens"].tolist() == slower["output_tokens"].tolist()
    stretched = base["arrival_s"] * 5.53 / 2
    assert stretched.to_numpy() == pytest.approx(slower["arrival_s"].to_numpy())
