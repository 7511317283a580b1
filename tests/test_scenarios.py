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


def test_a_layout_in_lockstep_is_taken_only_where_no_other_fits():
    mixture = ["node=h200x8", "price=null", "weights=fp8", "kv_format=bf16", "slo.tpot_s=100 ms"]
    assert not resolve(CHAT, [*mixture, "model=qwen3-30b-a3b"]).layout.in_lockstep
    assert not resolve(CHAT, [*mixture, "model=deepseek-v3"]).layout.in_lockstep
    asked = resolve(CHAT, [*mixture, "model=deepseek-v3", "parallelism={tp: 1, dp: 8, expert: true}"])
    assert asked.layout.in_lockstep
