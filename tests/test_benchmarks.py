"""Timings, run by ``make bench``: the parts of a run that take its time."""

import multiprocessing
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import pytest
import simpy
import yaml

from capsim import store
from capsim.capacity import answers, find_capacity, instant
from capsim.experiment import cluster_of, measure, run
from capsim.scenario import resolve
from capsim.sim.cluster import simulate
from capsim.steptime import Batch
from capsim.sweep import load_sweep, run_sweep
from capsim.workload.requests import traffic

pytestmark = pytest.mark.bench
CHAT = Path(__file__).parents[1] / "scenarios" / "chat-llama70b-h100.yaml"


@pytest.fixture(scope="module")
def chat():
    return resolve(CHAT, ["workload.requests=1000"])


def test_resolve(benchmark):
    assert benchmark(resolve, CHAT).scenario.node == "h100x8"


def test_step_time(benchmark, chat):
    model = chat.step_time_model()
    batch = Batch(64, tuple(64 * stream.read(1500) for stream in chat.model.streams))
    assert benchmark(model.step_time, batch).total_s > 0


def test_simulate_a_thousand_requests(benchmark, chat):
    records = benchmark.pedantic(lambda: simulate(cluster_of(chat), traffic(chat.workload, None, 1, 0)), rounds=5)
    assert len(records.requests_table()) == 1000


def test_measure_a_thousand_requests(benchmark, chat):
    records = simulate(cluster_of(chat), traffic(chat.workload, None, 1, 0))
    measured = benchmark.pedantic(measure, (chat, records), rounds=5)
    assert measured.totals["completed"] == 1000


def test_help(benchmark):
    options = {"capture_output": True, "check": True}
    told = benchmark.pedantic(subprocess.run, ([sys.executable, "-m", "capsim", "--help"],), options, rounds=5)
    assert b"plan" in told.stdout


# A whole run, its tables and figures written: requests a second and peak memory, in a process of its own. Loads are
# shares of the closed form's throughput at saturation; a bare SimPy timeout tells how fast the machine is just now.
TRACE = Path(__file__).parents[2] / "shared" / "traces" / "mooncake_conversation_trace.jsonl"
ONE_REPLICA = ["workload.preset=null", "parallelism={tp: 8}", "replications=1"]
SPREAD = "{kind: lognormal, mu: 5.938, sigma: 0.775, maximum: 8000}"  # mean 512
LOADS = {
    "512 in, 128 out, load 0.6": (
        0.6, 100_000, [*ONE_REPLICA, "workload.prompt_tokens=512", "workload.output_tokens=128"],
    ),
    "512 in, 512 out on average, batch 256, load 0.9": (
        0.9, 1_000_000, [*ONE_REPLICA, f"workload.prompt_tokens={SPREAD}", f"workload.output_tokens={SPREAD}"],
    ),
    "mooncake on 4 nodes, prefix cache": (None, 12_031, [f"workload.trace={TRACE}", "nodes=4"]),
}  # fmt: skip


def poisson(rate_per_s):
    return f"workload.arrival={{kind: poisson, rate_per_s: {rate_per_s}}}"


def whole_run(load, requests, settings, out):
    """(seconds, peak bytes) of a run and of writing it down."""
    if load is None:
        resolved = resolve(CHAT, settings)
    else:
        settings = [*settings, f"workload.requests={requests}"]
        most = resolve(CHAT, [*settings, poisson(1)]).saturation().requests_per_s
        resolved = resolve(CHAT, [*settings, poisson(load * most)])
    start = time.perf_counter()
    result = run(resolved)
    store.save(result, out)
    seconds = time.perf_counter() - start
    assert result.summary["requests"]["completed"] > 0.99 * requests
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", LOADS)
def test_a_whole_run(benchmark, name, tmp_path, capsys):
    load, requests, settings = LOADS[name]
    if load is None and not TRACE.exists():
        pytest.skip(f"{TRACE.name} is not beside the checkout")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        child = fresh.submit(whole_run, load, requests, settings, tmp_path / "run")
        seconds, peak_bytes = benchmark.pedantic(child.result)
    assert len(store.load(tmp_path / "run").requests()) > 0
    with capsys.disabled():
        print(f"\n{name}: {requests:,} requests in {seconds:.1f} s, {requests / seconds:,.0f} a second", end="")
        print(f", peak memory {peak_bytes / 1e6:,.0f} MB")


def test_bare_simpy_timeouts(benchmark, capsys):
    """100,000 timeouts, one after the other."""

    def timeouts():
        env = simpy.Environment()

        def again(_):
            if env.now < 100_000:
                env.timeout(1.0).callbacks.append(again)

        again(None)
        env.run()
        return env.now

    assert benchmark.pedantic(timeouts, rounds=5) == 100_000
    with capsys.disabled():
        print(f"\nbare SimPy timeouts: {100_000 / benchmark.stats['min']:,.0f} a second")


SHIPPED = sorted(set(CHAT.parent.glob("*.yaml")) - set(CHAT.parent.glob("stack-*.yaml")))
ESTIMATED: dict[str, tuple[int, int, int, float]] = {}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_instant_estimate(benchmark, path):
    """Seconds of the closed form, and its sessions beside the simulated bracket."""
    resolved = resolve(path, ["nodes=1"])
    estimate = benchmark.pedantic(instant, (resolved,), rounds=5, warmup_rounds=1)
    found = find_capacity(resolved)
    assert 0 < found.low < found.high <= max(found.low + 1, 1.05 * found.low)
    assert estimate.sessions > 0
    ESTIMATED[path.stem] = estimate.sessions, found.low, found.high, benchmark.stats["min"]


def test_the_instant_estimate_is_near_the_simulated_bracket(capsys):
    """How far it is off, and how long it takes, on the median and at worst."""
    if not ESTIMATED:
        pytest.skip("nothing was estimated")
    off = {name: 2 * estimated / (low + high) - 1 for name, (estimated, low, high, _) in ESTIMATED.items()}
    worst = max(off, key=lambda name: abs(off[name]))
    with capsys.disabled():
        for name, (estimated, low, high, seconds) in ESTIMATED.items():
            print(f"\n{name}: estimated {estimated:,} in {1e3 * seconds:.0f} ms, simulated [{low:,}, {high:,}]", end="")
            print(f", off by {off[name]:+.1%}", end="")
        print(f"\non the median off by {median(map(abs, off.values())):.1%}, worst {worst} {off[worst]:+.1%}", end="")
    assert median(map(abs, off.values())) < 0.15


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_an_instant_answer(benchmark, path):
    """Seconds of the whole row: sessions, nodes, cost, and what limits them."""
    resolved = resolve(path)
    told = benchmark.pedantic(answers, (resolved,), rounds=5, warmup_rounds=1)
    assert told["estimates"], told["excluded"]  # what is excluded is answered sooner


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_search_of_one_node_type(benchmark, path, capsys):
    """Seconds to a bracket of 5 % or one session."""
    found = benchmark.pedantic(find_capacity, (resolve(path, ["nodes=1"]),), rounds=1)
    assert 0 < found.low < found.high <= max(found.low + 1, 1.05 * found.low)
    with capsys.disabled():
        print(f"\n{path.stem}: [{found.low:,}, {found.high:,}], decided: {found.decided}", end="")


def test_a_sweep_on_two_cores(tmp_path, benchmark, capsys):
    """Seconds of a sweep of 40 points on one process and on two."""
    arrivals = [{"kind": "poisson", "rate_per_s": round(4 + 0.1 * step, 1)} for step in range(40)]
    grid = {"workload.arrival": arrivals, "workload.requests": [4000]}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"scenario": str(CHAT), "grid": grid}))
    seconds = {}

    def swept(jobs):
        began_s = time.perf_counter()
        frame = run_sweep(load_sweep(path), tmp_path / str(jobs), jobs=jobs)
        seconds[jobs] = time.perf_counter() - began_s
        assert (frame["status"] == "done").all()

    swept(1)
    benchmark.pedantic(swept, (2,), rounds=1)
    with capsys.disabled():
        print(f"\n40 points: {seconds[1]:.1f} s on one core, {seconds[2]:.1f} s on two", end="")
        print(f": {seconds[1] / seconds[2]:.2f} times as fast", end="")
