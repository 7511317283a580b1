"""The closed form against the simulation it stands in for."""

from pathlib import Path

import pytest

from capsim.experiment import run
from capsim.scenario import resolve

SCENARIOS = Path(__file__).parents[1] / "scenarios"


@pytest.mark.parametrize(
    ("name", "batch"), [("chat-llama70b-h100", 32), ("agent-qwen30b-h200", 16), ("edge-llama8b-mac", 1)]
)
def test_closed_form_is_near_a_simulated_full_batch(name, batch):
    path = SCENARIOS / f"{name}.yaml"
    settings = [f"scheduler.max_num_seqs={batch}", "replications=1", "workload.think_s=null"]
    users = batch * resolve(path, settings).replicas
    settings += [f"workload.arrival={{kind: closed, users: {users}}}", f"workload.requests={max(300, 20 * users)}"]
    full = run(resolve(path, settings))
    expected = full.resolved.saturation()
    assert expected.batch == batch
    assert full.summary["utilisation"] == pytest.approx(1, abs=0.08)
    assert full.summary["tpot_s"]["mean"] == pytest.approx(expected.tpot_s, rel=0.15)
