"""The simulation beside an engine's runs: exact where the engine is the simulator, judged where it is not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from capsim.calibrate.steps import predict_steps
from capsim.cli import main
from capsim.errors import ScenarioError
from capsim.hugging_face import model_from_config
from capsim.measured import StepCoefficients
from capsim.measurements import Step, read_measurements
from capsim.memory import BlockRule
from capsim.parallelism import Parallelism
from capsim.sim.cluster import simulate
from capsim.sim.spec import ClusterSpec, Policy
from capsim.steptime import Batch, PrefillChunk
from capsim.steptime.one_product import OneProduct
from capsim.steptime.whole_step import WholeStep
from capsim.validate import ENOUGH_RUNS, validate
from capsim.workload.requests import OpenArrivals, Request

CONFIG = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8192,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
ARGUMENTS = {"max_num_seqs": 8, "max_num_batched_tokens": 256, "block_tokens": 16, "kv_blocks": 400}
TRUE = StepCoefficients(
    base_s=0.007, decode_s=2e-4, kv_token_s=1e-6, prefill_token_s=1.5e-4, prefill_read_s=1e-7, prefill_s=0.004
)
HEADER = {
    "schema": "capsim-measurements", "version": 1, "device": "cpu", "created": "2026-01-01T00:00:00", "source": "test"
}  # fmt: skip


def steps(count, seed=1, slow=1.0):
    draw = np.random.default_rng(seed)
    for number in range(count):
        decode, new = int(draw.integers(1, 9)), int(draw.integers(1, 250) * (draw.random() < 0.5))
        row = {
            "engine": "vllm", "model": "small", "decode_sequences": decode,
            "kv_tokens": int(decode * draw.integers(30, 800)), "prefill_tokens": new, "prefill_reads": new * (new / 2),
            "prefills": int(new > 0), "active_experts": None, "episode": number * 8 // count,
        }  # fmt: skip
        row["step_s"] = slow * float(predict_steps(TRUE, [Step(**row, step_s=1.0)])[0])
        yield {"kind": "step", **row}


def run(number, load, arrival_s, repeat=0, rate=None, stretch=1.0, reserve="prompt", **arguments):
    """A run of an engine that is the simulator itself, its clock stretched."""
    draw = np.random.default_rng(7)
    asked = [Request(int(draw.integers(32, 400)), 40, 40, 0.0) for _ in arrival_s]
    model, values = model_from_config(CONFIG, "small"), ARGUMENTS | arguments
    spec = ClusterSpec(
        1, Parallelism(1), values["kv_blocks"], BlockRule(16), Policy(8, 256, reserve=reserve), 4096, "least-loaded",
        WholeStep(model, TRUE), model.streams,
    )  # fmt: skip
    records = simulate(spec, OpenArrivals(np.asarray(arrival_s, float), asked, None))
    served, taken = records.requests_table(), int(records.segments_table()["steps"].sum())
    yield {
        "kind": "run", "run": number, "engine": "vllm", "model": "small", "load": load, "rate_per_s": rate, "seed": 0,
        "repeat": repeat, "steps": taken, "preemptions": int(served["preemptions"].sum()), "duration_s": 1.0,
    }  # fmt: skip
    for row in served.itertuples():
        yield {
            "kind": "request", "run": number, "request": row.request, "arrival_s": row.arrival_s * stretch,
            "prompt_tokens": row.prompt_tokens, "output_tokens": row.output_tokens, "preemptions": row.preemptions,
            "first_token_s": row.first_token_s * stretch, "finished_s": row.finished_s * stretch,
        }  # fmt: skip


def model(**arguments):
    return {"kind": "model", "engine": "vllm", "name": "small", "config": CONFIG, "engine_args": ARGUMENTS | arguments}


def as_engine(name, rows):
    return [{**row, "engine": name} if "engine" in row else row for row in rows]


@pytest.fixture
def measured(tmp_path):
    def write(*rows):
        path = tmp_path / "engine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in (HEADER, *rows)))
        return path

    return write


def test_an_engine_that_is_the_simulator_has_no_error(measured):
    arrivals = np.cumsum(np.random.default_rng(2).exponential(0.5, 30))
    rows = [*run("a", "burst", np.zeros(30)), *run("b", "poisson", arrivals, rate=2.0)]
    document = validate(read_measurements(measured(model(), *steps(200), *rows)))
    (engine,) = document["engines"]
    assert engine["steps"]["mape"] < 1e-6
    assert [each["exact"] for each in engine["runs"]] == [True, True]
    assert [each["judged"] for each in engine["runs"]] == [True, True]
    assert all(abs(error) < 1e-6 for each in engine["runs"] for error in each["error"].values())
    assert engine["runs"][0]["measured"]["steps"] == engine["runs"][0]["simulated"]["steps"] > 40


@pytest.mark.parametrize(("name", "reserve"), [("vllm", "prompt"), ("transformers", "chunk")])
def test_each_engine_has_its_own_way_with_a_full_pool(measured, name, reserve):
    for way in ("prompt", "chunk"):
        starved = run("a", "starved", np.zeros(20), reserve=way, kv_blocks=60)
        rows = as_engine(name, [model(kv_blocks=60), *steps(100), *starved])
        (engine,) = validate(read_measurements(measured(*rows)))["engines"]
        (each,) = engine["runs"]
        assert each["measured"]["preemptions"] > 0
        assert (each["exact"], each["judged"]) == (way == reserve, False)


def test_errors_are_judged_against_the_engines_own(measured):
    rows = [row for i in range(ENOUGH_RUNS) for row in run(i, "burst", np.zeros(12), i, stretch=1.0 + 0.1 * (i % 2))]
    (engine,) = validate(read_measurements(measured(model(), *steps(100, slow=1.2), *rows)))["engines"]
    figures = engine["errors"]["figures"]
    expected = np.mean([1.2 / 1.0 - 1, 1.2 / 1.1 - 1])
    assert figures["tpot_mean_s"]["error"] == pytest.approx(expected, rel=1e-6)
    assert figures["tpot_mean_s"]["bias"] == pytest.approx(expected, rel=1e-6)
    apart = 9 / 15 * 0.1 / 1.05  # of 15 pairs 9 are of the fast and the slow
    assert figures["tpot_mean_s"]["repeat_error"] == pytest.approx(apart, rel=1e-6)
    assert figures["tpot_mean_s"]["limit"] == pytest.approx(max(0.07, 1.5 * apart), rel=1e-6)
    assert [figures[key]["passed"] for key in figures] == [False] * 4


def test_nothing_is_judged_by_an_engine_that_differs_too_much_from_itself(measured):
    rows = [row for i in range(ENOUGH_RUNS) for row in run(i, "burst", np.zeros(12), i, stretch=1.0 + 0.5 * (i % 2))]
    (engine,) = validate(read_measurements(measured(model(), *steps(100), *rows)))["engines"]
    figures = engine["errors"]["figures"]
    assert all(figure["repeat_error"] > 0.15 for figure in figures.values())
    assert [figure["passed"] for figure in figures.values()] == [None] * 4


def test_arrivals_are_not_judged_where_no_burst_says_how_loaded_the_engine_is(measured):
    rows = run("b", "poisson", np.arange(9) * 0.01, rate=100.0)
    (engine,) = validate(read_measurements(measured(model(), *steps(100), *rows)))["engines"]
    assert [each["judged"] for each in engine["runs"]] == [False]


def test_few_runs_are_not_judged(measured):
    (engine,) = validate(read_measurements(measured(model(), *steps(100), *run(0, "burst", np.zeros(5)))))["engines"]
    assert {figure["passed"] for figure in engine["errors"]["figures"].values()} == {None}


def test_heavy_loads_are_left_out(measured):
    rows = [*run("a", "burst", np.zeros(30)), *run("b", "poisson", np.arange(9) * 0.01, rate=100.0)]
    (engine,) = validate(read_measurements(measured(model(), *steps(100), *rows)))["engines"]
    assert [each["judged"] for each in engine["runs"]] == [True, False]


def test_one_product_reads_all_kv_for_every_prefilled_token():
    whole = WholeStep(model_from_config(CONFIG, "small"), TRUE)
    batch = Batch(3, (900.0,), (PrefillChunk(100, 50), PrefillChunk(20, 0)), 1, (3,))
    reads = 120 * (900 + 50 + 100 + 20)
    expected = 0.007 + 3 * 2e-4 + 900 * 1e-6 + 120 * 1.5e-4 + reads * 1e-7 + 0.004
    assert OneProduct(whole).step_time(batch).total_s == pytest.approx(expected, rel=1e-12)
    alone = batch._replace(prefill=(), finishing_prefills=0)
    assert OneProduct(whole).decode_run(alone) == whole.decode_run(alone)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([model()], "no engine runs in this file"),
        (list(run("a", "burst", [0.0])), "no line describes model small of vllm"),
        (as_engine("tgi", [model(), *run("a", "burst", [0.0])]), "unknown engine tgi"),
        ([model(), *run("a", "burst", [0.0])], "measure more"),
        ([model(), *steps(50), next(run("a", "burst", [0.0]))], "run a has no requests"),
    ],
)
def test_files_that_cannot_be_validated_say_why(measured, rows, message):
    with pytest.raises(ScenarioError, match=message):
        validate(read_measurements(measured(*rows)))


ARRIVED = [0.0, 0.1]


@pytest.mark.parametrize(
    ("arguments", "served", "message"),
    [
        ({"kv_blocks": None}, {}, r"engine_args\.kv_blocks must be a whole number > 0 \(got None\)"),
        ({"block_tokens": 0}, {}, r"engine_args\.block_tokens must be a whole number > 0 \(got 0\)"),
        ({"kv_blocks": 20}, {}, "run a: 1 requests are longer than the model's context or the KV pool"),
        ({}, {"arrival_s": 0.0, "first_token_s": 0.0, "finished_s": 0.0}, "run a: .*ttft_mean_s.* cannot be told"),
    ],
)
def test_an_engine_or_a_run_that_cannot_be_is_named(measured, arguments, served, message):
    rows = [row | served if row["kind"] == "request" else row for row in run("a", "burst", ARRIVED)]
    with pytest.raises(ScenarioError, match=message):
        validate(read_measurements(measured(model(**arguments), *steps(40), *rows)))


def test_the_verb_prints_runs_and_verdicts(measured, capsys):
    rows = [row for i in range(ENOUGH_RUNS) for row in run(i, "burst", np.zeros(12), i)]
    path = measured(model(), *steps(100), *rows)
    done = SimpleNamespace()
    for format_ in ("table", "json"):
        with pytest.raises(SystemExit) as end:
            main(["validate", str(path), "--format", format_])
        assert end.value.code == 0
        setattr(done, format_, capsys.readouterr().out)
    assert "Mean error of 6 runs" in done.table
    assert done.table.count("within") == 4
    assert json.loads(done.json)["engines"][0]["runs"][0]["exact"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-32m", "qwen3-moe-32x4"])
def test_bursts_on_hugging_faces_engine_take_the_simulated_steps_and_preemptions(tmp_path, name):
    for library in ("torch", "transformers"):
        pytest.importorskip(library)
    command = [sys.executable, "-m", "kernels_bench", "engine", "transformers", "--model", name]
    options = ["--out", "engine.jsonl", "--requests", "10", "--repeats", "1", "--episode", "2"]
    root = str(Path(__file__).parents[1])
    subprocess.run([*command, *options], check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, timeout=1500)
    (engine,) = validate(read_measurements(tmp_path / "engine.jsonl"))["engines"]
    bursts = [each for each in engine["runs"] if each["rate_per_s"] is None]
    assert {each["load"] for each in bursts} == {"burst", "starved"}
    assert all(each["exact"] for each in bursts)
    assert engine["steps"]["mape"] < 0.5  # a shared machine; a quiet one measures 0.05
    assert all(abs(each["error"]["requests_per_s"]) < 0.5 for each in engine["runs"] if each["judged"])
