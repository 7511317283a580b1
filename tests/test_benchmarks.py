"""Timings, run by ``make bench``: the parts of a run that take its time."""

import subprocess
import sys
from pathlib import Path

import pytest

from capsim.experiment import cluster_of, measure
from capsim.scenario import resolve
from capsim.sim.cluster import simulate
from capsim.steptime import Batch
from capsim.workload.requests import traffic

pytestmark = pytest.mark.bench
CHAT = Path(__file__).parents[1] / "scenarios" / "chat-llama70b-h100.yaml"


@pytest.fixture(scope="module")
def chat():
    return resolve(CHAT, ["workload.requests=1000"])


def test_resolve(benchmark):
    benchmark(resolve, CHAT)


def test_step_time(benchmark, chat):
    model = chat.step_time_model()
    batch = Batch(64, tuple(64 * stream.read(1500) for stream in chat.model.streams))
    benchmark(model.step_time, batch)


def test_simulate_a_thousand_requests(benchmark, chat):
    records = benchmark.pedantic(lambda: simulate(cluster_of(chat), traffic(chat.workload, None, 1, 0)), rounds=5)
    assert len(records.requests) == 1000


def test_measure_a_thousand_requests(benchmark, chat):
    records = simulate(cluster_of(chat), traffic(chat.workload, None, 1, 0))
    benchmark.pedantic(measure, (chat, records), rounds=5)


def test_help(benchmark):
    benchmark.pedantic(
        subprocess.run, ([sys.executable, "-m", "capsim", "--help"],), {"capture_output": True}, rounds=5
    )
